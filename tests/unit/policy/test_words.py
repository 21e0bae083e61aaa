"""Demands, paths and statuses in words for people."""

from typing import Any

import pytest

from relay.policy.words import client_words, demand_words, listener_words, path_words, revocation_words


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        ({"demand": "encryption"}, "TLS"),
        ({"demand": "tls-version", "minimum": "TLSv1.3"}, "TLSv1.3 or newer, where there is TLS"),
        ({"demand": "pkix", "trust": "system", "names": ["a", "b"]}, "a certificate issued under system, for a or b"),
        ({"demand": "pkix", "trust": "system"}, "a certificate issued under system, for any name"),
        ({"demand": "pins", "pins": ["x"]}, "the key x"),
        (
            {"demand": "revocation", "trust": "system", "mode": "prefer"},
            "no certificate of the chain to system revoked; what cannot be found out passes",
        ),
        (
            {"demand": "revocation", "trust": "system", "mode": "require"},
            "no certificate of the chain to system revoked; what cannot be found out fails",
        ),
        ({"demand": "requiretls", "vouched": "dnssec"}, "REQUIRETLS, the host vouched for by dnssec"),
        ({"demand": "requiretls"}, "REQUIRETLS, and nobody vouches for the host"),
    ],
)
def test_demands(demand: dict[str, Any], said: str) -> None:
    assert demand_words(demand) == said


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"anchor": "Root"}, "trusted, anchor Root"),
        ({"failure": "certificate-expired", "text": "it ended"}, "certificate-expired, it ended"),
        ({"undecided": "no file"}, "could not be checked, no file"),
    ],
)
def test_paths(result: dict[str, Any], said: str) -> None:
    assert path_words(result) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {"status": "revoked", "revoked_at": "2026-01-01", "reason": "key", "by": "crl"},
            "revoked on 2026-01-01 (key), by crl",
        ),
        ({"status": "revoked"}, "revoked"),
        ({"status": "unknown", "why": "silent"}, "not checked: silent"),
        ({"status": "unknown"}, "not checked: it is not known why"),
        ({"status": "good", "by": "ocsp", "next_update": "tomorrow"}, "good, by ocsp, counts until tomorrow"),
        ({"status": "good", "why": "short-lived"}, "good: short-lived"),
    ],
)
def test_statuses(status: dict[str, Any], said: str) -> None:
    assert revocation_words(status) == said


@pytest.mark.parametrize(
    ("accepted", "client", "listener"),
    [
        (
            {"client": "192.0.2.1", "helo": "h.example", "listener": "mx 0.0.0.0:25", "protocol": "ESMTPS"},
            "192.0.2.1, which called itself h.example",
            "mx 0.0.0.0:25, ESMTPS",
        ),
        (
            {"client": "192.0.2.1", "helo": "", "listener": "", "protocol": "import"},
            "192.0.2.1, which called itself nothing",
            "",
        ),
        (
            {"client": "", "helo": "", "listener": "", "protocol": "local"},
            "none: this relay wrote the message itself",
            "",
        ),
    ],
)
def test_who_gave_us_a_message(accepted: dict[str, Any], client: str, listener: str) -> None:
    assert (client_words(accepted), listener_words(accepted)) == (client, listener)
