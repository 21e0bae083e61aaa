"""Every row of requiretls.txt, and what holds in all of them: nothing is taken away, and nothing goes in clear."""

from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from relay.config.connectors import OutboundConnector
from relay.mail.plan import Encryption, Pins, Pkix, RequireTls, Tlsa, TlsPlan
from relay.mail.tls import TlsFailure
from relay.policy.plan import Step, after_broken_tls, after_ehlo, choose_plan
from relay.policy.published import Published, join
from relay.policy.requiretls import SOURCE, require_tls
from relay.policy.verdict import Failed, judge
from tests.golden.test_published import CONNECTORS, DANE, EXCEPTIONS, HOST, MTA_STS
from tests.unit.policy.builders import NOW, PIN, book

TABLE = Path(__file__).with_name("requiretls.txt")
SHOWN = {"connector contoso-out": "connector", "": "nobody"}
EVERYTHING = list(product((*CONNECTORS, "domain"), ("", "smart"), EXCEPTIONS, DANE, MTA_STS, (True, False)))


def rows() -> Iterator[tuple[str, ...]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    yield from (tuple(cell.strip() for cell in line.split("|")) for line in lines)


def plan_of(words: str) -> tuple[TlsPlan, OutboundConnector]:
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
            case ["smart"]:
                connector["route"] = {"smart_hosts": [f"{HOST}:25"]}
            case ["exception", allow]:
                until = date(2026, 12, 1)
                exceptions = [{"recipient_domain": "contoso.com", "allow": allow, "until": until, "reason": "test"}]
            case _:
                raise AssertionError(f"unknown option {option}")
    rules = book(connectors=[connector], exceptions=exceptions)
    found = rules.outbound_for("contoso.com")
    return choose_plan(rules, found, "contoso.com", HOST, NOW), found


def required(words: str, published: Published) -> tuple[TlsPlan, TlsPlan] | None:
    """The plan without and with REQUIRETLS; None where published policy keeps all mail from the host."""
    chosen, connector = plan_of(words)
    plan = join(chosen, published)
    if not isinstance(plan, TlsPlan):
        return None
    return plan, require_tls(plan, connector=connector, host=HOST, published=published, trust="system")


def vouched(plan: TlsPlan) -> str:
    (demand,) = (each for each in plan.demands if isinstance(each, RequireTls))
    return demand.vouched


def own_check(plan: TlsPlan) -> str:
    own = [each for each in plan.demands if each.source == SOURCE and isinstance(each, Pkix | Pins)]
    match own:
        case []:
            return "-"
        case [Pkix(_, "system", names)]:
            return " ".join(names)
        case [Pins(_, (pin,))] if pin == PIN:
            return "pins"
    raise AssertionError(own)


@pytest.mark.parametrize(("connector", "dane", "sts", "mx", "voucher", "check"), list(rows()))
def test_row(connector: str, dane: str, sts: str, mx: str, voucher: str, check: str) -> None:
    made = required(connector, Published(DANE[dane], MTA_STS[sts], mx == "secure"))
    assert made is not None
    assert SHOWN.get(vouched(made[1]), vouched(made[1])) == voucher
    assert own_check(made[1]) == check


def test_whatever_is_asked_and_published_requiretls_only_adds() -> None:
    seen = 0
    for level, smart, exception, dane, sts, secure in EVERYTHING:
        if level == "domain" and not smart:
            continue  # by MX it needs names
        made = required(f"{level} {smart} {exception}", Published(DANE[dane], MTA_STS[sts], secure))
        if made is None:
            continue
        seen += 1
        before, after = made
        assert after.demands > before.demands
        assert (after.level, after.plaintext, after.until) == (before.level, before.plaintext, before.until)
        assert {Encryption(SOURCE)} <= after.demands
        # Not in clear, whatever an exception allows, and not to a host whose certificate nobody checks.
        assert after_ehlo(after, starttls_offered=False) is Step.REFUSE
        assert after_broken_tls(after) is Step.REFUSE
        verdict = judge(after, None, requiretls_offered=True)
        assert isinstance(verdict, Failed)
        assert verdict.failure is TlsFailure.REQUIRETLS_NOT_SUPPORTED
        if vouched(after):
            assert any(
                isinstance(each, Tlsa | Pins) or (isinstance(each, Pkix) and each.names) for each in after.demands
            )
    assert seen > 200
