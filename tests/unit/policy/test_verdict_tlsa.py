"""The verdict on a connection whose plan has TLSA records: which names count, and when."""

from dataclasses import replace

import pytest

from relay.mail.plan import Encryption, Level, Pins, Plaintext, PolicyApplied, Tlsa, TlsPlan
from relay.mail.published import PolicyKind, TlsaRecord
from relay.mail.tls import PathResult, TlsFailure, Trusted, TrustedLeaf, Undecided, Untrusted
from relay.policy.plan import Step, after_broken_tls, after_ehlo, as_strong
from relay.policy.verdict import Failed, Satisfied, judge
from tests.unit.policy.builders import NEVER, OTHER_PIN, certificate, evidence

BASE, NEXT_HOP = "mx.contoso.net", "contoso.com"
TLSA = Tlsa("dane", BASE, (TlsaRecord(3, 1, 1, "ab" * 32), TlsaRecord(2, 1, 1, "cd" * 32)), (BASE, NEXT_HOP))
PLAN = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS, frozenset({Encryption("dane"), TLSA}))
LEAF, ANCHOR = TrustedLeaf("3 1 1 ab (DANE-EE)", NEVER), Trusted("2 1 1 cd (DANE-TA): CN=ca", NEVER)


@pytest.mark.parametrize(
    ("names", "path", "expected"),
    [
        ((BASE,), LEAF, ""),
        (("other.example",), LEAF, ""),
        ((), LEAF, ""),
        ((BASE,), ANCHOR, ""),
        (("*.contoso.net",), ANCHOR, ""),
        ((NEXT_HOP,), ANCHOR, ""),
        (("other.example",), ANCHOR, "certificate-host-mismatch"),
        (("a.mx.contoso.net",), ANCHOR, "certificate-host-mismatch"),
        ((), ANCHOR, "certificate-host-mismatch"),
        ((BASE,), Untrusted(TlsFailure.TLSA_INVALID, "none matches"), "tlsa-invalid"),
        ((BASE,), Untrusted(TlsFailure.CERTIFICATE_EXPIRED, "has expired"), "certificate-expired"),
        ((BASE,), Undecided("no certificates at hand"), "validation-failure"),
        ((BASE,), None, "validation-failure"),
    ],
)
def test_what_matches_and_which_names_count(names: tuple[str, ...], path: PathResult | None, expected: str) -> None:
    paths = {} if path is None else {TLSA.trust: path}
    verdict = judge(PLAN, evidence(certificate(*names), paths=paths))
    assert (verdict.failure if isinstance(verdict, Failed) else "") == expected
    if isinstance(verdict, Failed):
        assert verdict.source == "dane"


def test_no_certificate_satisfies_no_record() -> None:
    verdict = judge(PLAN, evidence(None, paths={TLSA.trust: ANCHOR}))
    assert isinstance(verdict, Failed)
    assert verdict.failure is TlsFailure.TLSA_INVALID


def test_a_result_is_good_for_the_very_records_it_was_found_with() -> None:
    """Threat: evidence that was collected when other records were published."""
    other = replace(TLSA, records=TLSA.records[:1])
    assert other.trust != TLSA.trust
    verdict = judge(replace(PLAN, demands=frozenset({other})), evidence(certificate(BASE), paths={TLSA.trust: LEAF}))
    assert isinstance(verdict, Failed)
    assert "was not compared" in verdict.text


def test_dane_adds_to_what_the_connector_demands() -> None:
    plan = PLAN.adding([Pins("connector c", (OTHER_PIN,))])
    verdict = judge(plan, evidence(certificate(BASE), paths={TLSA.trust: LEAF}))
    assert isinstance(verdict, Failed)
    assert verdict.failure is TlsFailure.PIN_MISMATCH


def test_clear_text_is_no_way_around() -> None:
    assert isinstance(judge(PLAN, None), Failed)
    assert after_ehlo(PLAN, starttls_offered=False) is Step.REFUSE
    assert after_broken_tls(PLAN) is Step.REFUSE
    useless = replace(PLAN, demands=frozenset({Encryption("dane")}))
    assert after_broken_tls(useless) is Step.REFUSE
    assert isinstance(judge(useless, evidence(None)), Satisfied)


def test_a_bounce_goes_back_whole_only_where_dane_protects_it_too() -> None:
    assert as_strong(PLAN, PLAN)
    assert not as_strong(replace(PLAN, demands=frozenset({Encryption("dane")})), PLAN)


def test_records_that_are_only_reported_are_compared_too() -> None:
    reported = PolicyApplied(PolicyKind.TLSA, BASE, demands=frozenset({TLSA}), enforced=False)
    assert TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED, published=(reported,)).tlsa == {TLSA}
    assert PLAN.tlsa == {TLSA}
    assert PLAN.trusts == set()
