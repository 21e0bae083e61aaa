"""Who is trusted: CA certificates from files and folders, read again when they change on disk.

`system` is the operating system's bundle: SSL_CERT_FILE or SSL_CERT_DIR where set (as for OpenSSL itself), else the first bundle
at the places where distributions keep theirs, else certifi's. Which chain leads to them is `relay.tls.trust`'s question.

Threat: a file that is missing, empty, half written or no PEM must neither trust nor refuse anybody: it is Unusable, and says why.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
from OpenSSL import crypto

from relay.config.certificates import PemError, read_pem
from relay.mail.tls import SYSTEM_TRUST

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)
_SUFFIXES = (".pem", ".crt", ".cer")
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+\Z")  # what openssl rehash makes
_MAX_BUNDLE = 16 * 2**20  # bytes

# Enough of a file's stat to see that it is another than before: modification time, size and inode.
Stamp = tuple[tuple[str, int, int, int], ...]


class Store:
    """Certificates that are trusted. `version` is never used twice, so a result can be kept beside it."""

    def __init__(self, anchors: tuple[crypto.X509, ...], version: int) -> None:
        self.version = version
        self._anchors = anchors
        self._second = 0
        self._built = crypto.X509Store()

    def at(self, now: datetime) -> crypto.X509Store:
        """The store for a check at `now` (aware), to the second.

        Made anew for each second: OpenSSL takes the first time that a store is given and silently ignores any later one.
        """
        second = int(now.timestamp())
        if second != self._second:
            self._second, self._built = second, self._build(now.astimezone(UTC))
        return self._built

    def _build(self, now: datetime) -> crypto.X509Store:
        store = crypto.X509Store()
        # RFC 5280 section 6.1.1 (d): an anchor is whatever one trusts, so an intermediate or a partner's own self-signed leaf will do.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        store.set_time(now)
        for anchor in self._anchors:
            store.add_cert(anchor)
        return store


@dataclass(frozen=True, slots=True)
class Unusable:
    """`text` names the file and what to do. `version` as in Store."""

    text: str
    version: int


@dataclass(slots=True)
class _Loaded:
    store: Store | Unusable
    stamp: Stamp
    looked: datetime


class StoreShelf:
    """Every trust store that was asked for. The disk is looked at once per `interval` and store."""

    def __init__(self, *, interval: timedelta, environment: Mapping[str, str] = os.environ) -> None:
        self._interval = interval
        self._environment = environment
        self._loaded: dict[str, _Loaded] = {}
        self._versions = 0

    def get(self, trust: str, now: datetime) -> Store | Unusable:
        """`trust` is "system" or a path; `now` (aware) says when to look at the disk again. Never raises."""
        known = self._loaded.get(trust)
        if known is not None and known.looked <= now < known.looked + self._interval:
            return known.store
        try:
            files = self._files(trust)
            stamp = _stamp(files)
        except OSError as error:
            return self._keep(trust, _why(trust, f"cannot be read: {error.strerror or error}"), (), now)
        if known is not None and stamp and known.stamp == stamp:
            known.looked = now
            return known.store
        return self._keep(trust, _load(trust, files), stamp, now)

    def _keep(self, trust: str, found: tuple[crypto.X509, ...] | str, stamp: Stamp, now: datetime) -> Store | Unusable:
        known = self._loaded.get(trust)
        if known is not None and isinstance(known.store, Unusable) and known.store.text == found:
            known.stamp, known.looked = stamp, now
            return known.store
        self._versions += 1
        store = Unusable(found, self._versions) if isinstance(found, str) else Store(found, self._versions)
        self._loaded[trust] = _Loaded(store, stamp, now)
        return store

    def _files(self, trust: str) -> tuple[Path, ...]:
        """The files of a store, sorted. Raises OSError."""
        paths = self._system() if trust == SYSTEM_TRUST else (Path(trust),)
        files: list[Path] = []
        for path in paths:
            if path.is_dir():
                files.extend(
                    sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES or _HASHED.match(each.name))
                )
            else:
                files.append(path)
        return tuple(files)

    def _system(self) -> tuple[Path, ...]:
        file, folders = self._environment.get("SSL_CERT_FILE", ""), self._environment.get("SSL_CERT_DIR", "")
        named = [each for each in (file, *folders.split(os.pathsep)) if each]
        if named:
            return tuple(Path(each) for each in named)
        bundle = next((each for each in _BUNDLES if Path(each).is_file()), None)
        return (Path(bundle or certifi.where()),)


def _stamp(files: tuple[Path, ...]) -> Stamp:
    stats = ((str(each), each.stat()) for each in files)
    return tuple((name, found.st_mtime_ns, found.st_size, found.st_ino) for name, found in stats)


def _load(trust: str, files: tuple[Path, ...]) -> tuple[crypto.X509, ...] | str:
    """All certificates of the files; where one of the files is not right, words that say so."""
    anchors: list[crypto.X509] = []
    for file in files:
        try:
            found = read_pem(file, _MAX_BUNDLE).certificates
        except PemError as error:
            return _why(trust, f"{file} {error}" if str(file) != trust else str(error))
        try:
            anchors.extend(crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in found)
        except crypto.Error:
            return _why(trust, f"{file} holds a certificate that cannot be read")
    return tuple(anchors) or _why(trust, "holds no certificate")


def _why(trust: str, text: str) -> str:
    if trust == SYSTEM_TRUST:
        return (
            f"the system's CA certificates: {text}; install the package ca-certificates, or name a PEM file in `trust`"
        )
    return f"the CA file {trust} {text}; put the CA's certificate there, in PEM"
