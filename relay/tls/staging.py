"""The next certificate: put beside the present one, put in its place, or taken away, each so that a crash at any moment leaves a folder that a
relay can start from. And the key and request that a CA makes one from.

Files are written whole or not at all (a draft beside them, fsync, rename), keys with mode 0600 and before their certificates. Where the
present key is read by its group, the next one is too; what root writes belongs to whom the present key belongs to: the relay must read it.
Decides nothing about partners: `relay.policy.candidate`.

Threat: a key that others can read for a moment; a renewal that is cut off half way and leaves a relay without TLS.
"""

import glob
import ipaddress
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from relay.config.certificates import (
    NEXT,
    CertificateFiles,
    Folder,
    PemError,
    PrivateKey,
    Problem,
    read_pem,
)
from relay.tls.keyring import checked_folder

OLD = "old"
"""The sub-folder that what was in use before goes to; sub-folders are not read."""
_MAX_COMMON_NAME = 64  # RFC 5280 appendix A.1, ub-common-name
_STALE = 600.0  # seconds after which a draft is nobody's
_DRAFT = re.compile(r"(\.next|\.old)?\.(pem|key|csr)\.\d+\.new")  # as `_write` names it
_DRAFT_FOLDER = re.compile(r"\.[a-z0-9_]{8}")  # as tempfile does
KINDS = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")


class StagingError(Exception):
    """It was not done, and nothing was changed; str() says why and what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two files of one certificate, and the request that goes before it."""

    certificate: Path
    key: Path
    request: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> "Pair":
        return cls(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.csr")


@dataclass(frozen=True, slots=True)
class Draft:
    """A coming certificate that was read and is not in the folder yet. `files` is None where it cannot be used, `problems` say why."""

    folder: Path
    name: str
    place: Path
    files: CertificateFiles | None
    problems: tuple[Problem, ...]

    def put(self) -> Pair:
        """Into the folder, key first. Raises OSError."""
        drafted, target = Pair.of(self.place, f"{self.name}{NEXT}"), Pair.of(self.folder, f"{self.name}{NEXT}")
        for source, path in ((drafted.key, target.key), (drafted.certificate, target.certificate)):
            source.replace(path)
        _sync(self.folder)
        return target


@contextmanager
def drafted(
    folder: Folder, path: Path, name: str, certificate: Path, key: Path | None, now: datetime
) -> Iterator[Draft]:
    """Reads a coming certificate for `name` into a hidden draft beside the present one. `folder` is what `path` holds.

    The key: `key`, or in the same file, or the one that `request` made, or the present one. Raises StagingError, OSError.
    """
    chain, pem = _read(certificate), b""
    _sweep(path, name)
    try:
        pem = _key_for(chain, folder, Pair.of(path, f"{name}{NEXT}"), key, certificate)
        _refuse_another(folder, path, name, chain)
    except PemError as error:
        raise StagingError(f"{key or certificate} {error}") from None
    place = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=path))
    try:
        pair = Pair.of(place, f"{name}{NEXT}")
        like = _like(path, name)
        _write(pair.key, pem, like.mode, like)
        _write(pair.certificate, _pem(chain), 0o644, like)
        found = checked_folder(place, now)
        yield Draft(path, name, place, next(iter(found.next), None), found.problems)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _read(certificate: Path) -> tuple[bytes, ...]:
    try:
        chain = read_pem(certificate).certificates
    except PemError as error:
        raise StagingError(f"{certificate} {error}; write the leaf certificate, then its chain, in PEM") from None
    if not chain:
        raise StagingError(f"{certificate} holds no certificate")
    return chain


def _key_for(chain: Sequence[bytes], folder: Folder, waiting: Pair, key: Path | None, certificate: Path) -> bytes:
    """The private key's PEM. Whether it matches is checked with the draft."""
    if key is not None:
        return b"".join(read_pem(key).keys)
    own = read_pem(certificate).keys
    if own:
        return b"".join(own)
    if waiting.key.exists():
        return b"".join(read_pem(waiting.key).keys)
    wanted = x509.load_der_x509_certificate(chain[0]).public_key()
    for files in folder.certificates:
        if files.key.public_key() == wanted:  # renewed with the key that is in use
            return _key_pem(files.key)
    raise StagingError(
        f"there is no key for {certificate}: name its file, or put it into the same one; `relay certs request` makes one beforehand"
    )


def _refuse_another(folder: Folder, path: Path, name: str, chain: Sequence[bytes]) -> None:
    """Threat: a key that a request is out for, or one that is published, is overwritten."""
    waiting = Pair.of(path, f"{name}{NEXT}")
    if not waiting.key.exists():
        return
    staged = next((each for each in folder.next if each.name == f"{name}{NEXT}"), None)
    public = x509.load_der_x509_certificate(chain[0]).public_key()
    same = staged is not None and staged.key.public_key() == public
    if not same and waiting.request.exists():
        request = x509.load_pem_x509_csr(waiting.request.read_bytes())
        same = request.public_key() == public
    if not same:
        raise StagingError(
            f"{waiting.key} is another one's key, which waits already: `relay certs next {name} --cancel` takes it away"
        )


def links(path: Path, name: str) -> tuple[tuple[Path, Path], ...]:
    """Which of the present files are links, and where they lead: `commit` puts files in their place.

    Threat: certbot, or a secret's volume, goes on renewing what nobody looks at any more.
    """
    present = Pair.of(path, name)
    return tuple((each, each.readlink()) for each in (present.certificate, present.key) if each.is_symlink())


@dataclass(frozen=True, slots=True)
class Committed:
    """What is in use now, and where what was before is kept (None where there was nothing)."""

    pair: Pair
    old: Path | None


def commit(path: Path, coming: CertificateFiles) -> Committed:
    """Puts `coming`, a next one of the folder, in use. Raises OSError.

    Certificate and key are exchanged in one rename, since for a moment one file has both; only then the key's own file follows. What was
    cut off is finished by doing it again.
    """
    name = coming.replaces
    present, waiting = Pair.of(path, name), Pair.of(path, coming.name)
    like = _like(path, name)
    old = _keep(path, present, coming, like)
    chain, key = _pem(coming.chain), _key_pem(coming.key)
    mode = present.certificate.stat().st_mode & 0o644 if present.certificate.exists() else 0o644
    together = present.certificate.exists() and not present.key.exists()
    _write(present.certificate, chain + key, like.mode, like)
    if not together:
        _write(present.key, key, like.mode, like)
        _write(present.certificate, chain, mode, like)
    for each in (waiting.certificate, waiting.key, waiting.request):
        each.unlink(missing_ok=True)
    _sweep(path, name)
    _sync(path)
    return Committed(present, old)


def finish(path: Path, name: str) -> bool:
    """True where a `commit` was cut off behind all that matters: what still waits, key or request, is of the key in use, and is taken away."""
    present, waiting = Pair.of(path, name), Pair.of(path, f"{name}{NEXT}")
    if waiting.certificate.exists() or not present.certificate.exists():
        return False
    with suppress(PemError, ValueError):
        in_use = x509.load_der_x509_certificate(read_pem(present.certificate).certificates[0]).public_key()
        left = [load_pem_private_key(waiting.key.read_bytes(), None).public_key()] if waiting.key.exists() else []
        if waiting.request.exists():
            left.append(x509.load_pem_x509_csr(waiting.request.read_bytes()).public_key())
        if left and all(each == in_use for each in left):
            cancel(path, name)
            return True
    return False


def _sweep(path: Path, name: str) -> None:
    """Drafts of a command that was killed. They may hold a key, and nobody looks at hidden files. Others' (an editor's) are left alone."""
    hidden = f".{glob.escape(name)}.*"
    for each in (*path.glob(hidden), *(path / OLD).glob(hidden)):
        told = each.name[len(name) + 1 :]
        with suppress(FileNotFoundError):
            status = each.lstat()
            if time.time() - status.st_mtime < _STALE:
                continue  # perhaps somebody is at it
            if stat.S_ISDIR(status.st_mode) and _DRAFT_FOLDER.fullmatch(told):
                shutil.rmtree(each)
            elif stat.S_ISREG(status.st_mode) and _DRAFT.fullmatch(told):
                each.unlink()


def _keep(path: Path, present: Pair, coming: CertificateFiles, like: "_Like") -> Path | None:
    """Copies what is in use aside, unless that is the coming one already."""
    if not present.certificate.exists():
        return None
    aside = path / OLD
    kept = Pair.of(aside, f"{coming.replaces}.old")
    with suppress(PemError):
        if read_pem(present.certificate).certificates == coming.chain:
            return kept.certificate if kept.certificate.exists() else None
    if not aside.exists():
        aside.mkdir(mode=0o700)
        descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            like.give(descriptor)
        finally:
            os.close(descriptor)
    kept.key.unlink(missing_ok=True)
    if present.key.exists():
        _write(kept.key, present.key.read_bytes(), 0o600, like)
    _write(kept.certificate, present.certificate.read_bytes(), 0o600, like)
    return kept.certificate


def cancel(path: Path, name: str) -> tuple[Path, ...]:
    """Takes the next one of `name` away, its key and request too. What was there. Raises OSError."""
    _sweep(path, name)
    waiting = Pair.of(path, f"{name}{NEXT}")
    gone = tuple(each for each in (waiting.certificate, waiting.key, waiting.request) if each.exists())
    for each in gone:
        each.unlink(missing_ok=True)
    _sync(path)
    return gone


def request(path: Path, name: str, names: Sequence[str], kind: str) -> Pair:
    """Makes `NAME.next.key` (mode 0600) and `NAME.next.csr` for these DNS names and addresses. `kind` is one of KINDS.

    Raises StagingError where something waits already, OSError.
    """
    waiting = Pair.of(path, f"{name}{NEXT}")
    _sweep(path, name)
    for each in (waiting.key, waiting.certificate, waiting.request):
        if each.exists():
            raise StagingError(f"{each} is there already: `relay certs next {name} --cancel` takes it away")
    key = _new_key(kind)
    subject = next((each for each in names if len(each) <= _MAX_COMMON_NAME), "")
    common = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(common))
        .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=not subject)
        .sign(key, hashes.SHA256())
    )
    like = _like(path, name)
    _write(waiting.request, csr.public_bytes(Encoding.PEM), 0o644, like)
    _write(waiting.key, _key_pem(key), like.mode, like)
    _sync(path)
    return waiting


def kind_of(key: PrivateKey) -> str:
    """The kind of KINDS that is nearest to a key."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "rsa-2048" if key.key_size < 3072 else "rsa-3072" if key.key_size < 4096 else "rsa-4096"
    return "ec-p384" if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1" else "ec-p256"


def _new_key(kind: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    family, _dash, size = kind.partition("-")
    if family == "rsa":
        return rsa.generate_private_key(65537, int(size))
    return ec.generate_private_key(ec.SECP384R1() if size == "p384" else ec.SECP256R1())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(chain: Sequence[bytes]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


def _write(path: Path, data: bytes, mode: int, like: "_Like") -> None:
    """Whole or not at all. The draft never has more rights than `mode`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(data)
            file.flush()
            like.give(descriptor)
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


@dataclass(frozen=True, slots=True)
class _Like:
    """How the relay comes to read keys here: whose they are, and `mode`, 0600 or 0640."""

    user: int
    group: int
    mode: int

    def give(self, descriptor: int) -> None:
        """What root made becomes theirs. Threat: by its name it could be something else by now, since the folder is theirs already."""
        if os.geteuid() == 0:
            os.fchown(descriptor, self.user, self.group)


def _like(folder: Path, name: str) -> _Like:
    present = Pair.of(folder, name)
    model = next((each for each in (present.key, present.certificate) if each.exists()), None)
    status = (model or folder).stat()
    shared = model == present.key and status.st_mode & stat.S_IRGRP
    return _Like(status.st_uid, status.st_gid, 0o640 if shared else 0o600)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
