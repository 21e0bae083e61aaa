"""Paths checked against a real web server with its own CA: in which order who is asked, what is kept, what is waited for."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from cryptography.x509 import ocsp

from relay.config.values import HostPort
from relay.dns.download import Downloader
from relay.mail.events import (
    CertificateRevokedSeen,
    CrlFetched,
    Event,
    RevocationFetchFailed,
    RevocationUnavailable,
    Unexpected,
)
from relay.mail.revocation import By, RevocationKept, State, Wanted
from relay.outbound.handshake import TlsClient
from relay.tls.revocation.answers import Answers, KeepsNothing, RevocationKeeper, RevocationSettings
from relay.tls.revocation.checks import Revocations
from relay.tls.revocation.crl import read_crl
from relay.tls.revocation.reach import needed_and_reachable
from relay.tls.trust import TrustStores
from tests.fakes import FakeResolver
from tests.revoking import (
    DAY,
    HOUR,
    NO_REV_AVAIL,
    NOW,
    CrlWish,
    Held,
    OcspWish,
    WebHost,
    Wish,
    answer,
    crl,
    http,
    make,
    root,
)

REVOKED, UNKNOWN = ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN


class MemoryKeeper(KeepsNothing):
    """A store that several processes share."""

    def __init__(self) -> None:
        self.kept: dict[str, RevocationKept] = {}
        self.postponed: list[str] = []

    async def load_revocation(self, key: str, after: datetime | None) -> RevocationKept | None:
        found = self.kept.get(key)
        return found if found is not None and (after is None or found.fetched > after) else None

    async def save_revocation(self, kept: RevocationKept) -> None:
        self.kept[kept.key] = kept

    async def due_revocations(self, now: datetime, _used: datetime, _limit: int) -> tuple[RevocationKept, ...]:
        return tuple(each for each in self.kept.values() if each.refresh <= now)

    async def postpone_revocation(self, key: str, _until: datetime) -> None:
        self.postponed.append(key)


class World:
    """A relay's checks with a clock of their own."""

    def __init__(self, host: WebHost, keeper: RevocationKeeper | None = None, **settings: Any) -> None:
        self.now = datetime.now(UTC)
        self.events: list[Event] = []
        tls = TlsClient(lambda _name: None, TrustStores(), lambda: self.now)
        self.fetch = Downloader(FakeResolver(), tls, lambda: [HostPort("127.0.0.1", host.port)])
        self.settings = RevocationSettings(**settings)
        self.answers = Answers(
            self.fetch,
            keeper or KeepsNothing(),
            clock=lambda: self.now,
            emit=self.events.append,
            settings=self.settings,
            chance=random.Random(1),
        )
        self.checks = Revocations(self.answers, clock=lambda: self.now, emit=self.events.append, settings=self.settings)

    async def said(self, leaf: Held, staple: bytes = b"") -> list[str]:
        statuses = await self.checks.check(leaf.path, staple)
        return [f"{each.state.value} {each.by.value}".strip() for each in statuses]

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(each, kind) for each in self.events)

    async def close(self) -> None:
        await self.checks.close()
        await self.answers.close()
        assert not self.count(Unexpected)


@pytest_asyncio.fixture
async def host() -> AsyncIterator[WebHost]:
    async with WebHost() as made:
        yield made


class Tree:
    """A root, an intermediate and a leaf, each naming what the web server has."""

    def __init__(self, host: WebHost, *, names: Sequence[str] = ("crl", "ocsp")) -> None:
        self.host = host
        self.root = root()
        urls = [host.url("/root.crl")]
        self.ca = make("ca", self.root, Wish(ca=True, crl=urls))
        self.leaf = make(
            "leaf",
            self.ca,
            Wish(
                names=["a.example"],
                crl=[host.url("/ca.crl")] if "crl" in names else [],
                ocsp=[host.url("/ocsp")] if "ocsp" in names else [],
            ),
        )
        self.serve("/root.crl", crl(self.root))
        self.serve("/ca.crl", crl(self.ca))
        self.serve("/ocsp", answer(self.leaf))

    def serve(self, path: str, body: bytes) -> None:
        self.host.replies[path] = http(body)


async def test_every_certificate_but_the_anchor_is_looked_at(host: WebHost) -> None:
    tree, world = Tree(host), World(host)
    assert await world.said(tree.leaf) == ["good ocsp", "good crl"]
    assert (host.asked("/ocsp"), host.asked("/root.crl"), host.asked("/ca.crl")) == (1, 1, 0)
    assert world.count(CrlFetched) == 1
    await world.close()


async def test_an_intermediate_that_is_revoked(host: WebHost) -> None:
    tree, world = Tree(host), World(host)
    tree.serve("/root.crl", crl(tree.root, CrlWish(revoked=[tree.ca.serial])))
    assert await world.said(tree.leaf) == ["good ocsp", "revoked crl"]
    (seen,) = [each for each in world.events if isinstance(each, CertificateRevokedSeen)]
    assert (seen.certificate, seen.reason) == ("CN=ca", "keyCompromise")
    await world.close()


async def test_a_staple_asks_nobody_and_a_resumed_session_finds_it(host: WebHost) -> None:
    tree, world = Tree(host), World(host)
    assert (await world.said(tree.leaf, answer(tree.leaf)))[0] == "good stapled"
    world.now += timedelta(minutes=2)
    assert (await world.said(tree.leaf))[0] == "good ocsp"
    assert host.asked("/ocsp") == host.asked("/ca.crl") == 0
    await world.close()


@pytest.mark.parametrize("wish", [OcspWish(forged=True), OcspWish(UNKNOWN)], ids=["forged", "unknown"])
async def test_a_staple_that_says_nothing(host: WebHost, wish: OcspWish) -> None:
    tree, world = Tree(host), World(host)
    assert (await world.said(tree.leaf, answer(tree.leaf, wish)))[0] == "good ocsp"
    await world.close()


async def test_a_staple_that_says_revoked(host: WebHost) -> None:
    tree, world = Tree(host), World(host)
    assert (await world.said(tree.leaf, answer(tree.leaf, OcspWish(REVOKED))))[0] == "revoked stapled"
    await world.close()


async def test_a_crl_at_hand_that_says_revoked_beats_a_staple(host: WebHost) -> None:
    """Threat: the thief of a key staples an answer of last week."""
    tree, world = Tree(host, names=["crl"]), World(host)
    tree.serve("/ca.crl", crl(tree.ca, CrlWish(revoked=[tree.leaf.serial])))
    assert (await world.said(tree.leaf))[0] == "revoked crl"
    world.now += timedelta(minutes=2)
    assert (await world.said(tree.leaf, answer(tree.leaf)))[0] == "revoked crl"
    await world.close()


@pytest.mark.parametrize(
    "reply",
    [
        http(b"", status="500 Oh"),
        http(b"<html>"),
        http(b"", status="301 Moved", fields="Location: /ca.crl\r\n"),
    ],
    ids=["500", "html", "redirect"],
)
async def test_where_the_responder_fails_the_crl_counts(host: WebHost, reply: bytes) -> None:
    tree, world = Tree(host), World(host)
    host.replies["/ocsp"] = reply
    assert (await world.said(tree.leaf))[0] == "good crl"
    assert world.count(RevocationFetchFailed) == 1
    await world.close()


async def test_a_responder_that_does_not_know_is_not_good(host: WebHost) -> None:
    tree, world = Tree(host, names=["ocsp"]), World(host)
    tree.serve("/ocsp", answer(tree.leaf, OcspWish(UNKNOWN)))
    assert (await world.said(tree.leaf))[0] == "unknown"
    await world.close()


async def test_nothing_that_can_be_had_is_unknown_and_says_why(host: WebHost) -> None:
    tree, world = Tree(host), World(host)
    host.replies.clear()
    found = (await world.checks.check(tree.leaf.path))[0]
    assert found.state is State.UNKNOWN
    assert f"{host.url('/ocsp')}: the answer is 404, not 200; {host.url('/ca.crl')}" in found.why
    assert world.count(RevocationUnavailable) == 2
    await world.close()


async def test_a_certificate_that_names_nothing(host: WebHost) -> None:
    tree, world = Tree(host, names=[]), World(host)
    found = (await world.checks.check(tree.leaf.path))[0]
    assert (found.state, found.why) == (State.UNKNOWN, "it names neither a CRL nor an OCSP responder")
    await world.close()


async def test_many_at_once_are_one_fetch(host: WebHost) -> None:
    tree, world = Tree(host, names=["crl"]), World(host)
    other = make("other", tree.ca, Wish(crl=[host.url("/ca.crl")]))
    found = await asyncio.gather(*(world.said(each) for each in (tree.leaf, other) for _ in range(20)))
    assert all(each == ["good crl", "good crl"] for each in found)
    assert (host.asked("/ca.crl"), host.asked("/root.crl")) == (1, 1)
    await world.close()


async def test_nobody_waits_for_long_and_the_fetch_goes_on(host: WebHost) -> None:
    tree, world = Tree(host, names=["crl"]), World(host, wait=0.1)
    host.gate.clear()
    found = await world.checks.check(tree.leaf.path)
    assert [each.state for each in found] == [State.UNKNOWN] * 2
    assert "the fetch goes on" in found[0].why
    host.gate.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*world.answers._fetches.values())
    assert world.count(CrlFetched) == 2
    world.now += timedelta(seconds=11)
    assert await world.said(tree.leaf) == ["good crl", "good crl"]
    assert host.asked("/ca.crl") == 1
    await world.close()


async def test_a_silent_responder_leaves_time_for_the_crl(host: WebHost) -> None:
    tree, world = Tree(host), World(host, wait=2.0)

    async def silent(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    host.replies["/ocsp"] = silent
    assert (await world.said(tree.leaf))[0] == "good crl"
    await world.close()


async def test_what_failed_is_not_asked_again_at_once(host: WebHost) -> None:
    tree, world = Tree(host, names=["crl"]), World(host)
    reply = host.replies.pop("/ca.crl")
    assert (await world.said(tree.leaf))[0] == "unknown"
    world.now += timedelta(seconds=11)  # what was found out is looked at again, the address is not
    assert (await world.said(tree.leaf))[0] == "unknown"
    assert host.asked("/ca.crl") == 1
    host.replies["/ca.crl"] = reply
    world.now += timedelta(seconds=20)
    assert (await world.said(tree.leaf))[0] == "good crl"
    await world.close()


async def test_an_answer_is_used_until_it_ends(host: WebHost) -> None:
    tree, world = Tree(host, names=["crl"]), World(host)
    assert await world.said(tree.leaf) == ["good crl", "good crl"]
    host.replies.clear()
    world.now = NOW + 7 * DAY - HOUR
    assert await world.said(tree.leaf) == ["good crl", "good crl"]
    world.now = NOW + 7 * DAY + HOUR
    assert await world.said(tree.leaf) == ["unknown", "unknown"]
    await world.close()


async def test_what_the_store_has_is_not_fetched_by_another_process(host: WebHost) -> None:
    tree, keeper = Tree(host), MemoryKeeper()
    first, second = World(host, keeper), World(host, keeper)
    assert await first.said(tree.leaf) == ["good ocsp", "good crl"]
    await first.answers.settle()
    assert await second.said(tree.leaf) == ["good ocsp", "good crl"]
    assert (host.asked("/ocsp"), host.asked("/root.crl")) == (1, 1)
    await first.close()
    await second.close()


async def test_what_the_store_has_is_judged_again(host: WebHost) -> None:
    """Threat: somebody writes into the queue's file."""
    tree, keeper = Tree(host, names=["crl"]), MemoryKeeper()
    first = World(host, keeper)
    await first.said(tree.leaf)
    await first.close()
    forged = crl(tree.ca, CrlWish(signer=make("else")))
    keeper.kept = {key: replace(each, data=forged) for key, each in keeper.kept.items()}
    second = World(host, keeper)
    assert await second.said(tree.leaf) == ["good crl", "good crl"]
    assert host.asked("/ca.crl") == 2
    await second.close()


async def test_refreshed_before_it_ends_and_others_see_it(host: WebHost) -> None:
    tree, keeper = Tree(host, names=["crl"]), MemoryKeeper()
    leader, other = World(host, keeper), World(host, keeper)
    for each in (leader, other):
        assert (await each.said(tree.leaf))[0] == "good crl"
        await each.answers.settle()
    newer = CrlWish(revoked=[tree.leaf.serial], this_update=NOW + 5 * DAY, next_update=NOW + 12 * DAY)
    tree.serve("/ca.crl", crl(tree.ca, newer))
    tree.serve("/root.crl", crl(tree.root, CrlWish(this_update=NOW + 5 * DAY, next_update=NOW + 12 * DAY)))
    leader.now = other.now = NOW + 6 * DAY
    await leader.answers.look()
    await leader.answers.settle()
    assert (await leader.said(tree.leaf))[0] == "revoked crl"
    assert (await other.said(tree.leaf))[0] == "revoked crl"
    assert host.asked("/ca.crl") == 2
    await leader.close()
    await other.close()


async def test_a_refresh_that_fails_takes_nothing_away(host: WebHost) -> None:
    tree, keeper = Tree(host, names=["crl"]), MemoryKeeper()
    world = World(host, keeper)
    await world.said(tree.leaf)
    await world.answers.settle()
    older = CrlWish(this_update=NOW - 3 * DAY, next_update=NOW + 20 * DAY)
    tree.serve("/ca.crl", crl(tree.ca, older))  # somebody shows an old one again
    host.replies["/root.crl"] = http(b"", status="503 Later")
    world.now = NOW + 6 * DAY
    await world.answers.look()
    await world.answers.settle()
    found = await world.checks.check(tree.leaf.path)
    assert [(each.state, each.this_update) for each in found] == [(State.GOOD, NOW - HOUR)] * 2
    (failed,) = [each for each in world.events if isinstance(each, RevocationFetchFailed)]
    assert failed.held == NOW + 7 * DAY
    assert len(keeper.postponed) == 1
    await world.close()


async def test_a_large_crl_is_read_beside_the_loop(host: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, world = Tree(host, names=["crl"]), World(host)
    tree.serve("/ca.crl", crl(tree.ca, CrlWish(revoked=range(2**100, 2**100 + 5_000), reason=None)))
    threads: dict[int, int] = {}

    def read(data: bytes, issuer: Any) -> Any:
        threads[len(data)] = threading.get_ident()
        return read_crl(data, issuer)

    monkeypatch.setattr("relay.tls.revocation.answers.read_crl", read)
    assert await world.said(tree.leaf) == ["good crl", "good crl"]
    small, large = (threads[size] for size in sorted(threads))
    assert small == threading.get_ident() != large
    await world.close()


async def test_memory_is_bounded(host: WebHost) -> None:
    world = World(host, memory=20_000)
    ca = root()
    for number in range(40):
        leaf = make(f"leaf {number}", ca, Wish(crl=[host.url(f"/{number}.crl")]))
        host.replies[f"/{number}.crl"] = http(crl(ca))
        assert await world.said(leaf) == ["good crl"]
    assert world.answers._memory.weight <= 20_000
    assert len(world.answers._memory) < 20
    await world.close()


async def test_reachable_says_each_address(host: WebHost) -> None:
    tree, world = Tree(host), World(host)
    host.replies["/ocsp"] = http(b"", status="503 Later")
    leaf, ca = await needed_and_reachable(tree.leaf.path, world.fetch, lambda: world.now)
    assert [(each.kind.value, bool(each.trouble)) for each in leaf.addresses] == [("ocsp", True), ("crl", False)]
    assert (leaf.verdict.state, leaf.is_fine, ca.is_fine) == (State.GOOD, False, True)
    assert "503" in leaf.addresses[0].trouble
    assert leaf.addresses[0].remedy
    tree.serve("/ocsp", answer(tree.leaf, OcspWish(REVOKED)))
    leaf, _ca = await needed_and_reachable(tree.leaf.path, world.fetch, lambda: world.now, answer(tree.leaf))
    assert (leaf.verdict.state, leaf.verdict.by) == (State.REVOKED, By.OCSP)
    await world.close()


async def test_a_fetcher_with_a_bug_is_told_and_passes_nothing() -> None:
    async def broken(_wanted: Wanted) -> bytes:
        raise ZeroDivisionError("bug")

    async with WebHost() as host:
        tree = Tree(host, names=["crl"])
    events: list[Event] = []
    answers = Answers(broken, KeepsNothing(), clock=lambda: NOW, emit=events.append)
    checks = Revocations(answers, clock=lambda: NOW, emit=events.append)
    with pytest.raises(ZeroDivisionError):
        await checks.check(tree.leaf.path)
    assert any(isinstance(each, Unexpected) for each in events)
    await checks.close()
    await answers.close()


async def said_again(world: World, leaf: Held) -> list[str]:
    """Of a connection that is kept."""
    before = await world.checks.check(leaf.path)
    world.now += timedelta(minutes=2)
    return [f"{each.state.value} {each.by.value}".strip() for each in await world.checks.again(leaf.path, before)]


async def test_what_is_known_by_now_is_looked_up_without_asking(host: WebHost) -> None:
    tree, keeper = Tree(host, names=["crl"]), MemoryKeeper()
    world, other = World(host, keeper), World(host, keeper)
    before = await world.checks.check(tree.leaf.path)
    requests = len(host.requests)
    assert await world.checks.again(tree.leaf.path, before) == before, "of a minute ago"
    world.now += timedelta(minutes=2)
    assert await world.checks.again(tree.leaf.path, before) == before, "by the very answers"
    # The first worker has fetched it anew, in time; this one finds that in the store.
    tree.serve("/ca.crl", crl(tree.ca, CrlWish(revoked=[tree.leaf.serial], this_update=NOW)))
    other.now = world.now = world.now + timedelta(days=6)
    await other.answers.look()
    await other.answers.settle()
    requests = len(host.requests)
    found = await world.checks.again(tree.leaf.path, before)
    assert [each.state for each in found] == [State.REVOKED, State.GOOD]
    assert len(host.requests) == requests
    assert world.count(CertificateRevokedSeen) == 1
    assert (await world.checks.again(tree.leaf.path, before))[0].state is State.REVOKED
    assert world.count(CertificateRevokedSeen) == 1, "once a minute"
    await world.close()
    await other.close()


async def test_what_one_connection_hears_the_others_to_that_host_hear_too(host: WebHost) -> None:
    """Nothing is at hand about the intermediate by now, and the leaf is revoked."""
    tree, keeper = Tree(host, names=["crl"]), MemoryKeeper()
    first, world, other = World(host), World(host, keeper), World(host, keeper)
    before = await first.checks.check(tree.leaf.path)
    assert {each.state for each in before} == {State.GOOD}
    del host.replies["/root.crl"]
    tree.serve("/ca.crl", crl(tree.ca, CrlWish(revoked=[tree.leaf.serial], this_update=NOW)))
    await other.checks.check(tree.leaf.path)
    for _connection in range(2):
        assert (await world.checks.again(tree.leaf.path, before))[0].state is State.REVOKED
    for each in (first, world, other):
        await each.close()


async def test_where_nothing_is_at_hand_it_stays_as_it_was_and_new_connections_ask(host: WebHost) -> None:
    tree, world = Tree(host, names=["crl"]), World(host)
    held, host.replies = host.replies, {}
    assert await said_again(world, tree.leaf) == ["unknown", "unknown"]
    host.replies = held
    world.now += timedelta(minutes=11)
    assert (await world.said(tree.leaf))[0] == "good crl", "looking again has kept nothing"
    await world.close()


async def test_an_exempt_certificate_stays_so(host: WebHost) -> None:
    world, anchor = World(host), root()
    leaf = make("leaf", anchor, Wish(extensions=[(NO_REV_AVAIL, False)]))
    assert await said_again(world, leaf) == ["good"]
    await world.close()
