"""Keeps the workers of a relay alive: starts them, replaces those that die, hands on what they say to each other, stops them in the end.

It has no event loop, no thread and no mail, so that it can fork at any time and has little that could break. What a worker is, it does
not know: `run` is called in each. A worker is forked, not started anew: it runs the code of those beside it even while an upgrade has
replaced the files, shares their memory, and is there within milliseconds.

The first worker starts alone, so that what is wrong with the configuration or the queue is found, and said, once.
A worker that has begun to tell what it counts and then says nothing for `silence` seconds hangs: it is killed, and replaced.
Threat: this process is killed. Every worker sees its line end and stops by itself (`Link.lost`); the lock on the queue is theirs too
until then, so that nobody else takes the queue meanwhile.
"""

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from relay.mail.events import Emit, WorkerEnded, WorkerStarted
from relay.workers.frames import SUPERVISOR, Answer, Ask, Frame, FrameReader, Tell, frame
from relay.workers.link import GONE
from relay.workers.patience import Record
from relay.workers.service import Service
from relay.workers.table import Table

READY = "ready"  # it serves
FAILED = "failed"  # it cannot, and why
KEEP = "keep"  # what successors shall begin with
REPLACE = "replace"  # that worker shall stop, and have a successor
ADOPT = "adopt"  # to a worker: take over the mail of that slot
ADOPTED = "adopted"  # that is done
COUNTS = "counts"  # what it has counted so far
PAST = "past"  # asks for what all have counted, those that ended among them, and how many did

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_UNREAD = 64 * 2**20  # bytes that a worker may leave unread before it counts as stuck


@dataclass(frozen=True, slots=True)
class Station:
    """What a worker gets. `kept` is what some worker told the supervisor to keep last (KEEP), None for nothing."""

    slot: int
    line: socket.socket
    kept: Any


@dataclass(slots=True, eq=False)
class _Seat:
    """A slot and the process in it. `pid` 0: none. `since`: when it became ready. `due`: when the next one is to start."""

    slot: int
    pid: int = 0
    line: socket.socket | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    unsent: bytearray = field(default_factory=bytearray)
    ready: bool = False
    since: float = 0.0
    due: float = 0.0
    record: Record = field(default_factory=Record)
    adopter: int | None = None
    failed: str = ""
    counts: dict[Any, float] = field(default_factory=dict)
    heard: float = 0.0  # when it told its counts last; 0: not yet
    hung: bool = False


class Supervisor:
    """`run` gives the exit code of a worker. `tell` takes events, and must not wait. `limit`: seconds that workers may take to stop."""

    def __init__(
        self,
        table: Table,
        run: Callable[[Station], int],
        tell: Emit,
        *,
        limit: float = 90.0,
        silence: float = 120.0,
        service: Service = Service(),  # noqa: B008 - frozen
    ) -> None:
        self._table, self._run, self._tell, self._limit, self._silence = table, run, tell, limit, silence
        self._service = service
        self._looked = 0.0  # when it last looked for workers that hang
        self._seats = [_Seat(slot) for slot in range(table.count)]
        self._kept: Any = None
        self._past: dict[Any, float] = {}  # counts of those that ended
        self._deaths = 0
        self._selector = selectors.PollSelector()  # not epoll, whose state a forked process would share
        self._signals: list[int] = []
        self._begun = self._complete = False  # the first serves; all have served once
        self._stopping = False
        self._killing = 0.0
        self._problem = ""

    def serve(self) -> str:
        """Until it is told to stop. Why it could not start, "" where it could. Once, in the main thread."""
        gc.collect()
        gc.freeze()  # else a worker's collector would write to, and so copy, all the memory that it shares with us
        awake, wake = socket.socketpair()
        for each in (awake, wake):
            each.setblocking(False)
        self._selector.register(awake, selectors.EVENT_READ)
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            self._loop(awake, (awake, wake))
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._selector.close()
            awake.close()
            wake.close()
        return self._problem

    def _note(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _loop(self, awake: socket.socket, own: tuple[socket.socket, ...]) -> None:
        while not (self._stopping and not self._living):
            for key, events in self._selector.select(self._timeout()):
                if key.fileobj is awake:
                    with contextlib.suppress(BlockingIOError):
                        awake.recv(4096)
                elif key.data.line is key.fileobj:
                    self._exchange(key.data, events)
            signals, self._signals = self._signals, []
            for number in signals:
                self._heed(number)
            self._reap()
            now = time.monotonic()
            self._look(now)
            if self._stopping and now >= self._killing:
                self._signal(self._living, signal.SIGKILL)
                self._killing = now + self._limit
            for seat in self._seats:
                if self._may_start(seat, now):
                    self._start(seat, own)

    @property
    def _living(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.pid]

    def _timeout(self) -> float | None:
        now = time.monotonic()
        waits = [self._killing] if self._stopping else [seat.due for seat in self._seats if self._is_open(seat)]
        if not self._stopping and any(seat.heard for seat in self._seats):
            waits.append(now + self._silence / 4)
        if self._service.watchdog:
            waits.append(now + self._service.watchdog)
        return max(0.0, min(waits) - now) if waits else None

    def _look(self, now: float) -> None:
        """Kills what hangs. Where we have not run ourselves (a machine that slept, a container that was paused), nobody could speak."""
        if self._service.watchdog:
            self._service.alive()
        slept = now - self._looked > self._silence / 2
        self._looked = now
        for seat in self._living:
            if not seat.heard or self._stopping:
                continue
            if slept:
                seat.heard = now
            elif now - seat.heard > self._silence:
                seat.heard, seat.hung = 0.0, True
                self._signal([seat], signal.SIGKILL)

    # --- signals ---

    def _heed(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP and self._seats[0].ready:
            self._signal(self._seats[:1], signal.SIGHUP)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._service.stopping()
            self._killing = time.monotonic() + self._limit
            self._signal(self._living, signal.SIGTERM)

    def _signal(self, seats: Iterable[_Seat], number: signal.Signals) -> None:
        for seat in seats:
            if seat.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(seat.pid, number)

    # --- life and death ---

    def _is_open(self, seat: _Seat) -> bool:
        """Nobody is in it, and somebody may be, once it is due. The first worker comes alone at the start."""
        return not seat.pid and seat.adopter is None and (self._begun or seat is self._seats[0])

    def _may_start(self, seat: _Seat, now: float) -> bool:
        return not self._stopping and self._is_open(seat) and now >= seat.due

    def _start(self, seat: _Seat, own: tuple[socket.socket, ...]) -> None:
        seat.reader, seat.failed, seat.ready = FrameReader(), "", False
        seat.heard, seat.hung = 0.0, False
        seat.unsent.clear()
        sys.stdout.flush()
        sys.stderr.flush()
        line: tuple[socket.socket, ...] = ()
        try:
            ours, theirs = line = socket.socketpair()
            pid = self._fork(Station(seat.slot, theirs, self._kept), (*own, ours))
        except OSError as error:  # no memory, no process, no descriptor is left
            for each in line:
                each.close()
            self._ended(seat, f"it cannot be started: {error.strerror}")
            return
        theirs.close()
        ours.setblocking(False)
        seat.pid, seat.line = pid, ours
        self._selector.register(ours, selectors.EVENT_READ, seat)
        self._tell(WorkerStarted(seat.slot, pid))

    def _fork(self, station: Station, not_its: Iterable[socket.socket]) -> int:
        """The process id of the new worker. Raises OSError."""
        # Else a SIGTERM that comes before the new process has let our handlers go would be noted there, and never heeded.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                self._be_worker(station, not_its)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _be_worker(self, station: Station, not_ours: Iterable[socket.socket]) -> NoReturn:
        """In the new process. What belongs to the supervisor is let go before anything else happens."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for each in (*not_ours, *(seat.line for seat in self._seats if seat.line is not None)):
                each.close()
            code = self._run(station)
        except BaseException:  # noqa: BLE001 - nothing of the supervisor's may run in this process
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """Every process that has ended, orphans among them: in a container we may be the one who has to."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for seat in self._seats:
                if seat.pid == pid:
                    self._lost(seat, os.waitstatus_to_exitcode(status))

    def _lost(self, seat: _Seat, code: int) -> None:
        self._exchange(seat, selectors.EVENT_READ)  # its last words
        self._hang_up(seat)
        seat.pid = 0
        self._table.clear(seat.slot)
        _add(self._past, seat.counts)
        seat.counts = {}
        for other in self._living:
            self._send(other, frame(other.slot, SUPERVISOR, Tell(GONE, seat.slot)))
        for other in self._seats:
            if other.adopter == seat.slot:
                other.adopter = None
        how = f"killed by {_name(-code)}" if code < 0 else f"exited with {code}"
        if seat.hung:
            how = f"said nothing for {self._silence:g} seconds, so it was killed"
        self._ended(seat, seat.failed or how)

    def _hang_up(self, seat: _Seat) -> None:
        if seat.line is not None:
            self._selector.unregister(seat.line)
            seat.line.close()
            seat.line = None
            seat.unsent.clear()

    def _ended(self, seat: _Seat, how: str) -> None:
        now = time.monotonic()
        served = now - seat.since if seat.ready else 0.0
        seat.ready = False
        if self._stopping:
            return
        if not self._begun or (seat.failed and not self._complete):
            self._problem = how if seat.failed else f"a worker ended at its start: {how}"
            self._stop()
            return
        seat.record = seat.record.ended(served)
        seat.due = now + seat.record.pause
        self._deaths += 1
        self._tell(WorkerEnded(seat.slot, how, seat.record.pause))
        if seat.record.is_hopeless:
            self._give_away(seat)

    def _give_away(self, seat: _Seat) -> None:
        """Another worker takes over the mail of this slot, which stays empty until that is done."""
        adopter = next((each for each in self._living if each.ready), None)
        if adopter is not None:
            seat.adopter = adopter.slot
            self._send(adopter, frame(adopter.slot, SUPERVISOR, Tell(ADOPT, seat.slot)))

    # --- what they say ---

    def _exchange(self, seat: _Seat, events: int) -> None:
        line = seat.line
        if line is None:
            return
        if events & selectors.EVENT_WRITE:
            self._flush(seat)
        try:
            while data := line.recv(2**18):
                for each in seat.reader.feed(data):
                    self._pass_on(seat, each)
        except BlockingIOError:
            return
        except ConnectionError:
            pass  # it has gone without reading all that we sent
        self._hang_up(seat)  # a line that has ended would wake us without end, until its worker has ended too

    def _pass_on(self, seat: _Seat, given: Frame) -> None:
        if given.to == SUPERVISOR:
            self._hear(seat, given)
            return
        other = self._seats[given.to]
        if other.line is not None:
            self._send(other, given)
        else:
            self._send(seat, frame(seat.slot, SUPERVISOR, Tell(GONE, given.to)))

    def _hear(self, seat: _Seat, given: Frame) -> None:
        content = given.content
        if isinstance(content, Ask) and content.name == PAST:
            self._send(seat, frame(seat.slot, SUPERVISOR, Answer(content.number, (self._counted(), self._deaths))))
        elif isinstance(content, Tell):
            if content.name == READY:
                seat.ready, seat.since = True, time.monotonic()
                self._begun = True
                if not self._complete and all(each.ready for each in self._seats):
                    self._complete = True
                    self._service.ready(f"mail is taken by {len(self._seats)} workers")
            elif content.name == FAILED:
                seat.failed = content.argument
            elif content.name == KEEP:
                self._kept = content.argument
            elif content.name == REPLACE:
                self._signal([self._seats[content.argument]], signal.SIGTERM)
            elif content.name == COUNTS:
                seat.counts, seat.heard = content.argument, time.monotonic()
            elif content.name == ADOPTED:
                self._seats[content.argument].adopter = None

    def _counted(self) -> dict[Any, float]:
        found = dict(self._past)
        for seat in self._seats:
            _add(found, seat.counts)
        return found

    def _send(self, seat: _Seat, given: Frame) -> None:
        if seat.line is None:
            return
        seat.unsent += given.encode()
        self._flush(seat)
        if len(seat.unsent) > _UNREAD:
            self._signal([seat], signal.SIGKILL)

    def _flush(self, seat: _Seat) -> None:
        if seat.line is None:
            return
        try:
            while seat.unsent:
                del seat.unsent[: seat.line.send(seat.unsent)]
        except BlockingIOError:
            pass
        except ConnectionError:
            seat.unsent.clear()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if seat.unsent else 0)
        self._selector.modify(seat.line, wanted, seat)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have none
        return f"signal {number}"


def _add(total: dict[Any, float], more: Mapping[Any, float]) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0.0) + count
