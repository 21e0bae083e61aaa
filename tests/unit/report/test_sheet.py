"""The partner sheet: what each kind of partner is told for each kind of change, and that the page is text only."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from relay.config.models import Config
from relay.policy.sheet import CA as NAMES_CA
from relay.policy.sheet import DANE, NAMES, PINS, REVOKED, TEXTS, WHOLE, Sheet
from relay.report.sheet import sheet_html, sheet_json, sheet_text
from relay.tls.keyring import Keyring
from relay.tls.sheets import sheets
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, clock, new_key, root, self_signed, tlsa_record

ROOT = root("Bank Root")
MIDDLE = ROOT.issue(Wish("Bank Issuing 1", ca=True))
OTHER_MIDDLE = ROOT.issue(Wish("Bank Issuing 2", ca=True))
OTHER_ROOT = root("New Root")
HOST = "relay.example.com"
PRESENT = MIDDLE.issue(Wish(HOST, names=[HOST, "mail.example.com"]))


def sheet(folder: Path, present: Issued | None, coming: Issued | None, on: date | None = None) -> Sheet:
    (folder / "ca.pem").write_bytes(ROOT.pem + OTHER_ROOT.pem)
    certs = folder / "certs"
    certs.mkdir()
    for name, each in (("relay", present), ("relay.next", coming)):
        if each is not None:
            each.write(certs, name)
    values: dict[str, Any] = {
        "hostname": HOST,
        "postmaster": "postmaster@example.com",
        "listeners": [{"address": "127.0.0.1:2525"}],
        "certificates": str(certs),
        "trust": str(folder / "ca.pem"),
        "accept": {"domains": ["example.com"]},
    }
    config = Config.model_validate(values)
    (found,) = sheets(config, Keyring(certs, hostname=HOST, clock=clock), NOW, on)
    return found


def again(
    issuer: Issued = MIDDLE,
    names: Sequence[str] = (HOST, "mail.example.com"),
    *,
    key: bool = False,
    subject: str = HOST,
) -> Issued:
    return issuer.issue(Wish(subject, names=names, after=NOW + 400 * DAY), PRESENT.key if key else None)


CASES: dict[str, tuple[Issued, set[str]]] = {
    "same key, same issuer": (again(key=True), {WHOLE}),
    "new key": (again(), {WHOLE, PINS}),
    "another intermediate": (again(OTHER_MIDDLE), {WHOLE, PINS, NAMES_CA, TEXTS}),
    "another root": (again(OTHER_ROOT, key=True), {WHOLE, NAMES_CA, TEXTS}),
    "a name less": (again(names=[HOST], key=True), {WHOLE, NAMES}),
    "a name more": (again(names=[HOST, "mail.example.com", "new.example.com"], key=True), {WHOLE}),
    "another subject": (again(subject="x", key=True), {WHOLE, TEXTS}),
}


@pytest.mark.parametrize("case", CASES)
def test_who_has_to_do_something(case: str, tmp_path: Path) -> None:
    coming, acting = CASES[case]
    found = sheet(tmp_path, PRESENT, coming)
    assert {task.who for task in found.tasks if task.act} == acting
    assert {task.who for task in found.tasks} == {PINS, WHOLE, DANE, NAMES_CA, NAMES, TEXTS}
    text = {task.who: task.text for task in found.tasks}
    if PINS in acting:
        assert found.newest.leaf.certificate.spki_sha256 in text[PINS]
    if case == "another root":
        assert "trust its root for us before the change: CN=New Root" in text[NAMES_CA]
    if case == "another intermediate":
        assert "CN=Bank Issuing 2" in text[NAMES_CA]
    if case == "a name less":
        assert "no longer expect mail.example.com" in text[NAMES]
    if case == "a name more":
        assert "New: new.example.com" in text[NAMES]


def test_what_stands_in_it(tmp_path: Path) -> None:
    """Every value against what was issued, made by other means."""
    coming = again()
    found = sheet(tmp_path, PRESENT, coming, on=date(2027, 1, 15))
    told = sheet_json(found)
    for name, issued in (("present", PRESENT), ("coming", coming)):
        paper, certificate = told[name], issued.certificate
        assert paper["subject"] == f"CN={HOST}"
        assert paper["names"] == [HOST, "mail.example.com"]
        assert paper["issuer"] == "CN=Bank Issuing 1"
        assert [each["subject"] for each in paper["intermediates"]] == ["CN=Bank Issuing 1"]
        assert paper["root"]["subject"] == "CN=Bank Root"
        assert paper["root"]["sha256"].replace(":", "").lower() == ROOT.certificate.fingerprint(hashes.SHA256()).hex()
        assert (paper["key"], paper["signature"]) == ("EC P-256", "ECDSA with SHA-256")
        assert int(paper["serial"].replace(":", ""), 16) == certificate.serial_number
        for digest, key in ((hashes.SHA256(), "sha256"), (hashes.SHA1(), "sha1")):  # noqa: S303 - as openssl prints it
            assert bytes.fromhex(paper[key].replace(":", "")) == certificate.fingerprint(digest)
        records = [str(tlsa_record(3, 1, 1, issued)), str(tlsa_record(2, 1, 1, MIDDLE))]
        assert [each["value"] for each in paper["tlsa"]] == records
        assert {each["name"] for each in paper["tlsa"]} == {f"_25._tcp.{HOST}"}
    assert told["change_on"] == "2027-01-15"
    assert "on 2027-01-15" in sheet_text(found)
    changed = {each["what"] for each in told["changes"]}
    assert {"Key pin (SPKI, SHA-256)", "Serial number", "Valid until", "TLSA"} <= changed
    assert not {"Subject", "Names", "Issuer", "Root", "Key"} & changed


def test_text_holds_every_value_whole(tmp_path: Path) -> None:
    found = sheet(tmp_path, PRESENT, again())
    lines = sheet_text(found).splitlines()
    for paper in (found.present, found.coming):
        assert paper is not None
        for value in (paper.leaf.sha256, paper.leaf.serial, paper.leaf.certificate.spki_sha256):
            assert any(line.endswith(value) for line in lines)
        for record in paper.tlsa:
            assert any(record.line in line for line in lines)
    assert all(line.isascii() for line in lines)


def test_without_a_next_one_nothing_is_to_be_done(tmp_path: Path) -> None:
    found = sheet(tmp_path, PRESENT, None)
    assert not [task for task in found.tasks if task.act]
    assert found.changes == ()
    assert "No change is planned yet" in sheet_text(found)


def test_one_that_is_used_for_the_first_time(tmp_path: Path) -> None:
    found = sheet(tmp_path, None, again())
    assert (found.present, found.name) == (None, "relay")
    assert "will come into use not before" in sheet_text(found)


def test_self_signed(tmp_path: Path) -> None:
    found = sheet(tmp_path, self_signed(Wish(HOST, names=[HOST])), None)
    assert [each["value"].split()[0] for each in sheet_json(found)["present"]["tlsa"]] == ["3"]
    assert "none: it is self-signed" in sheet_text(found)


def test_a_chain_that_leads_nowhere(tmp_path: Path) -> None:
    lone = replace(again(), issuers=())
    found = sheet(tmp_path, PRESENT, lone)
    assert found.coming is not None
    assert found.coming.anchor is None
    (task,) = [task for task in found.tasks if task.who == NAMES_CA]
    assert task.act
    assert "ask us first" in task.text


def with_addresses(subject: str, *, crl: str, ocsp: str) -> Issued:
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)]
    )
    access = x509.AuthorityInformationAccess(
        [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp))]
    )
    certificate = (
        x509.CertificateBuilder(name, ROOT.certificate.subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 90 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(points, critical=False)
        .add_extension(access, critical=False)
        .sign(ROOT.key, hashes.SHA256())
    )
    return Issued(certificate, key, (ROOT,))


def test_where_revocation_is_asked_for(tmp_path: Path) -> None:
    found = sheet(tmp_path, PRESENT, with_addresses(HOST, crl="http://crl.test/a.crl", ocsp="http://ocsp.test/"))
    (task,) = [task for task in found.tasks if task.who == REVOKED]
    assert task.act
    assert "http://crl.test/a.crl, http://ocsp.test/" in task.text
    coming = sheet_json(found)["coming"]
    assert (coming["crl"], coming["ocsp"]) == (["http://crl.test/a.crl"], ["http://ocsp.test/"])


class Page(HTMLParser):
    """What a browser would do with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        self.words += data


EVIL = '<script>alert("x")</script><img src=//evil.test/x>{{ 7*7 }}'


def test_the_page_is_one_file_and_names_stay_text(tmp_path: Path) -> None:
    evil = "http://crl.test/<script>alert(1)</script>"
    found = sheet(tmp_path, PRESENT, with_addresses(EVIL[:64], crl=evil, ocsp="javascript:alert(1)"))
    html = sheet_html(found)
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "a"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert "@import" not in html
    assert "url(" not in html
    assert EVIL[:64] in page.words.replace("\\", "")
    assert evil in page.words
    assert "default-src 'none'" in html
    for value in (found.newest.leaf.sha256, found.newest.leaf.certificate.spki_sha256):
        assert value in page.words
    assert re.search(r"@media print", html)


def test_no_word_of_other_partners(tmp_path: Path) -> None:
    assert "connector" not in sheet_text(sheet(tmp_path, PRESENT, again())).lower()


def test_times_are_utc(tmp_path: Path) -> None:
    found = sheet(tmp_path, PRESENT, None)
    assert sheet_json(found)["present"]["not_after"] == (
        PRESENT.certificate.not_valid_after_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    )
