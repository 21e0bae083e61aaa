"""/etc/hosts (hosts(5)): names that this machine's admin gave addresses to. Read again when the file changes."""

import contextlib
import ipaddress
from collections.abc import Callable
from pathlib import Path

from relay.dns.answers import IpAddress

HOSTS = Path("/etc/hosts")
_LOOPBACK: tuple[IpAddress, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))
_LOOK_AGAIN = 1.0  # seconds between two looks at the file's date
_LARGEST = 2**20


class HostsFile:
    """A file that is missing or unreadable names nobody, as in getaddrinfo."""

    def __init__(self, path: Path = HOSTS, *, monotonic: Callable[[], float]) -> None:
        self._path, self._monotonic = path, monotonic
        self._names: dict[str, tuple[IpAddress, ...]] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")

    def find(self, host: str) -> tuple[IpAddress, ...]:
        """Every address of `host` (lower case), in the file's order; empty where the file does not name it.

        "localhost" is this machine, whatever DNS would say (RFC 6761 section 6.3).
        """
        now = self._monotonic()
        if now - self._looked >= _LOOK_AGAIN:
            self._looked = now
            self._look()
        found = self._names.get(host, ())
        return found or (_LOOPBACK if host == "localhost" or host.endswith(".localhost") else ())

    def _look(self) -> None:
        stamp = None
        with contextlib.suppress(OSError):
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        self._stamp, text = stamp, ""
        with contextlib.suppress(OSError), self._path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST)
        self._names = parse_hosts(text)


def parse_hosts(text: str) -> dict[str, tuple[IpAddress, ...]]:
    """Lower-case names without trailing dot to addresses. Lines that do not begin with an address are nothing."""
    names: dict[str, tuple[IpAddress, ...]] = {}
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 2:
            continue
        try:
            address = ipaddress.ip_address(words[0])
        except ValueError:
            continue
        for word in words[1:]:
            name = word.lower().rstrip(".")
            if address not in names.get(name, ()):
                names[name] = (*names.get(name, ()), address)
    return names
