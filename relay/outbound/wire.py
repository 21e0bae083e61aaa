"""One connection's bytes: commands out, replies in, matched strictly in order, each within its time.

It is aiosmtplib's protocol with its reading replaced, since that knows one reply at a time and drops what comes in between.
RFC 5321 section 4.2, RFC 2920 (pipelining), RFC 3207 (STARTTLS). What is said, and what it means, is for others.
Threats: bytes in clear behind the 220 to STARTTLS (CVE-2011-0411); a reply that nobody asked for, matched to the next command;
a hop that stalls, for ever or byte by byte. Each ends the connection.
"""

import asyncio
import contextlib
import os
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from aiosmtplib import SMTPReadTimeoutError, SMTPResponseException, SMTPServerDisconnected
from aiosmtplib.protocol import COMMAND_INJECTION_REGEX, SMTPProtocol
from aiosmtplib.response import SMTPResponse

from relay.mail.reply import Reply
from relay.outbound.replies import ReplyReader


class Break(StrEnum):
    """Why a reply never came."""

    LOST = "the connection was lost"
    TIMED_OUT = "no answer in time"
    VIOLATION = "the hop broke the protocol"
    TLS = "TLS broke"
    UNASKED = "it was not asked"


@dataclass(frozen=True, slots=True)
class Broken:
    """What stands in the place of a reply that never came."""

    kind: Break
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} ({self.text})" if self.text else self.kind.value


Answer = Reply | Broken

_COMMAND = 300.0


class Wire(SMTPProtocol):
    """`lost` is called when the connection is gone. The greeting is owed from the start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[SMTPProtocol], None]) -> None:
        super().__init__(loop=loop, connection_lost_callback=lost)
        self.trouble: Broken | None = None
        self.last: Answer = Broken(Break.UNASKED)
        self.ssl_object: object = None  # of a finished handshake
        self.gone: asyncio.Future[None] = loop.create_future()
        self._reader = ReplyReader()
        self._replies: deque[Reply] = deque()
        self._owed = 1
        self._wanted = 0
        self._arrived: asyncio.Future[None] | None = None
        self._draining = self._leaving = False
        self._limits = _Limits(loop, self._out_of_time)

    @property
    def is_sound(self) -> bool:
        """True while nothing is wrong, owed or left over: the next command can be said."""
        return (
            self.trouble is None
            and not self._leaving
            and not self._owed
            and not self._replies
            and self._reader.is_between
            and self.is_connected
        )

    @property
    def has_spoken(self) -> bool:
        """True where a reply waits to be taken, or none will ever come."""
        return bool(self._replies) or self.trouble is not None

    def send(self, data: bytes, replies: int = 0) -> None:
        """Writes what `replies` replies will come to. Never raises: a lost connection shows when they are taken."""
        if self.trouble is None and self.transport is not None:
            self._owed += replies
            cast(asyncio.Transport, self.transport).write(data)

    def expect(self) -> None:
        """A reply may come before all that it answers has been sent."""
        self._owed += 1

    async def have(self, count: int, seconds: float) -> None:
        """Returns when `count` replies can be taken, each within `seconds` of the one before, or when no more will come."""
        if len(self._replies) >= count or self.trouble is not None:
            return
        self._wanted, self._arrived = count, self._loop.create_future()
        # A hop that stretches every reply to its limit must not hold its place for hours.
        self._limits.begin(seconds, 2 * seconds)
        try:
            await self._arrived
        finally:
            self._arrived = None
            self._limits.end()

    def take(self) -> Answer:
        """The next reply, or why there is none. Call `have` first."""
        if self._replies:
            return self._replies.popleft()
        return self.trouble or Broken(Break.UNASKED)

    async def drain(self, seconds: float) -> None:
        """Returns when more can be written, or when the connection is gone. Lets the hop be heard in between in any case."""
        if not self._paused or self.trouble is not None:
            await asyncio.sleep(0)
            return
        self._limits.begin(seconds, seconds)
        try:
            with contextlib.suppress(ConnectionError):  # `trouble` says it better
                await self._drain_helper()
        finally:
            self._limits.end()

    def leave(self, grace: float) -> None:
        """QUIT without waiting. The connection closes when the hop answers, or after `grace` seconds."""
        if not self.is_sound:
            self.cut()
            return
        self.send(b"QUIT\r\n", 1)
        self._leaving = True
        self._limits.begin(grace, grace)

    def cut(self, why: Broken | None = None) -> None:
        """Closes at once, without a word."""
        self.trouble = self.trouble or why or Broken(Break.LOST, "we closed it")
        self._limits.stop()
        self._wake()
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()

    def data_received(self, data: bytes) -> None:
        if self.trouble is not None:
            return
        for reply in self._reader.feed(data):
            if not self._owed:
                self.cut(_out_of_turn(reply))
                return
            self._owed -= 1
            self._replies.append(reply)
        if self._reader.fault:
            self.cut(Broken(Break.VIOLATION, self._reader.fault))
        elif not self._owed and not self._reader.is_between:
            self.cut(Broken(Break.VIOLATION, "it spoke without being asked"))
        elif self._leaving and not self._owed and self.transport is not None:
            self.transport.close()
        elif self._arrived is not None:
            self._limits.again()
            self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        # TLS 1.3: a server refuses our certificate, or its absence, after the handshake has ended for us.
        kind = Break.TLS if isinstance(exc, ssl.SSLError) else Break.LOST
        self.trouble = self.trouble or Broken(kind, words(exc) if exc else "the hop closed it")
        self._limits.stop()
        self._response_waiter = None  # aiosmtplib's own reading, which is not in use
        super().connection_lost(exc)
        self._wake()
        if not self.gone.done():
            self.gone.set_result(None)

    def _wake(self) -> None:
        waits = self._arrived is not None and not self._arrived.done()
        if self._arrived is not None and waits and (self.trouble or len(self._replies) >= self._wanted):
            self._arrived.set_result(None)

    def _out_of_time(self, seconds: float) -> None:
        self.cut(Broken(Break.TIMED_OUT, f"nothing for {seconds:g} s"))

    # What aiosmtplib's own methods (EHLO, AUTH) are built on.

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:  # noqa: ASYNC109 - aiosmtplib's signature
        """Raises SMTPServerDisconnected or SMTPReadTimeoutError; `last` is the answer in our own terms."""
        await self.have(1, timeout or _COMMAND)
        self.last = self.take()
        if isinstance(self.last, Reply):
            return SMTPResponse(self.last.code, self.last.text)
        if self.last.kind is Break.TIMED_OUT:
            raise SMTPReadTimeoutError(str(self.last))
        raise SMTPServerDisconnected(str(self.last))

    async def execute_command(self, *args: bytes, timeout: float | None = None) -> SMTPResponse:  # noqa: ASYNC109 - as above
        if any(COMMAND_INJECTION_REGEX.search(each) for each in args):
            raise ValueError("a control character in an SMTP command")
        self.send(b" ".join(args) + b"\r\n", 1)
        return await self.read_response(timeout)

    async def start_tls(
        self,
        tls_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> SMTPResponse:
        """STARTTLS and the handshake. Raises SMTPResponseException (refused), SMTPServerDisconnected, SMTPReadTimeoutError for the
        command, ssl.SSLError or OSError for the handshake. `timeout` is for each of both."""
        response = await self.execute_command(b"STARTTLS", timeout=timeout)
        if response.code != 220:
            raise SMTPResponseException(response.code, response.message)
        # RFC 3207 section 4.2: a sound hop says nothing between its 220 and the handshake. Whatever came with the 220 or since
        # has ended the connection already (`data_received`): no reply was owed.
        if self.trouble is not None or self.transport is None:
            self.last = self.trouble or Broken(Break.LOST)
            raise SMTPServerDisconnected(str(self.last))
        transport = await self._loop.start_tls(
            cast(asyncio.Transport, self.transport),
            self,
            tls_context,
            server_side=False,
            server_hostname=server_hostname,
            ssl_handshake_timeout=timeout,
        )
        if transport is None or transport.is_closing():  # lost during the handshake; not every event loop raises then
            raise ConnectionResetError("the connection was lost")
        self.transport, self._over_ssl, self._reader = transport, True, ReplyReader()
        self.ssl_object = transport.get_extra_info("ssl_object")
        return response


def words(error: BaseException) -> str:
    """An operating system's or OpenSSL's error, short."""
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio puts words of its own, and the address again, into `strerror`
    if isinstance(error, ConnectionError):
        return str(error) or "the hop closed the connection"
    return str(error) or type(error).__name__


def _out_of_turn(reply: Reply) -> Broken:
    if reply.code == 421:  # RFC 5321 section 3.8: it may say so at any time, and goes
        return Broken(Break.LOST, f"the hop said {reply}")
    return Broken(Break.VIOLATION, f"it said {reply.code} without being asked")


class _Limits:
    """Time limits of a connection on one timer: it is set anew only where it would ring too late, and looks again where too early."""

    __slots__ = ("_at", "_due", "_end", "_loop", "_over", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[float], None]) -> None:
        self._loop, self._over = loop, over
        self._timer: asyncio.TimerHandle | None = None
        self._at = self._due = self._end = self._seconds = 0.0

    def begin(self, seconds: float, whole: float) -> None:
        """`seconds` until `again` is called, `whole` seconds however often it is."""
        now = self._loop.time()
        self._seconds, self._due, self._end = seconds, now + seconds, now + whole
        if self._timer is None or self._at > self._due:
            self._set()

    def again(self) -> None:
        self._due = min(self._loop.time() + self._seconds, self._end)

    def end(self) -> None:
        """Nobody waits any more; the timer may go on."""
        self._due = 0.0

    def stop(self) -> None:
        self._due = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if not self._due:
            return
        if self._loop.time() < self._due - 0.002:
            self._set()
        else:
            self._over(self._seconds)
