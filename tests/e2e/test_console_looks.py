"""Every page of the console in real Chromium, over a relay with everything to tell: contrast, screen reader, keyboard, size, paper."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, Route, async_playwright

from relay.report.security.page import page_of
from tests.e2e.looks import too_weak, unreached, unsaid
from tests.e2e.test_console import CHROMIUM
from tests.unit.admin.console.answers import ANSWERS, OURS, SEEN, TROUBLE, hostile_message, partner, report, told_trace
from tests.unit.admin.console.fake import NOW, ORIGIN, Browser, World
from tests.unit.admin.fake import LAST, message, recipient

pytestmark = [
    *(pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(180)),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]

LONG = ".".join(["x" * 60] * 3) + ".example"
TOLD = "01JD3M8Z7Q0000000001"
PAGES = (
    "/",
    "/?range=30d&live=off",
    "/queue",
    "/queue?to=contoso.com",
    "/queue?to=nobody.example&state=held",
    f"/queue/{TOLD}",
    "/queue/01JD3M8Z7Q0000000404",
    "/suspend",
    "/trace",
    "/trace?to=contoso.com",
    f"/trace/{TOLD}",
    "/connectors",
    "/connectors/contoso-out",
    "/change",
    "/certificates",
    "/certificates/sheet?name=relay.example.com",
    "/report",
    "/report?since=x",
    "/audit",
)


def waits_for(number: int) -> dict[str, Any]:
    told = {
        "domain": LONG if number == 1 else f"d{number}.example",
        "connector": "contoso-out",
        "waiting": number,
        "held": 1,
    }
    return {**told, "oldest": "2026-11-27T07:00:00Z", "next_attempt": "2026-11-27T09:00:00Z", "last": LAST}


def told_world() -> World:
    """With something good, something to look at and something bad on each page, and names as long as names can be."""
    world = World(
        {
            **ANSWERS,
            "GET /certificates": {
                "at": "x",
                "ours": [OURS, {**OURS, "name": "fine", "days_left": 200.0, "problems": []}],
                "partners": [SEEN],
            },
        }
    )
    state = [
        recipient(f"{'a' * 64}@{LONG}", state)
        for state in ("waiting", "held", "suspended", "delivered", "bounced", "delivering")
    ]
    world.relay.queue = [
        hostile_message(),
        message(2, *state, sender=f"{'b' * 64}@{LONG}"),
        message(3, recipient(last=LAST)),
    ]
    world.relay.traces = [told_trace(), told_trace(2)]
    world.relay.queued_for = [waits_for(number) for number in range(1, 60)]
    world.relay.answers["GET /security/troubled"] = {
        "at": "x",
        "more": False,
        "troubled": [TROUBLE, {**TROUBLE, "domain": LONG}],
    }
    world.relay.answers["GET /security/report"] = report([partner(), partner(LONG), partner("quiet.example")])
    return world


@asynccontextmanager
async def visiting(world: World, chromium: Chromium, **options: Any) -> AsyncIterator[Page]:
    """A page whose requests the console answers within this process, signed in as admin."""
    browser: Browser = world.browser()
    assert (await browser.sign_in()).status_code == 303
    context = await chromium.new_context(reduced_motion="reduce", **options)
    page = await context.new_page()
    noise: list[str] = []
    page.on("console", lambda said: noise.append(said.text))

    async def answer(route: Route) -> None:
        asked = route.request
        path = asked.url.removeprefix(f"{ORIGIN}/console")
        if asked.method == "POST":
            found = await browser.post_raw(path, asked.post_data or "")
        else:
            found = await browser.get(path)
        await route.fulfill(status=found.status_code, headers=dict(found.headers), body=found.content)

    await page.route("**/*", answer)
    try:
        yield page
    finally:
        await context.close()
    assert [
        each for each in noise if "Failed to load resource" not in each
    ] == []  # of 404 and 400, which are asked for


@pytest.fixture
async def chromium() -> AsyncIterator[Chromium]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


async def _all(page: Page) -> AsyncIterator[str]:
    """Each page in turn, its details open; then those that a form leads to."""
    for path in PAGES:
        await page.goto(f"{ORIGIN}/console{path}")
        await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        yield path
    for path, button in (
        ("/queue", "text=Reroute d59.example"),
        (f"/queue/{TOLD}", 'button[value="bounce"]'),
        (f"/queue/{TOLD}", 'button[value="delete"]'),
        ("/connectors", "main form:has-text('Explain') button"),
        ("/connectors", "main button:has-text('Probe')"),
    ):
        await page.goto(f"{ORIGIN}/console{path}")
        await page.locator(button).first.click()
        await page.wait_for_load_state()
        await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        yield f"{path} {button}"


def _none(found: Mapping[str, Sequence[str]]) -> None:
    """Nothing was found on any page; else all of it is said."""
    assert len(found) >= len(PAGES)
    assert not any(found.values()), "\n".join(f"{path}: {each}" for path, several in found.items() for each in several)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast(chromium: Chromium, scheme: Any) -> None:
    async with visiting(told_world(), chromium, color_scheme=scheme) as page:
        _none({path: await too_weak(page) async for path in _all(page)})
        await page.context.clear_cookies()
        await page.goto(f"{ORIGIN}/console/sign-in")
        assert await too_weak(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_focus_can_be_told_from_what_is_around_it(chromium: Chromium, scheme: Any) -> None:
    async with visiting(told_world(), chromium, color_scheme=scheme) as page:
        await page.goto(f"{ORIGIN}/console/queue")
        colours = await page.evaluate(
            """() => {
              const style = getComputedStyle(document.documentElement), probe = document.body.appendChild(document.createElement('span'));
              const of = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color.match(/\\d+/g).map(Number); };
              const names = ['accent', 'ground', 'sheet', 'sunk', 'good-ground', 'warn-ground', 'bad-ground'];
              return Object.fromEntries(names.map((each) => [each, of(each)]));
            }"""
        )
        around = {name: _ratio(colours["accent"], colours[name]) for name in colours if name != "accent"}
        assert {name: ratio for name, ratio in around.items() if ratio < 3} == {}


def _ratio(one: list[int], other: list[int]) -> float:
    def light(colour: list[int]) -> float:
        r, g, b = ((v / 255) / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour[:3])
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    more, less = sorted((light(one), light(other)), reverse=True)
    return (more + 0.05) / (less + 0.05)


def test_the_measure_is_right() -> None:
    """Known values: black on white is 21, and #767676 on white is the lightest grey that passes."""
    assert round(_ratio([0, 0, 0], [255, 255, 255]), 2) == 21
    assert _ratio([118, 118, 118], [255, 255, 255]) >= 4.5 > _ratio([119, 119, 119], [255, 255, 255])


async def test_the_audits_find_what_is_wrong(chromium: Chromium) -> None:
    """So that an empty answer above means something."""
    page = await chromium.new_page()
    await page.set_content(
        "<body style='background:#fff'><main><h1>a</h1><h3>b</h3><p style='color:#777'>weak</p><button></button><img src='data:,'>"
        "<a href='#x'>go</a><a href='#y'>go</a><input id=i style='border:1px solid #ccc'>"
        "<span tabindex=0 style='outline:none'>x</span><label for=nothing>l</label></main>"
    )
    weak = " ".join(await too_weak(page))
    assert "p. weak: 4.48 < 4.5" in weak
    assert "edge of i" in weak
    said = await unsaid(page, framed=False)
    for words in (
        "a button has no name",
        "a image has no name",
        "a textbox has no name",
        "h3 after h1",
        "two things are called go",
        "for names nothing",
    ):
        assert any(words in each for each in said), (words, said)
    assert any("does not show at span" in each for each in await unreached(page))


@pytest.mark.parametrize("width", [1280, 375])
async def test_a_screen_reader_can_say_it_all_and_tab_leads_everywhere(chromium: Chromium, width: int) -> None:
    async with visiting(told_world(), chromium, viewport={"width": width, "height": 800}) as page:
        _none(
            {
                path: [*await unsaid(page), *await unreached(page), *await _too_wide(page, width)]
                async for path in _all(page)
            }
        )


async def test_no_name_is_too_long_for_a_page(chromium: Chromium) -> None:
    """Threat: a stranger whose domain pushes what matters out of sight."""
    async with visiting(told_world(), chromium, viewport={"width": 320, "height": 800}) as page:
        _none({path: await _too_wide(page, 320) async for path in _all(page)})


async def _too_wide(page: Page, width: int) -> Sequence[str]:
    """Whether the page, or on a wide screen one of its tables, must be scrolled sideways."""
    found: list[str] = await page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((el) => el.querySelector('table') && el.scrollWidth > el.clientWidth + 1)"
        ".map((el) => `wider than its place: ${el.innerText.slice(0, 60)}`)"
    )
    needed = await page.evaluate("document.documentElement.scrollWidth")
    return [*(found if width >= 1280 else ()), *([f"the page is {needed} wide"] if needed > width else ())]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_paper(chromium: Chromium, scheme: Any) -> None:
    """Black on white whatever the screen is, without what only a screen has, and with every word."""
    async with visiting(told_world(), chromium, color_scheme=scheme) as page:
        await page.emulate_media(media="print", color_scheme=scheme)
        for path in ("/report", "/certificates/sheet?name=relay.example.com"):
            await page.goto(f"{ORIGIN}/console{path}")
            assert await page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
            assert [await page.locator(each).first.is_visible() for each in ("nav", "footer")] == [False, False]
            assert (
                await page.locator("main form").count() == 0 or not await page.locator("main form").first.is_visible()
            )
        await page.set_viewport_size({"width": 703, "height": 1000})  # A4 within its margins
        await page.goto(f"{ORIGIN}/console/report")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 703
        assert await page.locator("text=Made 2026-11-27").is_visible()
        assert await page.locator(f"text={LONG}").first.is_visible()
        assert len(await page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_that_the_command_line_writes(chromium: Chromium, scheme: Any) -> None:
    """`relay security report --html`: one file, by the same measures."""
    context = await chromium.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.set_content(page_of(report([partner(LONG), *(partner(f"p{number}.example") for number in range(3))])))
    assert await too_weak(page) == []
    assert await unsaid(page, framed=False) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 1280
    await page.emulate_media(media="print", color_scheme=scheme)
    assert await page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    await context.close()


async def test_the_times_that_are_shown_are_of_the_relay(chromium: Chromium) -> None:
    async with visiting(told_world(), chromium, timezone_id="Pacific/Auckland") as page:
        await page.goto(f"{ORIGIN}/console/")
        assert await page.locator("footer time").inner_text() == NOW.strftime("%Y-%m-%d %H:%M:%SZ")
