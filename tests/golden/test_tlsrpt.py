"""Every row of tlsrpt.txt: published policy x session x certificate -> what is counted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.mail.attempt import Attempt, Session, SessionEnd
from relay.mail.outcome import Delivered
from relay.mail.plan import Demand, Encryption, Level, Pins, Pkix, Plaintext, PolicyApplied, TlsPlan
from relay.mail.published import PolicyKind
from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted
from relay.mail.tlsreport import Judged
from relay.policy.tlsrpt import judge_session
from tests.unit.policy.builders import NEVER, NOW, OTHER_PIN, PIN, certificate, evidence

TABLE = Path(__file__).with_name("tlsrpt.txt")
DOMAIN, HOST, TRUST = "contoso.com", "mx.contoso.com", "/etc/relay/secret-place/ca.pem"
PATHS: dict[str, PathResult] = {
    "good": Trusted("CN=ca", NEVER),
    "self-signed": Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "self-signed certificate"),
    "expired": Untrusted(TlsFailure.CERTIFICATE_EXPIRED, "certificate has expired"),
    "undecided": Undecided("the file cannot be read"),
}
STS: frozenset[Demand] = frozenset({Encryption("mta-sts"), Pkix("mta-sts", TRUST, (HOST,))})
# A pin stands in for the TLSA records: what is judged here is that each policy is judged, not how TLSA records match.
DANE: frozenset[Demand] = frozenset({Encryption("dane"), Pins("dane", (PIN,))})
POLICIES = {
    "sts": PolicyApplied(PolicyKind.STS, DOMAIN, ("version: STSv1",), (HOST,), STS),
    "testing": PolicyApplied(PolicyKind.STS, DOMAIN, ("version: STSv1",), (HOST,), STS, enforced=False),
    "dane": PolicyApplied(PolicyKind.TLSA, HOST, ("3 1 1 ab",), (), DANE),
    "unusable": PolicyApplied(PolicyKind.TLSA, HOST, ("1 1 1 ab",), (), frozenset({Encryption("dane")})),
    "fetch": PolicyApplied(PolicyKind.STS, DOMAIN, failure=TlsFailure.STS_POLICY_FETCH_ERROR),
}
CONNECTOR: frozenset[Demand] = frozenset({Encryption("connector c"), Pins("connector c", ("sha256:none",))})


def rows() -> Iterator[Any]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        yield pytest.param(*(cell.strip() for cell in line.split("|")), id=" ".join(line.split()))


def shown(words: str) -> TlsEvidence | None:
    if words == "-":
        return None
    name, _, trust = words.partition("/")
    leaf = certificate(name, pin=PIN if name == HOST else OTHER_PIN)
    return evidence(leaf, paths={TRUST: PATHS[trust]})


def session_of(words: str, published: tuple[PolicyApplied, ...]) -> Session | None:
    if words == "none":
        return None
    kind, equals, failure = words.partition("=")
    if equals:
        found = TlsFailure(failure) if failure else None
        return Session(SessionEnd.WITHHELD, reason="why", failure=found, published=published)
    reason = "wrong version number" if kind == "broken" else ""
    return Session(SessionEnd(kind), "198.51.100.1", reason)


def words_of(judged: Judged) -> str:
    policy, failing = judged.policy, judged.failing
    result = f"{failing.result.value}{f' ({failing.reason})' if failing.reason else ''}" if failing else "success"
    return f"{policy.kind.value} {policy.domain} {result}".replace(OTHER_PIN, "another")


@pytest.mark.parametrize(("published", "session", "certificate_shown", "expected"), list(rows()))
def test_row(published: str, session: str, certificate_shown: str, expected: str) -> None:
    policies = tuple(POLICIES[each] for each in published.split("+") if each != "-")
    tried = session_of(session, policies)
    withheld = tried is not None and tried.end is SessionEnd.WITHHELD
    plan = TlsPlan(Level.ENCRYPTION, Plaintext.NEVER, CONNECTOR, published=policies)
    attempt = Attempt(
        *("M", NOW, f"{HOST}:25", "" if withheld else "203.0.113.7", "c", None if withheld else plan),
        *(shown(certificate_shown), ((0, Delivered(250, "2.0.0", "ok")),)),
        session=tried,
    )
    judged = judge_session(DOMAIN, attempt)
    assert "; ".join(map(words_of, judged)) == ("" if expected == "nothing" else expected)
    for each in judged:
        assert "secret-place" not in str(each)
        if each.failing is not None:
            assert (each.failing.host, each.failing.address) == (HOST, attempt.address)
            assert each.failing.source == ("" if withheld else "198.51.100.1")
