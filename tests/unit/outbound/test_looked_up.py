"""What is published about a host, remembered for as long as DNS and the policy host say the same."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from relay.config.connectors import OutboundConnector
from relay.config.values import HostPort
from relay.mail.plan import StsMx, Tlsa
from relay.mail.published import StsFetched, StsFound, StsMode, StsPolicy, StsUnknown, Use
from relay.outbound.publications import LookedUp, NothingPublished, Way
from relay.policy.published import UNPUBLISHED, Uses
from tests.fakes import FakeResolver
from tests.unit.policy.builders import book

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOP = HostPort("mx.b.example", 25)
BOTH = Uses(Use.AUTO, Use.AUTO)


def policy(*mx: str) -> StsFound:
    return StsFound(StsFetched(StsPolicy(StsMode.ENFORCE, mx, 86400, "1"), NOW))


@dataclass
class Kept:
    """Policies by domain; `anew` is what a fresh look finds."""

    by_domain: dict[str, StsFound] = field(default_factory=dict)
    anew: dict[str, StsFound | StsUnknown] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def held(self, domain: str) -> StsFound | None:
        return None if domain in self.slow else self.by_domain.setdefault(domain, StsFound())

    async def get(self, domain: str) -> StsFound:
        self.asked.append(domain)
        return self.by_domain.setdefault(domain, StsFound())

    async def recheck(self, domain: str) -> StsFound | StsUnknown:
        self.asked.append(domain)
        return self.anew.get(domain) or self.by_domain[domain]


def connector(**route: list[str]) -> OutboundConnector:
    values = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["*"]}, "route": route or "mx"}
    return book(connectors=[values]).outbound_for("b.example")


def way(hop: HostPort = HOP, *, secure: bool = True, **route: list[str]) -> Way:
    return Way(connector(**route), "b.example", hop, secure)


def resolver() -> FakeResolver:
    return FakeResolver(
        hosts={"mx.b.example": ["1.1.1.1"]},
        secure={"mx.b.example", "b.example"},
        tlsa_records={"mx.b.example:25": ["3 1 1 " + "ab" * 32]},
        dane="",
    )


async def test_both_are_looked_at_and_the_same_answer_is_the_same_object() -> None:
    kept, dns = Kept({"b.example": policy("mx.b.example")}), resolver()
    looked = LookedUp(dns, kept, lambda: NOW)
    found = await looked.find(way(), BOTH)
    assert {type(each) for each in found.dane.demands} >= {Tlsa}
    assert {type(each) for each in found.sts.demands} >= {StsMx}
    assert found.mx_secure
    assert await looked.find(way(), BOTH) is found
    assert not kept.asked, "what is held needs no question"

    kept.by_domain["b.example"] = policy("other.example")
    after = await looked.find(way(), BOTH)
    assert after.sts.withheld is not None
    assert after.dane is found.dane

    dns.tlsa_records.clear()
    assert not (await looked.find(way(), BOTH)).dane.demands


async def test_what_is_left_out_is_not_asked_for() -> None:
    kept, dns = Kept({"b.example": policy("mx.b.example")}), resolver()
    found = await LookedUp(dns, kept, lambda: NOW).find(way(), Uses(Use.OFF, Use.OFF))
    assert (found.dane.demands, found.sts.demands) == (frozenset(), frozenset())
    assert not kept.asked
    assert not dns.asked


async def test_one_way_does_not_take_another_s_answer() -> None:
    looked = LookedUp(resolver(), Kept({"b.example": policy("mx.b.example")}), lambda: NOW)
    assert (await looked.find(way(), BOTH)).dane.demands
    assert not (await looked.find(way(secure=False), BOTH)).dane.demands
    assert not (await looked.find(way(), Uses(Use.OFF, Use.AUTO))).dane.demands
    required = await looked.find(way(secure=False), Uses(Use.REQUIRE, Use.AUTO))
    assert required.dane.withheld is not None


async def test_a_smart_host_is_asked_about_by_its_own_name() -> None:
    kept = Kept({"mx.b.example": policy("mx.b.example")}, slow={"mx.b.example"})
    smart = way(smart_hosts=["mx.b.example:25"])
    found = await LookedUp(resolver(), kept, lambda: NOW).find(smart, BOTH)
    assert kept.asked == ["mx.b.example"]
    assert found.sts.demands
    assert found.dane.demands


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.outbound.publications._MANY", 3)
    looked = LookedUp(FakeResolver(), Kept(), lambda: NOW)
    for each in range(9):
        await looked.find(way(HostPort(f"mx{each}.b.example", 25)), BOTH)
    assert len(looked._kept) == 3


@pytest.mark.parametrize(
    ("anew", "another"),
    [
        (policy("mx.b.example"), True),
        (policy("old.example"), False),
        (StsFound(StsFetched(StsPolicy(StsMode.ENFORCE, ("old.example",), 86400, "1"), NOW + timedelta(1))), False),
        (StsFound(), True),
        (StsUnknown("the store cannot be read"), False),
    ],
)
async def test_a_fresh_look_says_whether_the_policy_is_another_one(anew: StsFound | StsUnknown, another: bool) -> None:
    kept = Kept({"b.example": policy("old.example")}, anew={"b.example": anew})
    looked_up = LookedUp(resolver(), kept, lambda: NOW)
    published = await looked_up.find(way(), BOTH)
    assert await looked_up.recheck(way(), published) is another


async def test_an_address_has_no_policy_to_look_for() -> None:
    kept = Kept()
    smart = way(HostPort("192.0.2.1", 25), smart_hosts=["192.0.2.1:25"])
    assert not await LookedUp(resolver(), kept, lambda: NOW).recheck(smart, UNPUBLISHED)
    assert not kept.asked


async def test_closed_networks_publish_nothing() -> None:
    nothing = NothingPublished()
    assert await nothing.find(way(), BOTH) is UNPUBLISHED
    assert not await nothing.recheck(way(), UNPUBLISHED)
