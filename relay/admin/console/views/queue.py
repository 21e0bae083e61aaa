"""The queue: by destination, message by message. What can be done to it is in `deeds`."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.responses import Response

from relay.admin.console.desk import Json
from relay.admin.console.values import Destination
from relay.admin.console.views.deeds import DEEDS, LIVE
from relay.admin.console.visit import Visit
from relay.admin.endpoint import BadQuestionError, NotFoundError
from relay.policy.remedy import remedy_for
from relay.policy.suspension import Suspensions

PAGE = 50
DESTINATIONS = 25
_SORTED = 1000  # destinations that are put in order together; the endpoint's own order is by name
STATES = (*LIVE, "delivered", "bounced", "deleted")

Order = Callable[[Destination], Any]
ORDERS: Mapping[str, tuple[str, Order]] = {
    "waiting": ("most waiting", lambda each: -each.waiting),
    "oldest": ("oldest", lambda each: _first(each.oldest)),
    "next": ("next attempt", lambda each: _first(each.next_attempt)),
    "name": ("name", lambda each: each.domain),
}


def _first(at: datetime | None) -> float:
    """Those without a time come last."""
    return at.timestamp() if at is not None else float("inf")


async def queue(visit: Visit) -> Response:
    """`to`, `connector` and `state` filter; `after` is where the page begins. `sort`, `past` and `skip` are the destinations' order, the name
    that they are all behind, and how many are passed over."""
    asked = {name: visit.query(name) for name in ("to", "connector", "state", "after")}
    trouble = ""
    try:
        found = await visit.facts.messages(_page(asked))
    except BadQuestionError as error:
        trouble, asked = str(error), dict.fromkeys(asked, "")
        found = await visit.facts.messages(_page(asked))
    suspensions = await visit.facts.suspensions()
    return visit.show(
        "queue.html",
        "/queue",
        status=400 if trouble else 200,
        trouble=trouble,
        asked=asked,
        states=STATES,
        filtered=bool(asked["to"] or asked["connector"]),
        messages=found["messages"],
        following=found["next"],
        suspensions=suspensions,
        stopped=Suspensions(suspensions),
        deeds=DEEDS.values(),
        **await _destinations(visit),
    )


async def _destinations(visit: Visit) -> dict[str, Any]:
    past, skip = visit.query("past"), visit.number("skip")
    sort = visit.query("sort") if visit.query("sort") in ORDERS else "waiting"
    found = await visit.facts.destinations(past, _SORTED)
    ordered = sorted(found, key=ORDERS[sort][1])
    return {
        "sort": sort,
        "sorts": [(name, title) for name, (title, _order) in ORDERS.items()],
        "past": past,
        "skip": skip,
        "number": len(found),
        "destinations": ordered[skip : skip + DESTINATIONS],
        "more_destinations": skip + DESTINATIONS if len(found) > skip + DESTINATIONS else 0,
        "further": found[-1].domain if len(found) == _SORTED else "",
    }


def _page(asked: Json) -> Json:
    states = [asked["state"]] if asked["state"] else []
    return {**asked, "state": states, "limit": str(PAGE)}


async def message(visit: Visit) -> Response:
    """One message in full."""
    message_id = str(visit.request.path_params["id"])[:64]
    try:
        found = await visit.facts.message(message_id)
    except (BadQuestionError, NotFoundError):
        text = "It is not in the queue. Its life may still be in the trace."
        return visit.refuse(404, "There is no such message", text, place="/queue", kind="warn")
    live = any(each["state"] in LIVE for each in found["recipients"])
    held = any(each["state"] == "held" for each in found["recipients"])
    offered = [each for each in DEEDS.values() if live and (each.name != "release" or held)]
    return visit.show(
        "queued_message.html",
        "/queue",
        message=found,
        domain_of=lambda address: address.rpartition("@")[2],
        remedies=[remedy_for(each) for each in found["recipients"]],
        deeds=offered,
    )
