"""MTA-STS: whose policy it is, what it demands, how a host is judged against it, and the words for it."""

from datetime import timedelta

import pytest

from relay.config.values import HostPort
from relay.mail.plan import Encryption, Level, Pkix, Plaintext, StsMx, TlsPlan, TlsVersion
from relay.mail.published import StsFetched, StsFound, StsMode, StsPolicy, StsTrouble, Use
from relay.mail.tls import TlsFailure, Trusted
from relay.policy.mtasts import in_force, policy_domain, sts_says
from relay.policy.names import is_listed
from relay.policy.verdict import Failed, Satisfied, judge
from tests.unit.policy.builders import NEVER, NOW, book, certificate, evidence

POLICY = StsPolicy(StsMode.ENFORCE, ("mx.contoso.com",), 7 * 86400, "2026")
FOUND = StsFound(StsFetched(POLICY, NOW - timedelta(hours=3)))


@pytest.mark.parametrize(
    ("route", "domain", "hop", "expected"),
    [
        ("mx", "contoso.com", "mx.contoso.com", "contoso.com"),
        ("mx", "eu.contoso.com", "mx.contoso.com", "eu.contoso.com"),
        ("mx", "[192.0.2.1]", "192.0.2.1", ""),
        ({"smart_hosts": ["smtp.provider.example:587"]}, "contoso.com", "smtp.provider.example", "smtp.provider.example"),
        ({"smart_hosts": ["192.0.2.7:25"]}, "contoso.com", "192.0.2.7", ""),
        ({"smart_hosts": ["[2001:db8::1]:25"]}, "contoso.com", "2001:db8::1", ""),
    ],
)  # fmt: skip
def test_policy_domain(route: object, domain: str, hop: str, expected: str) -> None:
    connector = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["*"]}, "route": route}
    rules = book(connectors=[connector])
    assert policy_domain(rules.outbound_for("contoso.com"), domain, HostPort(hop, 25)) == expected


def test_an_address_has_no_policy() -> None:
    assert sts_says(Use.AUTO, StsFound(), "", "192.0.2.7", NOW).withheld is None
    withheld = sts_says(Use.REQUIRE, StsFound(), "", "192.0.2.7", NOW).withheld
    assert withheld is not None
    assert withheld.failure is TlsFailure.STS_POLICY_FETCH_ERROR
    assert withheld.text.endswith("an address has no MTA-STS policy")


def test_what_an_enforced_policy_demands() -> None:
    says = sts_says(Use.AUTO, FOUND, "contoso.com", "mx.contoso.com", NOW)
    assert says.demands == {
        Encryption("mta-sts"),
        TlsVersion("mta-sts", "TLSv1.2"),
        Pkix("mta-sts", "system", ("mx.contoso.com",)),
        StsMx("mta-sts", "mx.contoso.com", ("mx.contoso.com",)),
    }


@pytest.mark.parametrize(
    ("name", "version", "failure"),
    [
        ("mx.contoso.com", "TLSv1.3", None),
        ("*.contoso.com", "TLSv1.2", None),
        ("contoso.com", "TLSv1.3", TlsFailure.CERTIFICATE_HOST_MISMATCH),
        ("mx.contoso.com", "TLSv1.1", TlsFailure.TLS_VERSION_TOO_LOW),
    ],
)
def test_the_demands_are_judged(name: str, version: str, failure: TlsFailure | None) -> None:
    """A connector may allow an old version; a policy does not."""
    says = sts_says(Use.AUTO, FOUND, "contoso.com", "mx.contoso.com", NOW)
    plan = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS, frozenset({TlsVersion("default", "TLSv1")}))
    shown = evidence(certificate(name), version=version, paths={"system": Trusted("CN=ca", NEVER)})
    verdict = judge(plan.adding(says.demands), shown)
    assert (verdict.failure if isinstance(verdict, Failed) else None) is failure


def test_clear_text_fails_it() -> None:
    says = sts_says(Use.AUTO, FOUND, "contoso.com", "mx.contoso.com", NOW)
    verdict = judge(TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS).adding(says.demands), None)
    assert isinstance(verdict, Failed)
    assert verdict.failure is TlsFailure.STARTTLS_NOT_SUPPORTED


def test_a_host_that_is_not_listed_fails_by_verdict_too() -> None:
    demand = StsMx("mta-sts", "mx.evil.example", ("mx.contoso.com", "*.mail.example", "a.x", "b.x", "c.x", "d.x"))
    verdict = judge(
        TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER, frozenset({demand})), evidence(certificate("x.example"))
    )
    assert verdict == Failed(
        TlsFailure.VALIDATION_FAILURE,
        "mta-sts",
        "the MTA-STS policy lists mx.contoso.com, *.mail.example, a.x, b.x, c.x, ..., and mx.evil.example is none of these",
    )  # fmt: skip
    listed = StsMx("mta-sts", "eu.mail.example", demand.patterns)
    assert judge(TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER, frozenset({listed})), evidence()) == Satisfied()
    nobody = StsMx("mta-sts", "mx.contoso.com", ())
    verdict = judge(TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER, frozenset({nobody})), evidence())
    assert isinstance(verdict, Failed)
    assert "lists no host" in verdict.text


@pytest.mark.parametrize(
    ("host", "pattern", "matches"),
    [
        ("mail.example.com", "mail.example.com", True),
        ("mail.example.com", "*.example.com", True),
        ("example.com", "*.example.com", False),
        ("foo.bar.example.com", "*.example.com", False),
        ("mail.example.com", "example.com", False),
        ("mailexample.com", "*.example.com", False),
        ("example", "*.example", False),
        ("xn--strae-oqa.de", "*.de", True),
    ],
)
def test_patterns(host: str, pattern: str, matches: bool) -> None:
    """RFC 8461 section 4.1, its examples first."""
    assert is_listed(host, ("other.example", pattern)) is matches
    assert not is_listed(host, ())


@pytest.mark.parametrize(
    ("age", "expected"),
    [(timedelta(0), True), (timedelta(days=7), True), (timedelta(days=7, seconds=1), False), (timedelta(-1), True)],
)
def test_in_force(age: timedelta, expected: bool) -> None:
    fetched = StsFetched(POLICY, NOW - age)
    assert in_force(StsFound(fetched), NOW) == (fetched if expected else None)
    assert in_force(StsFound(), NOW) is None


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(seconds=7), "fetched 7 s ago, good for 6 d"),
        (timedelta(minutes=61), "fetched 1 h ago, good for 6 d"),
        (timedelta(days=6, hours=23, minutes=1), "fetched 6 d ago, good for 59 min"),
        (timedelta(days=-3), "fetched 0 s ago, good for 10 d"),
    ],
)
def test_the_reason_names_mode_id_and_age(age: timedelta, words: str) -> None:
    says = sts_says(Use.AUTO, StsFound(StsFetched(POLICY, NOW - age)), "contoso.com", "mx.contoso.com", NOW)
    assert says.reason == f"MTA-STS policy of contoso.com: mode enforce, id 2026, {words}"


def test_the_reason_tells_of_a_refresh_that_fails() -> None:
    trouble = StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, "mta-sts.contoso.com answers 404, not 200")
    says = sts_says(Use.AUTO, StsFound(FOUND.fetched, trouble), "contoso.com", "mx.evil.example", NOW)
    assert says.reason == (
        "MTA-STS policy of contoso.com: mode enforce, id 2026, fetched 3 h ago, good for 6 d; the latest try to fetch it failed: "
        "mta-sts.contoso.com answers 404, not 200; the MTA-STS policy lists mx.contoso.com, and mx.evil.example is none of these"
    )
