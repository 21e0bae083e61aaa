"""A slow second opinion on message framing, octet by octet, that shares no code with relay.smtp.framing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoded:
    """`consumed` counts the octets of the message and its end; -1 where the end never came. `sound`: no bare CR, bare LF (unless
    normalised) or NUL."""

    content: bytes
    consumed: int
    sound: bool


def decode_data(stream: bytes, *, normalise: bool = False, ended_bare: bool = False) -> Decoded:
    """What DATA means, from the octet behind the line end of the DATA command."""
    terminator = b"\n.\n" if ended_bare else b"\r\n.\r\n"
    lead = b"\n" if ended_bare else b"\r\n"
    seen = lead + stream
    consumed = -1
    for position in range(len(seen)):
        if seen[position : position + len(terminator)] == terminator:
            consumed = position + len(terminator) - len(lead)
            wire = seen[len(lead) : position + len(lead)]
            break
    else:
        wire = stream
    lines, sound = split_lines(wire, normalise=normalise)
    content = b"".join(line[1:] if line.startswith(b".") else line for line in lines)
    return Decoded(content, consumed, sound)


def split_lines(wire: bytes, *, normalise: bool) -> tuple[list[bytes], bool]:
    """Lines with CRLF. The last one may be unfinished."""
    lines: list[bytes] = []
    line = bytearray()
    sound = True
    position = 0
    while position < len(wire):
        octet = wire[position : position + 1]
        following = wire[position + 1 : position + 2]
        if octet == b"\r" and following == b"\n":
            lines.append(bytes(line) + b"\r\n")
            line.clear()
            position += 2
            continue
        if octet == b"\n" and normalise:
            lines.append(bytes(line) + b"\r\n")
            line.clear()
        else:
            sound = sound and octet not in (b"\r", b"\n", b"\0")
            line += octet
        position += 1
    if line:
        lines.append(bytes(line))
    return lines, sound
