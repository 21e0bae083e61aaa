"""What real sessions add up to: the security report and suggested connectors of relays that sent each other mail."""

import asyncio
import csv
import io
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.admin.security import (
    OverviewShape,
    PartnersQuery,
    PartnersShape,
    SecurityReport,
    SharesShape,
    Span,
    SuggestionsShape,
    SuggestQuery,
    TroubledShape,
)
from relay.app.evidence import Evidence
from relay.mail.tally import Way
from relay.report.security.page import page_of
from relay.report.security.table import csv_of
from relay.report.security.text import text_lines
from relay.testing import RelayPair, Sink, relay_pair
from tests.e2e.process import RelayProcess
from tests.e2e.test_serve import run
from tests.e2e.test_workers import config, taken_by_all

pytestmark = pytest.mark.timeout(120)

HOUR = timedelta(hours=1)


def lately() -> Span:
    return Span(datetime.now(UTC) - HOUR)


@asynccontextmanager
async def mailed(count: int = 5, **options: Any) -> AsyncIterator[RelayPair]:
    async with relay_pair(**options) as pair:
        for _ in range(count):
            await pair.send()
        await pair.received(count)
        yield pair


async def partners(evidence: Evidence, count: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Once all messages each way are counted: the last outcome may be on its way into the store when its message has arrived."""
    async with asyncio.timeout(20):
        while True:
            found = await evidence.partners(PartnersQuery(lately()))
            rows = {(each["domain"], each["direction"]): each for each in found["partners"]}
            if len(rows) == 2 and all(each["messages"] >= count for each in rows.values()):
                return rows
            await asyncio.sleep(0.05)


async def test_what_two_relays_had() -> None:
    async with mailed() as pair:
        a, b = pair.a.operator.evidence, pair.b.operator.evidence
        sent = (await partners(a, 5))["b.test", "out"]
        taken = (await partners(b, 5))["a.test", "in"]
        assert (sent["messages"], sent["clear"], sent["versions"]) == (5, 0, {"TLSv1.3": 5})
        assert (sent["verified"], sent["asked"], sent["connectors"]) == ({"pkix+name": 5}, {"domain": 5}, ["to-b"])
        assert (taken["messages"], taken["verified"], taken["connectors"]) == (5, {"client-certificate": 5}, ["from-a"])
        shares = await b.shares(lately(), Way.OUT)
        assert shares["version"] == [{"name": "none", "messages": 5, "share": 1.0}]
        overview = await a.overview(lately(), "hour")
        OverviewShape.model_validate(overview)
        SharesShape.model_validate(shares)
        PartnersShape.model_validate(await a.partners(PartnersQuery(lately())))
        assert overview["totals"] == {"accepted": 5, "delivered": 5, "deferred": 0, "bounced": 0, "refused": 0}
        assert sum(each["delivered"] for each in overview["points"]) == 5


async def test_a_report_in_every_form() -> None:
    async with mailed() as pair:
        evidence = pair.b.operator.evidence
        await partners(evidence, 5)
        with pytest.raises(Exception, match="relaying denied"):
            await pair.send("x@nowhere.example", sender="eve@b.test", via="b")
        report = await evidence.security_report(lately(), "")
        SecurityReport.model_validate(report)
        assert report["totals"]["in"] == {"messages": 5, "clear": 0, "tls": 5}
        assert report["totals"]["refused"] == 1
        (refused,) = report["refusals"]
        assert (refused["what"], refused["command"], refused["code"], refused["status"]) == (
            "command",
            "RCPT",
            550,
            "5.7.1",
        )
        (clear,) = report["clear"]
        assert (clear["domain"], clear["messages"]) == ("b.test", 5)
        assert "connector inner asks for TLS where it is offered only" in clear["why"]
        rows = list(csv.reader(io.StringIO(csv_of(report))))
        assert ["a.test", "in", "from-a", "5", "5", "0"] in [row[:6] for row in rows]
        page = page_of(report)
        assert "Security report of b.test" in page
        assert all(each not in page for each in ("<script", "http:", "https:", "url("))
        assert any("a.test (in): 5 messages, 0 in clear" in line for line in text_lines(report))


async def first_trouble(evidence: Evidence) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            answered = await evidence.troubled()
            TroubledShape.model_validate(answered)
            found = answered["troubled"]
            if found:
                return dict(found[0])
            await asyncio.sleep(0.05)


async def test_mail_that_cannot_be_sent_safely_is_trouble() -> None:
    async with relay_pair(outbound={"names": ["other.test"]}) as pair:
        await pair.send()
        trouble = await first_trouble(pair.a.operator.evidence)
        assert (trouble["domain"], trouble["connector"], trouble["failure"]) == (
            "b.test",
            "to-b",
            "certificate-host-mismatch",
        )
        assert (trouble["reason"], trouble["recipients"]) == ("tls", 1)
        assert "add it to `names` of connector to-b" in trouble["remedy"]


def suggested(found: dict[str, Any], domain: str, way: str) -> dict[str, Any]:
    (one,) = [each for each in found["suggestions"] if (each["domain"], each["direction"]) == (domain, way)]
    return dict(one)


@pytest.mark.parametrize(
    ("trusted", "level", "names"), [(True, "domain", ["b.test"]), (False, "encryption", [])], ids=["trusted", "unknown"]
)
async def test_a_level_that_was_had_all_the_time_is_suggested(
    tmp_path: Path, trusted: bool, level: str, names: list[str]
) -> None:
    """An opportunistic connector to a host that always had TLS. By which trust is judged now, from the chain's bytes."""
    outbound = {"tls": "opportunistic", "names": None, "ca": None}
    ca = {"trust": str(tmp_path / "pki" / "ca.pem")} if trusted else {}
    async with mailed(outbound=outbound, a=ca, folder=tmp_path) as pair:
        evidence = pair.a.operator.evidence
        await partners(evidence, 5)
        found = await evidence.suggest(SuggestQuery(30, 5))
        SuggestionsShape.model_validate(found)
        one = suggested(found, "b.test", "out")
        assert (one["how"], one["connector"], one["now"], one["suggested"]) == ("edit", "to-b", "opportunistic", level)
        assert one["certificates"][0]["trusted"] is trusted
        few = suggested(await evidence.suggest(SuggestQuery(30, 6)), "b.test", "out")
        assert (few["how"], few["why"]) == ("none", "5 messages are too few to tell from (at least 6)")
        assert one["names"] == names


async def answer(file: Path) -> dict[str, Any]:
    code, out, err = await run("security", "report", "--config", str(file), "--since", "2h", "--json")
    assert code == 0, err
    return dict(json.loads(out))


def rows(folder: Path) -> tuple[int, int]:
    """Messages that came in, and attempts of one recipient each, in the store."""
    with closing(sqlite3.connect(folder / "queue.db")) as db:
        messages = "SELECT count(*) FROM message WHERE json_extract(about, '$.accepted.protocol') <> 'local'"
        return db.execute(messages).fetchone()[0], db.execute("SELECT count(*) FROM attempt").fetchone()[0]


async def test_what_is_counted_is_what_happened_whoever_is_killed(tmp_path: Path) -> None:
    """Two workers, now one of them, now all killed with -9 in the midst of mail and of counting."""
    async with Sink() as sink:
        file = config(tmp_path, sink)
        async with RelayProcess(file) as relay:
            await relay.all_listen(2)
            for death in range(4):
                await taken_by_all(relay)
                counting = asyncio.create_task(answer(file))
                await taken_by_all(relay)
                await counting
                if death % 2:
                    await relay.kill()
                    await relay.start()
                    await relay.all_listen(2)
                else:
                    seen = len(relay.lines)
                    os.kill(relay.workers[death // 2], signal.SIGKILL)
                    await relay.line(lambda line: line.get("event") == "worker-ended", after=seen)
                    await relay.line(lambda line: line.get("event") == "listener-ready", after=seen)
            async with asyncio.timeout(60):
                while True:
                    found, (messages, attempts) = await answer(file), rows(tmp_path)
                    total = found["totals"]
                    tried = total["out"]["messages"] + total["out"]["deferred"] + total["out"]["bounced"]
                    if (total["in"]["messages"], tried) == (messages, attempts) and attempts >= messages:
                        break
                    assert total["in"]["messages"] <= messages
                    await asyncio.sleep(0.2)
            assert messages > 16
