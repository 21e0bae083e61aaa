"""What `relay certs check` found, as JSON and for people to read. What certificates and servers say is stripped of control characters."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType

from relay.mail.codec import status_json
from relay.policy.words import revocation_words
from relay.report.trace import Row, heading, rows_of
from relay.tls.revocation.reach import Examined, Reached

Json = dict[str, Any]


def examined_json(examined: Examined) -> Json:
    return {
        "verdict": status_json(examined.verdict),
        "fine": examined.is_fine,
        "addresses": [_reached_json(each) for each in examined.addresses],
        "left_out": list(examined.left_out),
    }


def _reached_json(reached: Reached) -> Json:
    return {
        "kind": reached.kind.value,
        "url": reached.url,
        "usable": not reached.trouble,
        "trouble": reached.trouble or None,
        "remedy": reached.remedy or None,
        "size": reached.size,
        "seconds": round(reached.seconds, 3),
        "says": None if reached.found is None else status_json(reached.found),
    }


def render_examined(found: Mapping[str, Any]) -> RenderableType:
    """The whole answer of the command."""
    parts: list[RenderableType] = [heading(found["target"], "")]
    first: list[Row] = [("trust", found["trust"])]
    if found.get("trouble"):
        first.append(("trouble", found["trouble"], "red"))
    if found.get("stapled"):
        first.append(("stapled", "an OCSP answer came in the handshake"))
    parts.append(rows_of(first))
    for each in found["certificates"]:
        parts.append(heading(each["verdict"]["subject"], ""))
        parts.append(rows_of(_certificate(each)))
    words = "All can be had, and nothing is revoked." if found["fine"] else "Not all is well: see above."
    parts.append(rows_of([("", ""), ("verdict", words, "bold green" if found["fine"] else "bold red")], indent=0))
    return Group(*parts)


def _certificate(examined: Mapping[str, Any]) -> Iterator[Row]:
    verdict = examined["verdict"]
    style = {"good": "green", "revoked": "bold red", "unknown": "yellow"}[verdict["status"]]
    yield "status", revocation_words(verdict), style
    for each in examined["addresses"]:
        yield each["kind"], each["url"]
        if each["trouble"]:
            yield "  trouble", each["trouble"], "red"
            yield "  what to do", each["remedy"], "bold"
        else:
            yield "  reachable", f"{each['size']:,} bytes in {each['seconds']:.3f} s", "green"
        says = each["says"]
        if says:
            yield "  made", says["this_update"]
            yield "  next", says["next_update"]
    for text in examined["left_out"]:
        yield "not used", text, "dim"
