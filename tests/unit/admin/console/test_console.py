"""The console as a browser meets it: who gets in, what each page may show and do, and that no stranger's words become markup."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from relay.admin.console.guard import HEADERS
from relay.admin.endpoint import Scope, Unavailable
from relay.admin.queue import Action, Selection
from relay.admin.reload import Reload
from tests.unit.admin.console.answers import ANSWERS, CHANGE, OURS, hostile_message, partner, report, told_trace
from tests.unit.admin.console.fake import HOSTILE, Browser, World
from tests.unit.admin.fake import LAST, message, recipient

ID = "01JD3M8Z7Q0000000001"
PAGES = (
    "/",
    "/?range=30d&live=off",
    "/queue",
    f"/queue/{ID}",
    "/suspend",
    "/trace",
    "/trace?to=contoso.com",
    f"/trace/{ID}",
    "/connectors",
    "/connectors/contoso-out",
    "/change",
    "/certificates",
    "/certificates/sheet?name=relay.example.com",
    "/report",
    "/audit",
)


@pytest.fixture
def world() -> World:
    made = World(ANSWERS)
    made.relay.queue = [hostile_message()]
    made.relay.traces = [told_trace()]
    made.relay.queued_for = [
        {
            "domain": "contoso.com",
            "connector": "contoso-out",
            "waiting": 1,
            "held": 0,
            "oldest": "2026-11-27T07:00:00.000Z",
            "next_attempt": None,
            "last": {**LAST, "text": HOSTILE},
        }
    ]
    return made


@pytest.fixture
async def browser(world: World) -> Browser:
    made = world.browser()
    assert (await made.sign_in()).status_code == 303
    return made


class Reader(HTMLParser):
    """What a browser would build: elements, and attributes that run something."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[dict[str, str | None]] = []
        self.dangerous: list[tuple[str, str]] = []
        self.headings: list[int] = []
        self.inputs: list[dict[str, str | None]] = []
        self.labels: set[str | None] = set()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.captions = self.tables = self.th_bare = 0
        self.charts: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "script":
            self.scripts.append(given)
        self.dangerous += [(tag, name) for name in given if name.startswith("on") or name == "style"]
        if tag in ("iframe", "object", "embed", "base", "style"):
            self.dangerous.append((tag, ""))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.inputs.append({**given, "inside": "label" if "label" in self.open else None})
        if tag == "label":
            self.labels.add(given.get("for"))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.th_bare += tag == "th" and "scope" not in given
        if tag == "svg":
            self.charts.append(
                given.get("aria-hidden") == "true" or (given.get("role") == "img" and "aria-labelledby" in given)
            )
        if tag not in ("input", "meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass


def read(text: str) -> Reader:
    found = Reader()
    found.feed(text)
    return found


# Who gets in.


async def test_pages_lead_strangers_to_the_sign_in(world: World) -> None:
    stranger = world.browser()
    for path in PAGES:
        answer = await stranger.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in")
    assert "next=%2Fconsole%2Fqueue%3Fto%3Dx" in (await stranger.get("/queue?to=x")).headers["location"]
    assert (await stranger.get("/queue", **{"hx-request": "true"})).headers["hx-refresh"] == "true"
    page = await stranger.get("/sign-in")
    assert page.status_code == 200
    assert "0.1.0" not in page.text  # a stranger is not told the version


async def test_sign_in_sets_a_cookie_that_nobody_else_can_use(world: World) -> None:
    browser = world.browser()
    answer = await browser.sign_in(next="/console/queue?to=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/queue?to=x")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-relay-console=")
    assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= {each.strip() for each in cookie.split(";")}
    assert "Domain" not in cookie
    first = browser.cookies["__Host-relay-console"]
    await browser.sign_in()
    assert browser.cookies["__Host-relay-console"] != first
    # The session that it came with has ended.
    old = world.browser()
    old.cookies.set("__Host-relay-console", first)
    assert (await old.get("/queue")).status_code == 303


async def test_without_tls_the_cookie_has_another_name(world: World) -> None:
    answer = await world.browser("http://relay.example.com").sign_in()
    assert answer.headers["set-cookie"].startswith("relay-console=")
    assert "HttpOnly" in answer.headers["set-cookie"]


@pytest.mark.parametrize("name", ["admin", "nobody", HOSTILE])
async def test_every_failed_sign_in_says_the_same(world: World, name: str) -> None:
    answer = await world.browser().sign_in(name, "wrong")
    assert answer.status_code == 401
    assert "That name and password do not fit." in answer.text
    assert "set-cookie" not in answer.headers
    assert read(answer.text).dangerous == []


async def test_guessing_is_braked(world: World) -> None:
    world.accounts.blocked = True
    answer = await world.browser().sign_in()
    assert answer.status_code == 429
    assert "try again in 90 seconds" in answer.text


@pytest.mark.parametrize(
    "following",
    [
        "//evil.example/",
        "https://evil.example/",
        "/console/\\evil",
        "/console//evil",
        "javascript:alert(1)",
        "/console/../x",
        "/console/\n",
    ],
)
async def test_sign_in_leads_nowhere_else(world: World, following: str) -> None:
    answer = await world.browser().sign_in(next=following)
    assert answer.headers["location"] == "/console/"


async def test_sessions_end(world: World, browser: Browser) -> None:
    # Idle: a page that refreshes itself does not keep it alive.
    for _ in range(7):
        world.seconds += 300
        last = await browser.get("/?refresh=1")
    assert last.status_code == 303
    await browser.sign_in()
    for _ in range(25):
        world.seconds += 1750
        last = await browser.get("/trace")
    assert last.status_code == 303  # after twelve hours, however busy
    await browser.sign_in()
    assert (await browser.get("/trace")).status_code == 200
    answer = await browser.submit("/sign-out")
    assert answer.status_code == 303
    assert 'relay-console=""' in answer.headers["set-cookie"]
    assert (await browser.get("/trace")).status_code == 303
    assert ("admin", "console", "sign-out") in world.noted.entries


async def test_an_account_that_is_gone_or_weaker_is_so_at_once(world: World, browser: Browser) -> None:
    world.accounts.scopes["admin"] = Scope.READ
    assert (await browser.get("/audit")).status_code == 403
    assert "Hold" not in (await browser.get(f"/queue/{ID}")).text
    del world.accounts.scopes["admin"]
    assert (await browser.get("/trace")).status_code == 303
    world.accounts.scopes["admin"] = Scope.ADMIN
    assert (await browser.get("/trace")).status_code == 303  # the session does not come back


# Requests that no page of ours sent.


@pytest.mark.parametrize(
    "host", ["evil.example", "relay.example.com.evil.example", "", "x.relay.example.com", "1.2.3", "a.b.names.example"]
)
async def test_other_hosts_are_refused(world: World, host: str) -> None:
    for path in ("/", "/sign-in", "/static/console.css"):
        assert (await world.browser().get(path, host=host)).status_code == 421


async def test_our_names_are_taken_with_any_port(world: World) -> None:
    for host in ("relay.example.com:8443", "RELAY.example.com", "192.0.2.7:8443", "[::1]:8443", "any.names.example"):
        assert (await world.browser().get("/sign-in", host=host)).status_code == 200


@pytest.mark.parametrize(
    ("site", "origin", "taken"),
    [
        ("same-origin", "null", True),
        ("same-origin", "https://relay.example.com", True),
        ("same-origin", "https://evil.example", False),
        ("same-site", "https://relay.example.com", False),
        ("cross-site", "null", False),
        ("none", "null", False),
        ("", "https://relay.example.com", True),
        ("", "http://relay.example.com", False),
        ("", "https://relay.example.com:8443", False),
        ("", "null", False),
        ("", "", False),
    ],
)
async def test_only_our_own_pages_send_forms(
    world: World, browser: Browser, site: str, origin: str, taken: bool
) -> None:
    data = {"csrf": await browser.token(), "action": "hold", "id": ID}
    answer = await browser.post("/queue/act", data, **{"sec-fetch-site": site, "origin": origin})
    assert answer.status_code == (303 if taken else 403)
    assert any(isinstance(each, tuple) and each[0] is Action.HOLD for each in world.relay.asked) is taken


POSTS = ("/queue/confirm", "/queue/act", "/suspend", "/resume", "/change/take", "/explain", "/probe", "/sign-out")


@pytest.mark.parametrize("path", POSTS)
async def test_every_form_needs_the_token_of_its_session(world: World, browser: Browser, path: str) -> None:
    other = world.browser()
    await other.sign_in()
    before = list(world.relay.asked)
    for token in ("", "wrong", await other.token()):
        answer = await browser.post(path, {"csrf": token, "action": "delete", "id": ID})
        assert (answer.status_code, "not of this session" in answer.text) == (403, True)
    assert [each for each in world.relay.asked if each not in before] == []
    assert (await browser.get("/trace")).status_code == 200  # still signed in


async def test_what_is_no_form_is_refused(browser: Browser, world: World) -> None:
    for content, kind in (
        (b"{}", "application/json"),
        (b"x" * 300_000, "application/x-www-form-urlencoded"),
        (b"a=%ff", "application/x-www-form-urlencoded"),
    ):
        answer = await browser._client.post(
            "/console/queue/act", content=content, headers={"content-type": kind, "sec-fetch-site": "same-origin"}
        )
        assert answer.status_code == 400


async def test_forms_are_not_taken_by_get(browser: Browser) -> None:
    for path in POSTS:
        assert (await browser.get(path)).status_code in ((200,) if path == "/suspend" else (404, 405))


# What each scope may do.


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        *(
            (path, Scope.ADMIN if path == "/audit" else Scope.OPERATE if path == "/suspend" else Scope.READ)
            for path in PAGES
        ),
        ("POST /queue/confirm", Scope.OPERATE),
        ("POST /queue/act", Scope.OPERATE),
        ("POST /suspend", Scope.OPERATE),
        ("POST /resume", Scope.OPERATE),
        ("POST /probe", Scope.OPERATE),
        ("POST /change/take", Scope.ADMIN),
    ],
)
async def test_scopes(world: World, path: str, needed: Scope) -> None:
    for scope in Scope:
        browser = world.browser()
        await browser.sign_in(scope.value)
        sent = path.removeprefix("POST ")
        answer = await (browser.submit(sent, action="hold", id=ID) if path.startswith("POST") else browser.get(path))
        assert (answer.status_code == 403) is not scope.covers(needed), (scope, answer.text[-400:])


async def test_what_one_may_not_do_is_not_shown(world: World) -> None:
    reader = world.browser()
    await reader.sign_in("read")
    for path in ("/queue", f"/queue/{ID}", "/change"):
        text = (await reader.get(path)).text
        assert text.count("<form") == text.count('method="get"') + 1, path  # beside sign-out
        assert "Audit log" not in text
        assert 'type="checkbox"' not in text


async def test_the_desk_refuses_whatever_a_page_does(world: World) -> None:
    """An endpoint that asks for more than its page does."""
    world.accounts.scopes["operate"] = Scope.OPERATE
    browser = world.browser()
    await browser.sign_in("operate")
    token = await browser.token()
    world.accounts.scopes["operate"] = Scope.READ
    assert (await browser.post("/queue/act", {"csrf": token, "action": "hold", "id": ID})).status_code == 403
    assert not any(isinstance(each, tuple) and each[0] is Action.HOLD for each in world.relay.asked)


# Every page.


@pytest.mark.parametrize("path", [*PAGES, "/sign-in", "/static/console.css", "/nothing", f"/queue/{'Z' * 20}"])
async def test_headers_stand_on_every_answer(browser: Browser, path: str) -> None:
    answer = await browser.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == (
        "private, max-age=31536000, immutable" if "static" in path else "no-store"
    )
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", PAGES)
async def test_hostile_words_stay_words(browser: Browser, path: str) -> None:
    answer = await browser.get(path)
    assert answer.status_code == 200
    found = read(answer.text)
    assert found.dangerous == []
    assert [(each.get("src") or "").partition("?")[0] for each in found.scripts] == ["/console/static/htmx.min.js"]
    assert len(found.scripts) == 1
    assert "\x1b" not in answer.text
    assert "\u202e" not in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/sign-in"])
async def test_pages_can_be_used_without_eyes_and_without_a_mouse(browser: Browser, path: str) -> None:
    text = (await browser.get(path)).text
    found = read(text)
    assert found.headings.count(1) == 1
    assert found.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False)), (
        found.headings
    )
    assert len(found.ids) == len(set(found.ids))
    for each in found.inputs:
        assert each.get("aria-label") or each.get("inside") or each.get("id") in found.labels, each
    assert found.captions == found.tables
    assert found.th_bare == 0
    assert all(found.charts)
    assert 'lang="en"' in text
    assert 'class="skip" href="#content"' in text
    assert '<main id="content"' in text


async def test_the_hostile_text_is_really_there(browser: Browser) -> None:
    """So that the tests above look at something."""
    for path in (
        "/",
        "/queue",
        f"/queue/{ID}",
        "/suspend?value=%3Cscript%3E",
        f"/trace/{ID}",
        "/certificates",
        "/report",
        "/audit",
    ):
        assert "&lt;script&gt;" in (await browser.get(path)).text, path


async def test_asked_values_come_back_as_words(browser: Browser) -> None:
    for path in ("/queue?to={}", "/trace?from={}&since={}", "/report?partner={}", "/audit?who={}", "/queue?state={}"):
        answer = await browser.get(path.replace("{}", "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E"))
        assert answer.status_code in (200, 400)
        assert len(read(answer.text).scripts) == 1


async def test_static_files(browser: Browser) -> None:
    css = await browser.get("/static/console.css")
    assert css.headers["content-type"].startswith("text/css")
    for name in ("../pages.py", "%2e%2e/pages.py", "templates", "nothing.css"):
        assert (await browser.get(f"/static/{name}")).status_code == 404


async def test_a_changed_password_ends_the_sessions_that_were_made_with_the_old_one(
    world: World, browser: Browser
) -> None:
    assert (await browser.get("/queue")).status_code == 200
    world.accounts.marks["admin"] = "second"
    answer = await browser.get("/queue")
    assert (answer.status_code, "/console/sign-in" in answer.headers["location"]) == (303, True)


async def test_a_relay_that_cannot_answer_says_so(world: World, browser: Browser) -> None:
    world.relay.error = Unavailable("the queue cannot be read now: disk gone")
    answer = await browser.get("/queue")
    assert (answer.status_code, "disk gone" in answer.text) == (503, True)


# Links from elsewhere.

LINKED = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def test_a_link_from_a_mail_leads_to_its_page(world: World) -> None:
    """The browser leaves the Strict cookie out of the first request, and sends it with the one that our own page makes."""
    stranger = world.browser()
    answer = await stranger.get("/queue?to=x%22%3E%3Cscript%3E&sort=name", **LINKED)
    assert answer.status_code == 200
    assert (
        '<meta http-equiv="refresh" content="0; url=/console/queue?to=x%22%3E%3Cscript%3E&amp;sort=name">'
        in answer.text
    )
    assert len(read(answer.text).scripts) == 1
    assert "set-cookie" not in answer.headers
    again = await stranger.get("/queue?to=x", **{**LINKED, "sec-fetch-site": "same-origin"})
    assert (again.status_code, "/console/sign-in" in again.headers["location"]) == (303, True)  # once, not for ever


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_only_a_link_that_a_person_follows_is_led_on(world: World, headers: dict[str, str]) -> None:
    assert (await world.browser().get("/queue", **{**LINKED, **headers})).status_code == 303


async def test_a_form_from_elsewhere_is_not_led_on(world: World, browser: Browser) -> None:
    answer = await browser.post("/queue/act", {"action": "delete", "id": ID}, **LINKED)
    assert answer.status_code == 403


async def test_no_link_leads_out_of_the_console(world: World) -> None:
    answer = await world.browser().get("/queue//evil.example/", **LINKED)
    assert "evil.example" not in answer.text


# The queue.


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
    assert "Release" in text
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


# Traces.


async def test_a_life_is_drawn_and_told(browser: Browser) -> None:
    text = (await browser.get(f"/trace/{ID}")).text
    for words in (
        "Accepted",
        "Attempt 1",
        "Attempt 2",
        "TLSv1.3",
        "TLS_AES_256_GCM_SHA384",
        "X25519MLKEM768",
        "level domain, never in clear",
    ):
        assert words in text
    assert "a certificate issued under ca.pem, for *.contoso.com" in text
    assert "by dane" in text
    assert "anchor CN=Contoso CA" in text
    for kind in ("accepted", "deferred", "delivered"):
        assert f'class="mark {kind}"' in text


async def test_traces_in_pages(world: World, browser: Browser) -> None:
    world.relay.traces = [told_trace(number) for number in range(120, 0, -1)]
    text = (await browser.get("/trace?to=contoso.com")).text
    following = re.search(r'rel="next" href="/console([^"]+)"', text)
    assert following is not None
    assert "before=01JD3M8Z7Q0000000071" in following[1]
    await browser.get(following[1].replace("&amp;", "&"))
    assert world.relay.asked[-1].before == "01JD3M8Z7Q0000000071"
    answer = await browser.get("/trace?to=not..a..domain")
    assert answer.status_code == 400
    world.relay.traces = []
    assert (await browser.get("/trace/01JD3M8Z7Q0000000001")).status_code == 404
    assert (await browser.get("/trace/nothing")).status_code == 404


# The configuration.


async def test_taking_what_waits(world: World, browser: Browser) -> None:
    world.relay.reloaded = Reload(taken=True, changed=True, weaker=("tls goes from domain to encryption",))
    text = (await browser.get("/change")).text
    assert "although it is weaker" in text
    assert "+tls: encryption" in text
    assert "carol, by console" in text
    seen = re.search(r'name="seen" value="(\w+)"', text)
    assert seen is not None
    answer = await browser.submit("/change/take", seen=seen[1])
    assert answer.status_code == 303
    assert "tls goes from domain to encryption" in (await browser.get("/change")).text
    assert ("admin", "console", "reload") in world.noted.entries


async def test_what_differs_in_form_only_is_in_force(world: World, browser: Browser) -> None:
    world.relay.answers["GET /change"] = {**CHANGE, "differs": False, "weaker": []}
    text = (await browser.get("/change")).text
    assert "Only its form differs" in text
    assert "/console/change/take" not in text


async def test_what_a_file_names_may_differ_without_a_line(world: World, browser: Browser) -> None:
    world.relay.answers["GET /change"] = {**CHANGE, "diff": "", "weaker": []}
    text = (await browser.get("/change")).text
    assert "something that it names has changed" in text
    assert "/console/change/take" in text


async def test_a_file_with_errors_cannot_be_taken(world: World, browser: Browser) -> None:
    world.relay.answers["GET /change"] = {**CHANGE, "errors": ["connectors.yaml:3: tls: no such level"]}
    text = (await browser.get("/change")).text
    assert "no such level" in text
    assert "/console/change/take" not in text


@pytest.mark.parametrize(
    ("path", "words"), [("/explain", "would it be let in"), ("/probe", "our policy is satisfied nowhere")]
)
async def test_answers_about_a_partner_are_pages(world: World, browser: Browser, path: str, words: str) -> None:
    answer = await browser.submit(path, to="bob@contoso.com", domain="contoso.com")
    assert answer.status_code == 200
    assert words in answer.text.lower()
    assert "&lt;script&gt;" in answer.text
    found = read(answer.text)
    assert (found.dangerous, len(found.scripts)) == ([], 1)
    assert found.captions == found.tables
    asked = [
        given
        for name, given in (each for each in world.relay.asked if isinstance(each, tuple))
        if name == f"POST {path}"
    ]
    assert asked == [{"to": "bob@contoso.com"} if path == "/explain" else {"target": "contoso.com"}]


async def test_what_was_not_looked_at_is_not_taken(world: World, browser: Browser) -> None:
    answer = await browser.submit("/change/take", seen="another state of the file")
    assert (answer.status_code, "has changed since" in answer.text) == (409, True)
    assert ("admin", "console", "reload") not in world.noted.entries


# Certificates and the report.


async def test_certificates_about_to_end_are_on_the_overview(world: World, browser: Browser) -> None:
    text = (await browser.get("/")).text
    assert 'relay.example.com</th><td data-label="Whose">ours' in text
    assert "the key does not fit" in text
    assert "is in trouble" in text
    world.relay.answers["GET /certificates"] = {"ours": [{**OURS, "days_left": 200.0}], "partners": []}
    assert "none ends within 30 days" in (await browser.get("/")).text


async def test_the_report_as_csv(world: World, browser: Browser) -> None:
    answer = await browser.get("/report.csv?since=2026-11-25&until=2026-11-26")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="security-report-2026-11-25-2026-11-26.csv"'
    lines = answer.text.split("\r\n")
    assert lines[0].startswith("day,partner,direction,connectors,messages,in_clear")
    assert lines[1].startswith("2026-11-26,'=cmd|'/c calc'!A1,out,contoso-out,10,1,2,1,")
    assert lines[2].startswith("2026-11-25,")
    days = [
        given["since"]
        for name, given in (each for each in world.relay.asked if isinstance(each, tuple))
        if name == "GET /security/partners"
    ]
    assert days == ["2026-11-26T00:00:00Z", "2026-11-25T00:00:00Z"]
    for path in (
        "/report.csv?since=2026-08-25&until=2026-11-26",
        "/report.csv?since=2026-11-26&until=2026-11-25",
        "/report.csv?since=x",
    ):
        assert (await browser.get(path)).status_code == 400


async def test_the_report_in_pages(world: World, browser: Browser) -> None:
    world.relay.answers["GET /security/report"] = report([partner(f"p{number}.example") for number in range(450)])
    shown: list[Any] = []
    for start in ("", "&from=200", "&from=400"):
        shown += re.findall(
            r"p(\d+)\.example<", (await browser.get(f"/report?since=2026-11-26&until=2026-11-26{start}")).text
        )
    assert len(set(shown)) == 450
    assert len(re.findall(r"p(\d+)\.example<", (await browser.get("/report?all=1")).text)) == 450
    assert (await browser.get("/report?since=2026-11-27&until=2026-11-26")).status_code == 400
