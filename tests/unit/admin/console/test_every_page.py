"""What holds for each page: headers, strangers' words, and use without eyes or a mouse."""

import pytest

from relay.admin.console.guard import HEADERS
from relay.admin.endpoint import Unavailable
from tests.unit.admin.console.fake import Browser, World
from tests.unit.admin.console.reading import ID, PAGES, read


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


async def test_a_relay_that_cannot_answer_says_so(world: World, browser: Browser) -> None:
    world.relay.error = Unavailable("the queue cannot be read now: disk gone")
    answer = await browser.get("/queue")
    assert (answer.status_code, "disk gone" in answer.text) == (503, True)
