"""Every row of published.txt: what a connector asks x what a partner publishes -> what the plan demands. And that it only ever adds."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.codec import demand_json
from relay.mail.outcome import Deferred
from relay.mail.plan import Demand, Encryption, Pkix, PolicyApplied, StsMx, Tlsa, TlsPlan, TlsVersion
from relay.mail.published import PolicyKind, TlsaRecord, Use
from relay.mail.tls import TlsFailure
from relay.policy.plan import choose_plan
from relay.policy.published import NOTHING, UNPUBLISHED, Published, Says, Uses, join, uses
from tests.unit.policy.builders import NOW, PIN, book

TABLE = Path(__file__).with_name("published.txt")
HOST = "mx.contoso.com"
TLSA = (TlsaRecord(3, 1, 1, "ab"),)
STS: frozenset[Demand] = frozenset(
    {Encryption("mta-sts"), Pkix("mta-sts", "system", (HOST,)), StsMx("mta-sts", HOST, ("*.contoso.com",))}
)
DANE = {
    "-": NOTHING,
    "tlsa": Says(
        frozenset({Encryption("dane"), Tlsa("dane", HOST, TLSA, (HOST,))}),
        PolicyApplied(PolicyKind.TLSA, HOST, ("3 1 1 ab",)),
        "one usable record",
    ),
    "unusable": Says(frozenset({Encryption("dane")}), PolicyApplied(PolicyKind.TLSA, HOST), "none usable"),
    "withheld": Says(withheld=Deferred(451, "4.7.5", "the TLSA look-up failed", TlsFailure.DNSSEC_INVALID)),
}
MTA_STS = {
    "-": NOTHING,
    "enforce": Says(STS, PolicyApplied(PolicyKind.STS, "contoso.com", demands=STS), "mode enforce"),
    "testing": Says(
        frozenset(), PolicyApplied(PolicyKind.STS, "contoso.com", demands=STS, enforced=False), "mode testing"
    ),
    "withheld": Says(withheld=Deferred(451, "4.7.5", "not listed", TlsFailure.VALIDATION_FAILURE)),
}
CONNECTORS = ("opportunistic", "encryption", "encryption pins", "certificate", "domain names", "domain names pins")
EXCEPTIONS = ("", "exception=plaintext", "exception=encryption")


def rows() -> Iterator[tuple[str, ...]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    yield from (tuple(cell.strip() for cell in line.split("|")) for line in lines)


def plan_of(words: str) -> TlsPlan:
    level, *options = words.split()
    connector: dict[str, Any] = {
        "name": "contoso-out",
        "direction": "outbound",
        "match": {"recipient_domains": ["contoso.com"]},
        "tls": level,
    }
    exceptions = []
    for option in options:
        match option.split("="):
            case ["names"]:
                connector["names"] = ["*.contoso.com"]
            case ["pins"]:
                connector["pins"] = [PIN]
            case ["exception", allow]:
                until = date(2026, 12, 1)
                exceptions = [{"recipient_domain": "contoso.com", "allow": allow, "until": until, "reason": "test"}]
            case _:
                raise AssertionError(f"unknown option {option}")
    rules = book(connectors=[connector], exceptions=exceptions)
    return choose_plan(rules, rules.outbound_for("contoso.com"), "contoso.com", HOST, NOW)


def shown(plan: TlsPlan | Deferred) -> str:
    if isinstance(plan, Deferred):
        assert plan.failure is not None
        return plan.failure.value
    demands = (demand_json(each) for each in plan.demands if not isinstance(each, TlsVersion))
    words = sorted(f"{each['demand']}:{each['source'].split()[0]}" for each in demands)
    return " ".join(words) or "none"


@pytest.mark.parametrize(("connector", "dane", "sts", "mx", "expected"), list(rows()))
def test_row(connector: str, dane: str, sts: str, mx: str, expected: str) -> None:
    assert shown(join(plan_of(connector), Published(DANE[dane], MTA_STS[sts], mx == "secure"))) == expected


@given(
    connector=st.sampled_from(CONNECTORS),
    exception=st.sampled_from(EXCEPTIONS),
    dane=st.sampled_from(sorted(DANE)),
    sts=st.sampled_from(sorted(MTA_STS)),
    secure=st.booleans(),
)
def test_nothing_published_takes_a_demand_away(
    connector: str, exception: str, dane: str, sts: str, secure: bool
) -> None:
    plan = plan_of(f"{connector} {exception}")
    joined = join(plan, Published(DANE[dane], MTA_STS[sts], secure))
    if isinstance(joined, Deferred):
        return
    assert joined.demands >= plan.demands
    assert (joined.level, joined.plaintext, joined.until) == (plan.level, plan.plaintext, plan.until)
    assert joined.requires_tls >= plan.requires_tls
    # Of what is published, only the certificate check of MTA-STS may be missing, and only where TLSA does it.
    asked = DANE[dane].demands | MTA_STS[sts].demands
    missing = asked - joined.demands
    assert all(isinstance(each, Pkix) and each.source == "mta-sts" for each in missing)
    assert not missing or (secure and dane == "tlsa")


def test_what_was_found_stays_with_the_plan_for_reports() -> None:
    plan = join(plan_of("opportunistic"), Published(DANE["tlsa"], MTA_STS["testing"], mx_secure=True))
    assert isinstance(plan, TlsPlan)
    assert [(each.kind, each.enforced) for each in plan.published] == [(PolicyKind.TLSA, True), (PolicyKind.STS, False)]
    assert plan.trusts == {"system"}, "a policy in testing is judged for the report"
    same = plan_of("opportunistic")
    assert join(same, UNPUBLISHED) is same


@pytest.mark.parametrize(
    ("written", "exception", "tls_optional", "expected"),
    [
        ("auto", "", False, Use.AUTO),
        ("auto", "", True, Use.OFF),
        ("auto", "plaintext", False, Use.AUTO),
        ("require", "", False, Use.REQUIRE),
        ("require", "", True, Use.REQUIRE),
        ("require", "plaintext", True, Use.REQUIRE),
        ("off", "", False, Use.OFF),
        ("off", "plaintext", False, Use.AUTO),
        ("off", "plaintext", True, Use.OFF),
    ],
)
def test_uses(written: str, exception: str, tls_optional: bool, expected: Use) -> None:
    connector = {
        "name": "c",
        "direction": "outbound",
        "match": {"recipient_domains": ["contoso.com"]},
        "tls": "encryption",
        "pins": [PIN],
        "dane": written,
        "mta_sts": written,
    }
    until = {"recipient_domain": "contoso.com", "allow": "plaintext", "until": date(2026, 12, 1), "reason": "test"}
    dns = {"resolver": "127.0.0.1:53", "validating": True}
    rules = book(connectors=[connector], exceptions=[until] if exception else [], dns=dns)
    found = uses(rules.outbound_for("contoso.com"), rules.exceptions.get("contoso.com"), tls_optional=tls_optional)
    assert found == Uses(expected, expected)
