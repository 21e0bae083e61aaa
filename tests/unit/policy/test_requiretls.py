"""REQUIRETLS: which hosts that refused make a message bounce, and what counts as refusing. Who vouches is in tests/golden/requiretls.txt."""

import pytest

from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.plan import Level, Plaintext, RequireTls, TlsPlan
from relay.mail.tls import TlsFailure, Trusted
from relay.policy.requiretls import REFUSED, SOURCE, kept_nowhere, refuses, was_refused
from relay.policy.verdict import SATISFIED, Failed, judge
from tests.unit.policy.builders import NEVER, certificate, evidence

NOT_OFFERED = Deferred(451, REFUSED, "the hop does not offer REQUIRETLS", TlsFailure.REQUIRETLS_NOT_SUPPORTED)
WRONG_NAME = Deferred(451, REFUSED, "for another name", TlsFailure.CERTIFICATE_HOST_MISMATCH)
UNREACHED = Deferred(451, "4.4.1", "cannot connect")
STALLED = Deferred(451, "4.4.2", "no answer in time")
BUSY = Deferred(421, "4.3.2", "busy")
THEIRS = Deferred(451, "4.7.5", "not trusted (asked by connector c)", TlsFailure.CERTIFICATE_NOT_TRUSTED)
SAID = Deferred(451, REFUSED, "our next hop cannot")
LOOKUP = Deferred(451, "4.4.3", "the look-up failed")
A, B = "mx1.example:25", "mx2.example:25"


@pytest.mark.parametrize(
    ("tried", "failure"),
    [
        # every host refused, each in its way
        ([(A, NOT_OFFERED)], TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        ([(A, NOT_OFFERED), (B, NOT_OFFERED)], TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        ([(A, NOT_OFFERED), (B, WRONG_NAME)], TlsFailure.CERTIFICATE_HOST_MISMATCH),
        ([(A, NOT_OFFERED), (A, NOT_OFFERED)], TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        # a machine without IPv6 must not wait for that half of every host
        ([(A, UNREACHED), (A, NOT_OFFERED), (B, NOT_OFFERED)], TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        ([(A, NOT_OFFERED), (A, UNREACHED), (B, UNREACHED), (B, WRONG_NAME)], TlsFailure.CERTIFICATE_HOST_MISMATCH),
        # a host that might still take it
        ([(A, NOT_OFFERED), (B, UNREACHED)], None),
        ([(A, UNREACHED)], None),
        ([(A, BUSY), (B, NOT_OFFERED)], None),
        ([(A, NOT_OFFERED), (A, STALLED)], None),
        ([(A, NOT_OFFERED), (B, THEIRS)], None),
        ([(A, LOOKUP), (B, NOT_OFFERED)], None),
        ([(A, NOT_OFFERED), (B, SAID)], None),
        ([(A, THEIRS)], None),
        ([], None),
    ],
)
def test_what_becomes_of_it_when_no_host_is_left(tried: list[tuple[str, Outcome]], failure: TlsFailure | None) -> None:
    bounced = kept_nowhere(tried)
    if failure is None:
        assert bounced is None
    else:
        assert isinstance(bounced, Bounced)
        assert (bounced.code, bounced.status, bounced.failure) == (550, "5.7.30", failure)
        assert bounced.text.startswith("REQUIRETLS cannot be kept: ")


def test_only_our_own_finding_is_a_refusal() -> None:
    assert was_refused(NOT_OFFERED)
    assert was_refused(WRONG_NAME)
    for other in (SAID, THEIRS, BUSY, Bounced(550, "5.7.30", "no"), Delivered(250, "2.0.0", "ok")):
        assert not was_refused(other)


@pytest.mark.parametrize(
    ("failure", "source", "expected"),
    [
        (TlsFailure.REQUIRETLS_NOT_SUPPORTED, SOURCE, True),
        (TlsFailure.CERTIFICATE_HOST_MISMATCH, SOURCE, True),
        (TlsFailure.CERTIFICATE_NOT_TRUSTED, SOURCE, True),
        # our own trust data: the hop is not to blame
        (TlsFailure.VALIDATION_FAILURE, SOURCE, False),
        # others' mail waits for the same reason
        (TlsFailure.CERTIFICATE_NOT_TRUSTED, "connector c", False),
        (TlsFailure.TLSA_INVALID, "dane", False),
        (TlsFailure.STARTTLS_NOT_SUPPORTED, "mta-sts", False),
    ],
)
def test_which_verdicts_refuse(failure: TlsFailure, source: str, expected: bool) -> None:
    assert refuses(Failed(failure, source, "why")) is expected


@pytest.mark.parametrize("vouched", ["dnssec", "mta-sts", "connector c", ""])
@pytest.mark.parametrize("offered", [True, False])
def test_the_verdict(vouched: str, offered: bool) -> None:
    plan = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS, frozenset({RequireTls(SOURCE, vouched)}))
    shown = evidence(certificate("mx1.example"), paths={"system": Trusted("CN=ca", NEVER)})
    verdict = judge(plan, shown, requiretls_offered=offered)
    assert (verdict is SATISFIED) is (offered and bool(vouched))
    if isinstance(verdict, Failed):
        assert verdict.failure is TlsFailure.REQUIRETLS_NOT_SUPPORTED
        assert ("nobody vouches" in verdict.text) is not bool(vouched)
    in_clear = judge(plan, None, requiretls_offered=offered)
    assert isinstance(in_clear, Failed)
    assert (in_clear.failure, in_clear.source) == (TlsFailure.REQUIRETLS_NOT_SUPPORTED, SOURCE)
