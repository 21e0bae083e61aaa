"""Follows the certificates on disk: new ones are shown from the next handshake on, troubles are said once, an end is announced in time.

Threat: a certificate that ends unnoticed stops every partner that verifies us, all at once.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from relay.config.certificates import Problem
from relay.mail.events import CertificatesLoaded, CertificateTrouble, Emit
from relay.tls.keyring import Keyring

WARN = timedelta(days=21)
"""Renewal is mostly at two thirds of ninety days: a certificate with three weeks left was not renewed in time."""
AGAIN = timedelta(days=1)


class CertificateWatch:
    """`look` is called every few seconds, `start` once before."""

    def __init__(self, keyring: Keyring, folder: Path, *, emit: Emit, clock: Callable[[], datetime]) -> None:
        self._keyring, self._folder = keyring, folder
        self._emit, self._clock = emit, clock
        self._seen = _listing(folder)
        self._said: frozenset[Problem] = frozenset()
        self._warned: dict[str, datetime] = {}

    def start(self) -> None:
        self._emit(CertificatesLoaded(tuple(each.name for each in self._keyring.certificates)))
        self._complain(self._keyring.problems)
        self._announce()

    async def look(self) -> None:
        listing = _listing(self._folder)
        if listing != self._seen:
            self._seen = listing
            changes = self._keyring.reload()
            self._complain((*self._keyring.problems, *changes.kept))
            if changes.any:
                self._warned.clear()
                self._emit(CertificatesLoaded(tuple(each.name for each in self._keyring.certificates)))
        self._announce()

    def _complain(self, problems: tuple[Problem, ...]) -> None:
        """Each problem once, and again when it comes back."""
        now = frozenset(problems)
        for problem in problems:
            if problem not in self._said:
                self._emit(CertificateTrouble(problem.file.stem, f"{problem.text}; {problem.remedy}"))
        self._said = now

    def _announce(self) -> None:
        now = self._clock()
        for each in self._keyring.expiring(WARN):
            if now - self._warned.get(each.name, now - AGAIN) >= AGAIN:
                self._warned[each.name] = now
                days = (each.not_after - now) // timedelta(days=1)
                ends = f"{each.not_after:%Y-%m-%d %H:%M} UTC"
                self._emit(
                    CertificateTrouble(each.name, f"it {'ended' if days < 0 else 'ends'} at {ends}: renew it", days)
                )


def _listing(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """Names, times and sizes of what is in the folder; empty where it cannot be read (the keyring says why)."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return frozenset()
    found = set()
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue
        found.add((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(found)
