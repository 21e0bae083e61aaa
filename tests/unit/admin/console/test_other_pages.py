"""Traces, the configuration, certificates and the security report."""

import re
from typing import Any

import pytest

from relay.admin.reload import Reload
from tests.unit.admin.console.answers import CHANGE, OURS, partner, report, told_trace
from tests.unit.admin.console.fake import Browser, World
from tests.unit.admin.console.reading import ID, read

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
