"""A probe as people read it: every branch of the page, from JSON that `relay.outbound.probe_json` gives."""

from typing import Any

from relay.mail.codec import evidence_json, outcome_json, plan_json
from relay.mail.outcome import Bounced, Deferred
from relay.mail.tls import TlsFailure
from relay.report.probe import render_probe
from tests.unit.report.test_trace import PLAN, TLS, text

NOTHING: dict[str, Any] = {"reason": None, "details": []}


def verdict(level: str, standing: str, why: str | None = None) -> dict[str, Any]:
    return {"level": level, "standing": standing, "text": why, "failure": None}


def address(**changes: Any) -> dict[str, Any]:
    return {
        "address": "192.0.2.1",
        "seconds": 0.25,
        "trouble": None,
        "offers": ["PIPELINING", "REQUIRETLS"],
        "evidence": evidence_json(TLS),
        "verdicts": [
            verdict("in force", "passes"),
            verdict("encryption", "passes"),
            verdict("certificate", "passes"),
            verdict("domain", "passes", "for a name that unsigned DNS gave"),
            verdict("dane", "fails", "no record matches"),
            verdict("mta-sts", "absent", "nothing is published"),
        ],
    } | changes


def hop(*addresses: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "host": "mx.contoso.com",
        "port": 25,
        "trouble": None,
        "mx_secure": False,
        "dane": NOTHING,
        "mta_sts": NOTHING,
        "plan": plan_json(PLAN),
        "withheld": None,
        "addresses": list(addresses),
        "left_out": [],
    } | changes


def page(*hops: dict[str, Any], **changes: Any) -> list[str]:
    probe = {
        "domain": "contoso.com",
        "connector": "contoso-out",
        "passes": True,
        "unroutable": None,
        "hops": list(hops),
    }
    return [line.rstrip() for line in text(render_probe(probe | changes)).splitlines()]


def test_a_host_that_passes() -> None:
    lines = page(hop(address()))
    assert lines[0] == "Mail to       contoso.com"
    assert lines[1] == "governed by   connector contoso-out"
    assert "mx.contoso.com:25" in lines
    assert "  plan          level domain, never in clear" in lines
    assert "  192.0.2.1  after 0.250 s" in lines
    assert "    offers        PIPELINING, REQUIRETLS" in lines
    assert "    TLS           TLSv1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768, asked for mx.contoso.com" in lines
    assert (
        lines[-6:]
        == [
            "    our policy    satisfied",
            "    would pass    encryption, certificate",
            "    would pass    domain: for a name that unsigned DNS gave",
            "    would not     dane: no record matches",
            "    no policy     mta-sts: nothing is published",
            "",
            "our policy is satisfied: mail would be sent",
        ][-6:]
    )


def test_a_host_without_tls_says_the_reason_once() -> None:
    reason = "STARTTLS is not offered"
    verdicts = [verdict(level, "fails", reason) for level in ("in force", "encryption", "certificate", "domain")]
    lines = page(hop(address(evidence=None, offers=[], verdicts=verdicts)), passes=False, connector="default")
    assert "governed by   the defaults" in lines
    assert lines[-7:] == [
        "    offers        no extension",
        "    TLS           none: STARTTLS is not offered",
        "    our policy    not satisfied: STARTTLS is not offered",
        "    would pass    no level",
        "    would not     encryption, certificate, domain: STARTTLS is not offered",
        "",
        "our policy is satisfied nowhere: mail would wait",
    ]


def test_mail_that_would_go_in_clear() -> None:
    lines = page(hop(address(evidence=None, verdicts=[verdict("in force", "passes", "the mail would go in clear")])))
    assert "    our policy    satisfied: the mail would go in clear" in lines
    assert "    TLS           none" in lines
    assert not any("would pass" in line for line in lines)


def test_what_a_host_says_cannot_harm_a_terminal() -> None:
    lines = page(hop(address(trouble="the greeting: 554 \x1b[2J\u202eno", offers=None, evidence=None, verdicts=[])))
    assert "    trouble       the greeting: 554 [2J no" in lines
    assert not any("TLS  " in line for line in lines)


def test_hosts_that_were_not_looked_at() -> None:
    withheld = Deferred(451, "4.7.5", "the signatures do not verify", TlsFailure.DNSSEC_INVALID)
    says = {"reason": "bogus", "details": ["3 1 1 ab: usable"]}
    lines = page(
        hop(trouble="mx.contoso.com has no address", plan=None),
        hop(plan=None, withheld=outcome_json(withheld), dane=says, left_out=["192.0.2.7", "192.0.2.8"]),
    )
    assert "  not usable    mx.contoso.com has no address" in lines
    assert "  DANE          bogus" in lines
    assert "  DANE          3 1 1 ab: usable" in lines
    assert "  our policy    no mail goes here: the signatures do not verify" in lines
    assert "  not looked at 192.0.2.7, 192.0.2.8" in lines


def test_a_domain_without_hosts() -> None:
    lines = page(unroutable=outcome_json(Bounced(550, "5.1.2", "the domain does not exist")), passes=False)
    assert "answer        bounced: 550 5.1.2 the domain does not exist" in lines
