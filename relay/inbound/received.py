"""The Received header that goes in front of an accepted message (RFC 5321 section 4.4).

Threat: HELO names, certificate subjects and recipients are the peer's words. None of them may end a line, close a comment or bring in
octets that a header must not have, so whatever is not plain is replaced or quoted.
"""

import re
from email.utils import format_datetime

from relay.mail.envelope import Accepted, Envelope
from relay.mail.tls import TlsEvidence

NOT_ASKED = "client certificate not asked for"
NONE_SHOWN = "no client certificate"

_WIDTH = 77
_NOT_HOST = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_SPECIAL = re.compile(r'([()\\"])')
_SPACES = re.compile(r" +")


def received_header(accepted: Accepted, hostname: str, message: str, envelope: Envelope, certificate: str) -> bytes:
    """The header, folded, CRLF at its end. `message` is our id; `certificate` says what became of the client's (`certificate_words`)."""
    helo = _NOT_HOST.sub("?", accepted.helo[:255]) or "unknown"
    lines = [
        f"Received: from {helo} ({_literal(accepted.client)})",
        f"by {hostname} with {accepted.protocol} id {message}",
    ]
    if accepted.tls is not None:
        facts = (accepted.tls.version, accepted.tls.cipher, accepted.tls.group)
        lines.append(f"({', '.join(_comment(fact) for fact in facts if fact)}, {certificate})")
    # RFC 5321 section 7.6: `for` with several recipients would show blind copies to everyone.
    if len(envelope.recipients) == 1 and envelope.recipients[0].address.local.isascii():
        lines.append(f"for <{envelope.recipients[0].address}>")
    lines[-1] += ";"
    lines.append(format_datetime(accepted.at))
    return ("\r\n\t".join(_fold(line) for line in lines) + "\r\n").encode("ascii")


def certificate_words(evidence: TlsEvidence, *, asked: bool, connector: str) -> str:
    """For the comment. `connector` is the one whose demands on the certificate hold, "" where none spoke of it."""
    leaf = evidence.leaf
    if leaf is None:
        return NONE_SHOWN if asked else NOT_ASKED
    subject = _comment(leaf.subject[:200]) or "without a subject"
    judged = f"satisfies connector {connector}" if connector else "not judged"
    return f'client certificate "{subject}" {judged}'


def _literal(client: str) -> str:
    """RFC 5321 section 4.1.3. Without an address (PROXY LOCAL) there is a comment in its place."""
    if ":" in client:
        return f"[IPv6:{client}]"
    return f"[{client}]" if client[:1].isdigit() else "unknown"


def _comment(text: str) -> str:
    plain = _NOT_PRINTABLE.sub("?", text)
    return _SPECIAL.sub(r"\\\1", _SPACES.sub(" ", plain))


def _fold(line: str) -> str:
    """Folded at spaces below 78 characters where that is possible (RFC 5322 section 2.1.1), never before the first word."""
    if len(line) < _WIDTH:
        return line
    lines, words = [], line.split(" ")
    current = words[0]
    for word in words[1:]:
        if len(current) + 1 + len(word) >= _WIDTH:
            lines.append(current)
            current = word
        else:
            current += " " + word
    return "\r\n\t".join([*lines, current])
