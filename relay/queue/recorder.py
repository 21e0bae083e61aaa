"""What became of a delivery goes into the store, in one transaction with the reports that it causes: a crash loses and doubles none.

Nobody waits for that commit before the next delivery; but no more than some hundred outcomes are outstanding, and none is added while the
store cannot write: each of them would be a message delivered twice if we crashed now.
"""

import asyncio
import secrets
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relay.mail.attempt import Attempt, MessageBytes
from relay.mail.envelope import LOCAL, Accepted, Message
from relay.mail.events import AttemptMade, Emit, RecipientEnded, RefusalHeld, ReportHeld, ReportQueued, Unexpected
from relay.mail.outcome import Bounced
from relay.queue.ids import Clock
from relay.queue.reader import MemoryBody
from relay.queue.reports import Compose, Report
from relay.queue.results import Settled, is_kept_for_postmaster, without_reports
from relay.queue.store import CHUNK, Change, Entry, Record, Row, State, Store, StoreUnavailable

_OUTSTANDING = 256  # records on their way into the store


@dataclass(frozen=True, slots=True)
class Result:
    """What is to be recorded about one message. `done` is called when that is durable."""

    message: Message
    body: MessageBytes
    settled: Settled
    attempts: tuple[Attempt, ...]
    done: Callable[[], None]


Written = Sequence[tuple[Report, Entry]]
Tried = Callable[[Message, Sequence[Attempt]], None]


class Recorder:
    """`submit` is told of each report that is durable, with its bytes; `resume` is called when deliveries may go on; `tried` is told of each
    delivery's attempts once they are durable."""

    def __init__(
        self,
        store: Store,
        compose: Compose,
        *,
        emit: Emit,
        clock: Clock,
        submit: Callable[[Message, MessageBytes], None],
        resume: Callable[[], None],
        tried: Tried,
    ) -> None:
        self._store = store
        self._compose = compose
        self._emit = emit
        self._clock = clock
        self._submit = submit
        self._resume = resume
        self._tried = tried
        self._outstanding = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def ready(self) -> bool:
        """False while nothing more should be delivered."""
        return self._outstanding < _OUTSTANDING and self._store.writable

    @property
    def is_quiet(self) -> bool:
        return not self._outstanding

    async def flush(self) -> None:
        """Returns when nothing is outstanding."""
        await self._empty.wait()

    async def record(self, result: Result) -> None:
        """Composes the reports and hands all to the store; `done` comes later. Raises nothing."""
        self._outstanding += 1
        self._empty.clear()
        reports: Sequence[Report] = ()
        entries: tuple[Entry, ...] = ()
        if result.settled.ended:
            try:
                reports = await self._compose(result.message, result.body, result.settled.ended)
                entries = tuple(self._entry(report) for report in reports)
            except Exception:  # noqa: BLE001 - a report that cannot be made must not lose the mail it is about
                self.unexpected("composing a report")
                result, reports, entries = replace(result, settled=without_reports(result.settled)), (), ()
        self._put(result, reports, entries)

    def _put(
        self, result: Result, reports: Sequence[Report], entries: tuple[Entry, ...], last_try: bool = False
    ) -> None:
        record = Record(result.message, result.attempts, result.settled.changes, entries)
        written = tuple(zip(reports, entries, strict=True))
        self._store.record(record, lambda error: self._recorded(error, result, written, last_try))

    def _entry(self, report: Report) -> Entry:
        content = report.content
        accepted = Accepted(self._clock(), client="", helo="", listener="", protocol=LOCAL)
        eight_bit = not content.isascii()
        message = Message(
            self._store.new_id(), report.envelope, accepted, len(content), b"", report.message_id, eight_bit
        )
        return Entry(message, tuple(content[start : start + CHUNK] for start in range(0, len(content), CHUNK)))

    def _recorded(self, error: BaseException | None, result: Result, reports: Written, last_try: bool) -> None:
        if error is None:
            self._announce(result, reports)
            result.done()
        elif not isinstance(error, StoreUnavailable):  # that one comes when the store is closed
            self.unexpected("recording an outcome", error)
            if not last_try:
                # Trace or report cannot be written: then without them. A delivered message must not be delivered again for their sake.
                settled = without_reports(result.settled)
                changes = tuple(replace(change, last=None) for change in settled.changes)
                self._put(
                    replace(result, attempts=(), settled=replace(settled, changes=changes)), (), (), last_try=True
                )
                return
            # Not `done`: it stays in hand, and is not tried again before a restart.
        self._outstanding -= 1
        if not self._outstanding:
            self._empty.set()
        self._resume()

    def _announce(self, result: Result, reports: Written) -> None:
        message = result.message
        for attempt in result.attempts:
            self._emit(AttemptMade(message, attempt))
        if result.attempts:
            try:
                self._tried(message, result.attempts)
            except Exception:  # noqa: BLE001 - the boundary to whoever made them: they are recorded, whatever happens here
                self.unexpected("telling of recorded attempts")
        for change, became in zip(result.settled.changes, result.settled.outcomes, strict=True):
            if change.state.is_final:
                recipient = str(message.envelope.recipients[change.index].address)
                self._emit(RecipientEnded(message.id, recipient, change.state.value, became.status))
            elif change.state is State.HELD and isinstance(became, Bounced):
                self._tell_held(message, change, became)
        for report, entry in reports:
            self._emit(ReportQueued(entry.message.id, message.id, report.kind, report.recipient))
            self._submit(entry.message, MemoryBody(entry.chunks))

    def _tell_held(self, message: Message, change: Change, became: Bounced) -> None:
        if is_kept_for_postmaster(message, became):
            self._emit(ReportHeld(message.id, became.status))
        elif became.by_hop:
            recipient = str(message.envelope.recipients[change.index].address)
            hop = change.last.hop if change.last else ""
            self._emit(RefusalHeld(message.id, recipient, hop, became.code, became.status, became.text))

    def deleted(self, row: Row) -> None:
        """An operator deleted it."""
        self._emit(RecipientEnded(row.message, row.address, State.DELETED.value, ""))

    def unexpected(self, where: str, error: BaseException | None = None) -> str:
        """Emits what went wrong, by default the exception that is being handled. Its id."""
        name = secrets.token_hex(4)
        trace = "".join(traceback.format_exception(error)) if error is not None else traceback.format_exc()
        self._emit(Unexpected(name, f"queue: {where}", trace))
        return name
