"""Which of a relay's processes gets the next connection: while there is one at a time, always the same one; from two on, or where one has
much to deliver, the kernel shares them out.

A process that has just handled a message handles the next one in two thirds of the time that another takes, which has to fetch everything
into the processor's caches first (docs/decisions/workers.md). Where clients come one by one that is all that counts.

Whether connections are gathered stands in memory that all processes map, and is changed under a lock, so that nobody takes them for shared
out while one gets them all. Threat: that one hangs, and with it every new client. So each says twice a second that it is there, and where one
does not, the others share the connections out.

Clients that come at once have all come to the same process before it has seen the second of them. Where they stay, all mail would be that
one's. So connections are gathered only behind a client that was alone, and for a second (what was in the caches is swept out by then);
behind several at once, or while a client stays, those to come are shared out.

Who takes a message delivers it. So one client that sends much, a connection for each message, would leave all deliveries to one process and
its part of the limits: each says how much it has in hand, too, and where that is much connections are shared out.
"""

import asyncio
import socket
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress

from relay.workers.locks import Byte, ProcessLock
from relay.workers.table import EMPTIED, IN_HAND, SEEN, Table

# socket(7), and linux/filter.h; Python has no names for them.
_ATTACH_FILTER = 51  # SO_ATTACH_REUSEPORT_CBPF
_DETACH_FILTER = 68  # SO_DETACH_REUSEPORT_BPF
_RETURN_CONSTANT = 0x06  # BPF_RET | BPF_K

# Of the table's common page:
_GATHERED = 2
_COMPANY = 3  # since somebody was alone at last, there were two at once
_LOOK = 0.5  # seconds
_SILENT = 20  # tenths of a second without a sign from a process, after which it hangs
_WARM = 10  # tenths of a second since the last client left
_MUCH = 50  # recipients in hand; where clients come one by one and the hops answer it is a handful

Listening = Sequence[socket.socket]
"""Of this process, one for each address. What is done to one holds for all processes' sockets on its address."""


class Steering:
    """For the process in `slot`. Implements relay.inbound.services.Steering. Never raises, whatever the system does not know or allow."""

    def __init__(self, table: Table, slot: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._common, self._own = table.common, table.own(slot)
        self._others = tuple(table.own(each) for each in range(table.count) if each != slot)
        self._lock = ProcessLock(table.fd, Byte.DOORS)
        self._clock = clock
        self._is_possible = True
        self._is_behind = False  # with what was opened

    def came(self, connections: int, listening: Listening) -> None:
        """A connection was accepted; so many are open now, with those of the other processes."""
        if connections > 1 and (self._common[_GATHERED] or not self._common[_COMPANY]):
            self._turn(listening, gathered=False, company=True)

    def left(self, connections: int, listening: Listening) -> None:
        """One has ended. The last of many does not show that they come one at a time; the next does."""
        if connections:
            return
        self._own[EMPTIED] = self._now()
        if not self._common[_GATHERED] and self._is_possible and self._is_calm():
            self._turn(listening, gathered=True)

    def opened(self, listening: Listening) -> None:
        """These are new: as the others from now on. One that cannot be gathered is shared out, whatever the others are."""
        self._is_behind = not self._lock.insist()
        if self._is_behind:
            return  # until the next look
        try:
            if self._common[_GATHERED]:
                _gather_all(listening)
            else:
                _spread_all(listening)
        finally:
            self._lock.give()

    async def watch(self, listening: Callable[[], Listening], in_hand: Callable[[], int]) -> None:
        """Until it is cancelled: then this process stops. `in_hand`: recipients that it delivers to, or will soon."""
        try:
            while True:
                self.look(listening(), in_hand())
                await asyncio.sleep(_LOOK)
        finally:
            self._own[SEEN] = self._own[IN_HAND] = 0  # it says nothing any more, and does not hang

    def look(self, listening: Listening, in_hand: int = 0) -> None:
        self._own[SEEN], self._own[IN_HAND] = self._now(), in_hand
        if self._is_behind:
            self.opened(listening)
        if self._common[_GATHERED] and not (self._is_warm() and self._is_calm()):
            self._turn(listening, gathered=False)

    def _now(self) -> int:
        """Never 0, which is what a process that is not there says."""
        return int(self._clock() * 10) + 1

    def _is_warm(self) -> bool:
        """The last client left a moment ago."""
        last = max(each[EMPTIED] for each in (self._own, *self._others))
        return self._now() - last <= _WARM

    def _is_calm(self) -> bool:
        """Nobody hangs, or has much to deliver."""
        now = self._now()
        return self._own[IN_HAND] <= _MUCH and not any(
            (each[SEEN] and now - each[SEEN] > _SILENT) or each[IN_HAND] > _MUCH for each in self._others
        )

    def _turn(self, listening: Listening, *, gathered: bool, company: bool = False) -> None:
        if not self._lock.take():
            return  # another process is at it: the next connection asks again
        had_company, self._common[_COMPANY] = self._common[_COMPANY], company
        try:
            if gathered and had_company:
                return
            if gathered:
                self._common[_GATHERED] = 1  # first, and last below: wherever we die, who reads 0 has them shared out
                self._is_possible = _gather_all(listening)
            if not (gathered and self._is_possible):
                _spread_all(listening)
                self._common[_GATHERED] = 0
        finally:
            self._lock.give()


def _gather_all(listening: Listening) -> bool:
    """False where the system refuses."""
    try:
        for each in listening:
            gather(each)
    except OSError:
        return False
    return True


def _spread_all(listening: Listening) -> None:
    for each in listening:
        with suppress(OSError):  # it was
            spread(each)


def gather(listening: socket.socket) -> None:
    """From now on one of the processes that listen on this address gets every new connection: the one that has listened longest, mostly.

    Raises OSError where this system has no such thing, or could not undo it (Linux before 5.3).
    """
    with suppress(FileNotFoundError):  # nothing is to be undone
        spread(listening)
    program = array("B", struct.pack("HBBI", _RETURN_CONSTANT, 0, 0, 0))  # one struct sock_filter: always the first
    address, _length = program.buffer_info()
    listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", 1, address))  # struct sock_fprog


def spread(listening: socket.socket) -> None:
    """From now on the kernel shares new connections out again. Raises FileNotFoundError where it did, OSError where it cannot."""
    listening.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
