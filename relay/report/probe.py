"""A probe for people to read, from the JSON of `relay.outbound.probe_json`: each host, what it showed, our verdict, and every other level's.

Threat: as in `relay.report.trace`, what hosts say is stripped of control characters and never read as markup.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from relay.report.trace import Row, evidence_rows, heading, plan_rows, rows_of

Json = Mapping[str, Any]

_IN_FORCE = "in force"
_NO_TLS = "none"
_STANDINGS = {"passes": ("would pass", ""), "fails": ("would not", "red"), "absent": ("no policy", "dim")}


def render_probe(probe: Json) -> RenderableType:
    """All of it, ending with the one line that matters."""
    governs = "the defaults" if probe["connector"] == "default" else f"connector {probe['connector']}"
    parts: list[RenderableType] = [rows_of([("Mail to", probe["domain"], "bold"), ("governed by", governs)], indent=0)]
    unroutable = probe["unroutable"]
    if unroutable is not None:
        said = f"{unroutable['state']}: {unroutable['code']} {unroutable['status']} {unroutable['text']}"
        parts.append(rows_of([("answer", said, "red")], indent=0))
    for hop in probe["hops"]:
        parts.append(heading(f"{hop['host']}:{hop['port']}", ""))
        parts.append(rows_of(_hop(hop)))
        for address in hop["addresses"]:
            parts.append(Text.assemble("\n  ", (address["address"], "bold"), f"  after {address['seconds']:.3f} s"))
            parts.append(rows_of(_address(address), indent=4))
    ok = probe["passes"]
    verdict = (
        "our policy is satisfied: mail would be sent" if ok else "our policy is satisfied nowhere: mail would wait"
    )
    parts.append(Text.assemble("\n", (verdict, "bold green" if ok else "bold red")))
    return Group(*parts)


def _hop(hop: Json) -> Iterator[Row]:
    if hop["trouble"]:
        yield "not usable", hop["trouble"], "red"
    for label, key in (("DANE", "dane"), ("MTA-STS", "mta_sts")):
        says = hop[key]
        yield from ((label, line) for line in (says["reason"], *says["details"]) if line)
    if hop["withheld"] is not None:
        yield "our policy", f"no mail goes here: {hop['withheld']['text']}", "red"
    elif hop["plan"] is not None:
        yield from plan_rows(hop["plan"])
    if hop["left_out"]:
        yield "not looked at", ", ".join(hop["left_out"]), "yellow"


def _address(address: Json) -> Iterator[Row]:
    if address["trouble"]:
        yield "trouble", address["trouble"], "red"
    if address["offers"] is not None:
        yield "offers", ", ".join(address["offers"]) or "no extension"
    verdicts = address["verdicts"]
    if verdicts or address["evidence"] is not None:
        broken = next((each["text"] for each in verdicts if each["standing"] == "fails"), "")
        yield from evidence_rows(address["evidence"], f"{_NO_TLS}: {broken}" if broken else _NO_TLS, "none was shown")
    yield from _verdicts(address)


def _verdicts(address: Json) -> Iterator[Row]:
    """Ours first; the others by what they say, so that one reason stands once."""
    others: dict[tuple[str, str], list[str]] = {}
    for each in address["verdicts"]:
        text = each["text"] or ""
        if each["level"] == _IN_FORCE:
            ok = each["standing"] == "passes"
            word = "satisfied" if ok else "not satisfied"
            yield "our policy", f"{word}: {text}" if text else word, "green" if ok else "bold red"
        else:
            others.setdefault((each["standing"], text), []).append(each["level"])
    if others and not any(standing == "passes" for standing, _text in others):
        yield "would pass", "no level"
    for (standing, text), levels in others.items():
        label, style = _STANDINGS[standing]
        words = ", ".join(levels)
        yield label, f"{words}: {text}" if text else words, style
