"""A probe of every partner of `tests.e2e.dane`, over real DNSSEC: it says of each what becomes of mail to it, and sends none."""

from datetime import UTC, datetime

import pytest

from relay.mail.published import Use
from relay.outbound.handshake import TlsClient
from relay.outbound.probe import Means, Probe, ProbeSettings, probe_domain
from relay.outbound.probe_json import probe_json
from relay.outbound.publications import LookedUp
from relay.policy.probe import Standing
from relay.report.probe import render_probe
from relay.tls.trust import TrustStores
from tests.e2e import dane
from tests.e2e.test_dane import ANY, BOGUS, CLEAR, EE, OUTCOMES, TA, NoPolicies, World, world
from tests.unit.outbound.builders import PATIENT
from tests.unit.policy.builders import book
from tests.unit.report.test_trace import text

pytestmark = pytest.mark.peers
__all__ = ["world"]  # the fixture

DELIVERED = (CLEAR, ANY, EE, TA, "encryption")


async def look(world: World, name: str, use: Use) -> Probe:
    rules = book(
        defaults={"outbound": {"dane": use.value, "route": {"private": "allow"}}},
        dns={"resolver": "127.0.0.1:53", "validating": True},
    )
    means = Means(
        rules,
        world.resolver,
        TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC)),
        LookedUp(world.resolver, NoPolicies(), lambda: datetime.now(UTC)),
        lambda: datetime.now(UTC),
        settings=ProbeSettings(timeouts=PATIENT, port=dane.PORT),
    )
    async with world.server(name) as server:
        found = await probe_domain(means, dane.domain(name))
    assert b"MAIL" not in server.clear + server.inside
    assert text(render_probe(probe_json(found)))
    return found


def standing(found: Probe, level: str) -> Standing:
    ((address,),) = [hop.addresses for hop in found.hops]
    return next(each.standing for each in address.verdicts if each.level == level)


@pytest.mark.parametrize("name", dane.PARTNERS)
@pytest.mark.parametrize("use", [Use.AUTO, Use.REQUIRE])
async def test_a_probe_says_what_becomes_of_mail(world: World, name: str, use: Use) -> None:
    found = await look(world, name, use)
    outcome = OUTCOMES[name][use is Use.REQUIRE]
    assert found.passes is (outcome in DELIVERED)
    if outcome in (EE, TA):
        assert standing(found, "dane") is Standing.PASSES
    elif outcome in (CLEAR, ANY):
        assert standing(found, "dane") is Standing.ABSENT
    elif found.hops and found.hops[0].addresses:
        assert standing(found, "dane") is Standing.FAILS or outcome == "encryption"
    else:
        assert outcome == BOGUS


async def test_the_server_is_asked_for_the_base_domain(world: World) -> None:
    found = await look(world, "chain", Use.AUTO)
    ((address,),) = [hop.addresses for hop in found.hops]
    assert address.evidence is not None
    assert address.evidence.sni == "end.chain.secure.test"
