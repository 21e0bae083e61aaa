"""Deliveries on their way along the hops: who is next, who is grouped with whom, what is recorded."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from relay.config.values import HostPort
from relay.mail.address import parse_mailbox
from relay.mail.envelope import Notify, Recipient, Ret
from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.outbound.deliver import OutboundSettings
from relay.outbound.ourselves import Ourselves
from relay.policy.route import LOOPS, NULL_MX, LookupFailed, MxAnswer
from relay.policy.tlsrpt import judge_session
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, Handshake, HostileServer, Pki, Step, Then
from tests.unit.outbound.builders import HEADER, HOST, IMPATIENT, PATIENT, TEXT, World, results, smart_host, world
from tests.unit.outbound.test_levels import NEXT_YEAR
from tests.unit.policy.builders import book

LATER, WHO = b"450 4.2.0 later\r\n", b"550 5.1.1 who\r\n"


def kinds(found: dict[int, Any]) -> list[type]:
    return [type(found[index]) for index in sorted(found)]


@pytest.mark.parametrize(
    "first",
    [
        Behaviour({Step.GREETING: LATER}),
        Behaviour({Step.GREETING: b"554 5.3.2 no\r\n"}),
        Behaviour({Step.GREETING: Then.CLOSE}),
        Behaviour({Step.GREETING: Then.SILENCE}),
        Behaviour({Step.EHLO: LATER}),
        Behaviour({Step.MAIL: LATER}),
        Behaviour({Step.RCPT: LATER}),
        Behaviour({Step.DATA: LATER}),
        Behaviour({Step.FINAL: LATER}),
        Behaviour({Step.FINAL: Then.CLOSE}),
    ],
    ids=lambda behaviour: str(dict(behaviour.reactions)),
)
async def test_the_next_hop_is_asked(first: Behaviour) -> None:
    settings = IMPATIENT if Then.SILENCE in first.reactions.values() else OutboundSettings()
    async with (
        HostileServer(first) as one,
        HostileServer() as two,
        world(one.port, two.port, settings=settings) as mail,
    ):
        attempts = await mail.deliver("bob@b.example")
        assert [each.hop for each in attempts] == [f"{HOST}:{one.port}", f"{HOST}:{two.port}"]
        assert [type(each.outcomes[0][1]) for each in attempts] == [Deferred, Delivered]
        assert {(each.address, each.connector, each.message) for each in attempts} == {
            ("127.0.0.1", "c", "MESSAGE0000000000001")
        }


async def test_a_hop_that_fails_the_plan_is_passed_over(pki: Pki) -> None:
    async with (
        HostileServer(Behaviour()) as clear,
        HostileServer(Behaviour(tls=pki.wrong_ca)) as wrong,
        HostileServer(Behaviour(tls=pki.good)) as good,
        world(clear.port, wrong.port, good.port, tls="domain", ca=str(pki.ca)) as mail,
    ):
        attempts = await mail.deliver("bob@b.example")
        assert [each.outcomes[0][1].status for each in attempts] == ["4.7.4", "4.7.5", "2.0.0"]
        assert [each.evidence is None for each in attempts] == [True, False, False]
        assert not mail.events, "it did not wait, so nobody is warned"


async def test_5xx_is_the_end() -> None:
    async with (
        HostileServer(Behaviour({Step.RCPT: WHO})) as one,
        HostileServer() as two,
        world(one.port, two.port) as mail,
    ):
        assert isinstance(await mail.outcome("bob@b.example"), Bounced)
        assert not two.sessions


async def test_only_who_was_deferred_goes_on() -> None:
    first = Behaviour(recipients={"later": LATER, "who": WHO})
    async with HostileServer(first) as one, HostileServer() as two, world(one.port, two.port) as mail:
        attempts = await mail.deliver("bob@b.example", "later@b.example", "who@b.example")
        assert [[index for index, _ in each.outcomes] for each in attempts] == [[0, 1, 2], [1]]
        assert kinds(results(attempts)) == [Delivered, Delivered, Bounced]
        assert b"bob@" not in two.clear


async def test_how_many_addresses_and_refusals() -> None:
    async with HostileServer() as gone:
        dead = gone.port
    tries = OutboundSettings(timeouts=PATIENT, addresses=3)
    mail = World(
        book(connectors=[smart_host(dead)]),
        FakeResolver(hosts={HOST: [f"127.0.0.{each}" for each in range(1, 9)]}),
        settings=tries,
    )
    attempts = await mail.deliver("bob@b.example")
    assert len(attempts) == 3
    assert len({each.address for each in attempts}) == 3
    async with HostileServer(Behaviour({Step.RCPT: LATER})) as server:
        patient = OutboundSettings(timeouts=PATIENT, refusals=2)
        async with world(*[server.port] * 4, settings=patient) as again:
            assert len(await again.deliver("bob@b.example")) == 2


async def test_recipients_in_transactions_of_a_hundred() -> None:
    async with HostileServer() as server, world(server.port) as mail:
        attempts = await mail.deliver(*(f"r{each}@b.example" for each in range(250)))
        assert len(attempts) == 1
        assert kinds(results(attempts)) == [Delivered] * 250
        assert [len(taken.recipients) for taken in server.taken] == [100, 100, 50]
        assert len(server.sessions) == 1


async def test_too_many_recipients_go_into_the_next_transaction() -> None:
    ok, many = b"250 2.1.5 ok\r\n", b"452 4.5.3 too many\r\n"
    behaviour = Behaviour({Step.RCPT: (ok, ok, many, many, ok)})
    async with HostileServer(behaviour) as server, world(server.port) as mail:
        attempts = await mail.deliver(*(f"r{each}@b.example" for each in range(4)))
        assert kinds(results(attempts)) == [Delivered] * 4
        assert [len(taken.recipients) for taken in server.taken] == [2, 2]


async def test_a_sender_that_is_refused_is_asked_about_once() -> None:
    async with HostileServer(Behaviour({Step.MAIL: WHO})) as server, world(server.port) as mail:
        attempts = await mail.deliver(*(f"r{each}@b.example" for each in range(250)))
        assert kinds(results(attempts)) == [Bounced] * 250
        assert server.clear.count(b"MAIL") == 1


async def test_a_connection_that_ends_between_transactions_defers_the_rest() -> None:
    behaviour = Behaviour({Step.FINAL: b"250 2.0.0 ok\r\n421 4.3.2 bye\r\n"})
    async with HostileServer(behaviour) as server, world(server.port) as mail:
        found = results(await mail.deliver(*(f"r{each}@b.example" for each in range(120))))
        assert kinds(found) == [Delivered] * 100 + [Deferred] * 20
        assert found[119].status == "4.4.2"


async def test_an_exception_covers_its_domain_only() -> None:
    """Two domains, one smart host, one connector: one may go in clear and the other may not."""
    exceptions = [{"recipient_domain": "old.example", "allow": "plaintext", "until": NEXT_YEAR, "reason": "x"}]
    async with HostileServer() as server, world(server.port, tls="encryption", exceptions=exceptions) as mail:
        attempts = await mail.deliver("a@new.example", "b@old.example", "c@new.example", "d@old.example")
        assert kinds(results(attempts)) == [Deferred, Delivered, Deferred, Delivered]
        assert len(server.taken) == 1
        assert b"new.example" not in server.clear


async def test_equal_plans_share_a_transaction() -> None:
    async with HostileServer() as server, world(server.port) as mail:
        attempts = await mail.deliver("a@one.example", "b@two.example")
        assert kinds(results(attempts)) == [Delivered, Delivered]
        assert len(server.taken) == 1


def by_mx(port: int, resolver: FakeResolver, **keys: Any) -> World:
    connector = {
        "name": "c",
        "direction": "outbound",
        "match": {"recipient_domains": ["*"]},
        "route": {"private": "allow"},
    }
    rules = book(connectors=[connector | keys])
    return World(rules, resolver, settings=OutboundSettings(timeouts=PATIENT, port=port))


async def test_by_mx_in_order_of_preference() -> None:
    resolver = FakeResolver(
        mx_records={"b.example": [(20, "two.example"), (10, "one.example"), (5, "none.example")]},
        hosts={"one.example": ["127.0.0.1"], "two.example": ["127.0.0.2"]},
    )
    async with (
        HostileServer(Behaviour({Step.MAIL: LATER})) as one,
        HostileServer(host="127.0.0.2", port=one.port) as two,
        by_mx(one.port, resolver) as mail,
    ):
        attempts = await mail.deliver("bob@b.example")
        assert [(each.hop, each.address) for each in attempts] == [
            (f"none.example:{one.port}", ""),
            (f"one.example:{one.port}", "127.0.0.1"),
            (f"two.example:{one.port}", "127.0.0.2"),
        ]
        assert [type(each.outcomes[0][1]) for each in attempts] == [Deferred, Deferred, Delivered]
        assert len(two.taken) == 1


class Forged(FakeResolver):
    """Somebody meddles with the MX records."""

    async def mx(self, _domain: str) -> MxAnswer:
        return LookupFailed("its DNSSEC signatures do not verify", bogus=True)


async def test_mx_records_that_do_not_verify_keep_mail_and_count_in_tls_reports() -> None:
    """RFC 8460 section 4.3.2.1: the domain's owner hears that its mail waits."""
    (attempt,) = await by_mx(25, Forged()).deliver("bob@b.example")
    ((_index, outcome),) = attempt.outcomes
    assert isinstance(outcome, Deferred)
    assert (outcome.status, outcome.failure) == ("4.7.5", TlsFailure.DNSSEC_INVALID)
    (judged,) = judge_session("b.example", attempt)
    assert (judged.policy.kind, judged.policy.domain) == (PolicyKind.TLSA, "b.example")
    assert judged.failing is not None
    assert (judged.failing.result, judged.failing.host) == (TlsFailure.DNSSEC_INVALID, "")


async def test_two_domains_by_mx_never_share_a_transaction() -> None:
    resolver = FakeResolver(hosts={"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]})
    async with HostileServer() as server, by_mx(server.port, resolver) as mail:
        await mail.deliver("x@a.example", "y@b.example")
        assert [taken.recipients for taken in server.taken] == [
            (b"RCPT TO:<x@a.example>",),
            (b"RCPT TO:<y@b.example>",),
        ]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("null.example", NULL_MX),
        ("unknown.example", Bounced(550, "5.1.2", "the domain unknown.example does not exist")),
        ("broken.example", Deferred(451, "4.4.3", "the MX look-up of broken.example failed: SERVFAIL")),
    ],
)
async def test_a_domain_that_leads_nowhere(domain: str, expected: object) -> None:
    resolver = FakeResolver(mx_records={"null.example": [(0, "")]}, failing={"broken.example"})
    (attempt,) = await by_mx(25, resolver).deliver(f"bob@{domain}")
    assert attempt.outcomes == ((0, expected),)
    assert (attempt.hop, attempt.address, attempt.plan, attempt.evidence) == ("", "", None, None)


async def test_hosts_without_address_bounce_only_when_all_are() -> None:
    records = {"b.example": [(10, "none.example"), (20, "empty.example")]}
    resolver = FakeResolver(mx_records=records, hosts={"empty.example": []})
    first, second = await by_mx(25, resolver).deliver("bob@b.example")
    assert first.outcomes == ((0, Deferred(451, "4.4.4", "none.example does not exist")),)
    assert second.outcomes == ((0, Bounced(550, "5.4.4", "empty.example has no address")),)
    assert second.plan is not None
    resolver.failing.add("empty.example")
    assert isinstance(results(await by_mx(25, resolver).deliver("bob@b.example"))[0], Deferred)


async def test_a_smart_host_that_is_ourselves_is_a_loop() -> None:
    async with HostileServer() as server:
        me = Ourselves(listening=frozenset({HostPort("127.0.0.1", server.port)}))
        (attempt,) = await world(server.port, ourselves=me).deliver("bob@b.example")
        assert attempt.outcomes == ((0, LOOPS),)
        assert not server.sessions


async def test_dsn_goes_to_a_hop_that_offers_it() -> None:
    bob = Recipient(parse_mailbox("bob@b.example"), frozenset({Notify.SUCCESS}), "rfc822;robert@b.example")
    async with HostileServer() as server, world(server.port) as mail:
        outcome = await mail.outcome(bob, ret=Ret.FULL, envid="E1")
        assert outcome == Delivered(250, "2.0.0", "taken", dsn=True)
        assert server.taken[0].mail.endswith(b" RET=FULL ENVID=E1")
        assert server.taken[0].recipients == (b"RCPT TO:<bob@b.example> NOTIFY=SUCCESS ORCPT=rfc822;robert@b.example",)
    async with HostileServer(Behaviour(extensions=())) as server, world(server.port) as mail:
        assert await mail.outcome(bob, ret=Ret.FULL) == Delivered(250, "2.0.0", "taken", dsn=False)
        assert server.taken[0].recipients == (b"RCPT TO:<bob@b.example>",)


async def test_what_can_not_be_carried_is_bounced_and_the_connection_stays() -> None:
    async with HostileServer(Behaviour(extensions=("PIPELINING",))) as server, world(server.port) as mail:
        assert (await mail.outcome("bob@b.example", content="\r\nä\r\n".encode())).status == "5.6.3"
        assert b"MAIL" not in server.clear
        found = results(await mail.deliver("bøb@b.example", "bob@b.example"))
        assert [found[0].status, found[1].status] == ["5.6.7", "2.0.0"]
        assert len(server.sessions) == 1


@pytest.mark.parametrize(
    ("content", "status"), [("Subject: ä\r\n\r\nx\r\n", "5.6.7"), ("Subject: a\r\n\r\nä\r\n", "2.0.0")]
)
async def test_smtputf8_only_where_the_header_needs_it(content: str, status: str) -> None:
    async with HostileServer(Behaviour(extensions=("8BITMIME",))) as server, world(server.port) as mail:
        assert (await mail.outcome("bob@b.example", content=content.encode(), smtputf8=True)).status == status
        assert b"SMTPUTF8" not in server.clear


@pytest.mark.parametrize(
    ("behaviour", "until"),
    [
        (Behaviour({Step.GREETING: Then.SILENCE}), b""),
        (Behaviour({Step.EHLO: Then.SILENCE}), b"EHLO"),
        (Behaviour({Step.STARTTLS: Then.SILENCE}), b"STARTTLS"),
        (Behaviour(handshake=Handshake.SILENCE), b"STARTTLS"),
        (Behaviour({Step.MAIL: Then.SILENCE}), b"MAIL"),
        (Behaviour({Step.FINAL: Then.SILENCE}), b"\r\n.\r\n"),
    ],
)
async def test_a_delivery_that_is_cancelled_leaves_no_connection_and_no_message(
    pki: Pki, behaviour: Behaviour, until: bytes
) -> None:
    tls = pki.good if until == b"STARTTLS" else None
    async with HostileServer(replace(behaviour, tls=tls)) as server:
        async with world(server.port, settings=OutboundSettings()) as mail:
            task = asyncio.create_task(mail.deliver("bob@b.example"))
            await server.connected.wait()
            while until not in server.clear:
                server.heard.clear()
                await server.heard.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.sessions[0].closed, 5)
        assert not server.taken


async def test_an_empty_message_still_has_its_trace_header() -> None:
    async with HostileServer() as server, world(server.port) as mail:
        assert isinstance(await mail.outcome("bob@b.example", content=b""), Delivered)
        assert server.taken[0].content == HEADER


async def test_the_message_is_whole() -> None:
    async with HostileServer() as server, world(server.port) as mail:
        attempts = await mail.deliver("bob@b.example")
        assert server.taken[0].content == HEADER + TEXT
        assert attempts[0].seconds > 0


async def test_memory_of_what_was_told_and_where_we_went_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.outbound.deliver._TOLD", 3)
    monkeypatch.setattr("relay.outbound.ways.MANY", 3)
    resolver = FakeResolver(hosts={f"h{each}.example": ["127.0.0.1", "127.0.0.2"] for each in range(8)})
    async with HostileServer() as server, by_mx(server.port, resolver, tls="encryption") as mail:
        for each in range(8):
            outcome = await mail.outcome(f"bob@h{each}.example")
            assert isinstance(outcome, Deferred)
        assert len(mail.events) == 1  # one message, however often
        ways = mail.outbound._ways
        assert ways is not None
        assert max(len(ways._plans), len(ways._found), len(ways._connectors)) <= 3
        await mail.deliver(*(f"bob@h{each}.example" for each in range(8)))
        assert len(mail.events) == 8
        assert len(mail.outbound._told) == 3


async def test_a_reload_in_the_middle_of_a_delivery_leaves_nothing_old_behind() -> None:
    """Whichever of two deliveries looked things up first: neither says MAIL by the old rules, nor finds what those decided."""
    resolver = FakeResolver(hosts={"b.example": ["127.0.0.1"]})
    async with HostileServer() as server, by_mx(server.port, resolver) as mail:
        strict = by_mx(server.port, resolver, tls="encryption").book
        held = asyncio.Event()
        ask = resolver.mx

        async def slow(domain: str) -> Any:
            await held.wait()
            return await ask(domain)

        resolver.mx = slow  # type: ignore[method-assign] # a look-up that takes its time
        first = asyncio.create_task(mail.deliver("bob@b.example"))
        await asyncio.sleep(0)
        mail.book = strict
        second = asyncio.create_task(mail.deliver("bob@b.example"))
        await asyncio.sleep(0)
        held.set()
        assert isinstance(results(await first)[0], Deferred)
        assert isinstance(results(await second)[0], Deferred)
        assert isinstance(await mail.outcome("bob@b.example"), Deferred)
        assert b"MAIL" not in server.clear
