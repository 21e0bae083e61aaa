"""Traces: found by who, to whom and when, and one message's life with the TLS evidence of each attempt."""

from collections.abc import Sequence

from starlette.responses import Response

from relay.admin.console.desk import Json
from relay.admin.console.story import line_of, story
from relay.admin.console.visit import Visit
from relay.admin.endpoint import BadQuestionError, NotFoundError
from relay.policy.remedy import remedy_for

PAGE = 50
_FIELDS = ("to", "from", "message_id", "id", "since", "before")


async def search(visit: Visit) -> Response:
    """`to` and `from` are an address or a domain, `before` the id that the page begins behind (newest first)."""
    asked = {name: visit.query(name, 998) for name in _FIELDS}
    given = any(asked[name] for name in _FIELDS if name != "before")
    trouble, found = "", []
    if given:
        try:
            found = list(await visit.facts.traces({**asked, "limit": str(PAGE + 1)}))
        except BadQuestionError as error:
            trouble = str(error)
    return visit.show(
        "traces.html",
        "/trace",
        status=400 if trouble else 200,
        asked=asked,
        given=given,
        trouble=trouble,
        traces=found[:PAGE],
        went=went,
        following=found[PAGE - 1]["id"] if len(found) > PAGE else "",
    )


def went(attempts: Sequence[Json]) -> Sequence[str]:
    """What TLS each way out had, of those that took the message; where none did, of those that were tried."""
    took = [each for each in attempts if any(one["state"] == "delivered" for one in each["outcomes"])]
    return list(
        dict.fromkeys(each["evidence"]["version"] if each["evidence"] else "no TLS" for each in took or attempts)
    )


async def trace(visit: Visit) -> Response:
    message_id = str(visit.request.path_params["id"])[:64]
    try:
        found = await visit.facts.traces({"id": message_id, "limit": "1"})
    except (BadQuestionError, NotFoundError):
        found = ()
    if not found:
        text = "Nothing is known of it: traces are kept for a time only, and the id may be mistyped."
        return visit.refuse(404, "There is no such trace", text, place="/trace", kind="warn")
    events = story(found[0])
    recipients = found[0].get("recipients") or ()
    return visit.show(
        "trace.html",
        "/trace",
        trace=found[0],
        events=events,
        line=line_of(events),
        recipients=[(each, remedy_for(each)) for each in recipients],
        queued=any(each["state"] in ("waiting", "suspended", "delivering", "held") for each in recipients),
    )
