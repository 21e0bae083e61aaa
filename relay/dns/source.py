"""Which name server a question goes to: the one that the configuration names, or the system's (resolv.conf, read again when it changes).

What is asked is `relay.dns.resolver`'s, what an answer means `relay.dns.reading`'s.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import dns.asyncresolver
import dns.flags

from relay.config.values import HostPort

RESOLV_CONF = Path("/etc/resolv.conf")

_TRY = 3.0  # seconds for one server's answer
_NO_LOOK = 5.0  # seconds between two looks at resolv.conf's date


class Source:
    """A dnspython resolver, made anew when resolv.conf changed (a container that joined a network).

    `wants_ad`: ask the server to say which answers it has validated. RFC 6840 section 5.7: the AD bit in a question asks for it.
    """

    def __init__(
        self,
        server: Literal["system"] | HostPort,
        resolv_conf: Path,
        monotonic: Callable[[], float],
        *,
        wants_ad: bool = False,
    ) -> None:
        self._server, self._path, self._monotonic = server, resolv_conf, monotonic
        self._flags = dns.flags.RD | dns.flags.AD if wants_ad else None
        self._made: dns.asyncresolver.Resolver | None = None
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")

    def resolver(self) -> dns.asyncresolver.Resolver:
        """Raises dns.resolver.NoResolverConfiguration where the system names no server."""
        if isinstance(self._server, HostPort):
            if self._made is None:
                self._made = self._new()
                self._made.nameservers = [self._server.host]
                self._made.port = self._server.port
            return self._made
        now = self._monotonic()
        if self._made is None or now - self._looked >= _NO_LOOK:
            self._looked = now
            stamp = self._look()
            if self._made is None or stamp != self._stamp:
                made = self._new()
                made.read_resolv_conf(str(self._path))
                self._made, self._stamp = made, stamp
        return self._made

    def _new(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.timeout = _TRY
        resolver.use_edns(0, 0, 1232)  # no fragments (DNS flag day 2020)
        resolver.flags = self._flags
        return resolver

    def _look(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            status = self._path.stat()
            return status.st_mtime_ns, status.st_ino
        return None
