"""Every row of plan_by_offer.txt: what the connector asks x what the hop shows -> what is done."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from relay.mail.plan import TlsPlan
from relay.mail.tls import TlsEvidence, TlsFailure, Trusted, Untrusted
from relay.policy.plan import Step, after_broken_tls, after_ehlo, choose_plan
from relay.policy.published import UNPUBLISHED
from relay.policy.requiretls import require_tls
from relay.policy.verdict import Failed, judge
from tests.unit.policy.builders import NEVER, NOW, OTHER_PIN, PIN, book, certificate, evidence

TABLE = Path(__file__).with_name("plan_by_offer.txt")
HOST = "mail.contoso.com"


def rows() -> Iterator[tuple[str, str, str]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    columns = [cell.strip() for cell in lines[0].split("|")[1:]]
    for line in lines[1:]:
        plan, *cells = (cell.strip() for cell in line.split("|"))
        assert len(cells) == len(columns), line
        yield from ((plan, column, cell) for column, cell in zip(columns, cells, strict=True))


def plan_of(words: str) -> TlsPlan:
    level, *options = words.split()
    connector: dict[str, Any] = {
        "name": "contoso-out",
        "direction": "outbound",
        "match": {"recipient_domains": ["contoso.com"]},
        "tls": level,
        "route": {"smart_hosts": [f"{HOST}:25"]},
    }
    exceptions = []
    until = date(2026, 11, 21) if "ended" in options else date(2026, 11, 22)
    for option in options:
        match option.split("="):
            case ["plaintext", rule]:
                connector["plaintext"] = rule
            case ["version", version]:
                connector["tls_version"] = version
            case ["names"]:
                connector["names"] = [HOST]
            case ["pins"]:
                connector["pins"] = [PIN]
            case ["exception", allow]:
                exceptions = [{"recipient_domain": "contoso.com", "allow": allow, "until": until, "reason": "test"}]
            case ["mx"]:
                del connector["route"]
            case ["ended"] | ["requiretls"] | ["unoffered"]:
                pass
            case _:
                raise AssertionError(f"unknown option {option}")
    rules = book(connectors=[connector], exceptions=exceptions)
    found = rules.outbound_for("contoso.com")
    plan = choose_plan(rules, found, "contoso.com", HOST, NOW)
    if "requiretls" in options:
        return require_tls(plan, connector=found, host=HOST, published=UNPUBLISHED, trust="system")
    return plan


def shown(column: str) -> TlsEvidence:
    good = {"system": Trusted("CN=ca", NEVER)}
    match column:
        case "good":
            return evidence(certificate(HOST), paths=good)
        case "name":
            return evidence(certificate("other.example"), paths=good)
        case "ca":
            untrusted = Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "unable to get local issuer certificate")
            return evidence(certificate(HOST), paths={"system": untrusted})
        case "expired":
            expired = Untrusted(TlsFailure.CERTIFICATE_EXPIRED, "certificate has expired")
            return evidence(certificate(HOST), paths={"system": expired})
        case "pin":
            return evidence(certificate(HOST, pin=OTHER_PIN), paths=good)
        case "old":
            return evidence(certificate(HOST), version="TLSv1.1", paths=good)
        case "bare":
            return evidence(None, paths={"system": Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "no certificate")})
    raise AssertionError(f"unknown column {column}")


def outcome(plan: TlsPlan, column: str, *, offered: bool) -> str:
    if after_ehlo(plan, starttls_offered=column != "none") is Step.SEND_IN_CLEAR:
        return "clear" if not isinstance(judge(plan, None), Failed) else "clear, though the verdict says no"
    if column == "none":
        verdict = judge(plan, None)
        return f"no:{verdict.failure}" if isinstance(verdict, Failed) else "refused, though the verdict says yes"
    if column == "broken":
        again = after_broken_tls(plan) is Step.SEND_IN_CLEAR
        return "again" if again else f"no:{TlsFailure.HANDSHAKE_FAILED}"
    verdict = judge(plan, shown(column), requiretls_offered=offered)
    return f"no:{verdict.failure}" if isinstance(verdict, Failed) else "tls"


@pytest.mark.parametrize(("plan", "column", "cell"), list(rows()))
def test_row(plan: str, column: str, cell: str) -> None:
    found = outcome(plan_of(plan), column, offered="unoffered" not in plan.split())
    if cell.startswith("no:"):
        assert found.startswith(cell)
    else:
        assert found == cell
