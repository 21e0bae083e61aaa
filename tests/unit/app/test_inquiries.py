"""What the admin API asks before any mail is sent: how many may ask at once, how long it may last, what is said where it cannot be."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.admin.asking import Message
from relay.admin.endpoint import BadQuestionError, NotFoundError, Unavailable
from relay.app import inquiries
from relay.app.inquiries import Inquiries, Sources
from relay.outbound.handshake import TlsClient
from relay.outbound.probe import Means
from relay.outbound.publications import NothingPublished
from relay.policy.book import RuleBook
from relay.policy.route import MxAnswer, NoDomain
from relay.tls.trust import TrustStores
from tests.fakes import FakeResolver
from tests.unit.outbound.builders import utc
from tests.unit.policy.builders import book

OUT = {
    "name": "partner",
    "direction": "outbound",
    "match": {"recipient_domains": ["partner.test"]},
    "tls": "encryption",
}
IN = {
    "name": "from-partner",
    "direction": "inbound",
    "match": {"sender_domains": ["partner.test"]},
    "require": {"tls": True},
}


class SlowDns(FakeResolver):
    """Answers once the test says so; `begun` counts the questions that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.begun = asyncio.Event(), asyncio.Semaphore(0)

    async def mx(self, domain: str) -> MxAnswer:
        self.begun.release()
        await self.go.wait()
        return NoDomain()


class Store:
    async def ask(self, _question: object) -> Any:
        from relay.queue.live import Live

        return Live({}, {}, {"from-partner": {"at": "2026-11-25T08:00:00.000Z", "hop": None, "evidence": None}})


def made(resolver: FakeResolver, rules: RuleBook) -> Inquiries:
    means = Means(rules, resolver, TlsClient(lambda _name: None, TrustStores(), utc), NothingPublished(), utc)

    async def render() -> bytes:
        return b""

    nobody_asks: Any = None
    store: Any = Store()
    return Inquiries(Sources(Path("x"), lambda: rules, lambda: means, nobody_asks, store, render, utc))


Ask = Callable[[Inquiries], Awaitable[object]]
EXPLAIN: Ask = lambda it: it.explain(Message("bob@partner.test", None, None, None, None))  # noqa: E731
PROBE: Ask = lambda it: it.probe("partner.test", "")  # noqa: E731
VALIDATE: Ask = lambda it: it.validate("partner", "")  # noqa: E731


@pytest.mark.parametrize(
    ("many", "asks", "one_more", "said"),
    [
        (8, [EXPLAIN], EXPLAIN, "8 questions are being looked up"),
        (4, [PROBE], PROBE, "4 probes or validations are under way"),
        (4, [PROBE, VALIDATE], VALIDATE, "4 probes or validations are under way"),
    ],
)
async def test_only_so_many_at_once(many: int, asks: list[Ask], one_more: Ask, said: str) -> None:
    resolver = SlowDns()
    it = made(resolver, book(connectors=[OUT]))
    running = [asyncio.ensure_future(asks[number % len(asks)](it)) for number in range(many)]
    async with asyncio.timeout(20):
        for _each in running:
            await resolver.begun.acquire()
        with pytest.raises(Unavailable, match=said):
            await one_more(it)
        # Explanations do not take the room of probes, nor the other way round.
        other = asyncio.ensure_future((PROBE if one_more is EXPLAIN else EXPLAIN)(it))
        await resolver.begun.acquire()
        resolver.go.set()
        await asyncio.gather(*running, other)
        assert await one_more(it)  # and there is room again


@pytest.mark.parametrize("ask", [EXPLAIN, PROBE, VALIDATE])
async def test_it_does_not_last_for_ever(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "_PATIENCE", 0.01)
    it = made(SlowDns(), book(connectors=[OUT]))
    with pytest.raises(Unavailable, match="did not answer within"):
        await ask(it)


async def test_one_that_is_given_up_leaves_its_room() -> None:
    resolver = SlowDns()
    it = made(resolver, book(connectors=[OUT]))
    running = [asyncio.ensure_future(VALIDATE(it)) for _number in range(4)]
    async with asyncio.timeout(20):
        for _each in running:
            await resolver.begun.acquire()
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        resolver.go.set()
        assert await VALIDATE(it)


async def test_validation_step_by_step() -> None:
    it = made(FakeResolver(), book(connectors=[OUT, IN]))
    found: Any = await it.validate("partner", "")
    assert (found["connector"], found["direction"], found["passes"]) == ("partner", "outbound", False)
    assert [(each["step"], each["result"]) for each in found["steps"]][-1] == ("hosts", "failed")
    found = await it.validate("from-partner", "")
    last = found["steps"][-1]
    assert (last["step"], last["result"], last["text"]) == ("last-seen", "ok", "2026-11-25T08:00:00Z: in clear")


@pytest.mark.parametrize(
    ("name", "domain", "error", "said"),
    [
        ("nobody", "", NotFoundError, "there are: from-partner, partner"),
        ("partner", "other.test", BadQuestionError, "domain: other.test is governed by default, not by partner"),
        ("partner", "a b", BadQuestionError, "domain: "),
        ("from-partner", "partner.test", BadQuestionError, "domain: from-partner is inbound"),
    ],
)
async def test_what_cannot_be_validated(name: str, domain: str, error: type[Exception], said: str) -> None:
    it = made(FakeResolver(), book(connectors=[OUT, IN]))
    with pytest.raises(error, match=said):
        await it.validate(name, domain)
