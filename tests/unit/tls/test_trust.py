"""The path check as a table, and how long its results hold."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto

from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted
from relay.tls.evidence import parse_certificate
from relay.tls.stores import Store, StoreShelf, Unusable
from relay.tls.trust import Purpose, TrustStores
from tests.unit.tls import odd
from tests.unit.tls.pki import (
    CLIENT_AUTH,
    DAY,
    EMAIL,
    NOW,
    SERVER_AUTH,
    Issued,
    Wish,
    key_usage,
    new_key,
    root,
    rsa_key,
    self_signed,
)

ROOT = root("root")
OTHER = root("other")
INTERMEDIATE = ROOT.issue(Wish("intermediate", ca=True))
NAMES = ["a.example"]
GOOD = Wish("a", names=NAMES)
SECOND = timedelta(seconds=1)

ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
NOT_TRUSTED = TlsFailure.CERTIFICATE_NOT_TRUSTED
EXPIRED = TlsFailure.CERTIFICATE_EXPIRED
INVALID = TlsFailure.VALIDATION_FAILURE


def evidence(chain: tuple[bytes, ...]) -> TlsEvidence:
    return TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", "x25519", chain=tuple(map(parse_certificate, chain)))


def checked(
    chain: tuple[bytes, ...], anchors: bytes, folder: Path, purpose: Purpose = Purpose.SERVER, now: datetime = NOW
) -> PathResult:
    ca = folder / "ca.pem"
    ca.write_bytes(anchors)
    return TrustStores().check(evidence(chain), [str(ca)], purpose, now).paths[str(ca)]


@dataclass(frozen=True)
class Row:
    """A chain, what is trusted, and what must come of it: an anchor, or a failure with a piece of its text."""

    chain: tuple[bytes, ...]
    anchors: bytes
    anchor: str = ""
    failure: TlsFailure | None = None
    text: str = ""
    purpose: Purpose = Purpose.SERVER


def good(chain: tuple[bytes, ...], anchors: Issued, purpose: Purpose = Purpose.SERVER) -> Row:
    return Row(chain, anchors.pem, anchor=anchors.certificate.subject.rfc4514_string(), purpose=purpose)


def bad(issued: Issued | tuple[bytes, ...], failure: TlsFailure, text: str, purpose: Purpose = Purpose.SERVER) -> Row:
    chain = issued.chain if isinstance(issued, Issued) else issued
    return Row(chain, ROOT.pem, failure=failure, text=text, purpose=purpose)


def leaf(issuer: Issued = ROOT, **more: Any) -> Issued:
    return issuer.issue(replace(GOOD, **more))


def constrained() -> Issued:
    constraints = x509.NameConstraints([x509.DNSName("example")], None)
    return ROOT.issue(Wish("only example", ca=True, constraints=constraints))


def weak(how: Callable[[list[bytes]], list[bytes]], of: Issued) -> tuple[bytes, ...]:
    return (odd.changed(of, how), *of.chain[1:])


def forged() -> tuple[bytes, ...]:
    """Names the right issuer, signed by somebody else."""
    false_root = Issued(ROOT.certificate, new_key())
    return (false_root.issue(GOOD).der,)


def pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


SELF = self_signed(GOOD)
SELF_CA = self_signed(Wish("a", names=NAMES, ca=True))
SERVER, CLIENT = Purpose.SERVER, Purpose.CLIENT

ROWS = {
    "good": good(leaf().chain, ROOT),
    "good over an intermediate": good(leaf(INTERMEDIATE).chain, ROOT),
    "root presented too": good((*leaf(INTERMEDIATE).chain, ROOT.der), ROOT),
    "in disorder, with a stranger between": good((leaf(INTERMEDIATE).der, OTHER.der, INTERMEDIATE.der), ROOT),
    "anchor is the intermediate": good(leaf(INTERMEDIATE).chain, INTERMEDIATE),
    "anchor is the leaf": good((ONE := leaf()).chain, ONE),
    "self-signed, and the file holds it": good((SELF.der,), SELF),
    "self-signed as a CA, and the file holds it": good((SELF_CA.der,), SELF_CA),
    "two anchors in one file": Row(leaf().chain, OTHER.pem + ROOT.pem, anchor="CN=root"),
    "expired": bad(leaf(after=NOW - DAY), EXPIRED, "certificate has expired"),
    "not yet valid": bad(leaf(before=NOW + DAY), EXPIRED, "certificate is not yet valid"),
    "expired intermediate": bad(
        leaf(ROOT.issue(Wish("i", ca=True, after=NOW - DAY))),
        EXPIRED,
        "certificate has expired (certificate 2 of the path)",
    ),
    "self-signed, expired, and the file holds it": Row(
        (OLD := self_signed(replace(GOOD, after=NOW - DAY))).chain,
        OLD.pem,
        failure=EXPIRED,
        text="expired",
    ),
    "wrong CA": bad(leaf(OTHER), NOT_TRUSTED, "unable to get local issuer certificate"),
    "wrong CA, presented": bad(
        (leaf(OTHER).der, OTHER.der), NOT_TRUSTED, "self-signed certificate in certificate chain"
    ),
    "self-signed": bad((SELF.der,), NOT_TRUSTED, "self-signed certificate"),
    "intermediate missing": bad((leaf(INTERMEDIATE).der,), NOT_TRUSTED, "unable to get local issuer certificate"),
    "forged": bad(forged(), INVALID, "certificate signature failure"),
    "issuer is no CA": bad(leaf(leaf(subject="i")), INVALID, "invalid CA certificate"),
    "issuer has no basic constraints": bad(leaf(ROOT.issue(Wish("i", ca=None))), INVALID, "invalid CA certificate"),
    "issuer may not sign certificates": bad(
        leaf(ROOT.issue(Wish("i", ca=True, key_usage=key_usage(signature=True)))), INVALID, "certificate"
    ),
    "path too long": bad(
        leaf(ROOT.issue(Wish("i", ca=True, path_length=0)).issue(Wish("j", ca=True))),
        INVALID,
        "path length constraint exceeded",
    ),
    "inside the name constraints": good(leaf(constrained()).chain, ROOT),
    "outside the name constraints": bad(leaf(constrained(), names=["a.test"]), INVALID, "permitted subtree violation"),
    "server's usage": good(leaf(usages=[SERVER_AUTH]).chain, ROOT),
    "client's usage for a server": bad(
        leaf(usages=[CLIENT_AUTH]), INVALID, "leaf CN=a: its extended key usage does not allow TLS"
    ),
    "client's usage": good(leaf(usages=[CLIENT_AUTH]).chain, ROOT, purpose=CLIENT),
    "server's usage for a client": good(leaf(usages=[SERVER_AUTH]).chain, ROOT, purpose=CLIENT),
    "mail's usage for a client": bad(leaf(usages=[EMAIL]), INVALID, "extended key usage", CLIENT),
    "mail's usage for a server": bad(leaf(usages=[EMAIL]), INVALID, "extended key usage"),
    "any usage": good(leaf(usages=[ANY]).chain, ROOT),
    "issuer for mail only": bad(
        leaf(ROOT.issue(Wish("mail CA", ca=True, usages=[EMAIL]))), INVALID, "CN=mail CA: its extended"
    ),
    "key for certificates only": bad(
        leaf(key_usage=key_usage(certificates=True)), INVALID, "key usage does not allow TLS"
    ),
    "key for signatures": good(leaf(key_usage=key_usage(signature=True)).chain, ROOT),
    "short RSA key": bad(ROOT.issue(GOOD, rsa_key(1024)), NOT_TRUSTED, "leaf CN=a: too weak, RSA key of 1024 bits"),
    "short RSA key of an issuer": bad(
        leaf(ROOT.issue(Wish("i", ca=True), rsa_key(1024))), NOT_TRUSTED, "CN=i: too weak"
    ),
    "small curve": bad(ROOT.issue(GOOD, ec.generate_private_key(ec.SECP192R1())), NOT_TRUSTED, "curve secp192r1"),
    "SHA-1": bad(weak(odd.signed_with_sha1, leaf()), NOT_TRUSTED, "too weak, signature with SHA1"),
    "SHA-1 on the anchor": Row(leaf().chain, pem(odd.changed(ROOT, odd.signed_with_sha1)), anchor="CN=root"),
    "broken extension": bad(weak(odd.broken_extensions, leaf()), NOT_TRUSTED, ""),
    "name that is no text": bad(weak(odd.latin_name, leaf()), INVALID, "leaf CN=a: its extensions cannot be read"),
    "unknown key": bad(weak(odd.unknown_key, leaf()), INVALID, ""),
    "version 1 leaf": good(weak(odd.version_1, leaf()), ROOT),
    "negative serial": good(weak(odd.negative_serial, leaf()), ROOT),
    "absurd dates": bad(weak(odd.absurd_dates, leaf()), INVALID, ""),
    "no certificate at all": bad((), NOT_TRUSTED, "no certificate was shown"),
    "junk": bad((b"junk",), INVALID, "cannot be read"),
    "junk behind a good leaf": bad((*leaf().chain, b"junk"), INVALID, "cannot be read"),
}


@pytest.mark.parametrize("name", ROWS)
def test_path_table(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    result = checked(row.chain, row.anchors, tmp_path, row.purpose)
    if row.failure is None:
        assert isinstance(result, Trusted), result
        assert result.anchor == row.anchor
    else:
        assert isinstance(result, Untrusted), result
        assert result.failure is row.failure
        assert row.text in result.text


def test_until_is_the_end_of_the_first_certificate_to_end(tmp_path: Path) -> None:
    short = ROOT.issue(Wish("short", ca=True, after=NOW + 3 * DAY))
    result = checked(leaf(short).chain, ROOT.pem, tmp_path)
    assert result == Trusted("CN=root", NOW + 3 * DAY)


@pytest.mark.parametrize(("days", "trusted"), [(-11, False), (-9, True), (99, True), (101, False)])
def test_now_is_the_caller_s(days: int, trusted: bool, tmp_path: Path) -> None:
    result = checked(leaf().chain, ROOT.pem, tmp_path, now=NOW + days * DAY)
    assert isinstance(result, Trusted) is trusted
    if not trusted:
        assert isinstance(result, Untrusted)
        assert result.failure is EXPIRED


def test_time_zone_of_now_does_not_matter(tmp_path: Path) -> None:
    east = (NOW + 99 * DAY).astimezone(timezone(timedelta(hours=14)))
    assert isinstance(checked(leaf().chain, ROOT.pem, tmp_path, now=east), Trusted)


def test_results_are_added_to_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    (tmp_path / "other.pem").write_bytes(OTHER.pem)
    stores = TrustStores()
    good_one, bad_one = str(tmp_path / "root.pem"), str(tmp_path / "other.pem")
    before = evidence(leaf().chain)
    first = stores.check(before, [good_one], SERVER, NOW)
    second = stores.check(first, [bad_one], SERVER, NOW)
    assert before.paths == {}
    assert isinstance(second.paths[good_one], Trusted)
    assert isinstance(second.paths[bad_one], Untrusted)
    assert second.chain is before.chain
    assert stores.check(before, [], SERVER, NOW).paths == {}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\xff\x00 what is this", "is not a PEM file"),
        (ROOT.pem[:200], "is cut off"),
        (ROOT.pem + OTHER.pem[:200], "is cut off"),
        (ROOT.key_pem, "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds a certificate that cannot be read"),
    ],
)
def test_unusable_trust_neither_trusts_nor_refuses(content: bytes | None, text: str, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    stores = TrustStores()
    result = stores.check(evidence(leaf().chain), [str(ca)], SERVER, NOW).paths[str(ca)]
    assert isinstance(result, Undecided)
    assert result.text == stores.problem(str(ca), NOW)
    assert result.text.startswith(f"the CA file {ca} ")
    assert text in result.text
    assert "; put the CA's certificate there, in PEM" in result.text


def test_usable_trust_has_no_problem(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    assert TrustStores().problem(str(tmp_path / "ca.pem"), NOW) == ""


def test_record_without_certificates_is_not_judged(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(ROOT.pem)
    recorded = TlsEvidence("TLSv1.3", "c", "g", chain=(replace(parse_certificate(ONE.der), der=b""),))
    result = TrustStores().check(recorded, [str(ca)], SERVER, NOW).paths[str(ca)]
    assert isinstance(result, Undecided)


def test_folder_of_certificates(tmp_path: Path) -> None:
    for name, issued in (("root.pem", ROOT), ("other.crt", OTHER), ("0a1b2c3d.0", INTERMEDIATE)):
        (tmp_path / name).write_bytes(issued.pem)
    (tmp_path / "notes.txt").write_text("not looked at")
    stores = TrustStores()
    for issued in (ROOT, OTHER, INTERMEDIATE):
        result = stores.check(evidence(leaf(issued).chain), [str(tmp_path)], SERVER, NOW).paths[str(tmp_path)]
        assert isinstance(result, Trusted)
    (tmp_path / "half.pem").write_bytes(ROOT.pem[:100])
    assert f"{tmp_path / 'half.pem'} is cut off" in stores.problem(str(tmp_path), NOW + 2 * SECOND)


def test_empty_folder(tmp_path: Path) -> None:
    assert "holds no certificate" in TrustStores().problem(str(tmp_path), NOW)


class Watched:
    """A CA file that changes, and a clock."""

    def __init__(self, path: Path, **times: timedelta) -> None:
        self.path = path
        self.now = NOW
        self.stores = TrustStores(**times)
        self.subject = evidence(leaf().chain)

    def write(self, *anchors: Issued) -> None:
        self.path.write_bytes(b"".join(each.pem for each in anchors))

    def replace(self, *anchors: Issued) -> None:
        """As editors do: another file under the same name."""
        draft = self.path.with_suffix(".new")
        draft.write_bytes(b"".join(each.pem for each in anchors))
        draft.rename(self.path)

    def result(self) -> PathResult:
        return self.stores.check(self.subject, [str(self.path)], SERVER, self.now).paths[str(self.path)]


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    """And a kept result does not outlive what it was made from."""
    watched = Watched(tmp_path / "ca.pem", keep=timedelta(hours=1))
    watched.write(ROOT)
    assert isinstance(watched.result(), Trusted)
    watched.replace(OTHER)
    watched.now += SECOND
    assert isinstance(watched.result(), Untrusted)
    watched.path.unlink()
    watched.now += SECOND
    assert isinstance(watched.result(), Undecided)
    watched.now += SECOND
    assert isinstance(watched.result(), Undecided)
    watched.write(ROOT)
    watched.now += SECOND
    assert isinstance(watched.result(), Trusted)


def test_disk_is_looked_at_once_per_interval(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "ca.pem", interval=10 * SECOND)
    watched.write(ROOT)
    assert isinstance(watched.result(), Trusted)
    watched.path.unlink()
    watched.now += 9 * SECOND
    assert isinstance(watched.result(), Trusted)
    watched.now += SECOND
    assert isinstance(watched.result(), Undecided)


def test_clock_that_goes_back(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "ca.pem", keep=10 * DAY, interval=10 * DAY)
    watched.write(ROOT)
    assert isinstance(watched.result(), Trusted)
    watched.path.unlink()
    watched.now -= SECOND
    assert isinstance(watched.result(), Undecided)


def count_checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    real = crypto.X509StoreContext.get_verified_chain

    def counted(context: crypto.X509StoreContext) -> list[crypto.X509]:
        calls.append(1)
        return real(context)

    monkeypatch.setattr(crypto.X509StoreContext, "get_verified_chain", counted)
    return calls


def test_results_are_kept_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_checks(monkeypatch)
    watched = Watched(tmp_path / "ca.pem", keep=60 * SECOND)
    watched.write(ROOT)
    for _time in range(3):
        assert isinstance(watched.result(), Trusted)
    assert len(calls) == 1
    watched.now += 59 * SECOND
    watched.result()
    assert len(calls) == 1
    watched.now += SECOND
    watched.result()
    assert len(calls) == 2
    watched.stores.check(watched.subject, [str(watched.path)], CLIENT, watched.now)
    assert len(calls) == 3


def test_refusals_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_checks(monkeypatch)
    watched = Watched(tmp_path / "ca.pem")
    watched.write(OTHER)
    assert watched.result() is watched.result()
    assert len(calls) == 1


def test_no_result_is_kept_beyond_the_end_of_a_certificate(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "ca.pem", keep=10 * DAY)
    watched.write(ROOT)
    watched.subject = evidence(leaf(after=NOW + DAY).chain)
    assert isinstance(watched.result(), Trusted)
    watched.now = NOW + DAY - SECOND
    assert isinstance(watched.result(), Trusted)
    watched.now = NOW + DAY + SECOND
    assert isinstance(watched.result(), Untrusted)


def test_each_moment_is_judged_by_itself(tmp_path: Path) -> None:
    """OpenSSL keeps the first time that a store was given."""
    watched = Watched(tmp_path / "ca.pem", keep=timedelta(0), interval=1000 * DAY)
    watched.write(ROOT)
    for days, kind in ((0, Trusted), (500, Untrusted), (1, Trusted), (-50, Untrusted), (2, Trusted)):
        watched.now = NOW + days * DAY
        assert isinstance(watched.result(), kind)


def test_no_more_than_so_many_results_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.tls.trust._MAX_KEPT", 2)
    calls = count_checks(monkeypatch)
    watched = Watched(tmp_path / "ca.pem")
    watched.write(ROOT)
    first, second, third = (evidence(leaf(subject=name).chain) for name in "123")
    for watched.subject in (first, second, third, third, second, first):
        assert isinstance(watched.result(), Trusted)
    assert len(calls) == 4


def test_large_certificates_are_checked_as_well(tmp_path: Path) -> None:
    many = leaf(names=[f"n{number}.example" for number in range(1500)])
    assert isinstance(checked(many.chain, ROOT.pem, tmp_path), Trusted)


def test_failed_check_leaves_nothing_in_openssl_s_queue(tmp_path: Path) -> None:
    """Its errors would show as the reason of the next TLS failure of anybody."""
    assert isinstance(checked(forged(), ROOT.pem, tmp_path), Untrusted)
    with pytest.raises(SSL.Error) as caught:
        SSL.Context(SSL.TLS_CLIENT_METHOD).use_certificate_chain_file(str(tmp_path / "nothing.pem"))
    assert not any("signature" in str(entry) or "x509" in str(entry) for entry in caught.value.args[0])


def system(environment: dict[str, str]) -> Store | Unusable:
    return StoreShelf(interval=SECOND, environment=environment).get("system", NOW)


def test_system_trust_by_environment(tmp_path: Path) -> None:
    """As for OpenSSL: SSL_CERT_FILE and SSL_CERT_DIR, the latter one folder or several."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.pem").write_bytes(ROOT.pem)
    assert isinstance(system({"SSL_CERT_FILE": str(tmp_path / "one" / "ca.pem")}), Store)
    assert isinstance(system({"SSL_CERT_DIR": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}), Store)
    missing = system({"SSL_CERT_FILE": str(tmp_path / "nothing")})
    assert isinstance(missing, Unusable)
    assert missing.text.startswith("the system's CA certificates: cannot be read")
    assert "install the package ca-certificates" in missing.text
    broken = tmp_path / "broken.pem"
    broken.write_bytes(b"junk")
    unreadable = system({"SSL_CERT_FILE": str(broken)})
    assert isinstance(unreadable, Unusable)
    assert f"{broken} is not a PEM file" in unreadable.text


def test_system_trust_is_a_bundle_of_the_system_or_certifi_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.crt"
    monkeypatch.setattr("relay.tls.stores._BUNDLES", (str(tmp_path / "missing"), str(bundle)))
    assert isinstance(system({}), Store)  # certifi's
    bundle.write_bytes(b"junk")
    assert isinstance(system({}), Unusable)


def test_real_roots_load_and_trust_no_stranger() -> None:
    result = TrustStores().check(evidence(leaf().chain), ["system"], SERVER, NOW).paths["system"]
    assert result == Untrusted(NOT_TRUSTED, "unable to get local issuer certificate")
