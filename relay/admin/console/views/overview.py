"""The overview: is mail moving, and is it safe?"""

from typing import Any

from starlette.responses import Response

from relay.admin.console import tallies
from relay.admin.console.desk import Json
from relay.admin.console.pages import url
from relay.admin.console.visit import REFRESH, Visit

SOON = 30  # days: from then on a certificate's end is spoken of


async def overview(visit: Visit) -> Response:
    """`range` is one of the ranges; `live` "off" shows it without refreshing itself."""
    facts = visit.facts
    span = tallies.RANGES.get(visit.query("range"), tallies.RANGES["24h"])
    live, status = visit.query("live") != "off", await facts.status()
    return visit.show(
        "overview.html",
        "/",
        span=span,
        ranges=tallies.RANGES.values(),
        live=live,
        again=url("/", range=span.name, **{REFRESH: "1"}),
        status_now=status,
        ending=ending_soon(await facts.certificates()),
        troubles=await facts.troubles(),
        suspensions=await facts.suspensions(),
        waiting=status["configuration"]["waiting"],
        tells_trouble=facts.has("GET /security/troubled"),
        tells_ends=facts.has("GET /certificates"),
        **await _counted(visit, span),
    )


async def _counted(visit: Visit, span: tallies.Range) -> dict[str, Any]:
    since, until = tallies.whole_bars(visit.now, span)
    found = await visit.facts.overview(since, until, span.step)
    if found is None:
        return {"series": (), "steps": (), "counted_to": "", "ways": ()}
    ways = []
    for direction, title in (("out", "out"), ("in", "in")):
        answer = await visit.facts.shares(since, until, direction)
        if answer is not None:
            ways.append((title, [tallies.shares_of(answer, of) for of in ("version", "verified", "cipher")]))
    return {
        "series": tallies.series(found["points"], since, until, span.bar),
        "steps": tallies.rows_of(found["points"], since, span.bar),
        "counted_to": found["counted_to"],
        "ways": ways,
    }


def ending_soon(certificates: Json) -> list[dict[str, Any]]:
    """Ours and partners' that end within SOON days, or are in trouble; the first to end first."""
    found = []
    for each in certificates["ours"]:
        errors = [problem["text"] for problem in each["problems"] if problem["severity"] == "error"]
        if errors or (each["days_left"] is not None and each["days_left"] < SOON):
            found.append({"name": each["name"], "owner": "ours", "trouble": "; ".join(errors), **_end(each)})
    for each in certificates["partners"]:
        if each["days_left"] < SOON:
            trouble = "mail stops when it ends" if each["verified"] else ""
            found.append(
                {"name": f"{each['domain']} at {each['hop']}", "owner": "partner", "trouble": trouble, **_end(each)}
            )
    return sorted(found, key=lambda each: each["not_after"] or "")


def _end(certificate: Json) -> dict[str, Any]:
    return {"not_after": certificate["not_after"], "days_left": certificate["days_left"]}
