"""What each level says of a host that was looked at: connector x what is published x what was seen."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from relay.config.values import HostPort
from relay.mail.outcome import Deferred
from relay.mail.plan import Encryption, Level, Pins, Pkix, PolicyApplied, TlsPlan, TlsVersion
from relay.mail.published import PolicyKind
from relay.mail.tls import SYSTEM_TRUST, TlsFailure, Trusted, Untrusted
from relay.policy.probe import (
    IN_FORCE,
    NOT_OFFERED,
    NoTls,
    Seen,
    Standing,
    Subject,
    everything,
    measures,
    probe_plan,
    verdicts,
)
from relay.policy.published import UNPUBLISHED, Published, Says
from tests.unit.policy.builders import NEVER, NOW, OTHER_PIN, PIN, book, certificate, evidence

HOST = "mx.partner.example"
GOOD = {SYSTEM_TRUST: Trusted("CN=root", NEVER)}
BAD = {SYSTEM_TRUST: Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "self-signed")}
SOUND = evidence(certificate(HOST), paths=GOOD)
OTHER_NAME = evidence(certificate("elsewhere.example"), paths=GOOD)
SELF_SIGNED = evidence(certificate(HOST), paths=BAD)
OLD = evidence(certificate(HOST), version="TLSv1.2", paths=GOOD)
BROKEN = NoTls(True, TlsFailure.HANDSHAKE_FAILED, "the TLS handshake failed")

STS = Pkix("mta-sts", SYSTEM_TRUST, (HOST,))
APPLIED = PolicyApplied(PolicyKind.STS, "partner.example", demands=frozenset({STS}))
PINNED = Pins("dane", (OTHER_PIN,))  # stands in for TLSA, which is judged from what a handshake left behind


def subject(published: Published = UNPUBLISHED, **connector: Any) -> tuple[Any, Subject]:
    outbound = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["partner.example"]}}
    rules = book(connectors=[outbound | connector]) if connector else book()
    chosen = rules.outbound_for("partner.example")
    return rules, Subject(chosen, "partner.example", HostPort(HOST, 25), published)


def said(seen: Seen, published: Published = UNPUBLISHED, *, offered: bool = False, **connector: Any) -> str:
    """P, F or - (absent) for each level: in force, encryption, certificate, domain, DANE, MTA-STS, REQUIRETLS."""
    rules, about = subject(published, **connector)
    letters = {Standing.PASSES: "P", Standing.FAILS: "F", Standing.ABSENT: "-"}
    return "".join(
        letters[each.standing] for each in verdicts(measures(rules, about, NOW), seen, requiretls_offered=offered)
    )


STS_ONLY = Published(sts=Says(demands=frozenset({STS}), applied=APPLIED))
TESTING = Published(sts=Says(applied=APPLIED, reason="mode testing"))
DANE = Published(dane=Says(demands=frozenset({PINNED})), mx_secure=True)
BOTH = Published(dane=DANE.dane, sts=STS_ONLY.sts, mx_secure=True)
BOGUS = Published(dane=Says(withheld=Deferred(451, "4.7.5", "signatures do not verify", TlsFailure.DNSSEC_INVALID)))

TABLE: tuple[tuple[str, Mapping[str, Any], Published, Seen, str], ...] = (
    ("the defaults, a good host", {}, UNPUBLISHED, SOUND, "PPPP--F"),
    ("the defaults, another name", {}, UNPUBLISHED, OTHER_NAME, "PPPF--F"),
    ("the defaults, self-signed", {}, UNPUBLISHED, SELF_SIGNED, "PPFF--F"),
    ("the defaults, no STARTTLS", {}, UNPUBLISHED, NOT_OFFERED, "PFFF--F"),
    ("the defaults, broken TLS", {}, UNPUBLISHED, BROKEN, "FFFF--F"),
    ("clear text after broken TLS", {"plaintext": "if-tls-fails"}, UNPUBLISHED, BROKEN, "PFFF--F"),
    ("clear text never", {"plaintext": "never"}, UNPUBLISHED, NOT_OFFERED, "FFFF--F"),
    ("encryption, self-signed", {"tls": "encryption"}, UNPUBLISHED, SELF_SIGNED, "PPFF--F"),
    ("domain, another name", {"tls": "domain", "names": [HOST]}, UNPUBLISHED, OTHER_NAME, "FPPF--F"),
    ("its own names", {"tls": "domain", "names": ["elsewhere.example"]}, UNPUBLISHED, OTHER_NAME, "PPPP--F"),
    ("a pin beside every level", {"tls": "encryption", "pins": [OTHER_PIN]}, UNPUBLISHED, SOUND, "FFFF--F"),
    ("its version", {"tls": "encryption", "tls_version": "TLSv1.3"}, UNPUBLISHED, OLD, "FFFF--F"),
    ("MTA-STS, a good host", {}, STS_ONLY, SOUND, "PPPP-PF"),
    ("MTA-STS, self-signed", {}, STS_ONLY, SELF_SIGNED, "FPFF-FF"),
    ("MTA-STS, no STARTTLS", {}, STS_ONLY, NOT_OFFERED, "FFFF-FF"),
    ("MTA-STS in testing binds nobody", {}, TESTING, SELF_SIGNED, "PPFF-FF"),
    ("DANE fails", {}, DANE, SOUND, "FPPPF-F"),
    ("DANE fails, MTA-STS does not excuse it", {}, BOTH, SOUND, "FPPPFPF"),
    ("DNSSEC is bogus", {}, BOGUS, SOUND, "FPPPF-F"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("connector", "published", "seen", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_every_level(connector: Mapping[str, Any], published: Published, seen: Seen, expected: str) -> None:
    assert said(seen, published, **connector) == expected


REQUIRETLS: tuple[tuple[str, Mapping[str, Any], Published, Seen, str], ...] = (
    ("offered, by MX that nobody vouches for", {}, UNPUBLISHED, SOUND, "F"),
    ("offered, DNSSEC vouches", {}, Published(mx_secure=True), SOUND, "P"),
    ("offered, DNSSEC vouches, wrong name", {}, Published(mx_secure=True), OTHER_NAME, "F"),
    ("offered, a smart host", {"route": {"smart_hosts": [HOST]}}, UNPUBLISHED, SOUND, "P"),
    ("offered, names", {"tls": "domain", "names": [HOST]}, UNPUBLISHED, SOUND, "P"),
    ("offered in clear", {"route": {"smart_hosts": [HOST]}}, UNPUBLISHED, NOT_OFFERED, "F"),
    ("offered, no mail goes there", {"tls": "domain", "names": [HOST]}, BOGUS, SOUND, "F"),
)


@pytest.mark.parametrize(
    ("connector", "published", "seen", "expected"), [row[1:] for row in REQUIRETLS], ids=[row[0] for row in REQUIRETLS]
)
def test_requiretls(connector: Mapping[str, Any], published: Published, seen: Seen, expected: str) -> None:
    assert said(seen, published, offered=True, **connector)[-1] == expected
    assert said(seen, published, **connector)[-1] == "F"


def test_each_verdict_says_why() -> None:
    rules, about = subject(BOGUS)
    found = {each.level: each for each in verdicts(measures(rules, about, NOW), OTHER_NAME)}
    assert list(found) == [IN_FORCE, "encryption", "certificate", "domain", "dane", "mta-sts", "requiretls"]
    assert (found[IN_FORCE].text, found[IN_FORCE].failure) == ("signatures do not verify", TlsFailure.DNSSEC_INVALID)
    assert found["dane"] == type(found["dane"])(
        "dane", Standing.FAILS, "signatures do not verify", TlsFailure.DNSSEC_INVALID
    )
    assert found["domain"].failure is TlsFailure.CERTIFICATE_HOST_MISMATCH
    assert found["domain"].text == f"the certificate is for elsewhere.example, not for {HOST} (asked by default)"
    assert found["mta-sts"].text == "nothing is published"
    clear = verdicts(measures(*subject(), NOW), NOT_OFFERED)
    assert (clear[0].standing, clear[0].text) == (
        Standing.PASSES,
        "the mail would go in clear: STARTTLS is not offered",
    )


@pytest.mark.parametrize(
    ("published", "connector", "remarked"),
    [
        (UNPUBLISHED, {}, True),
        (UNPUBLISHED, {"tls": "domain", "names": [HOST]}, False),
        (UNPUBLISHED, {"route": {"smart_hosts": [HOST]}}, False),
        (Published(mx_secure=True), {}, False),
    ],
    ids=["by MX", "names", "smart host", "DNSSEC"],
)
def test_a_name_from_unsigned_dns_is_remarked_upon(
    published: Published, connector: dict[str, Any], remarked: bool
) -> None:
    rules, about = subject(published, **connector)
    found = {each.level: each for each in verdicts(measures(rules, about, NOW), SOUND)}
    assert found["domain"].standing is Standing.PASSES
    assert ("unsigned DNS" in found["domain"].text) is remarked
    assert found["certificate"].text == ""


def test_an_exception_is_part_of_what_is_in_force_only() -> None:
    exception = {"recipient_domain": "partner.example", "allow": "plaintext", "until": date(2027, 1, 1), "reason": "x"}
    outbound = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["partner.example"]}}
    rules = book(connectors=[outbound | {"tls": "domain", "names": [HOST]}], exceptions=[exception])
    about = Subject(rules.outbound_for("partner.example"), "partner.example", HostPort(HOST, 25), UNPUBLISHED)
    found = verdicts(measures(rules, about, NOW), NOT_OFFERED)
    assert [each.standing for each in found[:2]] == [Standing.PASSES, Standing.FAILS]


def test_the_probe_goes_on_whatever_the_host_is() -> None:
    rules, about = subject(BOGUS, tls="domain", names=[HOST], tls_version="TLSv1", client_certificate="us", pins=[PIN])
    measured = measures(rules, about, NOW)
    plan = probe_plan(measured)
    assert (plan.level, plan.requires_tls, plan.client_certificate) == (Level.OPPORTUNISTIC, False, "us")
    assert plan.demands == {TlsVersion("connector c", "TLSv1")}
    assert probe_plan(()) == TlsPlan(Level.OPPORTUNISTIC, plan.plaintext)


def test_evidence_is_taken_for_every_level() -> None:
    rules, about = subject(TESTING)
    demands = everything(measures(rules, about, NOW))
    assert Pkix("default", SYSTEM_TRUST, ()) in demands
    assert Pkix("default", SYSTEM_TRUST, (HOST,)) in demands
    assert STS in demands
    assert any(isinstance(each, Encryption) for each in demands)
