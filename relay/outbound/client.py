"""aiosmtplib's client on our `Wire`, with what it lacks: MAIL, RCPT and DATA (or BDAT) in one flight, the message in pieces.

Speaks SMTP and knows nothing of plans, verdicts and outcomes: `relay.outbound.connection` decides what may be said.
RFC 5321 (section 4.5.3.2: a limit for each phase), RFC 2920 (pipelining), RFC 3030 (BDAT).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aiosmtplib import SMTP, SMTPConnectResponseError, SMTPResponseException
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from relay.config.values import HostPort
from relay.mail.reply import Reply
from relay.outbound.framing import DotStuffing
from relay.outbound.offer import Offer
from relay.outbound.wire import Answer, Break, Broken, Wire


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds (RFC 5321 section 4.5.3.2), but for `connect` and `handshake`, which are shorter since other hops wait to be tried."""

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0  # for each reply to EHLO, STARTTLS, AUTH, MAIL, RCPT
    handshake: float = 60.0
    data: float = 120.0  # until the 354
    block: float = 180.0  # for each piece of the message
    final: float = 600.0  # after the final dot
    quit: float = 5.0  # nobody waits for it; then the connection is cut


@dataclass(frozen=True, slots=True)
class Transaction:
    """One MAIL: the commands, each with its CRLF, and the message: `content`, called once, or `whole`.

    `whole` goes with the commands, by BDAT; only where the hop offers PIPELINING and CHUNKING.
    """

    mail: bytes
    recipients: tuple[bytes, ...]
    content: Callable[[], AsyncIterator[bytes]]
    whole: bytes = b""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answers to a transaction. `content` is the answer to DATA where that was refused, else the one to the final dot.

    UNASKED where it never came so far. `usable` says whether the connection can carry another transaction.
    """

    mail: Answer
    recipients: tuple[Answer, ...]
    content: Answer
    usable: bool


UNASKED = Broken(Break.UNASKED)
_SLOWEST = 1024  # octets a second, on average, that a hop must take
_DATA = b"DATA\r\n"
_RSET = b"RSET\r\n"


def accepted(answer: Answer) -> bool:
    return isinstance(answer, Reply) and answer.code < 300


class Client(SMTP):
    """One connection to one address. `reached` is called once there is a connection, `lost` when it is gone. `opening` goes before all
    else (a PROXY header)."""

    def __init__(
        self,
        address: HostPort,
        *,
        helo: str,
        source: str = "",
        timeouts: Timeouts,
        lost: Callable[[], None] = lambda: None,
        opening: bytes = b"",
    ) -> None:
        super().__init__(
            hostname=address.host,
            port=address.port,
            local_hostname=helo,
            source_address=(source, 0) if source else None,
            timeout=timeouts.command,
            start_tls=False,  # ours to decide; aiosmtplib's default goes on in clear where TLS is not offered
        )
        self.wire = Wire(asyncio.get_running_loop(), self._on_connection_lost)
        self.lost = lost
        self.reached: Callable[[], None] = lambda: None
        self._address = address
        self._timeouts = timeouts
        self._opening = opening
        self._in_transaction = False

    @property
    def source(self) -> str:
        """The IP address of our end, "" before there is a connection."""
        name = self.transport.get_extra_info("sockname") if self.transport is not None else None
        return str(name[0]) if name else ""

    @property
    def offer(self) -> Offer:
        """What the last EHLO said; nothing after HELO, and nothing between STARTTLS and the EHLO inside TLS."""
        return Offer.of(self.esmtp_extensions, self.server_auth_methods)

    async def _create_connection(self, timeout: float | None) -> SMTPResponse:  # noqa: ASYNC109 - aiosmtplib's signature
        """Raises OSError and TimeoutError for the connection, aiosmtplib's errors for the greeting."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeouts.connect):
            # An IP address: neither loop asks getaddrinfo.
            self.transport, _ = await loop.create_connection(
                lambda: self.wire, self._address.host, self._address.port, local_addr=self.source_address
            )
        self.protocol = self.wire
        if self._opening:
            self.wire.send(self._opening)
        self.reached()
        response = await self.wire.read_response(self._timeouts.greeting)
        if response.code != 220:
            raise SMTPConnectResponseError(response.code, response.message)
        return response

    async def secure(self, context: ssl.SSLContext, server_name: str) -> object:
        """STARTTLS and the handshake; `server_name` is the SNI, "" for none. Raises as `Wire.start_tls`. EHLO has to be said again.

        Returns the TLS connection, for evidence.
        """
        await self.wire.start_tls(context, server_name or None, self._timeouts.handshake)
        self.transport = self.wire.transport
        self._reset_server_state()  # RFC 3207 section 4.2: what was said in clear is forgotten
        return self.wire.ssl_object

    async def xclient(self, attributes: str) -> None:
        """XCLIENT. The hop then greets us anew, and EHLO has to be said again. Raises SMTPResponseException where it refuses."""
        response = await self.wire.execute_command(b"XCLIENT", attributes.encode(), timeout=self._timeouts.command)
        if response.code != 220:
            raise SMTPResponseException(response.code, response.message)
        self._in_transaction = False
        self._reset_server_state()

    async def verify(self, mail: bytes, recipients: tuple[bytes, ...]) -> tuple[Answer, tuple[Answer, ...]]:
        """MAIL and RCPT without a message, one after the other, and RSET. Never raises for what the hop does; cut short, it cuts the
        connection."""
        try:
            if self._in_transaction:
                await self._say(_RSET)
            answer = _expected(await self._say(mail))
            answers: list[Answer] = []
            while accepted(answer) and len(answers) < len(recipients):
                answers.append(_expected(await self._say(recipients[len(answers)])))
            reset = await self._say(_RSET)
            self._in_transaction = not accepted(reset)
            self._transcript(answer, tuple(answers), reset)  # what broke the protocol ends the connection
        except BaseException:
            self.wire.cut()
            raise
        unasked = (UNASKED,) * (len(recipients) - len(answers))
        return answer, (*answers, *unasked)

    def leave(self) -> None:
        """QUIT, without waiting for its answer."""
        self.wire.leave(self._timeouts.quit)

    def _on_connection_lost(self, protocol: SMTPProtocol) -> None:
        super()._on_connection_lost(protocol)
        self.lost()

    async def transact(self, transaction: Transaction) -> Transcript:
        """Never raises for what the hop does. Cut short (cancelled, the message unreadable), it cuts the connection."""
        try:
            return await self._transact(transaction)
        except BaseException:
            self.wire.cut()
            raise

    async def _transact(self, transaction: Transaction) -> Transcript:
        if transaction.whole:
            return await self._in_one_flight(transaction)
        if "pipelining" in self.esmtp_extensions:
            mail, recipients, data = await self._flight(transaction, _DATA, 354, self._timeouts.command)
        else:
            mail, recipients, data = await self._step_by_step(transaction)
        wants_content = isinstance(data, Reply) and data.code == 354
        some = accepted(mail) and any(accepted(each) for each in recipients)
        self._in_transaction = accepted(mail) and not wants_content
        content = data if some else UNASKED
        if wants_content and some:
            content = _expected(await self._send(transaction.content()))
        elif wants_content and not accepted(mail):
            # It might take a lone dot for an empty message to recipients that it should not have accepted.
            self.wire.cut(Broken(Break.VIOLATION, "it refused MAIL and then wanted the message"))
        elif wants_content:
            # RFC 2920 section 3.1: no recipient is left and it waits for a message. It gets none.
            self.wire.send(b".\r\n", 1)
            await self.wire.have(1, self._timeouts.final)
            self.wire.take()
        return self._transcript(mail, recipients, content)

    def _transcript(self, mail: Answer, recipients: tuple[Answer, ...], content: Answer) -> Transcript:
        stays = True
        for each in (mail, *recipients, content):
            if isinstance(each, Reply):
                stays = stays and each.code != 421
            elif each.kind is Break.VIOLATION:
                self.wire.cut(each)
        return Transcript(mail, recipients, content, usable=stays and self.wire.is_sound)

    async def _in_one_flight(self, transaction: Transaction) -> Transcript:
        """MAIL, every RCPT and the whole message at once (RFC 3030 section 4.2)."""
        last = b"BDAT %d LAST\r\n%b" % (len(transaction.whole), transaction.whole)
        mail, recipients, content = await self._flight(transaction, last, 250, self._timeouts.final)
        # RFC 3030 section 2: after a BDAT that failed, RSET comes first.
        self._in_transaction = not accepted(content)
        return self._transcript(mail, recipients, content if any(accepted(each) for each in recipients) else UNASKED)

    async def _flight(
        self, transaction: Transaction, last: bytes, code: int, seconds: float
    ) -> tuple[Answer, tuple[Answer, ...], Answer]:
        """MAIL, every RCPT and `last` at once; the answers come in that order (RFC 2920 section 3.1). `code` is what `last` hopes for."""
        commands = [transaction.mail, *transaction.recipients, last]
        if self._in_transaction:
            commands.insert(0, _RSET)
        self.wire.send(b"".join(commands), len(commands))
        await self.wire.have(len(commands), seconds)
        if self._in_transaction:
            self.wire.take()
        mail = _expected(self.wire.take())
        recipients = tuple([_expected(self.wire.take()) for _ in transaction.recipients])
        return mail, recipients, _expected(self.wire.take(), code)

    async def _step_by_step(self, transaction: Transaction) -> tuple[Answer, tuple[Answer, ...], Answer]:
        if self._in_transaction:
            await self._say(_RSET)
        mail = _expected(await self._say(transaction.mail))
        if not accepted(mail):
            return mail, tuple(UNASKED for _ in transaction.recipients), UNASKED
        recipients = tuple([_expected(await self._say(each)) for each in transaction.recipients])
        if not any(accepted(each) for each in recipients):
            return mail, recipients, UNASKED
        return mail, recipients, _expected(await self._say(_DATA, self._timeouts.data), 354)

    async def _say(self, command: bytes, seconds: float = 0.0) -> Answer:
        self.wire.send(command, 1)
        await self.wire.have(1, seconds or self._timeouts.command)
        return self.wire.take()

    async def _send(self, pieces: AsyncIterator[bytes]) -> Answer:
        """The message and the final dot. A hop may refuse in the middle; then no more is sent, and the connection is of no more use."""
        stuffing, held = DotStuffing(), b""
        clock, block = asyncio.get_running_loop().time, self._timeouts.block
        ends = clock() + block
        self.wire.expect()
        async for piece in pieces:
            if held:
                self.wire.send(held)
                # A hop that takes every block at the last moment must not hold its place for hours.
                ends += len(held) / _SLOWEST
                await self.wire.drain(max(min(block, ends - clock()), 0.001))
                if self.wire.has_spoken:
                    return self._spoken_early()
            held = stuffing.feed(piece)
        # The end may be long in coming (MessageBytes), and a hop that gave up waiting would take the message for commands.
        if self.wire.has_spoken:
            return self._spoken_early()
        self.wire.send(held + stuffing.end())
        await self.wire.have(1, self._timeouts.final)
        return self.wire.take()

    def _spoken_early(self) -> Answer:
        answer = self.wire.take()
        self.wire.cut(Broken(Break.LOST, "the hop answered in the middle of the message"))
        if accepted(answer):
            return Broken(Break.VIOLATION, "it took the message before its end")
        return answer


def _expected(answer: Answer, code: int = 250) -> Answer:
    """A positive reply of the wrong kind (354 to RCPT, 250 to DATA) says that hop and we are out of step."""
    if (
        isinstance(answer, Reply)
        and answer.code < 400
        and (answer.code // 100 != 2 if code == 250 else answer.code != code)
    ):
        return Broken(Break.VIOLATION, f"it said {answer.code} where {code} was due")
    return answer
