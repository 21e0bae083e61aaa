"""Every row of admission.txt: configuration x client x sender -> admitted or refused, by whom, with which reply."""

import io
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from relay.config.models import Config
from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted
from relay.policy.admission import (
    NO_DOMAIN,
    Admission,
    Peer,
    Refused,
    admit,
    admit_header_from,
    asks_header_from,
    candidates,
    header_candidates,
    trusts,
)
from relay.policy.book import RuleBook
from tests.unit.policy.builders import NEVER, OTHER_PIN, PIN, certificate, evidence

TABLE = Path(__file__).with_name("admission.txt")
PATHS: dict[str, PathResult] = {
    "good": Trusted("CN=ca", NEVER),
    "pinned": Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "self-signed certificate"),
    "untrusted": Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "unable to get local issuer certificate"),
    "expired": Untrusted(TlsFailure.CERTIFICATE_EXPIRED, "certificate has expired"),
    "undecided": Undecided("the file cannot be read"),
}


def blocks() -> Iterator[tuple[str, str, list[str]]]:
    text = "\n".join(line for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    for block in text.split("\n== ")[1:]:
        title, _, rest = block.partition("\n")
        configuration, _, rows = rest.partition("--\n")
        yield title, configuration, [row for row in rows.splitlines() if row.strip()]


def cases() -> Iterator[Any]:
    for title, configuration, rows in blocks():
        for row in rows:
            yield pytest.param(configuration, row, id=f"{title}: {' '.join(row.split())}")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.touch()
    return path


def rules(configuration: str, ca: Path) -> RuleBook:
    values = (
        YAML(typ="safe").load(io.StringIO(configuration.replace("CA}", f"{ca}}}").replace("PIN]", f'"{PIN}"]'))) or {}
    )
    base = {"hostname": "relay.example.com", "postmaster": "p@example.com", "listeners": [{"address": "127.0.0.1:0"}]}
    return RuleBook.of(Config.model_validate(base | values))


def shown(tls: str, shown_certificate: str, wanted: frozenset[str]) -> TlsEvidence | None:
    """The evidence of a client, checked against exactly the trust stores that the decision says it needs."""
    if tls == "clear":
        return None
    if shown_certificate == "-":
        return evidence(None, version=tls)
    name, _, trust = shown_certificate.partition("/")
    leaf = certificate(name, pin=PIN if trust == "pinned" else OTHER_PIN)
    return evidence(leaf, version=tls, paths=dict.fromkeys(wanted, PATHS[trust]))


@pytest.mark.parametrize(("configuration", "row"), list(cases()))
def test_row(configuration: str, row: str, ca: Path) -> None:
    client, tls, shown_certificate, sender, expected = (cell.strip() for cell in row.split("|"))
    book = rules(configuration, ca)
    address = None if client == "unknown" else ipaddress.ip_address(client)
    header = sender.startswith("from: ")
    domain = sender.removeprefix("from: ").replace("<>", NO_DOMAIN)
    domain = NO_DOMAIN if domain == "none" else domain
    unchecked = Peer(address, shown(tls, shown_certificate, frozenset()))
    connectors = header_candidates(book, domain) if header else candidates(book, unchecked, domain)
    peer = Peer(address, shown(tls, shown_certificate, trusts(book, connectors)))
    found: Admission = admit_header_from(book, peer, domain) if header else admit(book, peer, domain)
    if isinstance(found, Refused):
        result = f"{found.reply.code} {found.reply.status} {found.connector or '-'}"
    else:
        result = f"{found.connector or '-'}{' +relay' if found.may_relay else ''}"
    assert result == expected
    assert asks_header_from(book) == ("header_from" in configuration)
    assert book.asks_for_certificates == ("certificate" in configuration)


def test_a_client_is_not_told_our_files_and_networks(ca: Path) -> None:
    title, configuration, _rows = next(each for each in blocks() if each[0].startswith("one partner"))
    book = rules(configuration, ca)
    assert title
    untrusted = shown("TLSv1.3", "mail.contoso.com/untrusted", frozenset({str(ca)}))
    found = admit(book, Peer(ipaddress.ip_address("198.51.100.1"), untrusted), "contoso.com")
    assert isinstance(found, Refused)
    assert str(ca) not in found.reply.text
    assert "203.0.113.0" not in found.reply.text
    assert "certificate ca" in found.reply.text
    assert "198.51.100.1" in found.reply.text


def test_evidence_that_was_not_checked_is_not_trusted(ca: Path) -> None:
    _title, configuration, _rows = next(each for each in blocks() if each[0].startswith("one partner"))
    unchecked = shown("TLSv1.3", "mail.contoso.com/good", frozenset())
    found = admit(rules(configuration, ca), Peer(ipaddress.ip_address("203.0.113.5"), unchecked), "contoso.com")
    assert isinstance(found, Refused)
    assert found.reply.code == 451
