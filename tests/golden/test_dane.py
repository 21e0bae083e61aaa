"""Every row of dane.txt: what a connector makes of DANE x what DNS says -> what DANE says, and which look-ups that took."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.values import HostPort
from relay.dns import dane as module
from relay.dns.answers import AddressAnswer, Addresses, Resolver, TlsaAnswer, TlsaRecords
from relay.dns.dane import Dane, dane_facts
from relay.mail.plan import Encryption, Tlsa
from relay.mail.published import PolicyKind, TlsaRecord, Use
from relay.mail.tls import TlsFailure
from relay.policy.dane import HostFacts, dane_says
from relay.policy.published import Says
from relay.policy.route import LookupFailed, NoDomain
from tests.fakes import FakeResolver

TABLE = Path(__file__).with_name("dane.txt")
HOST, END, NEXT_HOP = "mx.contoso.com", "end.contoso.net", "contoso.com"
SHORT = {HOST: "mx", END: "end"}
ADDRESS = (ipaddress.ip_address("203.0.113.1"),)
BOGUS, FAILED = LookupFailed("its DNSSEC signatures do not verify", bogus=True), LookupFailed("no answer in time")
EE, TA = TlsaRecord(3, 1, 1, "ab" * 32), TlsaRecord(2, 0, 1, "cd" * 32)
USELESS = TlsaRecord(1, 1, 1, "ef" * 32)

HOSTS: dict[str, AddressAnswer] = {
    "secure": Addresses(ADDRESS, secure=True),
    "insecure": Addresses(ADDRESS),
    "chain": Addresses(ADDRESS, secure=True, canonical=END),
    "out": Addresses(ADDRESS, canonical=END),
    "in": Addresses(ADDRESS, canonical=END),
    "alias-failed": Addresses(ADDRESS, canonical=END),
    "alias-bogus": Addresses(ADDRESS, canonical=END),
    "none": NoDomain(secure=True),
    "failed": FAILED,
    "bogus": BOGUS,
    "literal": Addresses(ADDRESS),
}
ALIASES: dict[str, bool | LookupFailed] = {"out": True, "in": False, "alias-failed": FAILED, "alias-bogus": BOGUS}
TLSA: dict[str, TlsaAnswer] = {
    "-": TlsaRecords((), secure=True),
    "insecure": TlsaRecords((EE,)),
    "ee": TlsaRecords((EE, USELESS), secure=True),
    "ta": TlsaRecords((TA,), secure=True),
    "useless": TlsaRecords((USELESS,), secure=True),
    "failed": FAILED,
}


@dataclass
class Dns(FakeResolver):
    """Answers as they stand in a row."""

    host: str = "secure"
    tlsa_at: dict[str, TlsaAnswer] = field(default_factory=dict)

    def _find(self, how: str, host: str) -> AddressAnswer:
        self.asked[f"{how} {host}"] += 1
        return HOSTS[self.host]

    async def is_secure_alias(self, host: str) -> bool | LookupFailed:
        self.asked[f"alias {host}"] += 1
        return ALIASES[self.host]

    async def tlsa(self, host: str, port: int) -> TlsaAnswer:
        self.asked[f"tlsa {host}:{port}"] += 1
        return self.tlsa_at[host]


def rows() -> Iterator[tuple[str, ...]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    yield from (tuple(cell.strip() for cell in line.split("|")) for line in lines)


async def look(resolver: Dns, *, secure: bool) -> HostFacts:
    asked: Resolver = resolver
    hop = HostPort("203.0.113.1" if resolver.host == "literal" else HOST, 25)
    return await dane_facts(asked, hop, mx_secure=secure, next_hop=NEXT_HOP)


def shown(says: Says) -> str:
    if says.withheld is not None:
        assert says.withheld.text == says.reason
        assert says.demands == frozenset()
        failure = says.withheld.failure
        return f"no:{failure.value if failure else says.withheld.status}"
    tlsa = [each for each in says.demands if isinstance(each, Tlsa)]
    if not tlsa:
        return "encryption" if says.demands else "nothing"
    (demand,) = tlsa
    assert Encryption("dane") in says.demands
    names = " ".join(SHORT.get(each, each) for each in demand.names)
    return f"{'name' if demand.base == HOST else 'end'}:{names}"


def asked(resolver: Dns) -> str:
    words = {"host": "host", "alias": "alias", f"tlsa {END}:25": "end", f"tlsa {HOST}:25": "name"}
    return " ".join(words.get(each) or words[each.split()[0]] for each in resolver.asked) or "-"


@pytest.mark.parametrize(("use", "mx", "host", "end", "name", "expected", "looked"), list(rows()))
async def test_row(use: str, mx: str, host: str, end: str, name: str, expected: str, looked: str) -> None:
    trouble = "it does not validate" if use.endswith("?") else ""
    resolver = Dns(host=host, dane=trouble, tlsa_at={END: TLSA[end], HOST: TLSA[name]})
    says = Says(reason="-")
    facts = HostFacts(HostPort(HOST, 25), NEXT_HOP)
    if use != "off":
        facts = await look(resolver, secure=mx == "secure")
    says = dane_says(facts, Use(use.rstrip("?")))
    assert (shown(says), asked(resolver)) == (expected, looked)
    assert says.reason
    assert "\n" not in says.reason
    assert not trouble or trouble in says.reason


SOME = st.sampled_from


@settings(deadline=None)
@given(
    use=SOME([Use.AUTO, Use.REQUIRE]), host=SOME(sorted(HOSTS)), end=SOME(sorted(TLSA)), name=SOME(sorted(TLSA)),
    secure=st.booleans(), trouble=SOME(["", "it does not validate"]),
)  # fmt: skip
async def test_what_is_not_known_is_never_taken_for_absent(
    use: Use, host: str, end: str, name: str, secure: bool, trouble: str
) -> None:
    resolver = Dns(host=host, dane=trouble, tlsa_at={END: TLSA[end], HOST: TLSA[name]})
    facts = await look(resolver, secure=secure)
    says = dane_says(facts, use)
    unknown = facts.failed is not None or any(each.failed is not None for each in facts.tlsa)
    tlsa = any(isinstance(each, Tlsa) for each in says.demands)
    if unknown:
        assert says.withheld is not None
        assert says.withheld.failure is not TlsFailure.DANE_REQUIRED
    if use is Use.REQUIRE:
        assert says.withheld is not None or tlsa
    if says.demands:
        assert secure
        assert not trouble
        assert says.applied is not None
        assert says.applied.demands == says.demands
    assert resolver.asked.total() <= 4
    assert not (trouble and any(each.startswith("tlsa") for each in resolver.asked)), "nobody believes it anyway"


async def test_what_was_applied_is_what_is_published() -> None:
    says = dane_says(await look(Dns(host="chain", dane="", tlsa_at={END: TLSA["ee"]}), secure=True), Use.AUTO)
    applied = says.applied
    assert applied is not None
    assert (applied.kind, applied.domain, applied.mx, applied.enforced) == (PolicyKind.TLSA, END, (HOST,), True)
    assert applied.strings == (str(EE), str(USELESS))
    assert says.reason == "1 of 2 TLSA records at end.contoso.net can be used"
    assert says.details == (
        "3 1 1 abababababababababababab... (DANE-EE)",
        "1 1 1 efefefefefefefefefefefef... (not used: PKIX usages say nothing in SMTP)",
    )
    (demand,) = (each for each in says.demands if isinstance(each, Tlsa))
    assert demand.records == (EE,)


async def test_a_failed_look_up_can_be_reported_under_the_name_that_was_asked_about() -> None:
    says = dane_says(await look(Dns(dane="", tlsa_at={HOST: FAILED}), secure=True), Use.AUTO)
    assert says.applied is not None
    assert (says.applied.domain, says.applied.strings, says.applied.mx) == (HOST, (), (HOST,))
    assert says.reason == "the look-up of TLSA records at mx.contoso.com, port 25, failed: no answer in time"


async def test_a_smart_host_is_looked_up_as_the_system_does() -> None:
    resolver = Dns(dane="", tlsa_at={HOST: TLSA["ee"]})
    facts = await dane_facts(resolver, HostPort(HOST, 25), mx_secure=True, next_hop=HOST, configured=True)
    assert list(resolver.asked) == [f"configured {HOST}", f"tlsa {HOST}:25"]
    (demand,) = (each for each in dane_says(facts, Use.REQUIRE).demands if isinstance(each, Tlsa))
    assert demand.names == (HOST,)


async def test_the_same_answer_is_the_same_object() -> None:
    resolver = Dns(dane="", tlsa_at={HOST: TLSA["ee"]})
    dane, hop = Dane(resolver), HostPort(HOST, 25)
    first = await dane.says(hop, Use.AUTO, mx_secure=True, next_hop=NEXT_HOP)
    assert first.demands
    assert await dane.says(hop, Use.AUTO, mx_secure=True, next_hop=NEXT_HOP) is first
    assert await dane.says(hop, Use.REQUIRE, mx_secure=True, next_hop=NEXT_HOP) == first
    resolver.tlsa_at[HOST] = TLSA["ta"]
    assert await dane.says(hop, Use.AUTO, mx_secure=True, next_hop=NEXT_HOP) != first
    assert await dane.says(hop, Use.AUTO, mx_secure=False, next_hop=NEXT_HOP) != first
    resolver.asked.clear()
    off = await dane.says(hop, Use.OFF, mx_secure=True, next_hop=NEXT_HOP)
    assert off.reason == "left out: the connector says `dane: off`"
    assert not resolver.asked


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    dane = Dane(Dns(dane=""))
    for number in range(5):
        await dane.says(HostPort(HOST, number), Use.AUTO, mx_secure=False, next_hop=NEXT_HOP)
    assert [hop.port for hop, _, _ in dane._kept] == [2, 3, 4]
