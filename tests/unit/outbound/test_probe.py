"""A probe against servers that behave and servers that do not: what is seen, what each level says, and that no mail is ever begun."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from relay.config.values import HostPort
from relay.mail.outcome import Bounced
from relay.mail.plan import Encryption, Tlsa
from relay.mail.published import TlsaRecord
from relay.outbound.handshake import TlsClient
from relay.outbound.ourselves import Ourselves
from relay.outbound.probe import Means, Probe, ProbedAddress, ProbeSettings, probe_domain, probe_hop
from relay.outbound.probe_json import probe_json
from relay.outbound.publications import Way
from relay.policy.published import Published, Says, Uses
from relay.tls.trust import TrustStores
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, Flood, Handshake, HostileServer, Pki, Step, Then
from tests.unit.outbound.builders import HOST, PATIENT, SHORT, smart_host, utc
from tests.unit.policy.builders import book

DOMAIN = "b.example"
LETTERS = {"passes": "P", "fails": "F", "absent": "-"}


class Publisher:
    """Publications that say one thing of every host, and remember what was asked."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.asked: list[tuple[Way, Uses]] = []

    async def find(self, way: Way, uses: Uses) -> Published:
        self.asked.append((way, uses))
        return self.published

    async def recheck(self, _way: Way, _published: Published) -> bool:
        return False


def means(
    pki: Pki, *connectors: dict[str, Any], resolver: FakeResolver | None = None, short: bool = False, **settings: Any
) -> Means:
    return Means(
        book(connectors=list(connectors), trust=str(pki.ca)),
        resolver or FakeResolver(hosts={HOST: ["127.0.0.1"]}),
        TlsClient(lambda _name: None, TrustStores(), utc),
        Publisher(Published(sts=Says(reason="no policy"))),
        utc,
        settings=ProbeSettings(timeouts=SHORT if short else PATIENT, **settings),
    )


def one(found: Probe) -> ProbedAddress:
    (hop,) = found.hops
    (address,) = hop.addresses
    return address


def letters(address: ProbedAddress) -> str:
    """P, F or - for: in force, encryption, certificate, domain, dane, mta-sts, requiretls."""
    return "".join(LETTERS[each.standing.value] for each in address.verdicts)


CASES: dict[str, tuple[Callable[[Pki], Behaviour], str, str]] = {
    "good": (lambda pki: Behaviour(tls=pki.good), "PPPP--F", ""),
    "drip": (lambda pki: Behaviour(tls=pki.good, drip=True), "PPPP--F", ""),
    "wrong name": (lambda pki: Behaviour(tls=pki.wrong_name), "FPPF--F", ""),
    "self-signed": (lambda pki: Behaviour(tls=pki.self_signed), "FPFF--F", ""),
    "expired": (lambda pki: Behaviour(tls=pki.expired), "FPFF--F", ""),
    "no STARTTLS": (lambda _pki: Behaviour(), "FFFF--F", ""),
    "no EHLO": (lambda pki: Behaviour(tls=pki.good, reactions={Step.EHLO: b"502 5.5.1 no\r\n"}), "FFFF--F", ""),
    "454": (lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: b"454 4.7.0 no\r\n"}), "FFFF--F", ""),
    "garbage": (lambda pki: Behaviour(tls=pki.good, handshake=Handshake.GARBAGE), "FFFF--F", ""),
    "closes": (lambda pki: Behaviour(tls=pki.good, handshake=Handshake.CLOSE), "FFFF--F", ""),
    "injects": (lambda pki: Behaviour(tls=pki.good, handshake=Handshake.INJECTED_REPLY), "FFFF--F", ""),
    "TLS 1.0": (lambda pki: Behaviour(tls=pki.old), "FFFF--F", ""),
    "554 greeting": (lambda _pki: Behaviour(reactions={Step.GREETING: b"554 5.7.1 \x1b[2J no\r\n"}), "", "the greeting: 554"),
    "hangs up": (lambda _pki: Behaviour(reactions={Step.GREETING: Then.CLOSE}), "", "after the greeting"),
    "550 in TLS": (
        lambda pki: Behaviour(tls=pki.good, reactions={Step.EHLO_TLS: b"550 5.7.1 go away\r\n"}),
        "PPPP--F",
        "EHLO inside TLS: 550",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_what_is_seen_of_a_host(case: str, pki: Pki) -> None:
    behaviour, expected, trouble = CASES[case]
    async with HostileServer(behaviour(pki)) as server:
        found = await probe_domain(means(pki, smart_host(server.port, tls="domain")), DOMAIN)
        address = one(found)
    assert letters(address) == expected
    assert trouble in address.trouble
    assert bool(address.trouble) is bool(trouble)
    assert found.passes is (expected.startswith("P") and not trouble)
    for word in (b"MAIL", b"RCPT", b"DATA", b"AUTH"):
        assert word not in server.clear + server.inside
    assert (b"QUIT" in server.inside) is (
        case in ("good", "drip", "wrong name", "self-signed", "expired", "550 in TLS")
    )
    json.dumps(probe_json(found))


@pytest.mark.parametrize(
    "behaviour",
    [
        lambda _pki: Behaviour(reactions={Step.GREETING: Then.SILENCE}),
        lambda _pki: Behaviour(reactions={Step.EHLO: Then.SILENCE}),
        lambda _pki: Behaviour(reactions={Step.EHLO: Flood(b"250-more\r\n")}),
        lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: Then.SILENCE}),
        lambda pki: Behaviour(tls=pki.good, handshake=Handshake.SILENCE),
        lambda pki: Behaviour(tls=pki.good, reactions={Step.EHLO_TLS: Then.SILENCE}),
        lambda pki: Behaviour(tls=pki.good, reactions={Step.QUIT: Then.SILENCE}),
    ],
    ids=["greeting", "EHLO", "EHLO without end", "STARTTLS", "handshake", "EHLO in TLS", "QUIT"],
)
async def test_nobody_waits_for_ever(behaviour: Callable[[Pki], Behaviour], pki: Pki) -> None:
    async with HostileServer(behaviour(pki)) as server:
        await probe_domain(means(pki, smart_host(server.port), short=True), DOMAIN)


async def test_evidence_and_what_is_offered(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        address = one(await probe_domain(means(pki, smart_host(server.port)), DOMAIN))
    assert address.evidence is not None
    assert (address.evidence.version, address.evidence.sni) == ("TLSv1.3", HOST)
    assert address.evidence.leaf is not None
    assert address.evidence.leaf.dns_names == (HOST,)
    assert str(pki.ca) in address.evidence.paths
    assert address.offer is not None
    assert address.offer.pipelining
    assert address.seconds > 0


async def test_every_host_and_address_by_mx(pki: Pki) -> None:
    connector = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["*"]}} | {
        "route": {"private": "allow"},
        "tls": "domain",
        "names": [HOST],
    }
    async with (
        HostileServer(Behaviour(tls=pki.good)) as good,
        HostileServer(Behaviour(tls=pki.wrong_name), host="127.0.0.2", port=good.port) as other,
        HostileServer(Behaviour(), host="127.0.0.3", port=good.port),
    ):
        dns = FakeResolver(
            mx_records={DOMAIN: [(20, "mx2.b.example"), (10, "mx1.b.example"), (30, "mx3.b.example"), (40, "gone.b.example")]},
            hosts={
                "mx1.b.example": ["127.0.0.1", "127.0.0.2"],
                "mx2.b.example": ["127.0.0.3"],
                "mx3.b.example": ["127.0.0.4"],
            },
        )  # fmt: skip
        found = await probe_domain(means(pki, connector, resolver=dns, port=good.port), DOMAIN)
        assert len(good.sessions) == len(other.sessions) == 1
        few = await probe_domain(means(pki, connector, resolver=dns, port=good.port, hosts=2, addresses=2), DOMAIN)
    assert [each.hop.host for each in found.hops] == [
        "mx1.b.example",
        "mx2.b.example",
        "mx3.b.example",
        "gone.b.example",
    ]
    assert [[letters(address) for address in hop.addresses] for hop in found.hops] == [
        ["PPPP--F", "FPPF--F"],
        ["FFFF--F"],
        [""],
        [],
    ]
    assert found.hops[3].trouble == "gone.b.example does not exist"
    assert found.hops[2].addresses[0].trouble.startswith("cannot connect to 127.0.0.4")
    assert found.passes
    # The most preferred hosts first, whatever there is too much of.
    assert [len(each.addresses) for each in few.hops] == [2, 0, 0, 0]
    assert [str(each) for each in few.hops[1].left_out] == ["127.0.0.3"]
    assert [each.trouble for each in few.hops[2:]] == ["not looked at: these are more than 2 hosts"] * 2


async def test_a_domain_that_leads_nowhere(pki: Pki) -> None:
    found = await probe_domain(means(pki, resolver=FakeResolver()), DOMAIN)
    assert isinstance(found.unroutable, Bounced)
    assert not found.passes
    assert probe_json(found)["unroutable"]["status"] == "5.1.2"


async def test_published_policy_is_asked_for_and_held_to(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        wanted = means(pki, smart_host(server.port, mta_sts="require"))
        found = await probe_domain(wanted, DOMAIN)
    publications = wanted.publications
    assert isinstance(publications, Publisher)
    ((way, uses),) = publications.asked
    assert (way.domain, way.hop, way.secure) == (DOMAIN, HostPort(HOST, server.port), True)
    assert uses.sts.value == "require"
    assert one(found).verdicts[-2].text == "no policy"
    assert probe_json(found)["hops"][0]["mta_sts"]["reason"] == "no policy"


async def test_one_host_that_an_admin_names(pki: Pki) -> None:
    """As a smart host: its own name counts, its address may be private, and it may be ourselves."""
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        hop = HostPort(HOST, server.port)
        us = Ourselves(listening=frozenset({HostPort("127.0.0.1", server.port)}))
        wanted = replace(means(pki), ourselves=us)
        found = await probe_hop(wanted, wanted.book.outbound_for(DOMAIN), DOMAIN, hop)
        address = await probe_hop(wanted, wanted.book.outbound_for(DOMAIN), DOMAIN, HostPort("127.0.0.1", server.port))
    assert letters(one(found)) == "PPPP--F"
    assert one(found).verdicts[3].text == ""
    by_address = one(address)
    assert by_address.evidence is not None
    assert by_address.evidence.sni == ""
    assert letters(by_address) == "PPPF--F"


async def test_tlsa_records_are_held_against_the_host(pki: Pki) -> None:
    """Real DNSSEC is in tests/e2e/test_probe_dane.py."""
    for behaviour, expected in ((Behaviour(tls=pki.good), "FPPPF-F"), (Behaviour(), "FFFFF-F")):
        demand = Tlsa("dane", "end.hostile.test", (TlsaRecord(3, 1, 1, "00" * 32),), ("end.hostile.test",))
        published = Published(dane=Says(frozenset({Encryption("dane"), demand})), mx_secure=True)
        async with HostileServer(behaviour) as server:
            wanted = replace(means(pki, smart_host(server.port)), publications=Publisher(published))
            address = one(await probe_domain(wanted, DOMAIN))
        assert letters(address) == expected
        assert address.evidence is None or address.evidence.sni == "end.hostile.test"
        assert not address.trouble


async def test_requiretls_counts_inside_tls_only(pki: Pki) -> None:
    inside = Behaviour(tls=pki.good, extensions=(), extensions_tls=("REQUIRETLS",))
    outside = Behaviour(tls=pki.good, extensions=("REQUIRETLS",), extensions_tls=())
    for behaviour, expected in ((inside, "PPPP--P"), (outside, "PPPP--F")):
        async with HostileServer(behaviour) as server:
            found = await probe_domain(means(pki, smart_host(server.port)), DOMAIN)
        assert letters(one(found)) == expected
        assert (probe_json(found)["hops"][0]["addresses"][0]["offers"] == ["REQUIRETLS"]) is expected.endswith("P")


async def test_a_client_certificate_of_ours_that_is_not_there(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        connector = smart_host(server.port, client_certificate="ours")
        address = one(await probe_domain(means(pki, connector), DOMAIN))
        assert not server.sessions
    assert address.trouble == "the client certificate ours is not in our certificates"
    assert address.verdicts == ()
