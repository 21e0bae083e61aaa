"""Mail on a detour, with real hops: where it goes changes, what it must satisfy does not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from relay.config.values import HostPort
from relay.mail.attempt import Attempt
from relay.mail.outcome import Deferred, Delivered
from relay.mail.plan import StsMx, Tlsa
from relay.mail.published import TlsaRecord
from relay.mail.tls import TlsFailure
from relay.outbound.ourselves import Ourselves
from relay.outbound.publications import Way
from relay.policy.published import Published, Says, Uses
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, HostileServer, Pki
from tests.unit.outbound.builders import HOST, World, delivery, results
from tests.unit.policy.builders import book

DOMAIN = "b.example"
ELSEWHERE = "elsewhere.test"


def connector(name: str, domain: str, *hosts: str, **keys: Any) -> dict[str, Any]:
    route = {"route": {"smart_hosts": list(hosts)}} if hosts else {}
    return {"name": name, "direction": "outbound", "match": {"recipient_domains": [domain]}, **route, **keys}


def made(*connectors: dict[str, Any], **settings: Any) -> World:
    hosts = {HOST: ["127.0.0.1"], ELSEWHERE: ["127.0.0.1"]}
    return World(book(connectors=list(connectors)), FakeResolver(hosts=hosts), **settings)


async def send(mail: World, detour: str, **envelope: Any) -> Sequence[Attempt]:
    one = delivery(f"bob@{DOMAIN}", **envelope)
    return await mail.outbound.deliver(replace(one, via={0: f"{DOMAIN}>{detour}"}))


async def test_it_goes_to_the_host_instead() -> None:
    async with (
        HostileServer() as own,
        HostileServer() as other,
        made(connector("c", DOMAIN, f"{HOST}:{own.port}")) as mail,
    ):
        (attempt,) = await send(mail, f"host {ELSEWHERE}:{other.port}")
        assert isinstance(attempt.outcomes[0][1], Delivered)
        assert (attempt.hop, attempt.connector) == (f"{ELSEWHERE}:{other.port}", "c")


async def test_the_names_are_those_of_the_configured_host(pki: Pki) -> None:
    """The other host has a good certificate: for the name of the configured one it does, for its own it does not count."""
    own = connector("c", DOMAIN, f"{HOST}:25", tls="domain", ca=str(pki.ca))
    async with HostileServer(Behaviour(tls=pki.good)) as other, made(own) as mail:
        (attempt,) = await send(mail, f"host {ELSEWHERE}:{other.port}")
        assert isinstance(attempt.outcomes[0][1], Delivered), "its certificate says mx.hostile.test"
    own = connector("c", DOMAIN, "another.test:25", tls="domain", ca=str(pki.ca))
    async with HostileServer(Behaviour(tls=pki.good)) as other, made(own) as mail:
        (attempt,) = await send(mail, f"host {HOST}:{other.port}")
        outcome = attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.CERTIFICATE_HOST_MISMATCH, "its own name is of no use to it"


@pytest.mark.parametrize("level", ["encryption", "certificate", "domain"])
async def test_no_clear_text_where_the_own_connector_forbids_it(pki: Pki, level: str) -> None:
    own = connector("c", DOMAIN, f"{HOST}:25", tls=level, ca=str(pki.ca))
    async with HostileServer() as clear, made(own) as mail:
        (attempt,) = await send(mail, f"host {ELSEWHERE}:{clear.port}")
        outcome = attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.STARTTLS_NOT_SUPPORTED
        assert not clear.taken


async def test_by_another_connector_it_takes_that_plan(pki: Pki) -> None:
    own = connector("c", DOMAIN, f"{HOST}:25", tls="encryption")
    async with HostileServer(Behaviour(tls=pki.good)) as other:
        stronger = connector("d", "d.example", f"{HOST}:{other.port}", tls="domain", ca=str(pki.ca))
        async with made(own, stronger) as mail:
            (attempt,) = await send(mail, "connector d")
            assert isinstance(attempt.outcomes[0][1], Delivered)
            assert attempt.connector == "d"
            assert attempt.plan is not None
            assert attempt.plan.level.value == "domain"


async def test_a_connector_that_became_weaker_holds_it() -> None:
    own = connector("c", DOMAIN, f"{HOST}:25", tls="encryption")
    async with HostileServer() as other, made(own, connector("d", "d.example", f"{HOST}:{other.port}")) as mail:
        (attempt,) = await send(mail, "connector d")
        outcome = attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred)
        assert "connector d asks for less than c does" in outcome.text
        assert not other.taken
        (attempt,) = await send(mail, "weaker connector d")
        assert isinstance(attempt.outcomes[0][1], Delivered)
        (attempt,) = await send(mail, "connector gone")
        assert isinstance(attempt.outcomes[0][1], Deferred)


async def test_a_detour_to_ourselves_or_nowhere_only_waits() -> None:
    own = connector("c", DOMAIN, f"{HOST}:25")
    here = Ourselves(listening=frozenset({HostPort("127.0.0.1", 2525)}))
    async with made(own, ourselves=here) as mail:
        (attempt,) = await send(mail, f"host {ELSEWHERE}:2525")
        loop = attempt.outcomes[0][1]
        assert isinstance(loop, Deferred)
        assert loop.status == "4.4.6"
        (attempt,) = await send(mail, "host nowhere.test:25")
        assert isinstance(attempt.outcomes[0][1], Deferred)


async def test_some_go_their_own_way() -> None:
    async with (
        HostileServer() as own,
        HostileServer() as other,
        made(connector("c", DOMAIN, f"{HOST}:{own.port}")) as mail,
    ):
        one = delivery(f"bob@{DOMAIN}", f"eve@{DOMAIN}")
        attempts = await mail.outbound.deliver(replace(one, via={1: f"{DOMAIN}>host {ELSEWHERE}:{other.port}"}))
        assert {type(each) for each in results(attempts).values()} == {Delivered}
        assert {(each.hop, each.outcomes[0][0]) for each in attempts} == {
            (f"{HOST}:{own.port}", 0),
            (f"{ELSEWHERE}:{other.port}", 1),
        }


async def test_mail_on_its_own_way_finds_nothing_of_a_detour(pki: Pki) -> None:
    """Same connector, same host, same domain: at level domain the names differ."""
    own = connector("c", DOMAIN, "another.test:25", tls="domain", ca=str(pki.ca))
    async with HostileServer(Behaviour(tls=pki.good)) as hop, made(own) as mail:
        mail.book = book(connectors=[connector("c", DOMAIN, f"{HOST}:{hop.port}", tls="domain", ca=str(pki.ca))])
        assert isinstance(await mail.outcome(f"bob@{DOMAIN}"), Delivered)
        mail.book = book(connectors=[own])
        (attempt,) = await send(mail, f"host {HOST}:{hop.port}")
        assert isinstance(attempt.outcomes[0][1], Deferred)


class Policies:
    """Publishes TLSA records for one host, and an MTA-STS policy for the domain that lists one host."""

    def __init__(self, tlsa_at: str = "", listed: str = "") -> None:
        self._tlsa_at, self._listed = tlsa_at, listed
        self.asked: list[str] = []

    async def find(self, way: Way, _uses: Uses) -> Published:
        self.asked.append(way.hop.host)
        dane, sts = Says(), Says()
        if way.hop.host == self._tlsa_at:
            record = TlsaRecord(3, 1, 1, "00" * 32)
            dane = Says(frozenset({Tlsa("dane", self._tlsa_at, (record,), (self._tlsa_at,))}))
        if self._listed:
            sts = Says(frozenset({StsMx("mta-sts", way.hop.host, (self._listed,))}))
        return Published(dane, sts, mx_secure=bool(self._tlsa_at))

    async def recheck(self, _way: Way, _published: Published) -> bool:
        return False


def by_mx(publications: Policies, failing: frozenset[str] = frozenset()) -> World:
    hosts = {HOST: ["127.0.0.1"], ELSEWHERE: ["127.0.0.1"]}
    resolver = FakeResolver({DOMAIN: [(10, "mx.b.example")]}, hosts, set(failing))
    return World(book(connectors=[connector("c", DOMAIN)]), resolver, publications=publications)


async def test_the_certificate_must_be_one_of_the_domain_s_tlsa_records(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as other, by_mx(Policies(tlsa_at="mx.b.example")) as mail:
        (attempt,) = await send(mail, f"host {ELSEWHERE}:{other.port}")
        assert attempt.plan is not None
        assert [each.base for each in attempt.plan.demands if isinstance(each, Tlsa)] == ["mx.b.example"]
        assert isinstance(attempt.outcomes[0][1], Deferred)
        assert not other.taken


@pytest.mark.parametrize(("listed", "kind"), [("mx.b.example", Deferred), (ELSEWHERE, Delivered)])
async def test_mta_sts_must_list_the_other_host(pki: Pki, listed: str, kind: type) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as other, by_mx(Policies(listed=listed)) as mail:
        (attempt,) = await send(mail, f"host {ELSEWHERE}:{other.port}")
        assert isinstance(attempt.outcomes[0][1], kind)


async def test_what_cannot_be_known_holds_it() -> None:
    async with HostileServer() as other, by_mx(Policies(), frozenset({DOMAIN})) as mail:
        (attempt,) = await send(mail, f"host {ELSEWHERE}:{other.port}")
        assert isinstance(attempt.outcomes[0][1], Deferred)
        assert not other.taken


async def test_requiretls_waits_where_nobody_vouches(pki: Pki) -> None:
    own = connector("c", DOMAIN, f"{HOST}:25", tls="certificate", ca=str(pki.ca))
    async with HostileServer(Behaviour(tls=pki.good)) as other, made(own) as mail:
        (attempt,) = await send(mail, f"host {HOST}:{other.port}", requiretls=True)
        outcome = attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred), "not a bounce: the order is at fault"
        assert attempt.session is None, "nobody's TLS failed, so no TLS report counts it"
        assert "REQUIRETLS" in outcome.text
        assert not other.taken
