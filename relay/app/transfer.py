"""Messages out of the queue as they were received, and into it as if they were submitted: durable before the operator hears so.

Both stream: what a message weighs in memory has nothing to do with its size. Nothing is taken out of the queue by an export.

Threat: a file that somebody wrote for us. Its bytes and its envelope are held to what a client's would be.
"""

import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from email.utils import format_datetime

from relay.admin.endpoint import Json, Unavailable
from relay.admin.transfer import ForbiddenError
from relay.config.models import Config
from relay.inbound.transaction import MOST_RECEIVED
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import LOCAL, Accepted
from relay.mail.exported import Exported, document, read
from relay.queue.intake import Incoming, Intake
from relay.queue.operations import Operations
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreUnavailable, Waiting
from relay.smtp.framing import ChunkFraming, Content, Fault, patience
from relay.smtp.header import HeaderScan

IMPORT = "import"
"""`Accepted.listener` and `protocol` of what an operator put in."""

_LONGEST_ENVELOPE = 2**20
_PLAIN = re.compile(r"[^A-Za-z0-9._@ -]")
_FAULTS = {
    Fault.LINE_ENDS: "its lines must end with CRLF, without a bare CR, a bare LF or a NUL; `relay queue import --crlf` mends bare LFs",
    Fault.TOO_LARGE: "it is larger than limits.message_size",
    Fault.LONG_LINE: "it has a line longer than limits.line_length",
}


class Transfer:
    """Implements `relay.admin.transfer.Transfer`. `config` is the one in force."""

    def __init__(
        self,
        store: SqliteStore,
        intake: Intake,
        operations: Operations,
        config: Callable[[], Config],
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._intake, self._operations = store, intake, operations
        self._config, self._clock = config, clock
        self._coming: set[str] = set()  # ids of messages that are being imported

    async def envelope(self, message_id: str) -> Json | None:
        found = await self._find(message_id)
        shown = await self._operations.show(message_id) if found is not None else None
        return document(found.message, shown["recipients"]) if found is not None and shown is not None else None

    async def content(self, message_id: str) -> AsyncIterator[bytes] | None:
        found = await self._find(message_id)
        return _chunks(found.body) if found is not None else None

    async def _find(self, message_id: str) -> Waiting | None:
        try:
            return next(iter(await self._store.load([message_id])), None)
        except ValueError:
            return None  # not an id
        except StoreUnavailable as error:
            raise Unavailable(error.reason) from error

    async def take(self, content: AsyncIterator[bytes], *, again: bool, who: str) -> Json:
        """`content`: the envelope as one line of JSON, then the message. Raises ForbiddenError, Unavailable."""
        try:
            return await self._judge(content, again=again, who=who)
        except (ForbiddenError, Unavailable):
            # Read on, within bounds: whoever is still sending would not hear the answer.
            left = patience(self._config().limits.message_size)
            async for chunk in content:
                left -= len(chunk)
                if left < 0:
                    break
            raise

    async def _judge(self, content: AsyncIterator[bytes], *, again: bool, who: str) -> Json:
        try:
            head, rest = await _first_line(content)
            exported = read(head)
        except ValueError as error:
            raise ForbiddenError(str(error)) from None
        most = self._config().limits.recipients
        if len(exported.envelope.recipients) > most:
            raise ForbiddenError(f"recipients: more than limits.recipients, which is {most}")
        origin = exported.id
        if origin and origin in self._coming:
            raise ForbiddenError(f"{origin} is being imported already")
        self._coming.add(origin)
        try:
            if origin and not again and (known := await self._store.known_as(origin)):
                raise ForbiddenError(f"{origin} is known here already, as {known}; --again takes it once more")
            return await self._take(exported, rest, content, who)
        except StoreUnavailable as error:
            raise Unavailable(error.reason) from error
        finally:
            self._coming.discard(origin)

    async def _take(self, exported: Exported, rest: bytes, content: AsyncIterator[bytes], who: str) -> Json:
        limits = self._config().limits
        incoming = self._intake.begin()
        try:
            examined = Content(limits.message_size, limits.line_length, normalise=False)
            framing, scan = ChunkFraming(examined, normalise=False), HeaderScan()
            await _write(incoming, scan, framing.feed(rest))
            async for chunk in content:
                await _write(incoming, scan, framing.feed(chunk))
                if examined.fault is not Fault.NONE:
                    raise ForbiddenError(_FAULTS[examined.fault])
            await _write(incoming, scan, framing.finish())
            if examined.fault is not Fault.NONE:
                raise ForbiddenError(_FAULTS[examined.fault])
            if not incoming.size:
                raise ForbiddenError("the message is empty")
            scan.finish()
            if scan.header.startswith(b"From "):
                raise ForbiddenError(
                    "it begins with `From `, as in an mbox, which is no header field: remove that line"
                )
            if scan.received >= MOST_RECEIVED:
                raise ForbiddenError(f"it has {scan.received} Received fields: it goes round in a circle")
            if exported.id:  # counts only while the message that it names is there: a crash in between forgets it
                await self._store.note_import(exported.id, incoming.id)
            protocol = LOCAL if exported.is_own_report else IMPORT
            now = self._clock()
            # Threat: backscatter. A stranger's mail is not better known for having been moved.
            known = not exported.is_strangers
            accepted = Accepted(now, client="", helo="", listener=IMPORT, protocol=protocol, may_relay=known)
            header = self._received(exported, incoming.id, who, now) + exported.header
            message = await incoming.commit(
                exported.envelope,
                accepted,
                header=header,
                message_id=scan.message_id,
                eight_bit=examined.eight_bit,
            )
        finally:
            incoming.abort()
        return {"id": message.id, "size": message.size, "recipients": len(exported.envelope.recipients)}

    def _received(self, exported: Exported, message_id: str, who: str, now: datetime) -> bytes:
        by = _PLAIN.sub("?", who)[:64]
        origin = f" as {exported.id}" if exported.id else ""
        lines = (
            f"Received: (imported{origin} by {by})",
            f"by {self._config().hostname} id {message_id};",
            format_datetime(now.replace(microsecond=0)),
        )
        return ("\r\n\t".join(lines) + "\r\n").encode("ascii")


async def _write(incoming: Incoming, scan: HeaderScan, content: bytes) -> None:
    if content:
        scan.feed(content)
        incoming.write(content)
        if incoming.full:
            await incoming.drain()


async def _first_line(content: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    """And what came behind it. Raises ValueError."""
    head = b""
    async for chunk in content:
        head += chunk
        line, newline, rest = head.partition(b"\n")
        if newline:
            return line, rest
        if len(head) > _LONGEST_ENVELOPE:
            break
    raise ValueError("the body begins with the envelope: one line of JSON")


async def _chunks(body: MessageBytes) -> AsyncIterator[bytes]:
    async for chunk in body.chunks():
        yield chunk
