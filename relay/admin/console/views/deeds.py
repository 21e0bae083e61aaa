"""What can be done to the queue: hold, release, retry, reroute, bounce and delete, suspend and resume.

What touches many messages, cannot be undone, or needs words, is asked once more on a page of its own that says how many it would touch.
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
from relay.config.connectors import DEFAULT

_COUNTED = 5000  # messages that a confirmation counts; beyond it says "more than"
_COUNT_PAGE = 1000

LIVE = ("waiting", "suspended", "delivering", "held")
KINDS = {
    "to": "Recipient domain (contoso.com, *.contoso.com or *)",
    "connector": "Connector",
    "from": "Sender (address or @domain)",
}


@dataclass(frozen=True, slots=True)
class Deed:
    """An action as a page says it. `grave`: it cannot be undone. `asks`: a "reason" or a "way", without which it is not done."""

    name: str
    title: str
    meaning: str
    grave: bool = False
    asks: str = ""

    @property
    def at_once(self) -> bool:
        """Of one message: done without a question, since another takes it back."""
        return not self.grave and not self.asks


DEEDS: Mapping[str, Deed] = {
    each.name: each
    for each in (
        Deed("retry", "Retry now", "Each is tried at once; its retry time is not waited for."),
        Deed("hold", "Hold", "Nothing is tried until it is released. It stays held over a restart."),
        Deed("release", "Release", "What is held is tried again, at once."),
        Deed(
            "reroute",
            "Reroute",
            "What waits or is held goes another way, and is tried at once. What it must satisfy does not become less: to another host, all that "
            "its own connector asks stays; by another connector, that one must ask for as much. New mail goes its own way.",
            asks="way",
        ),
        Deed("bounce", "Bounce", "Given up: its sender gets a report.", grave=True, asks="reason"),
        Deed("delete", "Delete", "Given up, and nobody is told. There is no way back.", grave=True),
    )
}


async def confirm(visit: Visit) -> Response:
    """What would be done to how many. A single message's hold, release and retry are done at once: each takes the other back."""
    deed, selection = _asked(visit)
    if visit.form.text("at_once") and deed.at_once and len(selection.get("ids", ())) == 1:
        return await act(visit)
    return await _ask(visit, deed, selection)


async def _ask(visit: Visit, deed: Deed, selection: Json, trouble: str = "") -> Response:
    counted, more = await _count(visit, selection)
    outbound = [each["name"] for each in await visit.facts.connectors() if each["direction"] == "outbound"]
    ways = [
        each for each in outbound if each != DEFAULT
    ]  # as a way that word means another thing, and stands there already
    return visit.show(
        "confirm.html",
        "/queue",
        status=400 if trouble else 200,
        deed=deed,
        ids=selection.get("ids", []),
        selection=selection,
        counted=counted,
        more=more,
        back=_back(selection),
        trouble=trouble,
        asked={name: visit.form.text(name, 300) for name in ("via", "reason", "weaker", "to_message")},
        ways=ways if deed.asks == "way" else (),
    )


async def act(visit: Visit) -> Response:
    deed, selection = _asked(visit)
    via, reason = visit.form.text("via", 300), visit.form.text("reason", 300)
    try:
        if deed.asks == "way":
            if not via:
                raise BadQuestionError("via: say which connector, which host, or default")
            done = await visit.facts.reroute(selection, via, bool(visit.form.text("weaker")))
        else:
            if deed.asks == "reason" and not reason:
                raise BadQuestionError("reason: say why, in words for the sender")
            done = await visit.facts.act(deed.name, selection, reason if deed.asks == "reason" else "")
    except (BadQuestionError, RefusedError) as error:
        if not deed.asks:
            raise
        return await _ask(visit, deed, selection, str(error))
    notice = f"{deed.title}: {plural(int(done['changed']), 'recipient')}."
    if deed.asks == "way":
        notice += f" They go {f'by {via}' if done['via'] else 'their own way again'}."
        notice += f" It asks for less: {'; '.join(done['weaker'][:5])}." if done["weaker"] else ""
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
