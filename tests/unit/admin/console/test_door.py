"""Who gets in, what each scope may do, and requests that no page of ours sent."""

import pytest

from relay.admin.endpoint import Scope
from relay.admin.queue import Action
from tests.unit.admin.console.fake import HOSTILE, Browser, World
from tests.unit.admin.console.reading import ID, PAGES, read

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


async def test_a_changed_password_ends_the_sessions_that_were_made_with_the_old_one(
    world: World, browser: Browser
) -> None:
    assert (await browser.get("/queue")).status_code == 200
    world.accounts.marks["admin"] = "second"
    answer = await browser.get("/queue")
    assert (answer.status_code, "/console/sign-in" in answer.headers["location"]) == (303, True)


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
