"""The certificates folder: what is ours, what is not, and what is wrong with it, file by file."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from relay.config.certificates import (
    CertificateFiles,
    PemError,
    PrivateKey,
    Severity,
    covers,
    find_certificate,
    read_folder,
    read_pem,
)
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, root, rsa_key, self_signed

LEAF = self_signed(Wish(names=["a.example", "*.A.example", "192.0.2.1", "2001:db8::1"]))
CA = root()


def put(folder: Path, name: str, data: bytes, mode: int = 0o600) -> None:
    path = folder / name
    path.write_bytes(data)
    path.chmod(mode)


def test_leaf_chain_and_key_in_two_files(tmp_path: Path) -> None:
    intermediate = CA.issue(Wish("intermediate", ca=True))
    leaf = intermediate.issue(Wish(names=["b.example"]))
    leaf.write(tmp_path, "b")
    LEAF.write(tmp_path, "a")
    folder = read_folder(tmp_path, NOW)
    assert folder.problems == ()
    first, second = folder.certificates
    assert (first.name, first.names) == ("a", ("a.example", "*.a.example", "192.0.2.1", "2001:db8::1"))
    assert second.chain == (leaf.der, intermediate.der)
    assert second.leaf == leaf.der
    assert second.key.public_key() == leaf.key.public_key()
    assert (second.not_before, second.not_after) == (NOW - 10 * DAY, NOW + 100 * DAY)
    assert second.not_before.tzinfo is UTC


@pytest.mark.parametrize("order", [lambda c, k: c + k, lambda c, k: k + c], ids=["key last", "key first"])
def test_both_in_one_pem(order: Callable[[bytes, bytes], bytes], tmp_path: Path) -> None:
    put(tmp_path, "a.pem", b"A comment\r\n" + order(LEAF.pem, LEAF.key_pem))
    folder = read_folder(tmp_path, NOW)
    assert folder.problems == ()
    assert [each.chain for each in folder.certificates] == [(LEAF.der,)]


def test_windows_line_ends(tmp_path: Path) -> None:
    put(tmp_path, "a.pem", (LEAF.pem + LEAF.key_pem).replace(b"\n", b"\r\n"))
    assert len(read_folder(tmp_path, NOW).certificates) == 1


@pytest.mark.parametrize(
    "key",
    [
        rsa_key(2048),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
    ],
)
def test_other_kinds_of_key(key: PrivateKey, tmp_path: Path) -> None:
    CA.issue(Wish(names=["a.example"]), key).write(tmp_path, "a")
    folder = read_folder(tmp_path, NOW)
    assert folder.problems == ()
    assert type(folder.certificates[0].key) is type(key)


def test_no_key_shows_anywhere(tmp_path: Path) -> None:
    LEAF.write(tmp_path, "a")
    (files,) = read_folder(tmp_path, NOW).certificates
    pem = read_pem(tmp_path / "a.key")
    for text in (repr(files), str(files), repr(pem)):
        assert "key" not in text.lower().replace("keys", "")


def test_what_is_somebody_else_s(tmp_path: Path) -> None:
    """CA certificates, sub-folders and other files are passed over without a word."""
    put(tmp_path, "inner-ca.pem", CA.pem)
    put(tmp_path, "two-cas.pem", CA.pem + root("second").pem)
    put(tmp_path, "README.md", b"hello")
    put(tmp_path, ".a.pem.swp", b"half")
    (tmp_path / "partners").mkdir()
    put(tmp_path / "partners", "contoso.pem", LEAF.pem)
    LEAF.write(tmp_path, "a")
    folder = read_folder(tmp_path, NOW)
    assert folder.problems == ()
    assert [each.name for each in folder.certificates] == ["a"]


def encrypted(issued: Issued) -> bytes:
    return issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def no_tls_key() -> bytes:
    key = x25519.X25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def on_curve(curve: ec.EllipticCurve) -> bytes:
    return Issued(LEAF.certificate, ec.generate_private_key(curve)).key_pem


_OTHER = self_signed(Wish(names=["other.example"]))
_CUT = LEAF.pem[: len(LEAF.pem) // 2]

TROUBLE: dict[str, tuple[dict[str, bytes], str, str]] = {
    "empty": ({"a.pem": b""}, "a.pem", "is empty"),
    "no PEM": ({"a.pem": b"\x30\x82\x01\x00\xff"}, "a.pem", "is not a PEM file"),
    "cut off": ({"a.pem": _CUT, "a.key": LEAF.key_pem}, "a.pem", "is cut off"),
    "cut off in the chain": ({"a.pem": LEAF.pem + _CUT, "a.key": LEAF.key_pem}, "a.pem", "is cut off"),
    "key only": ({"a.pem": LEAF.key_pem}, "a.pem", "holds no certificate"),
    "not base64": (
        {"a.pem": b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "a.key": LEAF.key_pem},
        "a.pem",
        "not base64",
    ),
    "not DER": (
        {"a.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a.key": LEAF.key_pem},
        "a.pem",
        "holds a certificate that cannot be read",
    ),
    "too large": ({"a.pem": b" " * (2**20 + 1)}, "a.pem", "is larger than 1048576 bytes"),
    "another's key": (
        {"a.pem": LEAF.pem, "a.key": _OTHER.key_pem},
        "a.key",
        "does not match the first certificate of a.pem",
    ),
    "chain before leaf": ({"a.pem": CA.pem + LEAF.pem, "a.key": LEAF.key_pem}, "a.key", "does not match"),
    "empty key": ({"a.pem": LEAF.pem, "a.key": b""}, "a.key", "is empty"),
    "key that is none": ({"a.pem": LEAF.pem, "a.key": LEAF.pem}, "a.key", "holds no private key"),
    "two keys": ({"a.pem": LEAF.pem, "a.key": LEAF.key_pem * 2}, "a.key", "more than one private key"),
    "encrypted key": ({"a.pem": LEAF.pem, "a.key": encrypted(LEAF)}, "a.key", "the key is encrypted"),
    "broken key": (
        {"a.pem": LEAF.pem, "a.key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
        "a.key",
        "a private key that cannot be read",
    ),
    "short RSA key": (
        {"a.pem": LEAF.pem, "a.key": Issued(LEAF.certificate, rsa_key(1024)).key_pem},
        "a.key",
        "has 1024 bits",
    ),
    "odd curve": ({"a.pem": LEAF.pem, "a.key": on_curve(ec.SECP256K1())}, "a.key", "on the curve secp256k1"),
    "odd kind of key": ({"a.pem": LEAF.pem, "a.key": no_tls_key()}, "a.key", "of a kind that TLS cannot use"),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_errors_name_file_and_remedy(case: str, tmp_path: Path) -> None:
    files, where, text = TROUBLE[case]
    for name, data in files.items():
        put(tmp_path, name, data)
    folder = read_folder(tmp_path, NOW)
    assert folder.certificates == ()
    (problem,) = folder.problems
    assert problem.severity is Severity.ERROR
    assert problem.file == tmp_path / where
    assert text in problem.text
    assert problem.remedy
    assert str(problem) == f"{tmp_path / where}: {problem.text}; {problem.remedy}"


def test_warnings_leave_the_certificate_in_use(tmp_path: Path) -> None:
    self_signed(Wish(after=NOW - DAY)).write(tmp_path, "old")
    self_signed(Wish(names=["n.example"], before=NOW + DAY)).write(tmp_path, "soon")
    self_signed(Wish(names=["o.example"])).write(tmp_path, "open")
    (tmp_path / "open.key").chmod(0o644)
    folder = read_folder(tmp_path, NOW)
    assert [each.name for each in folder.certificates] == ["old", "open", "soon"]
    assert {each.severity for each in folder.problems} == {Severity.WARNING}
    found = [(each.file.name, each.text.split(",")[0]) for each in folder.problems]
    assert found == [
        ("old.pem", "the certificate has no subject alternative name"),
        ("old.pem", f"the certificate ended on {NOW - DAY:%Y-%m-%d %H:%M} UTC"),
        ("open.key", "everybody on this machine can read the key"),
        ("soon.pem", f"the certificate begins on {NOW + DAY:%Y-%m-%d %H:%M} UTC"),
    ]


def test_key_that_the_group_may_read_is_fine(tmp_path: Path) -> None:
    """As container platforms mount secrets."""
    LEAF.write(tmp_path, "a")
    (tmp_path / "a.key").chmod(0o440)
    assert read_folder(tmp_path, NOW).problems == ()


def test_files_that_belong_to_nothing(tmp_path: Path) -> None:
    put(tmp_path, "lonely.pem", LEAF.pem)
    put(tmp_path, "orphan.key", LEAF.key_pem)
    put(tmp_path, "named.crt", LEAF.pem)
    no_extensions = self_signed(Wish(ca=None))
    put(tmp_path, "plain.pem", no_extensions.pem)
    folder = read_folder(tmp_path, NOW)
    assert folder.certificates == ()
    assert [(each.file.name, each.severity.value, each.text) for each in folder.problems] == [
        ("lonely.pem", "warning", "a certificate without its key is not used"),
        ("named.crt", "warning", "is not looked at"),
        ("orphan.key", "warning", "a key without a certificate"),
        ("plain.pem", "warning", "a certificate without its key is not used"),
    ]


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    folder = read_folder(tmp_path / "nowhere", NOW)
    (problem,) = folder.problems
    assert problem.severity is Severity.ERROR
    assert "cannot be read: No such file or directory" in problem.text


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.pem").mkdir()
    (problem,) = read_folder(tmp_path, NOW).problems
    assert problem.text == "cannot be read: Is a directory"
    with pytest.raises(PemError):
        read_pem(tmp_path / "missing.pem")


def files(name: str, *names: str, after: datetime = NOW + DAY) -> CertificateFiles:
    return CertificateFiles(name, names, NOW - DAY, after, (LEAF.der,), LEAF.key)


def test_find_by_file_then_name_then_wildcard() -> None:
    by_file = files("mail.example", "other.example")
    exact, exact_later = files("x", "mail.example"), files("y", "mail.example", after=NOW + 2 * DAY)
    wildcard = files("z", "*.example")
    every = [wildcard, exact, exact_later, by_file]
    assert find_certificate(every, "mail.example") is by_file
    assert find_certificate(every[:3], "MAIL.example") is exact_later
    assert find_certificate(every[:1], "mail.example") is wildcard
    assert find_certificate(every, "nothing.test") is None
    assert find_certificate([], "mail.example") is None


@pytest.mark.parametrize(
    ("host", "covered"),
    [("a.example", True), ("x.w.example", True), ("y.x.w.example", False), ("w.example", False), ("example", False)],
)
def test_wildcard_stands_for_one_label(host: str, covered: bool) -> None:
    assert covers(["a.example", "*.w.example"], host) is covered


def test_the_next_certificate_is_not_in_use(tmp_path: Path) -> None:
    LEAF.write(tmp_path, "mail")
    following = self_signed(Wish(names=["a.example", "new.example"]))
    following.write(tmp_path, "mail.next")
    put(tmp_path, "other.next.pem", b"junk")
    folder = read_folder(tmp_path, NOW)
    assert [(each.name, each.replaces, each.is_next) for each in folder.certificates] == [("mail", "mail", False)]
    assert [(each.name, each.replaces, each.is_next) for each in folder.next] == [("mail.next", "mail", True)]
    assert [each.file.name for each in folder.problems] == ["other.next.pem"]
    for name in ("mail.next", "new.example"):
        assert folder.by_name(name) is None
