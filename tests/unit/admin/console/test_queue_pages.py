"""The queue: filtered, in pages, sorted, and what can be done to it."""

import re
from typing import Any

import pytest

from relay.admin.endpoint import Scope
from relay.admin.queue import Action, Selection
from tests.unit.admin.console.answers import CONNECTOR
from tests.unit.admin.console.fake import Browser, World
from tests.unit.admin.console.reading import ID
from tests.unit.admin.fake import message, recipient


async def test_the_queue_in_pages_and_filtered(world: World, browser: Browser) -> None:
    world.relay.queue = [message(number) for number in range(1, 121)]
    seen: set[str] = set()
    path = "/queue"
    while path:
        text = (await browser.get(path)).text
        seen |= set(re.findall(r'name="id" value="(\w{20})"', text))
        following = re.search(r'rel="next" href="/console([^"]+)"', text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == 120
    await browser.get("/queue?to=Contoso.com&connector=contoso-out&state=held")
    asked = [each for each in world.relay.asked if isinstance(each, tuple) and isinstance(each[0], Selection)]
    assert asked[-1][0] == Selection((), True, "contoso.com", "contoso-out", ("held",))
    answer = await browser.get("/queue?to=not..a..domain")
    assert (answer.status_code, "The whole queue is shown" in answer.text) == (400, True)


@pytest.mark.parametrize("action", [each.value for each in Action])
async def test_bulk_actions_ask_first_and_say_how_many(world: World, browser: Browser, action: str) -> None:
    world.relay.queue = [message(number) for number in range(1, 4)]
    ids = [each["id"] for each in world.relay.queue[:2]]
    page = await browser.submit("/queue/confirm", action=action, which="marked", id=[*ids, "01JD3M8Z7Q9999999999"])
    assert page.status_code == 200
    assert "2 messages?" in page.text
    assert not any(isinstance(each, tuple) and each[0] == action for each in world.relay.asked)
    answer = await browser.submit("/queue/act", action=action, id=ids, reason="closed")
    assert answer.status_code == 303
    reason = ("closed",) if action == "bounce" else ()
    assert (Action(action), Selection(tuple(ids), False, "", ""), *reason) in world.relay.asked
    assert ("admin", "console", action) in world.noted.entries
    await browser.get("/?refresh=1")  # an overview in another window
    assert "1 recipient." in (await browser.get("/queue")).text
    assert "1 recipient." not in (await browser.get("/queue")).text  # said once


async def test_acting_on_all_that_match(world: World, browser: Browser) -> None:
    world.relay.queue = [message(number) for number in range(1, 1502)]
    page = await browser.submit("/queue/confirm", action="hold", which="all", to="contoso.com", connector="")
    assert "1,501 messages?" in page.text
    await browser.submit("/queue/act", action="hold", which="all", to="contoso.com", connector="")
    assert (Action.HOLD, Selection((), True, "contoso.com", "")) in world.relay.asked
    await browser.submit("/queue/act", action="hold", which="all", to="", connector="")
    assert (Action.HOLD, Selection((), True, "", "")) in world.relay.asked


async def test_nothing_marked_does_nothing(world: World, browser: Browser) -> None:
    for path in ("/queue/confirm", "/queue/act"):
        for data in (
            {"action": "delete"},
            {"action": "delete", "which": "marked"},
            {"action": "burn", "id": ID},
            {"id": ID},
        ):
            answer = await browser.submit(path, **data)
            assert answer.status_code == 400
    assert not any(isinstance(each, tuple) and isinstance(each[0], Action) for each in world.relay.asked)


async def test_a_bounce_needs_a_reason(world: World, browser: Browser) -> None:
    world.relay.queue = [message(1)]
    assert 'name="reason"' in (await browser.submit("/queue/confirm", action="bounce", id=ID)).text
    answer = await browser.submit("/queue/act", action="bounce", id=ID, reason=" ")
    assert (answer.status_code, "say why" in answer.text) == (400, True)
    await browser.submit("/queue/act", action="bounce", id=ID, reason="the account is closed")
    assert (Action.BOUNCE, Selection((ID,), False, "", ""), "the account is closed") in world.relay.asked


# Another way.


async def test_rerouting_asks_first_and_goes_by_the_endpoint(world: World, browser: Browser) -> None:
    page = await browser.submit("/queue/confirm", action="reroute", which="all", to="contoso.com")
    assert "1 message?" in page.text
    assert '<option value="contoso-out">' in page.text
    assert not any(isinstance(each, tuple) and each[0] == "POST /queue/reroute" for each in world.relay.asked)
    answer = await browser.submit("/queue/act", action="reroute", which="all", to="contoso.com", via="spare")
    assert answer.headers["location"] == "/console/queue?to=contoso.com"
    assert ("POST /queue/reroute", {"to": "contoso.com", "via": "spare"}) in world.relay.asked
    assert "Reroute: 3 recipients. They go by spare." in (await browser.get("/queue")).text


async def test_default_is_offered_once_as_the_own_way(world: World, browser: Browser) -> None:
    """What acts without a connector has the same name, and is no way to send mail."""
    world.relay.answers["GET /connectors"] = {"connectors": [CONNECTOR, {**CONNECTOR, "name": "default"}]}
    page = (await browser.submit("/queue/confirm", action="reroute", which="all", to="contoso.com")).text
    assert (page.count('<option value="default">'), page.count('<option value="contoso-out">')) == (1, 1)


async def test_a_refused_reroute_says_what_would_be_lost_and_keeps_the_form(world: World, browser: Browser) -> None:
    world.relay.answers["POST /queue/reroute"] = (409, {"error": "spare asks for less: level encryption"})
    answer = await browser.submit(
        "/queue/act", action="reroute", which="all", to="contoso.com", via="spare", weaker="1"
    )
    assert answer.status_code == 400
    assert "spare asks for less: level encryption" in answer.text
    assert 'value="spare" maxlength' in answer.text
    assert 'name="weaker" value="1" checked' in answer.text
    assert ("POST /queue/reroute", {"to": "contoso.com", "via": "spare", "weaker": True}) in world.relay.asked
    assert ("admin", "console", "/queue/reroute") not in world.noted.entries
    assert "via: say which" in (await browser.submit("/queue/act", action="reroute", id=ID, via=" ")).text


async def test_only_an_admin_is_offered_less(world: World) -> None:
    for scope, offered in ((Scope.OPERATE, False), (Scope.ADMIN, True)):
        browser = world.browser()
        await browser.sign_in(scope.value)
        page = await browser.submit("/queue/confirm", action="reroute", id=ID)
        assert ('name="weaker"' in page.text) is offered


async def test_a_single_message_is_not_rerouted_without_a_way(world: World, browser: Browser) -> None:
    page = await browser.submit("/queue/confirm", action="reroute", id=ID, at_once="1", to_message="1")
    assert (page.status_code, 'name="via"' in page.text) == (200, True)
    answer = await browser.submit("/queue/act", action="reroute", id=ID, via="default", to_message="1")
    assert answer.headers["location"] == f"/console/queue/{ID}"


# By destination.


def waits_for(domain: str, waiting: int, oldest: str | None, due: str | None) -> dict[str, Any]:
    told = {"domain": domain, "connector": "contoso-out", "waiting": waiting, "held": 0}
    return {**told, "oldest": oldest, "next_attempt": due, "last": None}


def shown(text: str) -> list[str]:
    table = text.partition("Domains that mail waits for")[2].partition("</table>")[0]
    return re.findall(r'<th scope="row" class="address"><a href="[^"]*">([^<]+)<', table)


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("", "busy.example"),
        ("waiting", "busy.example"),
        ("oldest", "old.example"),
        ("next", "next.example"),
        ("name", "a.example"),
        ("x", "busy.example"),
    ],
)
async def test_destinations_are_sorted(world: World, browser: Browser, sort: str, first: str) -> None:
    day = "2026-11-{:02}T00:00:00Z".format
    world.relay.queued_for = [
        waits_for("a.example", 1, day(20), day(28)),
        waits_for("busy.example", 90, day(21), day(29)),
        waits_for("held.example", 0, None, None),
        waits_for("next.example", 2, day(22), day(27)),
        waits_for("old.example", 3, day(11), day(30)),
    ]
    found = shown((await browser.get(f"/queue?sort={sort}")).text)
    assert (len(found), found[0]) == (5, first)


async def test_many_destinations_in_pages(world: World, browser: Browser) -> None:
    world.relay.queued_for = [waits_for(f"d{number:04}.example", number % 7, None, None) for number in range(1600)]
    seen: list[str] = []
    path = "/queue"
    while path:
        text = (await browser.get(path)).text
        seen += shown(text)
        links = [
            each.replace("&amp;", "&")
            for each in re.findall(r'href="/console(/queue[^"#]*)#destinations">(?:More|Those)', text)
        ]
        path = links[0] if links else ""
    assert len(seen) == len(set(seen)) == 1600


async def test_a_suspended_destination_can_be_resumed_where_it_stands(world: World, browser: Browser) -> None:
    world.relay.queued_for = [waits_for("legacy.example", 3, None, None), waits_for("other.example", 2, None, None)]
    text = (await browser.get("/queue")).text
    row = text.partition("Domains that mail waits for")[2].partition("legacy.example")[2].partition("</tr>")[0]
    assert "suspended" in row
    assert 'name="id" value="7"' in row
    assert "/console/suspend" not in row
    assert "/console/suspend?kind=to&amp;value=other.example" in text


async def test_one_message_is_held_at_once_and_deleted_after_a_question(world: World, browser: Browser) -> None:
    world.relay.queue = [message(1, recipient(state="held"))]
    text = (await browser.get(f"/queue/{ID}")).text
    assert "Release<" in text
    assert "Reroute..." in text
    assert (await browser.submit("/queue/confirm", action="release", id=ID, at_once="1", to_message="1")).headers[
        "location"
    ] == f"/console/queue/{ID}"
    assert (await browser.submit("/queue/confirm", action="delete", id=ID, at_once="1")).status_code == 200
    assert [each[0] for each in world.relay.asked if isinstance(each, tuple) and isinstance(each[0], Action)] == [
        Action.RELEASE
    ]


async def test_a_message_that_has_ended_has_no_buttons(world: World, browser: Browser) -> None:
    world.relay.queue = [message(1, recipient(state="delivered"))]
    assert "/console/queue/confirm" not in (await browser.get(f"/queue/{ID}")).text
    assert (await browser.get("/queue/01JD3M8Z7Q0000000009")).status_code == 404


async def test_suspend_and_resume(world: World, browser: Browser) -> None:
    answer = await browser.submit("/suspend", kind="to", value="contoso.com", reason="their request", until="")
    assert answer.status_code == 303
    assert ("POST /suspensions", {"to": "contoso.com", "reason": "their request"}) in world.relay.asked
    assert (await browser.submit("/suspend", kind="to", value="contoso.com", reason="")).status_code == 400
    assert (await browser.submit("/suspend", kind="all", value="x", reason="y")).status_code == 400
    await browser.submit("/resume", id="7")
    assert ("POST /suspensions/resume", {"id": "7"}) in world.relay.asked
    world.relay.answers["POST /suspensions"] = (409, {"error": "there are too many suspensions"})
    answer = await browser.submit("/suspend", kind="to", value="contoso.com", reason="x")
    assert (answer.status_code, "there are too many suspensions" in answer.text) == (400, True)


async def test_what_is_due_says_what_it_waits_for(world: World, browser: Browser) -> None:
    for due, words in (("2026-11-27T07:00:00Z", "its destination</a> is"), ("2026-11-27T09:00:00Z", "in 1 h")):
        world.relay.queue = [message(1, recipient(next_attempt=due))]
        assert words in (await browser.get(f"/queue/{ID}")).text
