"""The sockets that others connect to. Where a relay has several processes, each has one of its own on the same address (SO_REUSEPORT), and
the kernel shares the connections out (relay.inbound.services.Steering says when).

Threat: with SO_REUSEPORT on both sides, a second relay of the same user would silently get half of the first one's mail. So an address
is taken without it at first, and then kept (`Reserved`).
"""

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from relay.config.values import HostPort

BACKLOG = 1024


class ListenError(Exception):
    """A listener cannot be opened; str() says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Door:
    """`name` is how logs call it, `key` where the configuration says the address."""

    name: str
    address: HostPort
    key: str


class Sockets(Protocol):
    def open(self, door: Door, *, claim: bool) -> socket.socket:
        """A listening socket. `claim`: the address is new to this relay, and must be nobody's. Raises ListenError."""
        ...


class Own:
    """For a relay of one process."""

    def open(self, door: Door, *, claim: bool) -> socket.socket:
        return _listening(door, door.address, shared=False)


class Reserved:
    """Addresses for all processes of a relay, taken before they start and kept until `close`, whoever of them dies.

    Port 0 is one free port for all of them. Raises ListenError.
    """

    def __init__(self, doors: Iterable[Door]) -> None:
        self._kept: dict[str, socket.socket] = {}
        try:
            for door in doors:
                claimed = _listening(door, door.address, shared=False)
                found = HostPort(*claimed.getsockname()[:2])
                claimed.close()
                # Bound and not listening: it gets no connection.
                self._kept[_key(door)] = _bound(door, found)
        except BaseException:
            self.close()
            raise

    def open(self, door: Door, *, claim: bool) -> socket.socket:
        kept = self._kept.get(_key(door))
        if kept is None and claim:
            _listening(door, door.address, shared=False).close()
        address = door.address if kept is None else HostPort(*kept.getsockname()[:2])
        return _listening(door, address, shared=True)

    def close(self) -> None:
        for each in self._kept.values():
            each.close()


def _key(door: Door) -> str:
    """An address is one, whatever listens there; port 0 is another one for each door."""
    return str(door.address) if door.address.port else door.name


def _listening(door: Door, address: HostPort, *, shared: bool) -> socket.socket:
    try:
        return socket.create_server(
            (address.host, address.port), family=_family(address), backlog=BACKLOG, reuse_port=shared
        )
    except OSError as error:
        raise _problem(door, error) from error


def _bound(door: Door, address: HostPort) -> socket.socket:
    made = socket.socket(_family(address))
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family is socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as create_server does
        made.bind((address.host, address.port))
    except OSError as error:
        made.close()
        raise _problem(door, error) from error
    return made


def _family(address: HostPort) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _problem(door: Door, error: OSError) -> ListenError:
    advice = {
        errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
        errno.EADDRINUSE: "another program listens there; `ss -ltnp` shows which",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, f"see `{door.key}` in the configuration")
    return ListenError(f"cannot listen on {door.address}: {error.strerror or error}: {advice}")
