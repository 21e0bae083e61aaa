"""The next certificate in the folder: from draft to use, with a crash at any moment, and nobody else may read a key."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relay.config.certificates import read_folder
from relay.tls import staging
from relay.tls.keyring import Keyring
from relay.tls.staging import KINDS, Draft, StagingError, cancel, commit, drafted, kind_of, request
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, clock, root, rsa_key, self_signed

CA = root()
OLD, NEW = (CA.issue(Wish(names=["relay.test"])) for _number in range(2))


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    OLD.write(folder, "relay")
    return folder


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """What the CA sent, key and all."""
    path = tmp_path / "given.pem"
    path.write_bytes(NEW.chain_pem + NEW.key_pem)
    return path


def stage(certs: Path, certificate: Path, key: Path | None = None) -> Draft:
    with drafted(read_folder(certs, NOW), certs, "relay", certificate, key, NOW) as draft:
        if draft.files is not None:
            draft.put()
        return draft


def keyring(certs: Path) -> Keyring:
    return Keyring(certs, hostname="relay.test", clock=clock)


def listing(certs: Path) -> list[str]:
    return sorted(str(each.relative_to(certs)) for each in certs.rglob("*") if each.is_file())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_staged_beside_the_present_one(certs: Path, given: Path) -> None:
    os.umask(os.umask(0o000))  # whatever it is, it does not matter
    draft = stage(certs, given)
    assert draft.files is not None
    assert listing(certs) == ["relay.key", "relay.next.key", "relay.next.pem", "relay.pem"]
    assert (mode(certs / "relay.next.key"), mode(certs / "relay.next.pem")) == (0o600, 0o644)
    assert b"PRIVATE KEY" not in (certs / "relay.next.pem").read_bytes()
    ring = keyring(certs)
    assert [each.leaf for each in ring.certificates] == [OLD.der]
    assert [each.leaf for each in ring.next] == [NEW.der]
    assert not ring.problems


@pytest.mark.parametrize("where", ["its own file", "the request's", "the present one's"])
def test_where_its_key_may_be(where: str, certs: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "given.pem", None
    if where == "its own file":
        certificate.write_bytes(NEW.pem)
        key = tmp_path / "given.key"
        key.write_bytes(NEW.key_pem)
    elif where == "the request's":
        pair = request(certs, "relay", ["relay.test"], "ec-p256")
        made = load_pem_private_key(pair.key.read_bytes(), None)
        assert isinstance(made, ec.EllipticCurvePrivateKey)
        certificate.write_bytes(CA.issue(Wish(names=["relay.test"]), made).pem)
    else:
        certificate.write_bytes(CA.issue(Wish(names=["relay.test"]), OLD.key).pem)
    draft = stage(certs, certificate, key)
    assert draft.files is not None
    assert draft.files.key.public_key() == x509.load_der_x509_certificate(draft.files.leaf).public_key()


def text_of(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


REFUSED: dict[str, tuple[Callable[[Path], tuple[Path, Path | None]], str]] = {
    "no file": (lambda folder: (folder / "nowhere.pem", None), "cannot be read"),
    "no PEM": (lambda folder: (text_of(folder / "a.pem", b"junk"), None), "is not a PEM file"),
    "a key alone": (lambda folder: (text_of(folder / "a.pem", NEW.key_pem), None), "holds no certificate"),
    "no key": (lambda folder: (text_of(folder / "a.pem", NEW.pem), None), "there is no key for"),
    "key file is none": (
        lambda folder: (text_of(folder / "a.pem", NEW.pem), text_of(folder / "a.key", b"junk")),
        "a.key is not a PEM file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read(case: str, certs: Path, tmp_path: Path) -> None:
    make, text = REFUSED[case]
    before = listing(certs)
    with pytest.raises(StagingError, match=text):
        stage(certs, *make(tmp_path))
    assert listing(certs) == before


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        (NEW, OLD, "the key does not match"),
        (weak := CA.issue(Wish(names=["relay.test"]), rsa_key(1024)), weak, "1024 bits"),
    ],
)
def test_what_cannot_be_used_leaves_nothing(
    certificate: Issued, key: Issued, text: str, certs: Path, tmp_path: Path
) -> None:
    given = text_of(tmp_path / "given.pem", certificate.pem + key.key_pem)
    before = listing(certs)
    draft = stage(certs, given)
    assert draft.files is None
    assert any(text in each.text for each in draft.problems)
    assert listing(certs) == before


def test_another_s_key_that_waits_is_not_overwritten(certs: Path, given: Path) -> None:
    pair = request(certs, "relay", ["relay.test"], "ec-p256")
    key = pair.key.read_bytes()
    with pytest.raises(StagingError, match="is another one's key, which waits already"):
        stage(certs, given)
    assert pair.key.read_bytes() == key
    with pytest.raises(StagingError, match="is there already"):
        request(certs, "relay", ["relay.test"], "ec-p256")
    assert len(cancel(certs, "relay")) == 2
    assert listing(certs) == ["relay.key", "relay.pem"]
    assert cancel(certs, "relay") == ()
    stage(certs, given)
    stage(certs, given)  # the same again: its chain may have been mended


def test_committed(certs: Path, given: Path) -> None:
    stage(certs, given)
    ring = keyring(certs)
    done = commit(certs, ring.next[0])
    assert done.old == certs / "old" / "relay.old.pem"
    assert listing(certs) == ["old/relay.old.key", "old/relay.old.pem", "relay.key", "relay.pem"]
    assert b"PRIVATE KEY" not in (certs / "relay.pem").read_bytes()
    assert [mode(certs / name) for name in ("relay.key", "relay.pem", "old", "old/relay.old.key")] == [
        *(0o600, 0o644, 0o700, 0o600)
    ]
    assert ring.reload().replaced == ("relay",)
    assert [each.leaf for each in ring.certificates] == [NEW.der]
    assert not ring.problems
    assert not ring.next
    (kept,) = read_folder(certs / "old", NOW).certificates
    assert kept.leaf == OLD.der


def test_one_file_for_both_stays_one_file(tmp_path: Path, given: Path) -> None:
    certs = tmp_path / "certs"
    certs.mkdir()
    text_of(certs / "relay.pem", OLD.pem + OLD.key_pem).chmod(0o600)
    stage(certs, given)
    commit(certs, keyring(certs).next[0])
    assert listing(certs) == ["old/relay.old.pem", "relay.pem"]
    assert mode(certs / "relay.pem") == 0o600
    assert [each.leaf for each in keyring(certs).certificates] == [NEW.der]


def test_the_first_of_its_name(tmp_path: Path, given: Path) -> None:
    certs = tmp_path / "certs"
    certs.mkdir()
    stage(certs, given)
    assert commit(certs, keyring(certs).next[0]).old is None
    assert listing(certs) == ["relay.key", "relay.pem"]


class PowerCutError(Exception):
    pass


def cut_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The power goes after so many changes of the folder."""
    made = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal made
            if made == steps:
                raise PowerCutError
            made += 1
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    return lambda: made


@pytest.mark.parametrize("steps", range(20))
def test_a_power_cut_at_any_moment_leaves_a_folder_to_start_from(
    steps: int, certs: Path, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(certs, given)
    coming = keyring(certs).next[0]
    with monkeypatch.context() as patch:
        made = cut_after(steps, patch)
        try:
            commit(certs, coming)
        except PowerCutError:
            finished = False
        else:
            finished = True
    assert made() == steps or finished
    ring = keyring(certs)
    assert [each.name for each in ring.certificates] == ["relay"], "a relay that starts now has a certificate"
    assert ring.certificates[0].leaf in (OLD.der, NEW.der)
    for path in certs.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            assert mode(path) == 0o600
    if not ring.next:
        assert ring.certificates[0].leaf == NEW.der
    elif not finished:
        commit(certs, ring.next[0])
        ring = keyring(certs)
        assert ring.certificates[0].leaf == NEW.der
        assert (certs / "old" / "relay.old.pem").read_bytes() == OLD.chain_pem


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, int]]]:
    given: list[tuple[str, int, int]] = []

    def give(descriptor: int, user: int, group: int) -> None:
        given.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, user, group))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", give)
    return given  # type: ignore[return-value]


def test_what_root_writes_belongs_to_the_relay(certs: Path, given: Path, as_root: list[tuple[str, int, int]]) -> None:
    (certs / "relay.key").chmod(0o640)  # a group reads it: the relay may come by it so
    stage(certs, given)
    owner = (certs / "relay.key").stat()
    assert {(user, group) for _name, user, group in as_root} == {(owner.st_uid, owner.st_gid)}
    assert len(as_root) == 2
    assert mode(certs / "relay.next.key") == 0o640


def test_root_gives_nothing_away_that_a_name_leads_to(
    certs: Path, given: Path, tmp_path: Path, as_root: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is the relay's, who can put a link to /etc in the place of what root has just made."""
    real, shadow = Path.mkdir, tmp_path / "shadow"
    shadow.mkdir()

    def exchanged(path: Path, mode: int = 0o777) -> None:
        if path.name == "old":
            path.symlink_to(shadow)
        else:
            real(path, mode)

    stage(certs, given)
    monkeypatch.setattr(Path, "mkdir", exchanged)
    with pytest.raises(OSError):
        commit(certs, keyring(certs).next[0])
    assert "shadow" not in {name for name, _user, _group in as_root}
    assert list(shadow.iterdir()) == []


def test_only_drafts_are_swept_away(certs: Path) -> None:
    drafts = [".relay.pem.4711.new", ".relay.next.key.1.new", "old/.relay.old.key.23.new", ".relay.x1yz_9ab/key.pem"]
    others = [".relay.pem.swp", ".relay.key.bak", ".relay.example.key", ".relay.notes/text", ".relay.test.pem.1.new"]
    for each in (*drafts, *others):
        (certs / each).parent.mkdir(exist_ok=True)
        (certs / each).touch()
    (certs / ".relay.link").symlink_to(certs / "old")
    for path in certs.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    cancel(certs, "relay")
    assert {each for each in listing(certs) if "/." in each or each.startswith(".")} == set(others)


@pytest.mark.parametrize("kind", KINDS)
def test_requests(kind: str, certs: Path) -> None:
    names = ["relay.test", "*.relay.test", "192.0.2.1", "2001:db8::1"]
    pair = request(certs, "relay", names, kind)
    csr = x509.load_pem_x509_csr(pair.request.read_bytes())
    assert csr.is_signature_valid
    san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in san] == names
    key = load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    assert kind_of(key) == kind
    assert csr.public_key() == key.public_key()
    assert mode(pair.key) == 0o600
    assert not keyring(certs).problems, "a key that waits for its certificate is no trouble"


def test_a_name_too_long_for_a_subject(certs: Path) -> None:
    pair = request(certs, "relay", [f"{'a' * 60}.relay.test"], "ec-p256")
    csr = x509.load_pem_x509_csr(pair.request.read_bytes())
    assert not list(csr.subject)
    assert csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical  # RFC 5280 section 4.1.2.6


def test_a_draft_that_was_left_behind_is_not_seen(certs: Path) -> None:
    place = certs / ".relay.x1"
    place.mkdir()
    self_signed(Wish(names=["relay.test"], after=NOW + DAY)).write(place, "relay.next")
    assert not keyring(certs).next
    assert staging.OLD == "old"
