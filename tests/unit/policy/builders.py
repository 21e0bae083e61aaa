"""Small builders for policy tests: configurations, certificates and evidence as plain values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from relay.config.models import Config
from relay.mail.tls import Certificate, PathResult, TlsEvidence
from relay.policy.book import RuleBook

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NEVER = datetime(2036, 1, 1, tzinfo=UTC)
PIN = "sha256:" + "A" * 43 + "="
OTHER_PIN = "sha256:" + "B" * 42 + "A="


def config(**values: Any) -> Config:
    base: dict[str, Any] = {
        "hostname": "relay.example.com",
        "postmaster": "postmaster@example.com",
        "listeners": [{"address": "127.0.0.1:0"}],
    }
    return Config.model_validate(base | values)


def book(**values: Any) -> RuleBook:
    return RuleBook.of(config(**values))


def certificate(*names: str, pin: str = PIN) -> Certificate:
    addresses = tuple(name for name in names if name[0].isdigit() or ":" in name)
    return Certificate(
        subject="CN=test",
        issuer="CN=ca",
        dns_names=tuple(name for name in names if name not in addresses),
        ip_names=addresses,
        not_before=NOW,
        not_after=NEVER,
        sha256="00",
        spki_sha256=pin,
    )


def evidence(
    leaf: Certificate | None = None, *, version: str = "TLSv1.3", paths: Mapping[str, PathResult] | None = None
) -> TlsEvidence:
    chain = (leaf,) if leaf else ()
    return TlsEvidence(version, "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", chain=chain, paths=paths or {})
