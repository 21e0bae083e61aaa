"""The queue: by destination, message by message, and what can be done to it.

What touches many messages, or cannot be undone, is asked once more on a page of its own that says how many it would touch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from relay.admin.console.desk import Json, RefusedError
from relay.admin.console.pages import url
from relay.admin.console.visit import Visit
from relay.admin.console.words import plural
from relay.admin.endpoint import BadQuestionError, NotFoundError
from relay.policy.remedy import remedy_for

PAGE = 50
_DESTINATIONS = 25
_COUNTED = 5000  # messages that a confirmation counts; beyond it says "more than"
_COUNT_PAGE = 1000

LIVE = ("waiting", "suspended", "delivering", "held")
STATES = (*LIVE, "delivered", "bounced", "deleted")
KINDS = {
    "to": "Recipient domain (contoso.com, *.contoso.com or *)",
    "connector": "Connector",
    "from": "Sender (address or @domain)",
}


@dataclass(frozen=True, slots=True)
class Deed:
    """An action as a page says it. `grave`: it cannot be undone."""

    name: str
    title: str
    meaning: str
    grave: bool = False
    reason: bool = False


DEEDS: Mapping[str, Deed] = {
    each.name: each
    for each in (
        Deed("retry", "Retry now", "Each is tried at once; its retry time is not waited for."),
        Deed("hold", "Hold", "Nothing is tried until it is released. It stays held over a restart."),
        Deed("release", "Release", "What is held is tried again, at once."),
        Deed("bounce", "Bounce", "Given up: its sender gets a report.", grave=True, reason=True),
        Deed("delete", "Delete", "Given up, and nobody is told. There is no way back.", grave=True),
    )
}


async def queue(visit: Visit) -> Response:
    """`to`, `connector` and `state` filter; `after` is where the page begins; `from` where the list of destinations does."""
    asked = {name: visit.query(name) for name in ("to", "connector", "state", "after")}
    trouble = ""
    try:
        found = await visit.facts.messages(_page(asked))
    except BadQuestionError as error:
        trouble, asked = str(error), dict.fromkeys(asked, "")
        found = await visit.facts.messages(_page(asked))
    start = visit.query("from")
    destinations = await visit.facts.destinations(start, _DESTINATIONS + 1)
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
        start=start,
        destinations=destinations[:_DESTINATIONS],
        more_destinations=len(destinations) > _DESTINATIONS,
        suspensions=await visit.facts.suspensions(),
        suspends=visit.facts.has("POST /suspensions"),
        deeds=DEEDS.values(),
    )


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
        remedies=[remedy_for(each) for each in found["recipients"]],
        deeds=offered,
    )


async def confirm(visit: Visit) -> Response:
    """What would be done to how many. A single message's hold, release and retry are done at once: each takes the other back."""
    deed, selection = _asked(visit)
    if visit.form.text("at_once") and not deed.grave and len(selection.get("ids", ())) == 1:
        return await act(visit)
    counted, more = await _count(visit, selection)
    return visit.show(
        "confirm.html",
        "/queue",
        deed=deed,
        why=deed.reason and visit.facts.tells_why(deed.name),
        ids=selection.get("ids", []),
        selection=selection,
        counted=counted,
        more=more,
        back=_back(selection),
    )


async def act(visit: Visit) -> Response:
    deed, selection = _asked(visit)
    reason = visit.form.text("reason", 400)
    if deed.reason and visit.facts.tells_why(deed.name) and not reason:
        raise BadQuestionError("reason: say why, in words for the sender")
    done = await visit.facts.act(deed.name, selection, reason)
    notice = f"{deed.title}: {plural(int(done['changed']), 'recipient')}."
    if done["running"]:
        notice += f" {plural(int(done['running']), 'attempt')} under way must end first."
    if done["unknown"]:
        notice += f" Not in the queue any more: {', '.join(done['unknown'][:5])}."
    ids = selection.get("ids", ())
    if visit.form.text("to_message") and len(ids) == 1:
        return visit.go(f"/queue/{quote(ids[0], safe='')}", notice)
    return visit.go("/queue", notice, to=selection.get("to"), connector=selection.get("connector"))


def _asked(visit: Visit) -> tuple[Deed, dict[str, Any]]:
    """What the form wants, of which messages, as the API takes it. BadQuestionError where it names no action or no messages."""
    form = visit.form
    deed = DEEDS.get(form.text("action"))
    if deed is None:
        raise BadQuestionError(f"action: one of {', '.join(DEEDS)}")
    if form.text("which") == "all":
        narrowed = {name: text for name in ("to", "connector") if (text := form.text(name, 320))}
        return deed, narrowed or {"all": True}
    ids = form.getlist("id")
    if not ids:
        raise BadQuestionError("mark at least one message, or choose all that match")
    return deed, {"ids": ids}


async def _count(visit: Visit, selection: Json) -> tuple[int, bool]:
    """Messages that it would touch now, and whether there are more than were counted."""
    if "ids" in selection:
        found = [await _find(visit, each) for each in dict.fromkeys(selection["ids"])]
        return sum(
            each is not None and any(one["state"] in LIVE for one in each["recipients"]) for each in found
        ), False
    counted, after = 0, ""
    narrowed = {name: selection.get(name, "") for name in ("to", "connector")}
    while True:
        page = await visit.facts.messages({**narrowed, "after": after, "limit": str(_COUNT_PAGE)})
        counted += len(page["messages"])
        if page["next"] is None:
            return counted, False
        if counted >= _COUNTED:
            return counted, True
        after = page["next"]


async def _find(visit: Visit, message_id: str) -> Json | None:
    try:
        return await visit.facts.message(message_id)
    except NotFoundError:
        return None


def _back(selection: Json) -> str:
    return url("/queue", to=selection.get("to"), connector=selection.get("connector"))


async def suspend_form(visit: Visit) -> Response:
    asked = {name: visit.query(name) for name in ("kind", "value", "reason", "until")}
    return visit.show("suspend.html", "/queue", kinds=KINDS, asked=asked, trouble="")


async def suspend(visit: Visit) -> Response:
    asked = {name: visit.form.text(name, 320) for name in ("kind", "value", "reason", "until")}
    try:
        if asked["kind"] not in KINDS:
            raise BadQuestionError(f"what to suspend: one of {', '.join(KINDS)}")
        if not asked["reason"]:
            raise BadQuestionError("reason: say why; whoever comes next must know")
        await visit.facts.suspend(asked["kind"], asked["value"], asked["reason"], asked["until"])
    except (BadQuestionError, RefusedError) as error:
        trouble = str(error)
        return visit.show("suspend.html", "/queue", status=400, kinds=KINDS, asked=asked, trouble=trouble)
    return visit.go(
        "/queue", f"Suspended: {asked['kind']} {asked['value']}. Its mail is taken and kept, and not tried."
    )


async def resume(visit: Visit) -> Response:
    done = await visit.facts.resume(visit.form.text("id", 20))
    return visit.go("/queue", f"{plural(len(done['ended']), 'suspension')} ended.")
