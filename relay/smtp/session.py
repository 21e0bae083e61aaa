"""The server's side of one SMTP session as a machine without I/O: bytes in, events and bytes out (RFC 5321).

Leaves to its driver: sockets, TLS, time limits, and every decision about mail (who may send, whom we take mail for, whether it is safe
on disk). An event that asks for an answer stops the machine until it is answered, so replies keep the order of pipelined commands
(RFC 2920 section 3.2).

Two things say where the machine is. `_Mode` is how the next octets are read: a command line, an AUTH response, message data, a BDAT chunk.
`_Stage` is how far the session has come; `_OUT_OF_SEQUENCE` is the state table: the verb that comes at a stage where it may not, and the
reply it gets. Any pair that is not in it goes to the verb's handler in `_HANDLERS`.

Every transaction that a 2xx to MAIL opened ends in exactly one of two events: DataEnds (answered by the driver), or TransactionEnds.

Threat: the peer is hostile until proven otherwise. Whatever it sends gives a valid reply or a close, in bounded memory and bounded
work per message taken; nothing it sent in clear is believed after STARTTLS; nothing it sends is echoed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from relay.config.models import ListenerKind
from relay.mail.address import NULL
from relay.mail.envelope import Body, Envelope, Recipient, Ret
from relay.mail.reply import Reply
from relay.smtp import replies
from relay.smtp.auth import Challenge, Credentials, Exchange, Mechanism, parse_auth
from relay.smtp.commands import Chunk, CommandError, decode_line, parse_bdat, parse_hello, parse_mail, parse_rcpt
from relay.smtp.events import (
    Close,
    DataBegins,
    DataChunk,
    DataEnds,
    Login,
    MailFrom,
    RcptTo,
    Said,
    SmtpEvent,
    StartTls,
    TransactionEnds,
)
from relay.smtp.framing import ChunkFraming, Content, DataFraming, Fault, LineEnds, patience

_PAUSE = 64 * 1024  # octets of unprocessed input beyond which the driver should stop reading
_MAX_SKIPPED = 64 * 1024  # octets of one over-long command line that we read past before giving up on the peer
_EXCESS = 10  # times the recipient limit: so many RCPTs beyond it are answered before giving up on the peer
_CR = 0x0D
_TLS_RECORD = 0x16  # a handshake record (RFC 8446 section 5.1): the client believes in implicit TLS here


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a listener is. One object for all of its sessions; a client whose bare LFs are normalised gets its own by `replace`.

    `tls_offered`: STARTTLS may be offered. `tls_active`: TLS from the first octet. Sizes in octets.
    Counted from one message taken to the next, and the session ends with 421 where one is reached: `errors` of the client, failed
    `logins`, `idle_commands` (refused by the driver, or of no use for a message: NOOP, RSET, VRFY).
    """

    hostname: str
    kind: ListenerKind = ListenerKind.MX
    message_size: int = 50 * 2**20
    recipients: int = 1000
    line_length: int = 8192
    session_messages: int = 1000
    tls_offered: bool = False
    tls_active: bool = False
    normalise_bare_lf: bool = False
    # RFC 5321 section 4.5.3.1.4 asks for 512; parameters of MAIL and RCPT add some 1,200 (RFC 3461, RFC 6531).
    command_line: int = 2048
    auth_line: int = 12288  # RFC 4954 section 4
    errors: int = 20
    logins: int = 10
    idle_commands: int = 1000
    banner: str = "ESMTP Ironpost"

    @property
    def is_submission(self) -> bool:
        return self.kind is not ListenerKind.MX


class _Mode(IntEnum):
    GREETING = 0
    COMMAND = 1
    AUTH = 2
    DATA = 3
    CHUNK = 4
    DISCARDED_CHUNK = 5
    HANDSHAKE = 6
    CLOSED = 7


class _Stage(IntEnum):
    NEW = 0  # no EHLO yet, or none since TLS
    READY = 1
    SENDER = 2
    RECIPIENTS = 3
    CHUNKS = 4  # BDAT has begun the message
    REFUSED = 5  # greeted with 554


_IN_TRANSACTION = frozenset({_Stage.SENDER, _Stage.RECIPIENTS, _Stage.CHUNKS})

# BDAT is not here: its chunk has to be read past before it is answered (RFC 3030 section 2).
_OUT_OF_SEQUENCE: dict[tuple[str, _Stage], Reply] = {
    ("MAIL", _Stage.NEW): replies.HELLO_FIRST,
    ("MAIL", _Stage.SENDER): replies.NESTED,
    ("MAIL", _Stage.RECIPIENTS): replies.NESTED,
    ("MAIL", _Stage.CHUNKS): replies.NESTED,
    ("RCPT", _Stage.NEW): replies.HELLO_FIRST,
    ("RCPT", _Stage.READY): replies.MAIL_FIRST,
    ("RCPT", _Stage.CHUNKS): replies.MIXED,
    ("DATA", _Stage.NEW): replies.HELLO_FIRST,
    ("DATA", _Stage.READY): replies.MAIL_FIRST,
    ("DATA", _Stage.SENDER): replies.NO_RECIPIENTS,
    ("DATA", _Stage.CHUNKS): replies.MIXED,
    ("AUTH", _Stage.NEW): replies.HELLO_FIRST,
}

# Browsers and proxies that were talked into connecting here. Postfix's smtpd_forbidden_commands, and HTTP/2's preface.
_OTHER_PROTOCOLS = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI"})

# Commands of other servers, or of other times.
_NOT_IMPLEMENTED = frozenset({"EXPN", "ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML", "BURL", "XCLIENT", "XFORWARD"})

# The common replies, encoded once.
_OK = replies.OK.encode()
_BYE = replies.BYE.encode()
_SENDER_OK = replies.SENDER_OK.encode()
_RECIPIENT_OK = replies.RECIPIENT_OK.encode()
_SEND_DATA = replies.SEND_DATA.encode()
_TOO_MANY_RECIPIENTS = replies.TOO_MANY_RECIPIENTS.encode()

_FAULTS = {
    Fault.LONG_LINE: replies.LONG_CONTENT_LINE,
    Fault.TOO_LARGE: replies.TOO_LARGE,
    Fault.LINE_ENDS: replies.BAD_LINE_ENDS,
}

# What stands where no message is being received.
_NO_SENDER = MailFrom(NULL, Body.SEVEN_BIT, smtputf8=False, ret=Ret.UNSET, envid="", size=0)
_NO_ENVELOPE = Envelope(NULL)
_NO_CONTENT = Content(0, 0, normalise=False)
_NO_DATA = DataFraming(_NO_CONTENT, LineEnds.STRICT)
_NO_CHUNKS = ChunkFraming(_NO_CONTENT, normalise=False)
_NO_CHUNK = Chunk(0, last=False)
_NO_EXCHANGE = Exchange(Mechanism.PLAIN)


@lru_cache(maxsize=64)
def _greeting(hostname: str, banner: str) -> bytes:
    return Reply(220, "", f"{hostname} {banner}").encode()


@lru_cache(maxsize=64)
def _ehlo_reply(hostname: str, size: int, *, starttls: bool, auth: bool, tls: bool) -> bytes:
    """What holds now, and nothing else (RFC 5321 section 4.1.1.1). `tls`: the session is inside TLS."""
    lines = [hostname, "PIPELINING", f"SIZE {size}"]
    if starttls:
        lines.append("STARTTLS")
    if auth:
        lines.append("AUTH PLAIN LOGIN")
    if tls:
        lines.append("REQUIRETLS")  # RFC 8689 section 2: never in clear
    lines += ["8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES"]
    return Reply(250, "", "\n".join(lines)).encode()


class ServerSession:
    """One session. Feed `receive`, take `next_event` until None, write `take_output`; answer what asks for an answer.

    Raises RuntimeError where the driver breaks the contract (an answer that nothing asked for); what the peer sends never raises.
    Once closed, input and answers are ignored: an answer may always come too late.
    """

    __slots__ = (
        "_awaited",
        "_bare_line",
        "_buffer",
        "_by_chunks",
        "_chunk",
        "_chunk_left",
        "_chunk_refusal",
        "_chunks",
        "_data",
        "_discarded",
        "_envelope",
        "_errors",
        "_events",
        "_excess",
        "_exchange",
        "_failed_chunks",
        "_idle",
        "_logins",
        "_messages",
        "_mode",
        "_output",
        "_position",
        "_recipients",
        "_sender",
        "_settings",
        "_skipped",
        "_skipped_cr",
        "_stage",
        "esmtp",
        "helo",
        "talked_early",
        "tls_active",
        "user",
    )

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._mode = _Mode.GREETING
        self._stage = _Stage.NEW
        self._buffer = b""
        self._position = 0  # everything in the buffer before it is dealt with
        self._output: list[bytes] = []
        self._events: deque[SmtpEvent] = deque()
        self._awaited: SmtpEvent | None = None
        self._messages = 0
        self._forgive()
        self._skipped = 0  # octets of an over-long command line thrown away so far
        self._skipped_cr = False  # the last of them was CR
        self._bare_line = False  # the last command line ended with a bare LF
        self._exchange = _NO_EXCHANGE
        self._sender = _NO_SENDER
        self._recipients: list[Recipient] = []
        self._envelope = _NO_ENVELOPE
        self._data = _NO_DATA
        self._by_chunks = False  # the message comes by BDAT
        self._chunks = _NO_CHUNKS
        self._chunk = _NO_CHUNK
        self._chunk_left = 0
        self._chunk_refusal = replies.MAIL_FIRST  # what the chunk being thrown away is answered with
        self._failed_chunks = False  # a message by BDAT failed; more of its chunks may be under way
        self._discarded = 0  # octets of chunks thrown away since the last MAIL
        self.helo = ""
        self.esmtp = False
        self.user = ""
        self.tls_active = settings.tls_active
        self.talked_early = False

    # What the driver asks -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """An answer, or the end of a TLS handshake, is outstanding."""
        return self._awaited is not None or self._mode is _Mode.HANDSHAKE

    @property
    def wants_pause(self) -> bool:
        """More input than can be worked on is held: stop reading until this is False again."""
        return len(self._buffer) - self._position > _PAUSE

    @property
    def in_message(self) -> bool:
        """Between the go-ahead for a message and its end: the time limit for the whole message counts, not the one for a command."""
        return self._mode is _Mode.DATA or self._stage is _Stage.CHUNKS

    @property
    def protocol(self) -> str:
        """The keyword for Received (RFC 3848; UTF8SMTP... by RFC 6531 section 4.3), for the message last spoken of."""
        tls, auth = "S" if self.tls_active else "", "A" if self.user else ""
        if self._sender.smtputf8:
            return f"UTF8SMTP{tls}{auth}"
        return f"ESMTP{tls}{auth}" if self.esmtp or tls or auth else "SMTP"

    # What the driver does -------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say 220. Input that came before (`talked_early`) is looked at from now on."""
        self._start(_greeting(self._settings.hostname, self._settings.banner), _Stage.NEW)

    def refuse(self, reply: Reply) -> None:
        """In place of `greet`. 421 closes; after a 554 every command is answered 503 until QUIT (RFC 5321 section 3.1)."""
        self._start(reply.encode(), _Stage.REFUSED)
        if reply.code == 421:
            self._end("refused")

    def receive(self, data: bytes) -> None:
        """Octets from the peer, as they came. Looked at in `next_event`."""
        if self._mode is _Mode.CLOSED or not data:
            return
        if self._mode is _Mode.GREETING:
            self.talked_early = True
        self._buffer = self._buffer[self._position :] + data if self._position < len(self._buffer) else data
        self._position = 0

    def next_event(self) -> SmtpEvent | None:
        """None: more input is needed, or an answer is outstanding, or the session is closed."""
        events = self._events
        while not events:
            if self._awaited is not None or not _READERS[self._mode](self):
                return None
        return events.popleft()

    def take_output(self) -> bytes:
        """What is to be written to the peer since the last call."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output = []
        return output

    def proceed(self) -> None:
        """Yes to MailFrom, RcptTo, DataBegins or Login, with the usual reply."""
        event = self._awaited
        if isinstance(event, RcptTo):
            self.accept_recipient(event.recipient)
        elif isinstance(event, MailFrom):
            self._awaited = None
            self._output.append(_SENDER_OK)
            self._open(event)
        elif isinstance(event, DataBegins):
            self._awaited = None
            self._begin_message()
        elif isinstance(event, Login):
            self.answer(replies.LOGGED_IN)
        else:
            self._not_asked()

    def accept_recipient(self, recipient: Recipient) -> None:
        """Yes to RcptTo; `recipient` is what enters the envelope (a bare postmaster, for one, becomes somebody's address)."""
        if not isinstance(self._awaited, RcptTo):
            self._not_asked()
            return
        self._awaited = None
        self._output.append(_RECIPIENT_OK)
        self._enter(recipient)

    def answer(self, reply: Reply) -> None:
        """Answer the outstanding event. A 421 also closes the connection (RFC 5321 section 3.8)."""
        event = self._awaited
        if event is None:
            self._not_asked()
            return
        if isinstance(event, DataBegins) and reply.is_positive:
            raise RuntimeError("DataBegins is answered by proceed(), or by a 4xx or 5xx")
        self._awaited = None
        if not reply.is_positive:
            self._idle += 1
        if isinstance(event, Login):
            self._write(self._judge_login(event.user, reply))
        elif isinstance(event, DataBegins) and self._by_chunks:
            self._decline_chunks(reply)
        else:
            self._write(reply)
            self._carry_out(event, reply)
        if reply.code == 421:
            self._end("refused")

    def tls_established(self) -> None:
        """The handshake that StartTls asked for is done. Nothing from before it is known any more (RFC 3207 section 4.2)."""
        if self._mode is not _Mode.HANDSHAKE:
            self._not_asked()
            return
        self._mode, self._stage = _Mode.COMMAND, _Stage.NEW
        self._buffer, self._position = b"", 0
        self._sender = _NO_SENDER
        self.helo, self.esmtp, self.user = "", False, ""
        self.tls_active = True

    def hang_up(self, reply: Reply, reason: str) -> None:
        """End the session now, whatever it is doing: time limit, shutdown, no room. `reply` is mostly a 421."""
        if self._mode is not _Mode.CLOSED:
            self._write(reply)
            self._end(reason)

    # Answers carried out --------------------------------------------------------------------------------------------

    def _carry_out(self, event: SmtpEvent, reply: Reply) -> None:
        if isinstance(event, DataBegins):
            self._end_transaction()
            self._distrust_rest()
        elif reply.is_positive:
            if isinstance(event, MailFrom):
                self._open(event)
            elif isinstance(event, RcptTo):
                self._enter(event.recipient)
            else:
                self._forgive()  # DataEnds

    def _forgive(self) -> None:
        """A session that brings mail may err now and then."""
        self._errors = self._idle = self._logins = 0
        self._excess = 0  # RCPTs beyond the limit

    def _open(self, sender: MailFrom) -> None:
        self._sender = sender
        self._stage = _Stage.SENDER
        self._failed_chunks = False
        self._discarded = 0

    def _enter(self, recipient: Recipient) -> None:
        self._recipients.append(recipient)
        self._stage = _Stage.RECIPIENTS

    def _begin_message(self) -> None:
        settings = self._settings
        self._messages += 1
        normalise = settings.normalise_bare_lf
        content = Content(settings.message_size, settings.line_length, normalise=normalise)
        if self._by_chunks:
            self._chunks = ChunkFraming(content, normalise=normalise)
            self._stage, self._mode = _Stage.CHUNKS, _Mode.CHUNK
            return
        lines = LineEnds.STRICT
        if normalise:
            lines = LineEnds.NORMALISE_TO_LF if self._bare_line else LineEnds.NORMALISE
        self._data = DataFraming(content, lines)
        self._output.append(_SEND_DATA)
        self._mode = _Mode.DATA

    def _decline_chunks(self, reply: Reply) -> None:
        """RFC 3030 section 2: the chunk is read past before it is answered."""
        self._end_transaction()
        self._failed_chunks = True
        if reply.code == 421:
            self._write(reply)
        else:
            self._discard_chunk(reply)

    def _judge_login(self, user: str, reply: Reply) -> Reply:
        if reply.is_positive:
            self.user = user
            return reply
        self._logins += 0 if reply.is_transient else 1
        if self._logins < self._settings.logins:
            return reply
        self._end("too many failed logins")
        return replies.TOO_MANY_LOGINS

    # Lines ----------------------------------------------------------------------------------------------------------

    def _read_nothing(self) -> bool:
        return False

    def _read_line(self) -> bool:
        """A command, or a response of the AUTH exchange. False where more input is needed."""
        buffer, start = self._buffer, self._position
        if start == len(buffer):
            return False
        if buffer[start] == _TLS_RECORD and not self._skipped and self._mode is _Mode.COMMAND:
            return self._hang("", replies.NOT_SMTP, "TLS on a clear-text port")
        newline = buffer.find(b"\n", start)
        if newline < 0:
            return self._wait_for_line(len(buffer) - start)
        self._position = newline + 1
        bare = buffer[newline - 1] != _CR if newline > start else not self._skipped_cr
        if bare and not self._settings.normalise_bare_lf:
            # Who ends lines so may mean something else by the next ones than we do: nothing more is taken from it.
            return self._hang("", replies.BARE_LF, "bare LF")
        length = newline + 1 - start
        if self._skipped or (length > self._settings.command_line and length > self._line_limit(start)):
            return self._drop_line(length)
        line = buffer[start : newline if bare else newline - 1]
        self._bare_line = bare
        if self._mode is _Mode.AUTH:
            self._respond(line)
        else:
            self._command(line)
        return True

    def _line_limit(self, start: int) -> int:
        if self._mode is _Mode.AUTH or self._buffer[start : start + 5].upper() == b"AUTH ":
            return self._settings.auth_line
        return self._settings.command_line

    def _wait_for_line(self, length: int) -> bool:
        """No line end yet. What is too long already is thrown away as it comes."""
        if not self._skipped and length <= self._line_limit(self._position):
            return False
        self._skipped += length
        self._skipped_cr = self._buffer[-1] == _CR
        self._buffer, self._position = b"", 0
        if self._skipped > _MAX_SKIPPED:
            return self._hang("", self._long_line(), "line too long")
        return True

    def _drop_line(self, length: int) -> bool:
        length += self._skipped
        self._skipped, self._skipped_cr = 0, False
        if length > _MAX_SKIPPED:
            return self._hang("", self._long_line(), "line too long")
        reply = self._long_line()
        self._mode = _Mode.COMMAND
        self._refuse("", reply)
        return True

    def _long_line(self) -> Reply:
        return replies.AUTH_LONG_LINE if self._mode is _Mode.AUTH else replies.LONG_LINE

    def _command(self, line: bytes) -> None:
        try:
            text = decode_line(line)
        except CommandError as error:
            self._refuse("", error.reply)
            return
        verb, _, argument = text.partition(" ")
        verb = verb.upper() if verb.isascii() else ""  # "\u017f".upper() is "S", too
        handler = _HANDLERS.get(verb)
        if handler is None:
            self._unknown(verb)
        elif self._stage is _Stage.REFUSED and verb != "QUIT":
            self._refuse_command(verb, replies.REFUSED)
        elif self._idle >= self._settings.idle_commands and verb != "QUIT":
            self._hang(verb, replies.TOO_MANY_COMMANDS, "too many commands without a message")
        elif (refusal := _OUT_OF_SEQUENCE.get((verb, self._stage))) is not None:
            self._refuse_command(verb, refusal)
        else:
            try:
                handler(self, argument.strip(" "))
            except CommandError as error:
                self._refuse_command(verb, error.reply)

    def _unknown(self, verb: str) -> None:
        if verb in _OTHER_PROTOCOLS:
            # Threat: a browser that was talked into sending mail in the body of a POST.
            self._hang("", replies.NOT_SMTP, "another protocol")
        else:
            # The verb is not repeated, to nobody: it may be a password that came at the wrong moment.
            self._refuse("", replies.NOT_IMPLEMENTED if verb in _NOT_IMPLEMENTED else replies.UNKNOWN)

    # Commands that need no transaction ------------------------------------------------------------------------------

    def _ehlo(self, argument: str) -> None:
        self._hello(argument, esmtp=True)
        settings = self._settings
        starttls = settings.tls_offered and not self.tls_active
        auth = settings.is_submission and self.tls_active
        tls = self.tls_active
        self._output.append(
            _ehlo_reply(settings.hostname, settings.message_size, starttls=starttls, auth=auth, tls=tls)
        )
        self._idle += 1

    def _helo(self, argument: str) -> None:
        self._hello(argument, esmtp=False)
        self._write(Reply(250, "", self._settings.hostname))
        self._idle += 1

    def _hello(self, argument: str, *, esmtp: bool) -> None:
        name = parse_hello(argument)
        self._end_transaction()  # RFC 5321 section 4.1.4
        self._stage = _Stage.READY
        self.helo, self.esmtp = name, esmtp

    def _noop(self, argument: str) -> None:
        self._output.append(_OK)
        self._idle += 1

    def _help(self, argument: str) -> None:
        self._write(replies.HELP)
        self._idle += 1

    def _vrfy(self, argument: str) -> None:
        if not argument:
            raise CommandError(replies.ARGUMENT_MISSING)
        self._write(replies.VRFY)  # RFC 5321 section 7.3: who exists here is told to nobody
        self._idle += 1

    def _rset(self, argument: str) -> None:
        _no_argument(argument)
        self._end_transaction()
        self._failed_chunks = False
        self._output.append(_OK)
        self._idle += 1

    def _quit(self, argument: str) -> None:
        self._output.append(_BYE)
        self._end("quit")

    def _starttls(self, argument: str) -> None:
        _no_argument(argument)  # RFC 3207 section 4
        if self.tls_active:
            raise CommandError(replies.TLS_ACTIVE)
        if not self._settings.tls_offered:
            raise CommandError(replies.NOT_IMPLEMENTED)
        if self._unread:
            # Threat: commands put in front of the handshake by someone on the way, run behind it as the client's own (CVE-2011-0411).
            self._hang("STARTTLS", replies.BEHIND_STARTTLS, "input behind STARTTLS")
            return
        self._end_transaction()
        self._write(replies.TLS_READY)
        self._mode = _Mode.HANDSHAKE
        self._events.append(StartTls())

    def _read_before_handshake(self) -> bool:
        """Clear text that came between the 220 and the handshake."""
        return self._unread and self._hang("STARTTLS", replies.BEHIND_STARTTLS, "input behind STARTTLS")

    def _auth(self, argument: str) -> None:
        if not self._settings.is_submission:
            raise CommandError(replies.NOT_IMPLEMENTED)
        if not self.tls_active:
            raise CommandError(replies.AUTH_NEEDS_TLS)  # RFC 4954 section 4
        if self.user:
            raise CommandError(replies.AUTH_DONE)
        mechanism, initial = parse_auth(argument)
        self._exchange = Exchange(mechanism)
        self._step_auth(self._exchange.begin(initial))

    def _respond(self, line: bytes) -> None:
        self._mode = _Mode.COMMAND
        try:
            self._step_auth(self._exchange.respond(decode_line(line)))
        except CommandError as error:
            self._exchange = _NO_EXCHANGE
            self._refuse("AUTH", error.reply)

    def _step_auth(self, step: Challenge | Credentials) -> None:
        if isinstance(step, Challenge):
            self._write(Reply(334, "", step.text))
            self._mode = _Mode.AUTH
        else:
            self._exchange = _NO_EXCHANGE
            self._await(Login(step.user, step.password))

    # The transaction ------------------------------------------------------------------------------------------------

    def _mail(self, argument: str) -> None:
        settings = self._settings
        if settings.is_submission and not self.user:
            # RFC 6409 section 4.3, RFC 3207 section 4, RFC 4954 section 6
            raise CommandError(replies.AUTH_FIRST if self.tls_active else replies.TLS_FIRST)
        if self._messages >= settings.session_messages:
            self._hang("MAIL", replies.TOO_MANY_MESSAGES, "too many messages")
            return
        sender = parse_mail(argument, auth_offered=settings.is_submission, tls=self.tls_active)
        if sender.size > settings.message_size:
            raise CommandError(replies.TOO_LARGE)  # RFC 1870 section 6.1
        self._await(sender)

    def _rcpt(self, argument: str) -> None:
        limit = self._settings.recipients
        if len(self._recipients) >= limit:
            self._refuse_excess(limit)
            return
        self._await(RcptTo(parse_rcpt(argument, smtputf8=self._sender.smtputf8)))

    def _refuse_excess(self, limit: int) -> None:
        """RFC 5321 section 4.5.3.1.10: a 452 is no error of the client's; it comes again with the rest. Said once, for the log's sake."""
        self._excess += 1
        if self._excess > _EXCESS * limit:
            self._hang("RCPT", replies.TOO_MANY_COMMANDS, "too many recipients")
            return
        if self._excess == 1:
            self._events.append(Said("RCPT", replies.TOO_MANY_RECIPIENTS))
        self._output.append(_TOO_MANY_RECIPIENTS)

    def _begin(self, *, by_chunks: bool) -> None:
        sender = self._sender
        recipients = tuple(self._recipients)
        envelope = Envelope(
            sender.sender,
            recipients,
            sender.body,
            sender.smtputf8,
            sender.ret,
            sender.envid,
            # RFC 8689 section 4.1 leaves bounces (null sender) free; they tell of mail that was protected, so they are held to it too.
            sender.requiretls,
        )
        self._envelope, self._by_chunks = envelope, by_chunks
        self._await(DataBegins(envelope))

    def _data_command(self, argument: str) -> None:
        _no_argument(argument)
        self._begin(by_chunks=False)

    def _read_data(self) -> bool:
        if not self._unread:
            return False
        content, self._position = self._data.feed(self._buffer, self._position)
        self._hand_on(content)
        if self._data.content.overflowed:
            return self._give_up(self._data.content)
        if self._data.done:
            self._mode = _Mode.COMMAND
            self._end_message(self._data.content, "DATA")
            self._data = _NO_DATA
        return True

    def _bdat(self, argument: str) -> None:
        try:
            chunk = parse_bdat(argument)
        except CommandError as error:
            # How many octets are no commands? Nothing more can be read from this peer.
            self._hang("BDAT", error.reply, "BDAT without a size")
            return
        if chunk.size > patience(self._settings.message_size):
            self._hang("BDAT", replies.TOO_LARGE, "BDAT far too large")
            return
        self._chunk, self._chunk_left = chunk, chunk.size
        match self._stage:
            case _Stage.CHUNKS:
                self._mode = _Mode.CHUNK
            case _Stage.RECIPIENTS:
                self._begin(by_chunks=True)
            case _Stage.SENDER:
                self._discard_chunk(replies.NO_RECIPIENTS)
            case stage:
                self._discard_chunk(replies.HELLO_FIRST if stage is _Stage.NEW else replies.MAIL_FIRST)

    def _read_chunk(self) -> bool:
        if self._chunk_left and not self._unread:
            return False
        content = self._chunks.content
        self._hand_on(self._chunks.feed(self._take_chunk()))
        if content.overflowed:
            return self._give_up(content)
        if not self._chunk_left:
            self._mode = _Mode.COMMAND
            self._end_chunk(content)
        return True

    def _end_chunk(self, content: Content) -> None:
        if self._chunk.last:
            self._hand_on(self._chunks.finish())
        if self._chunk.last or content.fault is not Fault.NONE:
            self._failed_chunks = content.fault is not Fault.NONE
            self._end_message(content, "BDAT")
            self._chunks = _NO_CHUNKS
            return
        self._write(Reply(250, "2.0.0", f"{self._chunk.size} octets received"))
        if not self._chunk.size:
            self._idle += 1

    def _discard_chunk(self, reply: Reply) -> None:
        self._mode = _Mode.DISCARDED_CHUNK
        self._chunk_refusal = reply

    def _read_discarded_chunk(self) -> bool:
        if self._chunk_left and not self._unread:
            return False
        self._discarded += len(self._take_chunk())
        if self._discarded > patience(self._settings.message_size):
            return self._hang("BDAT", replies.TOO_LARGE, "too much thrown away")
        if not self._chunk_left:
            self._mode = _Mode.COMMAND
            if self._failed_chunks:
                # RFC 3030 section 2: chunks that were under way when the message failed are no fault of the client's.
                self._say("BDAT", self._chunk_refusal)
                self._idle += 1
            else:
                self._refuse("BDAT", self._chunk_refusal)
        return True

    def _take_chunk(self) -> bytes:
        """What is there of the current chunk."""
        end = min(self._position + self._chunk_left, len(self._buffer))
        piece = self._buffer[self._position : end]
        self._position = end
        self._chunk_left -= len(piece)
        return piece

    def _hand_on(self, content: bytes) -> None:
        if content:
            self._events.append(DataChunk(content))

    def _end_message(self, content: Content, verb: str) -> None:
        if content.fault is not Fault.NONE:
            self._end_transaction()
            self._refuse(verb, _FAULTS[content.fault])
            return
        self._forget_transaction()  # it is in the driver's hands from here on
        self._await(DataEnds(self._envelope, content.size, content.eight_bit))

    def _give_up(self, content: Content) -> bool:
        return self._hang("DATA", _FAULTS[content.fault], "too much thrown away")

    # Ends and replies -----------------------------------------------------------------------------------------------

    @property
    def _unread(self) -> bool:
        return self._position < len(self._buffer)

    def _await(self, event: SmtpEvent) -> None:
        self._awaited = event
        self._events.append(event)

    def _not_asked(self) -> None:
        """An answer nobody waits for: too late, which is fine, or a bug in the driver."""
        if self._mode is not _Mode.CLOSED:
            raise RuntimeError("the session does not wait for this answer")

    def _write(self, reply: Reply) -> None:
        self._output.append(reply.encode())

    def _start(self, reply: bytes, stage: _Stage) -> None:
        if self._mode is not _Mode.GREETING:
            self._not_asked()
            return
        self._output.append(reply)
        self._stage, self._mode = stage, _Mode.COMMAND

    def _say(self, verb: str, reply: Reply) -> None:
        """A 4xx or 5xx of our own. `verb` is one we know, or "": whatever else the peer sent is nobody's business."""
        self._events.append(Said(verb, reply))
        self._write(reply)

    def _refuse(self, verb: str, reply: Reply) -> None:
        """An error of the client's. The last one that it may make is answered with 421."""
        if reply is replies.NO_RECIPIENTS:
            self._idle += 1  # mostly a pipelined DATA behind recipients that the driver refused
        else:
            self._errors += 1
        if self._errors >= self._settings.errors:
            self._hang(verb, replies.TOO_MANY_ERRORS, "too many errors")
        else:
            self._say(verb, reply)

    def _refuse_command(self, verb: str, reply: Reply) -> None:
        self._refuse(verb, reply)
        if verb == "DATA":
            self._distrust_rest()

    def _distrust_rest(self) -> None:
        """DATA was refused, and there is input already that was sent without waiting for the reply (RFC 2920 section 3.1 forbids it).

        Threat: it is the content of a message, and whoever wrote that would be giving us commands.
        """
        if self._unread:
            self._end("input behind a refused DATA")

    def _hang(self, verb: str, reply: Reply, reason: str) -> bool:
        """Say why and end the session. True: there is something for the driver."""
        self._say(verb, reply)
        self._end(reason)
        return True

    def _end_transaction(self) -> None:
        if self._stage in _IN_TRANSACTION:
            self._forget_transaction()
            self._events.append(TransactionEnds())

    def _forget_transaction(self) -> None:
        self._stage = _Stage.READY
        self._recipients = []

    def _end(self, reason: str) -> None:
        if self._mode is _Mode.CLOSED:
            return
        self._end_transaction()
        self._events.append(Close(reason))
        self._mode = _Mode.CLOSED
        self._awaited = None
        self._buffer, self._position = b"", 0
        self._data, self._chunks, self._exchange = _NO_DATA, _NO_CHUNKS, _NO_EXCHANGE


def _no_argument(argument: str) -> None:
    if argument:
        raise CommandError(replies.NO_ARGUMENTS)


_HANDLERS: dict[str, Callable[[ServerSession, str], None]] = {
    "EHLO": ServerSession._ehlo,
    "HELO": ServerSession._helo,
    "MAIL": ServerSession._mail,
    "RCPT": ServerSession._rcpt,
    "DATA": ServerSession._data_command,
    "BDAT": ServerSession._bdat,
    "RSET": ServerSession._rset,
    "NOOP": ServerSession._noop,
    "QUIT": ServerSession._quit,
    "VRFY": ServerSession._vrfy,
    "HELP": ServerSession._help,
    "STARTTLS": ServerSession._starttls,
    "AUTH": ServerSession._auth,
}

_BY_MODE: dict[_Mode, Callable[[ServerSession], bool]] = {
    _Mode.GREETING: ServerSession._read_nothing,
    _Mode.COMMAND: ServerSession._read_line,
    _Mode.AUTH: ServerSession._read_line,
    _Mode.DATA: ServerSession._read_data,
    _Mode.CHUNK: ServerSession._read_chunk,
    _Mode.DISCARDED_CHUNK: ServerSession._read_discarded_chunk,
    _Mode.HANDSHAKE: ServerSession._read_before_handshake,
    _Mode.CLOSED: ServerSession._read_nothing,
}

# By mode: how the next octets are read. False: more of them are needed.
_READERS = tuple(_BY_MODE[mode] for mode in _Mode)
