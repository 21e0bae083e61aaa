"""The security report as one HTML page: no scripts, nothing loaded from anywhere, fit to print and to keep.

Threat: domains, replies and reasons are strangers' text. Every value is escaped (jinja2's autoescape, StrictUndefined), and the page's own
policy would let nothing run or be fetched anyhow.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from relay.mail.tally import CLEAR
from relay.report.text import one_line

if TYPE_CHECKING:
    from jinja2 import Template

# What is weak has a colour of its own, wherever it stands; every part is named in words too.
_COLOURS = ("#0a7d5a", "#2f81f7", "#8250df", "#1b7c83", "#6e7781", "#a475f9", "#57606a")
_FIXED = {"none": "#d1242f", "encrypted": "#bf8700", "TLSv1": "#bc4c00", "TLSv1.1": "#bc4c00"}
_BARS = 7
_WIDTH = 1000


def page_of(report: Mapping[str, Any]) -> str:
    """In the shape of `document`."""
    shown = _clean(report)
    bars = {
        way: {name: _bar(shares[name]) for name in ("version", "cipher", "group", "verified")}
        for way, shares in shown["shares"].items()
    }
    return _template().render(r=shown, bars=bars, percent=_percent)


@cache
def _template() -> "Template":
    # Here, since starting a relay has no need of it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("relay.report.security", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html")


def _clean(value: Any) -> Any:
    """Without control characters and direction overrides, in which a text would look like another."""
    if isinstance(value, Mapping):
        return {_clean(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return one_line(value) if isinstance(value, str) else value


def _bar(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Parts of a bar, the smallest summed up."""
    shown = [dict(each) for each in rows[:_BARS]]
    rest = rows[_BARS:]
    if rest:
        share, messages = sum(each["share"] for each in rest), sum(each["messages"] for each in rest)
        shown.append({"name": f"{len(rest)} others", "messages": messages, "share": share})
    at = 0.0
    for number, each in enumerate(shown):
        width = each["share"] * _WIDTH
        each["x"], each["width"] = round(at, 1), round(max(width, 1.0), 1)
        each["colour"] = _FIXED.get(each["name"], _COLOURS[number % len(_COLOURS)])
        each["name"] = "in clear" if each["name"] == CLEAR else each["name"]
        at += width
    return shown


def _percent(share: float) -> str:
    """Never 100 % or 0 % where it is not."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{share * 100:.1f} %".replace(".0 %", " %")
