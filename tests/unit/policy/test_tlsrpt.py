"""Whose report a session belongs to, and what of us a report tells."""

import pytest

from relay.mail.attempt import Attempt, Session, SessionEnd
from relay.mail.outcome import Delivered
from relay.mail.plan import Level, Plaintext, PolicyApplied, StsMx, TlsPlan
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.policy.tlsrpt import REPORTABLE, judge_session, report_domain
from tests.unit.policy.builders import NOW, book, certificate, evidence

RULES = book(
    connectors=[
        {
            "name": "smart",
            "direction": "outbound",
            "match": {"recipient_domains": ["smart.example"]},
            "route": {"smart_hosts": ["mail.provider.example:587"]},
        }
    ]
)


@pytest.mark.parametrize(
    ("recipient", "host", "expected"),
    [
        ("contoso.com", "mx.contoso.com", "contoso.com"),
        ("[192.0.2.1]", "192.0.2.1", ""),
        ("smart.example", "mail.provider.example", "mail.provider.example"),
        ("smart.example", "192.0.2.1", ""),
        ("smart.example", "2001:db8::1", ""),
    ],
)
def test_whose_report(recipient: str, host: str, expected: str) -> None:
    assert report_domain(RULES.outbound_for(recipient), recipient, host) == expected


def attempt(session: Session | None, *, hop: str = "mx.contoso.com:25", address: str = "203.0.113.7") -> Attempt:
    plan = TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER)
    return Attempt("M", NOW, hop, address, "c", plan, None, ((0, Delivered(250, "2.0.0", "ok")),), session=session)


def test_without_a_domain_nothing_is_counted() -> None:
    assert judge_session("", attempt(Session(SessionEnd.NOT_OFFERED, "198.51.100.1"))) == ()


@pytest.mark.parametrize(
    ("source", "address", "shown"),
    [
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),  # for documentation: neither is global
        ("8.8.8.8", "1.1.1.1", "8.8.8.8"),
        ("10.0.0.1", "1.1.1.1", ""),
        ("10.0.0.1", "10.0.0.2", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("2606:4700::1", "2606:4700::2", "2606:4700::1"),
        ("fe80::1%eth0", "2606:4700::2", ""),
        ("", "1.1.1.1", ""),
        ("8.8.8.8", "", ""),
    ],
)
def test_a_private_address_of_ours_is_not_told_to_the_world(source: str, address: str, shown: str) -> None:
    (judged,) = judge_session("contoso.com", attempt(Session(SessionEnd.NOT_OFFERED, source), address=address))
    assert judged.failing is not None
    assert judged.failing.source == shown


def test_an_ipv6_hop_is_named_without_brackets_and_text_is_made_harmless() -> None:
    reason = "454 nö\r\nX: y\x00 " + "z" * 200
    tried = attempt(Session(SessionEnd.BROKEN, "", reason), hop="[2001:db8::1]:25")
    (judged,) = judge_session("contoso.com", tried)
    assert judged.failing is not None
    assert judged.failing.host == "2001:db8::1"
    assert judged.failing.reason == ("454 n X: y  " + "z" * 200)[:100]


def test_what_has_no_word_in_the_rfc_is_a_validation_failure_with_ours_as_its_reason() -> None:
    assert len(REPORTABLE) == 11
    tried = attempt(Session(SessionEnd.WITHHELD, failure=TlsFailure.CERTIFICATE_REVOKED))
    (judged,) = judge_session("contoso.com", tried)
    assert judged.failing is not None
    assert (judged.failing.result, judged.failing.reason) == (TlsFailure.VALIDATION_FAILURE, "certificate-revoked")
    assert judged.policy.kind is PolicyKind.STS


def test_a_demand_that_nothing_can_judge_fails_closed() -> None:
    class Unknown(StsMx):
        pass

    policy = PolicyApplied(PolicyKind.STS, "contoso.com", demands=frozenset({Unknown("mta-sts", "h", ())}))
    plan = TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER, published=(policy,))
    seen = evidence(certificate("mx.contoso.com"))
    tried = Attempt("M", NOW, "h:25", "1.1.1.1", "c", plan, seen, (), session=Session(SessionEnd.SECURED, "8.8.8.8"))
    (judged,) = judge_session("contoso.com", tried)
    assert judged.failing is not None
    assert judged.failing.result is TlsFailure.VALIDATION_FAILURE


def test_a_session_without_evidence_and_plan_is_left_out() -> None:
    tried = Attempt("M", NOW, "h:25", "1.1.1.1", "c", None, None, (), session=Session(SessionEnd.SECURED, "8.8.8.8"))
    assert judge_session("contoso.com", tried) == ()
