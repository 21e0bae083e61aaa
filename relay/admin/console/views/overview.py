"""The overview: is mail moving, and is it safe?"""

from typing import Any

from starlette.responses import Response

from relay.admin.console import glance, tallies
from relay.admin.console.desk import Json
from relay.admin.console.glance import SOON
from relay.admin.console.pages import url
from relay.admin.console.visit import REFRESH, Visit


async def overview(visit: Visit) -> Response:
    """`range` is one of the ranges; `live` "off" shows it without refreshing itself."""
    facts = visit.facts
    span = tallies.RANGES.get(visit.query("range"), tallies.RANGES["24h"])
    since, until = tallies.whole_bars(visit.now, span)
    live, status = visit.query("live") != "off", await facts.status()
    counted = await facts.overview(since, until, span.step)
    shares = {way: await facts.shares(since, until, way) for way in ("out", "in")}
    troubles, ending = await facts.troubles(), ending_soon(await facts.certificates())
    sights = [
        glance.relay(status),
        glance.queue(status),
        glance.partners(troubles),
        glance.transit(shares["out"]),
        glance.certificates(ending),
        glance.configuration(status["configuration"]["waiting"]),
        glance.suspended(len(await facts.suspensions())),
    ]
    return visit.show(
        "overview.html",
        "/",
        span=span,
        ranges=tallies.RANGES.values(),
        live=live,
        again=url("/", range=span.name, **{REFRESH: "1"}),
        status_now=status,
        sights=[(each, each.path if each.path.startswith("#") else url(each.path)) for each in sights],
        ending=ending,
        soon=SOON,
        troubles=troubles["troubled"],
        series=tallies.series(counted["points"], since, until, span.bar),
        steps=tallies.rows_of(counted["points"], since, span.bar),
        counted_to=counted["counted_to"],
        ways=[
            (way, [tallies.shares_of(answer, of) for of in ("version", "verified", "cipher")])
            for way, answer in shares.items()
        ],
    )


def ending_soon(certificates: Json) -> list[dict[str, Any]]:
    """Ours and partners' that end within SOON days, or are in trouble (those first); the first to end first."""
    found = []
    for each in certificates["ours"]:
        errors = [problem["text"] for problem in each["problems"] if problem["severity"] == "error"]
        if errors or (each["days_left"] is not None and each["days_left"] < SOON):
            trouble = "; ".join(errors) or "renew it, and put it into the folder of certificates"
            found.append(
                {"name": each["name"], "owner": "ours", "trouble": trouble, "broken": bool(errors), **_end(each)}
            )
    for each in certificates["partners"]:
        if each["days_left"] < SOON:
            trouble = "mail stops when it ends: ask them for the next one" if each["verified"] else "mail goes on"
            name = f"{each['domain']} at {each['hop']}"
            found.append({"name": name, "owner": "partner", "trouble": trouble, "broken": False, **_end(each)})
    return sorted(found, key=lambda each: (not each["broken"], each["not_after"] or ""))


def _end(certificate: Json) -> dict[str, Any]:
    return {"not_after": certificate["not_after"], "days_left": certificate["days_left"]}
