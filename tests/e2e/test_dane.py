"""DANE end to end: real DNSSEC, real look-ups, real TLS, to the outcome. And Postfix, looking at the same partners, says the same."""

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.config.values import HostPort
from relay.dns.dane import Dane
from relay.dns.resolver import DnsResolver
from relay.mail.attempt import Attempt
from relay.mail.outcome import Deferred, Delivered
from relay.mail.plan import Encryption, Tlsa
from relay.mail.published import StsFound, Use
from relay.mail.tls import TrustedLeaf
from relay.outbound.deliver import Outbound, OutboundSettings
from relay.outbound.handshake import TlsClient
from relay.outbound.ourselves import Ourselves
from relay.outbound.publications import LookedUp
from relay.policy.route import LookupFailed, NoDomain
from relay.tls.trust import TrustStores
from tests.dnssec import NAME_SERVER, PATH, SELF_TEST, Bench
from tests.e2e import dane
from tests.e2e.peers import program
from tests.hostile import HostileServer
from tests.unit.outbound.builders import PATIENT, delivery
from tests.unit.policy.builders import book

pytestmark = pytest.mark.peers

CLEAR, ANY = "in clear", "tls"
EE, TA = "dane-ee", "dane-ta"
MISMATCH, EXPIRED, INVALID = "certificate-host-mismatch", "certificate-expired", "tlsa-invalid"
BOGUS, NO_TLS, REQUIRED = "dnssec-invalid", "starttls-not-supported", "dane-required"

# What becomes of mail to each partner: with `dane: auto`, with `dane: require`, and the level at which Postfix's `dane` sees it.
OUTCOMES = {
    "none": (ANY, REQUIRED),
    "clear": (CLEAR, REQUIRED),
    "ee": (EE, EE),
    "ee-whole": (EE, EE),
    "ee-sha512": (EE, EE),
    "ee-nobody": (EE, EE),
    "ee-expired": (EE, EE),
    "ee-wrong": (INVALID, INVALID),
    "ee-clear": (NO_TLS, NO_TLS),
    "ee-agility": (INVALID, INVALID),
    "rollover": (EE, EE),
    "ta": (TA, TA),
    "ta-mid": (TA, TA),
    "ta-domain": (TA, TA),
    "ta-names": (MISMATCH, MISMATCH),
    "ta-expired": (EXPIRED, EXPIRED),
    "ta-wrong": (INVALID, INVALID),
    "ta-leaf": (INVALID, INVALID),
    "useless": ("encryption", REQUIRED),
    "useless-clear": (NO_TLS, REQUIRED),
    "implicit": (EE, EE),
    "chain": (TA, TA),
    "chain-wrong": (INVALID, INVALID),
    "chain-own": (TA, TA),
    "out": (EE, EE),
    "out-wrong": (INVALID, INVALID),
    "in": (ANY, REQUIRED),
    "to-alias": (ANY, REQUIRED),
    "tlsa-alias": (EE, EE),
    "tlsa-out": (ANY, REQUIRED),
    "nsec3": (EE, EE),
    "nsec3-wrong": (INVALID, INVALID),
    "nsec3-none": (ANY, REQUIRED),
    "wrong": (ANY, REQUIRED),
    "unsigned-mx": (ANY, REQUIRED),
    "to-unsigned": (ANY, REQUIRED),
    "bogus": (BOGUS, BOGUS),
    "expired": (BOGUS, BOGUS),
    "to-bogus": (BOGUS, BOGUS),
    "to-expired": (BOGUS, BOGUS),
    "tlsa-bogus": (BOGUS, BOGUS),
}


class NoPolicies:
    """Nobody has an MTA-STS policy."""

    def held(self, _domain: str) -> StsFound:
        return StsFound()

    async def get(self, _domain: str) -> StsFound:
        return StsFound()

    async def recheck(self, _domain: str) -> StsFound:
        return StsFound()


@dataclass(frozen=True)
class World:
    """Deliveries by MX, or to a smart host, as the partners' zones say."""

    resolver: DnsResolver
    contexts: dane.Contexts

    @asynccontextmanager
    async def outbound(self, use: Use, smart_host: str = "") -> AsyncIterator[Outbound]:
        route = {"smart_hosts": [f"{smart_host}:{dane.PORT}"]} if smart_host else {"private": "allow"}
        rules = book(
            defaults={"outbound": {"dane": use.value, "route": route}},
            dns={"resolver": "127.0.0.1:53", "validating": True},
        )
        outbound = Outbound(
            book=lambda: rules,
            resolver=self.resolver,
            tls=TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC)),
            ourselves=Ourselves,
            clock=lambda: datetime.now(UTC),
            emit=lambda _event: None,
            publications=LookedUp(self.resolver, NoPolicies(), lambda: datetime.now(UTC)),
            chance=random.Random(1),
            settings=OutboundSettings(timeouts=PATIENT, port=dane.PORT),
        )
        try:
            yield outbound
        finally:
            await outbound.close()

    def server(self, name: str) -> HostileServer:
        return HostileServer(self.contexts.behaviour(name), host=dane.address(name), port=dane.PORT)

    async def send(self, name: str, use: Use, smart_host: str = "") -> tuple[Attempt, HostileServer]:
        """One message to a partner whose server is up."""
        async with self.server(name) as server, self.outbound(use, smart_host) as outbound:
            (attempt,) = await outbound.deliver(delivery(f"bob@{dane.domain(name)}"))
            return attempt, server


@pytest.fixture
async def world(dnssec: Bench, tmp_path: Path) -> AsyncIterator[World]:
    resolver = DnsResolver(dnssec.resolver, self_test=SELF_TEST)
    yield World(resolver, dane.Contexts(tmp_path))
    await resolver.close()


def shown(attempt: Attempt) -> str:
    """What became of the message, in a word."""
    ((_index, outcome),) = attempt.outcomes
    if isinstance(outcome, Deferred):
        return outcome.failure.value if outcome.failure else outcome.status
    assert isinstance(outcome, Delivered)
    plan, evidence = attempt.plan, attempt.evidence
    assert plan is not None
    if evidence is None:
        return CLEAR
    for demand in plan.demands:
        if isinstance(demand, Tlsa):
            return EE if isinstance(evidence.paths[demand.trust], TrustedLeaf) else TA
    return "encryption" if Encryption("dane") in plan.demands else ANY


@pytest.mark.parametrize("name", dane.PARTNERS)
@pytest.mark.parametrize("use", [Use.AUTO, Use.REQUIRE])
async def test_what_becomes_of_mail_to_a_partner(world: World, name: str, use: Use) -> None:
    attempt, server = await world.send(name, use)
    assert shown(attempt) == OUTCOMES[name][use is Use.REQUIRE]
    assert len(server.taken) == isinstance(attempt.outcomes[0][1], Delivered)
    if attempt.plan is None:
        assert not server.sessions, "a host that mail is kept from is not connected to"


def test_every_partner_has_its_outcome() -> None:
    assert OUTCOMES.keys() == dane.PARTNERS.keys()


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        ("ee", "mx.ee.secure.test", EE),
        ("ee-wrong", "mx.ee-wrong.secure.test", INVALID),
        ("ta", "mx.ta.secure.test", TA),
        ("ta-domain", "mx.ta-domain.secure.test", MISMATCH),  # the recipients' domain says nothing about a smart host
        ("chain", "mx.chain.secure.test", TA),
        ("out", "mx.out.secure.test", EE),
        ("wrong", "mx.wrong.insecure.test", ANY),
        ("bogus", "mx.bogus.bogus.test", BOGUS),
        ("tlsa-bogus", "mx.tlsa-bogus.secure.test", BOGUS),
    ],
)
async def test_a_smart_host(world: World, name: str, host: str, expected: str) -> None:
    attempt, _server = await world.send(name, Use.AUTO, smart_host=host)
    assert shown(attempt) == expected


@pytest.mark.parametrize(
    ("name", "sni"),
    [("ee", "mx.ee.secure.test"), ("chain", "end.chain.secure.test"), ("chain-own", "mx.chain-own.secure.test"),
     ("out", "mx.out.secure.test"), ("none", "mx.none.secure.test")],
)  # fmt: skip
async def test_the_server_is_asked_for_the_base_domain(world: World, name: str, sni: str) -> None:
    attempt, _server = await world.send(name, Use.AUTO)
    assert attempt.evidence is not None
    assert attempt.evidence.sni == sni


async def test_a_connection_is_kept_and_judged_again(world: World) -> None:
    async with world.server("ta") as server, world.outbound(Use.AUTO) as outbound:
        for _ in range(3):
            (attempt,) = await outbound.deliver(delivery("bob@ta.secure.test"))
            assert shown(attempt) == TA
        assert len(server.sessions) == 1


@pytest.mark.parametrize(
    ("setting", "trouble"),
    [
        ('module-config: "iterator"', "does not validate DNSSEC: it answers about test, which is signed"),
        (
            "val-permissive-mode: yes",
            "does not hold to DNSSEC: it answers about bogus.test, whose signatures are broken",
        ),
        ("access-control: 127.0.0.0/8 refuse", "gives no sound answer about test"),
        ("ede: no", ""),
    ],
)
async def test_a_resolver_has_to_show_that_it_validates(dnssec: Bench, setting: str, trouble: str) -> None:
    with dnssec.another(setting) as address:
        resolver = DnsResolver(address, self_test=SELF_TEST)
        await resolver.test()
        assert trouble in resolver.dane if trouble else resolver.dane == ""
        found, hop = Dane(resolver), HostPort("mx.ee.secure.test", dane.PORT)
        auto = await found.says(hop, Use.AUTO, mx_secure=True, next_hop="ee.secure.test")
        required = await found.says(hop, Use.REQUIRE, mx_secure=True, next_hop="ee.secure.test")
        await resolver.close()
    assert bool(auto.demands) == (not trouble)
    assert (required.withheld is not None) == bool(trouble)


async def test_a_resolver_that_comes_up_late_is_believed_from_its_first_answer(dnssec: Bench) -> None:
    """Threat: a relay that starts before its resolver, and sends the first mail without looking at TLSA records."""
    with dnssec.another() as address:
        pass
    resolver = DnsResolver(address, self_test=SELF_TEST, lifetime=0.5)
    assert isinstance(await resolver.mx("ee.secure.test"), LookupFailed)
    assert "gives no sound answer" in resolver.dane
    with dnssec.another():
        answer = await resolver.mx("other.secure.test")
        assert answer == NoDomain(secure=True)
        assert resolver.dane == ""
        await resolver.close()


SEEN_BY_POSTFIX = {
    CLEAR: "in clear", ANY: "any certificate", "encryption": "any certificate", EE: "verified", TA: "verified",
    MISMATCH: "not verified", EXPIRED: "not verified", INVALID: "not verified", NO_TLS: "in clear",
    BOGUS: "no answer",
}  # fmt: skip


async def finger(folder: Path, name: str) -> str:
    """What posttls-finger, at Postfix's level `dane`, finds at a partner. It asks the resolver of /etc/resolv.conf, so it gets its own."""
    (folder / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = relay.test\ninet_protocols = ipv4\n")
    os.utime(folder / "main.cf", (0, 0))  # Postfix waits for seconds where it might still be written to
    (folder / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    target = f"{dane.domain(name)}:{dane.PORT}"
    command = f"mount --bind {folder}/resolv.conf /etc/resolv.conf && exec posttls-finger -c -l dane -L summary,verbose {target}"
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", command),
        env={"MAIL_CONFIG": str(folder), "PATH": PATH},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    if re.search("lookup (failed|problem)", output):
        return "no answer"
    if "Verified TLS connection established" in output:
        return "verified"
    if "Untrusted TLS connection established" not in output:
        assert "STARTTLS" not in output.partition("EHLO")[2].partition("QUIT")[0]
        return "in clear"
    return "not verified" if "DNSSEC-signed TLSA record" in output else "any certificate"


@pytest.mark.parametrize("name", [name for name in dane.PARTNERS if name != "unsigned-mx"])
async def test_postfix_says_the_same(world: World, tmp_path: Path, name: str) -> None:
    """But for unsigned MX records that lead to a signed host: there Postfix looks at TLSA records, which RFC 7672 section 2.2.1 leaves open."""
    program("posttls-finger")
    if os.geteuid() != 0:
        pytest.skip("a resolv.conf of its own takes root")
    async with world.server(name):
        assert await finger(tmp_path, name) == SEEN_BY_POSTFIX[OUTCOMES[name][0]]
