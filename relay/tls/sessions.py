"""TLS sessions that deliveries may resume: a new connection to a host of a moment ago costs less of a handshake (RFC 8446 section 2.2).

TLS 1.3 only, where a resumed session makes fresh keys all the same (psk_dhe_ke): below it a ticket would be the one secret that opens
everything. OpenSSL keeps the presented chain with the session, so a resumed connection has evidence like any other, and is judged anew.

Threat: a session that outlives the rules it was made under. It is found again under an equal key and the very context only, and once:
reusing a ticket would let an onlooker link the connections (RFC 8446 appendix C.4).
"""

import ssl
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from OpenSSL import SSL

_SIZE = 1000  # with a chain of three certificates a session takes 10 KiB
_LIFETIME = 3600.0  # seconds; RFC 8446 section 4.6.1 allows a week, trust data should be fresher
_PAUSE = 600.0  # seconds for which a host that would not resume is not asked again


@dataclass(frozen=True, slots=True)
class _Kept:
    session: SSL.Session | None
    context: ssl.SSLContext
    until: float


class Sessions:
    """`monotonic` is a clock in seconds that never goes back. A key stands for everything that a connection is made for."""

    def __init__(self, monotonic: Callable[[], float], *, size: int = _SIZE, lifetime: float = _LIFETIME) -> None:
        self._monotonic, self._size, self._lifetime = monotonic, size, lifetime
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Hashable, context: ssl.SSLContext, session: SSL.Session) -> None:
        """Takes the place of an older one."""
        self._put(key, _Kept(session, context, self._monotonic() + self._lifetime))

    def refused(self, key: Hashable, context: ssl.SSLContext) -> None:
        """A session was offered and a whole handshake came of it: many servers, ours among them, give tickets that lead nowhere, and to
        keep and offer them costs both sides."""
        self._put(key, _Kept(None, context, self._monotonic() + _PAUSE))

    def wants(self, key: Hashable, context: ssl.SSLContext) -> bool:
        """False for a while after a session was `refused`."""
        kept = self._kept.get(key)
        return (
            kept is None or kept.session is not None or kept.context is not context or kept.until <= self._monotonic()
        )

    def _put(self, key: Hashable, kept: _Kept) -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def take(self, key: Hashable, context: ssl.SSLContext) -> SSL.Session | None:
        """The session for this key, which is then no longer here. None where there is none that this context may resume."""
        if not self.wants(key, context):
            return None
        kept = self._kept.pop(key, None)
        if kept is None or kept.context is not context or kept.until <= self._monotonic():
            return None
        return kept.session
