"""Nouns to JSON and back: what the queue must get back after a restart comes back equal."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from relay.mail.address import NULL, Address
from relay.mail.codec import (
    accepted_from,
    accepted_json,
    demand_json,
    envelope_from,
    envelope_json,
    evidence_from,
    evidence_json,
    notify_from,
    notify_text,
    outcome_from,
    outcome_json,
    plan_json,
    time_from,
    time_text,
)
from relay.mail.envelope import Accepted, Body, Envelope, Notify, Recipient, Ret
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.plan import Demand, Encryption, Level, Pins, Pkix, Plaintext, TlsPlan, TlsVersion
from relay.mail.tls import Certificate, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted

NOW = datetime(2026, 11, 22, 12, 0, 0, 123000, tzinfo=UTC)
LEAF = Certificate(
    "CN=a", "CN=ca", ("mail.contoso.com", "*.b.example"), ("192.0.2.1", "2001:db8::1"), NOW, NOW, "00", "sha256:x"
)
EVIDENCE = TlsEvidence(
    "TLSv1.3",
    "TLS_AES_256_GCM_SHA384",
    "X25519MLKEM768",
    "mail.contoso.com",
    (LEAF,),
    ("self-signed certificate",),
    {
        "system": Untrusted(TlsFailure.CERTIFICATE_EXPIRED, "expired"),
        "/a.pem": Trusted("CN=ca", NOW),
        "/b.pem": Undecided("unreadable"),
    },
)


def test_times_are_utc_with_milliseconds() -> None:
    assert time_text(NOW.astimezone(timezone(timedelta(hours=2)))) == "2026-11-22T12:00:00.123Z"
    assert time_from(time_text(NOW)) == NOW


def test_evidence() -> None:
    data = evidence_json(EVIDENCE)
    assert data is not None
    assert data["verified_by"] == {
        "system": {"failure": "certificate-expired", "text": "expired"},
        "/a.pem": {"anchor": "CN=ca"},
        "/b.pem": {"undecided": "unreadable"},
    }
    again = evidence_from(json.loads(json.dumps(data)))
    assert again is not None
    assert again.chain == EVIDENCE.chain
    assert (again.version, again.cipher, again.group, again.sni, again.errors) == (
        EVIDENCE.version,
        EVIDENCE.cipher,
        EVIDENCE.group,
        EVIDENCE.sni,
        EVIDENCE.errors,
    )
    assert evidence_json(None) is None
    assert evidence_from(None) is None


def test_plan() -> None:
    demands: set[Demand] = {
        Encryption("default"),
        Pkix("connector c", "/ca.pem", ("a.example",)),
        Pins("connector c", ("sha256:x",)),
        TlsVersion("default", "TLSv1.2"),
    }
    data = plan_json(TlsPlan(Level.DOMAIN, Plaintext.IF_TLS_FAILS, frozenset(demands), "us.example", NOW))
    assert data == {
        "level": "domain",
        "plaintext": "never",
        "demands": [
            {"demand": "encryption", "source": "default"},
            {"demand": "pins", "source": "connector c", "pins": ["sha256:x"]},
            {"demand": "pkix", "source": "connector c", "trust": "/ca.pem", "names": ["a.example"]},
            {"demand": "tls-version", "source": "default", "minimum": "TLSv1.2"},
        ],
        "client_certificate": "us.example",
        "until": "2026-11-22T12:00:00.123Z",
        "published": [],
    }
    loose = plan_json(TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS))
    assert loose is not None
    assert (loose["plaintext"], loose["client_certificate"], loose["until"]) == ("if-tls-fails", None, None)
    assert plan_json(None) is None


def test_a_demand_without_a_form_is_an_error_not_a_gap() -> None:
    with pytest.raises(TypeError):
        demand_json(Demand("future"))


@pytest.mark.parametrize(
    "outcome",
    [
        Delivered(250, "2.0.0", "ok"),
        Deferred(451, "4.7.5", "later", TlsFailure.CERTIFICATE_EXPIRED),
        Deferred(451, "4.0.0", "later"),
        Bounced(550, "5.1.1", "no"),
        Bounced(550, "5.7.4", "no", TlsFailure.STARTTLS_NOT_SUPPORTED),
    ],
)
def test_outcomes(outcome: Outcome) -> None:
    assert outcome_from(json.loads(json.dumps(outcome_json(outcome)))) == outcome


@pytest.mark.parametrize("sender", [NULL, Address("bob", "contoso.com"), Address("jürgen", "[192.0.2.1]")])
@pytest.mark.parametrize(("requiretls", "tls_optional"), [(False, False), (True, False), (False, True)])
def test_envelopes(sender: Address, requiretls: bool, tls_optional: bool) -> None:
    recipients = (Recipient(Address("a", "b.example"), frozenset({Notify.DELAY, Notify.SUCCESS}), "rfc822;a@b"),)
    envelope = Envelope(sender, recipients, Body.EIGHT_BIT, smtputf8=True, ret=Ret.HEADERS, envid="x+2By")
    envelope = replace(envelope, requiretls=requiretls, tls_optional=tls_optional)
    assert envelope_from(json.loads(json.dumps(envelope_json(envelope))), recipients) == envelope


def test_an_envelope_of_a_version_that_knew_no_requiretls() -> None:
    old = {"sender": ["bob", "contoso.com"], "body": "7BIT", "smtputf8": False, "ret": "", "envid": ""}
    assert envelope_from(old, ()) == Envelope(Address("bob", "contoso.com"))


def test_notify_words_come_in_one_order() -> None:
    words = frozenset({Notify.DELAY, Notify.SUCCESS})
    assert notify_text(words) == "SUCCESS,DELAY"
    assert notify_from(notify_text(words)) == words
    assert notify_from("") == frozenset()


def test_acceptance() -> None:
    clear = Accepted(NOW, "192.0.2.1", "x", "mx", "ESMTP")
    assert accepted_from(json.loads(json.dumps(accepted_json(clear)))) == clear
    old = accepted_json(clear)
    del old["client_port"], old["server"]
    assert accepted_from(old) == clear  # of a queue that knew neither
    proxied = Accepted(NOW, "192.0.2.1", "x", "mx", "ESMTP", client_port=40025, server="198.51.100.1:25")
    assert accepted_from(json.loads(json.dumps(accepted_json(proxied)))) == proxied
    secured = Accepted(NOW, "192.0.2.1", "x", "mx", "ESMTPSA", "in", "bob", EVIDENCE, may_relay=True)
    again = accepted_from(json.loads(json.dumps(accepted_json(secured))))
    assert (again.connector, again.auth, again.may_relay) == ("in", "bob", True)
    assert again.tls is not None
    assert again.tls.chain == EVIDENCE.chain
