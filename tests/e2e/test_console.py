"""The web console in real Chromium, against a real relay with mail in it: by keyboard, light and dark, narrow, with and without scripts."""

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from relay.admin.accounts import set_password
from relay.admin.endpoint import Scope
from relay.app import Relay
from relay.app.relay import Times
from relay.mail.events import AdminActed
from relay.testing import Pki, write_config
from relay.testing.pair import submit
from tests.e2e.heard import Heard
from tests.e2e.process import free_port

CHROMIUM = shutil.which("chromium")
PASSWORD = "a long and quiet sentence"
PAGES = (
    "/",
    "/?range=7d&live=off",
    "/queue",
    "/trace",
    "/trace?to=closed.test",
    "/connectors",
    "/change",
    "/certificates",
    "/audit",
)
HOSTILE = "<img/src=x/onerror=document.title=1>"

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@dataclass
class Console:
    """A relay with three messages that wait for a host where nobody listens. `noise` is what browsers complained about."""

    relay: Relay
    heard: Heard
    ids: list[str]
    browser: Browser
    noise: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        return f"https://{self.relay.admin}/console"

    @asynccontextmanager
    async def page(self, **options: Any) -> AsyncIterator[Page]:
        context: BrowserContext = await self.browser.new_context(ignore_https_errors=True, **options)
        page = await context.new_page()
        page.on("console", lambda said: self.noise.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.noise.append(f"error: {error}"))
        try:
            yield page
        finally:
            await context.close()

    async def sign_in(self, page: Page, name: str = "admin") -> None:
        await page.goto(f"{self.root}/sign-in")
        await self.fill_in(page, name)
        await page.wait_for_url(f"{self.root}/")

    async def fill_in(self, page: Page, name: str) -> None:
        """On the page for signing in."""
        # By autofocus: a browser that comes to it later finds the field taken, and says so.
        await page.wait_for_selector("#name:focus")
        await page.fill("#name", name)
        await page.fill("#password", PASSWORD)
        await page.keyboard.press("Enter")

    async def messages(self) -> Mapping[str, str]:
        """State of each message's recipient."""
        found = [await self.relay.operator.message(each) for each in self.ids]
        return {each["id"]: each["recipients"][0]["state"] for each in found if each is not None}


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    pki, heard = Pki(tmp_path / "pki"), Heard()
    pki.issue(tmp_path / "certs", "relay.test", "127.0.0.1")
    for scope in Scope:
        set_password(tmp_path / "accounts", scope.value, PASSWORD, scope)
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "admin": {"socket": "relay.sock", "listen": "127.0.0.1:0", "accounts": "accounts"},
        "connectors": [
            {
                "name": "closed",
                "direction": "outbound",
                "match": {"recipient_domains": ["closed.test"]},
                "tls": "encryption",
                "route": {"smart_hosts": [f"127.0.0.1:{free_port()}"]},
                "retry": {"initial": "1h"},
            },
            _outbound("spare", "encryption"),
            _outbound("lax", "opportunistic"),
        ],
    }
    async with Relay(write_config(tmp_path, values, {}), observers=[heard], times=Times(watch=0.1, grace=5)) as relay:
        for sender in ("alice@relay.test", f'"{HOSTILE}"@relay.test', ""):
            await submit(relay.address(), sender, ["bob@closed.test"], b"Subject: x\r\n\r\nhello\r\n")
        found = (await relay.operator.messages(_everything(), after="", limit=10))["messages"]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            made = Console(relay, heard, [each["id"] for each in found], browser)
            try:
                yield made
            finally:
                await browser.close()
        assert made.noise == []


def _outbound(name: str, tls: str) -> dict[str, Any]:
    return {
        "name": name,
        "direction": "outbound",
        "match": {"recipient_domains": [f"{name}.test"]},
        "tls": tls,
        "route": {"smart_hosts": [f"127.0.0.1:{free_port()}"]},
    }


def _everything() -> Any:
    from relay.admin.queue import Selection

    return Selection(everything=True)


async def _tab_to(page: Page, selector: str) -> None:
    """By the keyboard, and seen to be there."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        if await page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"no Tab leads to {selector}")


async def _tour(console: Console, page: Page, width: int) -> None:
    for path in (*PAGES, *(f"/queue/{each}" for each in console.ids), f"/trace/{console.ids[0]}", "/connectors/closed"):
        answer = await page.goto(console.root + path)
        assert answer is not None
        assert answer.status == 200, path
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert await page.locator("h1").count() == 1
        assert await page.title() != "1"


@pytest.mark.parametrize(
    ("scheme", "width", "scripts"),
    [("light", 1280, True), ("dark", 1280, True), ("light", 375, True), ("dark", 375, False), ("light", 1280, False)],
)
async def test_all_pages(console: Console, scheme: Any, width: int, scripts: bool) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "java_script_enabled": scripts}
    async with console.page(**options) as page:
        await console.sign_in(page)
        await _tour(console, page, width)
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(ground.partition("(")[2].partition(",")[0])
        assert (red > 128) is (scheme == "light")


async def test_hold_and_release_by_keyboard_alone(console: Console) -> None:
    async with console.page() as page:
        await page.goto(f"{console.root}/queue")
        await page.keyboard.type("operate")  # the name has the focus
        await page.keyboard.press("Tab")
        await page.keyboard.type(PASSWORD)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{console.root}/queue")  # where one wanted to go
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await _tab_to(page, f'input[value="{console.ids[0]}"]')
        await page.keyboard.press("Space")
        await _tab_to(page, 'button[value="hold"]')
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{console.root}/queue/confirm")
        assert "1 message?" in await page.inner_text("h1")
        await _tab_to(page, "main button")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{console.root}/queue")
        assert "Hold: 1 recipient." in await page.inner_text('[role="status"]')
        assert (await console.messages())[console.ids[0]] == "held"
        await _tab_to(page, f'a[href="/console/queue/{console.ids[0]}"]')
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{console.root}/queue/{console.ids[0]}")
        await _tab_to(page, 'button[value="release"]')
        await page.keyboard.press("Enter")
        await page.wait_for_selector('[role="status"]')
        assert (await console.messages())[console.ids[0]] != "held"
        acted = [each for each in console.heard.events if isinstance(each, AdminActed)]
        assert [(each.who, each.via, each.action) for each in acted][-2:] == [
            ("operate", "console", "hold"),
            ("operate", "console", "release"),
        ]


async def test_bulk_delete_without_scripts(console: Console) -> None:
    async with console.page(java_script_enabled=False) as page:
        await console.sign_in(page)
        await page.goto(f"{console.root}/queue?to=closed.test")
        await page.check('input[type="radio"][value="all"]')
        await page.click('button[value="delete"]')
        assert "3 messages?" in await page.inner_text("h1")
        await page.click("main button")
        await page.wait_for_url(f"{console.root}/queue?to=closed.test")
        assert set((await console.messages()).values()) == {"deleted"}


async def test_suspend_and_resume(console: Console) -> None:
    async with console.page() as page:
        await console.sign_in(page, "operate")
        await page.goto(f"{console.root}/queue")
        await page.click("text=Suspend closed.test")
        await page.fill("#reason", "their request")
        await page.click("main button")
        await page.wait_for_selector("#suspensions")
        assert set((await console.messages()).values()) == {"suspended"}
        await page.click("button:has-text('Resume')")
        await page.wait_for_selector("text=1 suspension ended.")
        assert "suspended" not in (await console.messages()).values()


async def _ways(console: Console) -> set[str | None]:
    """By which connector each message is sent in place of its own."""
    found = [await console.relay.operator.message(each) for each in console.ids]
    return {((each["recipients"][0].get("via") or {}).get("connector")) for each in found if each is not None}


async def test_reroute_a_destination_and_back(console: Console) -> None:
    async with console.page() as page:
        await console.sign_in(page, "operate")
        for way, said, via in (("spare", "They go by spare.", "spare"), ("default", "their own way again", None)):
            await page.goto(f"{console.root}/queue")
            await page.click("button:has-text('Reroute closed.test')")
            assert "3 messages?" in await page.inner_text("h1")
            await page.fill("#via", way)
            await page.click("main button")
            await page.wait_for_selector('[role="status"]')
            assert said in await page.inner_text('[role="status"]')
            assert await _ways(console) == {via}
        acted = [each for each in console.heard.events if isinstance(each, AdminActed) and each.action == "reroute"]
        assert [(each.who, each.via, each.count) for each in acted] == [("operate", "console", 3)] * 2


async def test_a_reroute_to_less_is_refused_and_takes_an_admin(console: Console) -> None:
    async with console.page() as page:
        await console.sign_in(page, "operate")
        for way, why in (("lax", "asks for less"), ("127.0.0.1:2599", "takes the scope admin"), ("nothing", "nothing")):
            await page.goto(f"{console.root}/queue")
            await page.click("button:has-text('Reroute closed.test')")
            assert await page.locator('[name="weaker"]').count() == 0
            await page.fill("#via", way)
            await page.click("main button")
            assert why in await page.inner_text('[role="alert"]')
            assert await page.input_value("#via") == way
            assert await _ways(console) == {None}
        console.noise.clear()  # the browser tells of the 400
    async with console.page() as page:
        await console.sign_in(page)
        await page.goto(f"{console.root}/queue")
        await page.click("button:has-text('Reroute closed.test')")
        await page.fill("#via", "lax")
        await page.check('[name="weaker"]')
        await page.click("main button")
        await page.wait_for_selector('[role="status"]')
        assert "It asks for less: closed.test" in await page.inner_text('[role="status"]')
        assert await _ways(console) == {"lax"}


async def test_a_link_from_another_site_finds_the_session(console: Console) -> None:
    """The cookie is Strict, and who comes by a link from a mail or a chat need not sign in again all the same."""
    async with console.page() as page:
        await console.sign_in(page)
        target = f"{console.root}/queue?to=closed.test"
        body = f'<a href="{target}">look</a>'
        await page.route("https://chat.example/**", lambda route: route.fulfill(body=body, content_type="text/html"))
        await page.goto("https://chat.example/")
        await page.click("a")
        await page.wait_for_selector("#destinations")
        assert page.url == target
        assert (await page.context.cookies())[0]["sameSite"] == "Strict"
        # Without a session it leads to the sign-in, and from there to where one wanted to go.
        await page.context.clear_cookies()
        await page.goto("https://chat.example/")
        await page.click("a")
        await console.fill_in(page, "read")
        await page.wait_for_url(target)


async def test_who_may_only_read_has_no_buttons(console: Console) -> None:
    async with console.page() as page:
        await console.sign_in(page, "read")
        await page.goto(f"{console.root}/queue")
        assert await page.locator("main button").all_inner_texts() == ["Filter"]
        refused = await page.goto(f"{console.root}/suspend")
        assert refused is not None
        assert refused.status == 403
        console.noise.clear()  # the browser tells of the 403


async def test_the_overview_refreshes_itself(console: Console) -> None:
    async with console.page() as page:
        await page.clock.install()
        await console.sign_in(page)
        await page.evaluate("document.querySelector('#live').dataset.old = '1'")
        async with page.expect_response(lambda answer: "refresh=1" in answer.url):
            await page.clock.fast_forward(31_000)
        await page.wait_for_function("document.querySelector('#live').dataset.old !== '1'")


async def test_another_site_cannot_use_the_session(console: Console) -> None:
    async with console.page() as page:
        await console.sign_in(page)
        target = f"{console.root}/queue/act"
        form = f'<form method="post" action="{target}"><input name="action" value="delete"><button>x</button></form>'
        await page.route("https://evil.example/**", lambda route: route.fulfill(body=form, content_type="text/html"))
        await page.goto("https://evil.example/")
        async with page.expect_navigation() as sent:
            await page.click("button")
        answer = await sent.value
        assert answer is not None
        assert answer.status == 403
        assert set((await console.messages()).values()) <= {"waiting", "delivering"}
        console.noise.clear()  # the browser tells of the 403
