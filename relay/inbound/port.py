"""One listener's rules, as they hold for connections that begin now, and what all listeners share.

A new configuration makes new terms; sessions that are open keep the sizes and time limits that they began with.
"""

import asyncio
import secrets
import socket
import traceback
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from relay.clients.limits import Connections
from relay.config.models import Listener, ListenerKind, Switch
from relay.inbound.auth import Authenticator
from relay.inbound.callouts import Callouts
from relay.inbound.deadlines import Deadlines
from relay.inbound.room import ROOM, Room
from relay.inbound.services import Services, TimeLimits
from relay.mail.events import Unexpected
from relay.mail.tls import TLS_VERSIONS
from relay.policy.book import IpAddress, RuleBook, in_networks
from relay.smtp.session import SessionSettings
from relay.tls.context import Context, server_context
from relay.tls.keyring import Keyring

if TYPE_CHECKING:
    from relay.inbound.session import Session

_FLOOR = "TLSv1.2"


class Floor:
    """What the sessions of all listeners share: counts, the timer, tasks under way. `authenticator` is None without `submission`.
    `listening`: the sockets that are open."""

    __slots__ = (
        "_contexts",
        "authenticator",
        "callouts",
        "connections",
        "deadlines",
        "empty",
        "listening",
        "loop",
        "room",
        "services",
        "sessions",
        "stopping",
        "tasks",
        "times",
    )

    def __init__(self, services: Services, times: TimeLimits) -> None:
        self.services, self.times = services, times
        self.loop = asyncio.get_running_loop()
        self.connections = Connections(services.elsewhere)
        self.room = Room(ROOM // services.processes)
        self.deadlines = Deadlines(self.loop, times.tick)
        self.listening: tuple[socket.socket, ...] = ()
        self.sessions: set[Session] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.stopping = False
        self.empty = asyncio.Event()
        self.authenticator: Authenticator | None = None
        self.callouts = Callouts(services.ask, services.book, self.loop.time, services.emit)
        self._contexts: dict[tuple[bool, str], Context] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Only for what has to wait: an idle session has no task."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def unexpected(self, error: Exception, where: str) -> str:
        """Tells the log of a bug. Returns the id under which it stands there."""
        reference = secrets.token_hex(6)
        self.services.emit(
            Unexpected(reference, f"inbound {where}".rstrip(), "".join(traceback.format_exception(error)))
        )
        return reference

    def came(self) -> None:
        """A connection was counted."""
        if self.services.steering is not None:
            self.services.steering.came(self.connections.everywhere, self.listening)

    def left(self) -> None:
        """A session has ended."""
        if self.stopping and not self.sessions:
            self.empty.set()
        if self.services.steering is not None and not self.stopping:
            self.services.steering.left(self.connections.everywhere, self.listening)

    def context(self, keyring: Keyring, minimum: str, *, ask_certificate: bool) -> Context:
        """One for each way to ask: it follows the keyring by itself when certificates change."""
        key = (ask_certificate, minimum)
        found = self._contexts.get(key)
        if found is None:
            found = self._contexts[key] = server_context(keyring, ask_certificate=ask_certificate, minimum=minimum)
        return found


class Terms:
    """What a connection that begins now gets."""

    __slots__ = (
        "_normalising",
        "_settings",
        "book",
        "command_timeout",
        "connections",
        "connections_per_ip",
        "data_timeout",
    )

    def __init__(self, book: RuleBook, listener: Listener, *, tls_offered: bool) -> None:
        limits = book.config.limits
        self.book = book
        self.connections, self.connections_per_ip = limits.connections, limits.connections_per_ip
        self.command_timeout = limits.command_timeout.total_seconds()
        self.data_timeout = limits.data_timeout.total_seconds()
        self._settings = SessionSettings(
            hostname=book.config.hostname,
            kind=listener.kind,
            message_size=limits.message_size,
            recipients=limits.recipients,
            line_length=limits.line_length,
            session_messages=limits.session_messages,
            tls_offered=tls_offered,
            tls_active=listener.kind is ListenerKind.SUBMISSIONS,
        )
        self._normalising = replace(self._settings, normalise_bare_lf=True)

    def settings(self, address: IpAddress | None) -> SessionSettings:
        bare_lf = self.book.config.bare_lf
        if bare_lf is not None and in_networks(address, bare_lf.normalise):
            return self._normalising
        return self._settings


class Port:
    """One listener. `name` is how logs and traces call it."""

    __slots__ = ("_terms", "floor", "listener", "name")

    def __init__(self, floor: Floor, listener: Listener) -> None:
        self.floor, self.listener, self.name = floor, listener, listener.name
        self._terms: Terms | None = None

    def terms(self) -> Terms:
        book = self.floor.services.book()
        if self._terms is None or self._terms.book is not book:
            self._terms = Terms(book, self.listener, tls_offered=self._keyring is not None)
        return self._terms

    @property
    def is_submission(self) -> bool:
        return self.listener.kind is not ListenerKind.MX

    @property
    def asks_for_certificates(self) -> bool:
        """Users have passwords; only partners prove themselves by certificate."""
        return not self.is_submission and self.floor.services.book().asks_for_certificates

    def context(self, *, ask_certificate: bool) -> Context:
        """For one handshake. Raises RuntimeError on a listener without TLS."""
        if self._keyring is None:
            raise RuntimeError(f"{self.name} has no TLS")
        minimum = _FLOOR if self.is_submission else lowest_version(self.floor.services.book())
        return self.floor.context(self._keyring, minimum, ask_certificate=ask_certificate)

    @property
    def _keyring(self) -> Keyring | None:
        """None where TLS is not offered here."""
        keyring = self.floor.services.keyring
        if self.listener.starttls is Switch.OFF or keyring is None or not keyring.usable:
            return None
        return keyring


def lowest_version(book: RuleBook) -> str:
    """TLS 1.2, or the older version that an inbound connector says its partner may use (design section 5)."""
    named = (each.require.tls_version for each in book.config.inbound)
    return min((_FLOOR, *(version for version in named if version)), key=TLS_VERSIONS.index)
