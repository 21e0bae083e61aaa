"""Every row of mtasts.txt: use x policy x what went wrong x host -> what becomes of mail, and of the report."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.codec import demand_json
from relay.mail.plan import PolicyApplied
from relay.mail.published import PolicyKind, StsFetched, StsFound, StsMode, StsPolicy, StsTrouble, StsUnknown, Use
from relay.mail.tls import TlsFailure
from relay.policy.mtasts import sts_says, unfetched
from relay.policy.published import Says
from tests.unit.policy.builders import NOW

TABLE = Path(__file__).with_name("mtasts.txt")
MX = ("mx.contoso.com", "*.mail.example")
HOSTS = {
    "listed": "mx.contoso.com",
    "wild": "eu.mail.example",
    "deep": "mx.eu.mail.example",
    "apex": "mail.example",
    "other": "mx.evil.example",
}
TROUBLE = {
    "-": None,
    "dns": StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, "the look-up failed", announced=False),
    "record": StsTrouble(TlsFailure.STS_POLICY_INVALID, "two records"),
    "fetch": StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, "404"),
    "file": StsTrouble(TlsFailure.STS_POLICY_INVALID, "no mode"),
    "webpki": StsTrouble(TlsFailure.STS_WEBPKI_INVALID, "expired"),
}
AGES = {"": timedelta(hours=3), "ended": timedelta(days=8), "future": timedelta(days=-1000)}


def rows() -> Iterator[tuple[str, ...]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    yield from (tuple(cell.strip() for cell in line.split("|")) for line in lines)


def found(policy: str, trouble: str) -> StsFound | StsUnknown:
    if trouble == "store":
        return StsUnknown("the disk is gone")
    if policy == "-":
        return StsFound(None, TROUBLE[trouble])
    mode, _, age = policy.partition(" ")
    published = StsPolicy(StsMode(mode), MX, 7 * 86400, "20261122", ("version: STSv1",))
    return StsFound(StsFetched(published, NOW - AGES[age]), TROUBLE[trouble])


def delivery(says: Says) -> str:
    if says.withheld is not None:
        assert (says.withheld.code, says.withheld.status) == (451, "4.7.5" if says.withheld.failure else "4.3.0")
        return f"no:{says.withheld.failure or ''}"
    kinds = {(each["demand"], each["source"]) for each in map(demand_json, says.demands)}
    if not kinds:
        return "plain"
    assert kinds == {(kind, "mta-sts") for kind in ("encryption", "pkix", "sts-mx", "tls-version")}
    return "held"


@pytest.mark.parametrize(("use", "policy", "trouble", "host", "mail", "applied", "report"), list(rows()))
def test_row(use: str, policy: str, trouble: str, host: str, mail: str, applied: str, report: str) -> None:
    known = found(policy, trouble)
    says = sts_says(Use(use), known, "contoso.com", HOSTS[host], NOW)
    assert delivery(says) == mail
    assert says.reason
    assert "\n" not in says.reason
    told = unfetched(Use(use), known, NOW)
    assert report == ("-" if told is None else told.failure.value)
    if told is not None:  # nothing applies, and its owner hears why
        assert applied == "-"
        assert says.applied == PolicyApplied(PolicyKind.STS, "contoso.com", enforced=False, failure=told.failure)
        return
    assert applied == ("-" if says.applied is None else "enforced" if says.applied.enforced else "testing")
    if says.applied is not None:
        assert (says.applied.domain, says.applied.mx, says.applied.strings) == ("contoso.com", MX, ("version: STSv1",))
        assert says.applied.demands, "a report judges them, enforced or not"
        assert not says.demands or says.demands == says.applied.demands
