"""Each way in which a partner can fail, met by a real connection, as steps: which one fails, and that it says what to do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.cli.outside import outside
from relay.mail.outcome import Deferred
from relay.mail.tls import TlsFailure
from relay.outbound.probe import Probe, probe_domain
from relay.outbound.validation import Wanted, probe_steps
from relay.policy.book import RuleBook
from relay.policy.steps import Result, Step
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, Flood, HostileServer, Pki, Then
from tests.hostile import Step as Step_
from tests.unit.policy.builders import book

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"), "mx.partner.test")


def rules(pki: Pki, port: int, **keys: Any) -> RuleBook:
    connector = {
        "name": "partner",
        "direction": "outbound",
        "match": {"recipient_domains": ["partner.test"]},
        "tls": "domain",
        "ca": str(pki.ca),
        "route": {"smart_hosts": [f"mx.partner.test:{port}"]},
        **keys,
    }
    return book(connectors=[connector])


async def probed(made: RuleBook, resolver: FakeResolver | None = None) -> Probe:
    async with outside(made.config, resolver or FakeResolver(hosts={"mx.partner.test": ["127.0.0.1"]})) as world:
        means = world.means(made)
        return await probe_domain(means, "partner.test")


def steps(probe: Probe, largest: int = 1) -> dict[str, Step]:
    return {each.name: each for each in probe_steps(probe, Wanted(probe.connector, "partner.test", largest, NOW))}


def results(found: dict[str, Step]) -> dict[str, str]:
    return {name: each.result.value for name, each in found.items() if each.result is not Result.OK}


async def test_all_is_well(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.tls12)) as server:
        found = steps(await probed(rules(pki, server.port)))
    assert list(found) == [
        *("hosts", "dane", "mta-sts", "addresses", "connect", "greeting", "ehlo", "starttls", "tls", "certificate"),
        *("auth", "extensions", "policy"),
    ]
    assert results(found) == {"auth": "skipped"}
    assert all(
        found[name].seconds is not None for name in ("hosts", "addresses", "connect", "greeting", "ehlo", "starttls")
    )
    assert found["tls"].text.startswith("TLSv1.2")
    assert "mx.partner.test" in found["certificate"].text
    assert "days left" in found["certificate"].text


@pytest.mark.parametrize(
    ("behaviour", "keys", "failing"),
    [
        pytest.param(lambda _pki: Behaviour(), {}, {"starttls", "policy"}, id="no STARTTLS"),
        pytest.param(lambda pki: Behaviour(tls=pki.wrong_ca), {}, {"certificate", "policy"}, id="another CA"),
        pytest.param(
            lambda pki: Behaviour(tls=pki.tls12), {"names": ["other.test"]}, {"certificate", "policy"}, id="name"
        ),
        pytest.param(lambda pki: Behaviour(tls=pki.expired), {}, {"certificate", "policy"}, id="expired"),
        pytest.param(lambda pki: Behaviour(tls=pki.self_signed), {}, {"certificate", "policy"}, id="self-signed"),
        pytest.param(lambda pki: Behaviour(tls=pki.old), {}, {"starttls", "policy"}, id="too old to talk to"),
        pytest.param(lambda pki: Behaviour(tls=pki.tls12), {"tls_version": "TLSv1.3"}, {"tls", "policy"}, id="version"),
        pytest.param(
            lambda pki: Behaviour(tls=pki.tls12),
            {"pins": ["sha256:" + "A" * 43 + "="]},
            {"certificate", "policy"},
            id="pin",
        ),
        pytest.param(
            lambda pki: Behaviour(tls=pki.tls12),
            {"auth": {"user": "us", "password": "one"}},
            {"auth"},
            id="no AUTH",
        ),
    ],
)
async def test_what_fails(
    behaviour: Callable[[Pki], Behaviour], keys: dict[str, Any], failing: set[str], pki: Pki
) -> None:
    async with HostileServer(behaviour(pki)) as server:
        given = dict(keys)
        if "auth" in given:
            given["route"] = {"smart_hosts": [f"mx.partner.test:{server.port}"], "auth": given.pop("auth")}
        found = steps(await probed(rules(pki, server.port, **given)))
    assert {name for name, each in found.items() if each.result is Result.FAILED} == failing
    assert all(found[name].remedy for name in failing)
    if "policy" in failing:  # what to do stands in one place
        assert found["policy"].remedy == f"See what to do at the step {(failing - {'policy'}).pop()} above."


@pytest.mark.parametrize(
    ("records", "step", "says"),
    [
        ({}, "hosts", "`match.recipient_domains` of connector partner"),
        ({"mx_records": {"partner.test": [(0, "")]}}, "hosts", "It takes no mail at all"),
        ({"failing": {"partner.test"}}, "hosts", "dig MX partner.test"),
        ({"mx_records": {"partner.test": [(0, "relay.example.com")]}}, "hosts", "Its MX is this relay"),
        ({"mx_records": {"partner.test": [(0, "mx.partner.test")]}}, "addresses", "dig mx.partner.test A AAAA"),
        (
            {"mx_records": {"partner.test": [(0, "mx.partner.test")]}, "hosts": {"mx.partner.test": ["127.0.0.1"]}},
            "addresses",
            "`private: allow` under `route` of connector partner",
        ),
    ],
    ids=["no such name", "null MX", "no DNS", "ourselves", "no such host", "private"],
)
async def test_a_partner_that_cannot_be_found(records: dict[str, Any], step: str, says: str, pki: Pki) -> None:
    made = rules(pki, 25, route={}, names=["mx.partner.test"])
    found = steps(await probed(made, FakeResolver(**records)))
    assert results(found) == {step: "failed"}
    assert says in found[step].remedy


@pytest.mark.parametrize(
    ("behaviour", "step", "says", "todo"),
    [
        (Behaviour({Step_.GREETING: b"554 5.7.1 listed\r\n"}), "greeting", "554 5.7.1 listed", "block"),
        (Behaviour({Step_.GREETING: Then.CLOSE}), "greeting", "the hop closed it", "block"),
        (Behaviour({Step_.GREETING: Flood(b"220-x\r\n")}), "greeting", "a reply without end", "block"),
        (Behaviour({Step_.EHLO: b"550 5.7.1 no\r\n"}), "starttls", "perhaps it refused EHLO", "swaks --server"),
        (Behaviour({Step_.EHLO: b"421 4.3.2 busy\r\n"}), "ehlo", "421", "block"),
    ],
    ids=["refused", "closed", "flood", "no EHLO", "no EHLO now"],
)
async def test_a_host_that_will_not_talk(behaviour: Behaviour, step: str, says: str, todo: str, pki: Pki) -> None:
    async with HostileServer(behaviour) as server:
        found = steps(await probed(rules(pki, server.port)))
    assert found[step].result is Result.FAILED
    assert says in found[step].text
    assert todo in found[step].remedy


async def test_broken_signatures(pki: Pki) -> None:
    made = await probed(rules(pki, 25, route={}, names=["mx.partner.test"]), FakeResolver(failing={"partner.test"}))
    bogus = Deferred(451, "4.7.5", "the signatures do not verify", TlsFailure.DNSSEC_INVALID)
    assert "DNSSEC signatures for partner.test" in steps(replace(made, unroutable=bogus))["hosts"].remedy


async def test_an_old_version_is_told_beside_the_one_that_is_asked(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.tls12)) as server:
        found = steps(await probed(rules(pki, server.port, tls_version="TLSv1.3")))
    assert "the hop speaks TLSv1.2, TLSv1.3 or newer is required" in found["tls"].text


async def test_an_ended_certificate_says_when(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.expired)) as server:
        found = steps(await probed(rules(pki, server.port)))
    assert "; ended on 20" in found["certificate"].text


async def test_a_host_that_wants_a_certificate(pki: Pki) -> None:
    """With TLS 1.3 it refuses ours, or its absence, after our side of the handshake is over."""
    async with HostileServer(Behaviour(tls=pki.asks_certificate)) as server:
        found = steps(await probed(rules(pki, server.port)))
    failing = {name for name, each in found.items() if each.result is Result.FAILED}
    assert "ehlo-inside" in failing
    assert "client_certificate" in found["ehlo-inside"].remedy


async def test_a_port_where_nobody_listens(pki: Pki) -> None:
    async with HostileServer(Behaviour()) as server:
        port = server.port
    found = steps(await probed(rules(pki, port)))
    assert results(found) == {"connect": "failed", "starttls": "skipped"}
    assert found["connect"].text == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert f"nc -vz mx.partner.test {port}" in found["connect"].remedy


async def test_a_host_that_does_not_exist(pki: Pki) -> None:
    found = steps(await probed(rules(pki, 25), FakeResolver()))
    assert results(found) == {"addresses": "failed"}


async def test_clear_text_that_is_allowed_is_a_warning(pki: Pki) -> None:
    async with HostileServer(Behaviour()) as server:
        found = steps(await probed(rules(pki, server.port, tls="opportunistic", ca=None)))
    assert results(found) == {"starttls": "warning", "auth": "skipped", "policy": "warning"}
    assert "Ask partner.test to switch TLS on" in found["starttls"].remedy
    assert "exceptions" not in found["starttls"].remedy, "the mail does not wait"


async def test_a_small_limit_of_size(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.tls12)) as server:
        probe = await probed(rules(pki, server.port))
    (hop,) = probe.hops
    (address,) = hop.addresses
    assert address.offer is not None
    small = replace(address, offer=replace(address.offer, size=True, size_limit=1000))
    found = steps(replace(probe, hops=(replace(hop, addresses=(small,)),)), 1001)
    assert results(found) == {"auth": "skipped", "size": "warning"}


async def test_a_certificate_that_ends_soon(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.tls12)) as server:
        probe = await probed(rules(pki, server.port))
    evidence = probe.hops[0].addresses[0].evidence
    assert evidence is not None
    assert evidence.leaf is not None
    late = Wanted(probe.connector, "partner.test", 1, evidence.leaf.not_after)
    found = {each.name: each for each in probe_steps(probe, late)}
    assert found["certificate"].result is Result.WARNING
