"""One attempt: a message's recipients at one address, over a connection that was kept or is new. Every step judged, everything recorded.

Leaves to `deliver` which address is next, and to the queue when to try again.
At least once: a connection that dies after the final dot without a reply is a deferral, so the message may arrive twice; a kept
connection that was already dead (no answer to MAIL, so nothing of the message was sent) is replaced once by a new one, unrecorded.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay.mail.attempt import Attempt, MessageBytes, Session, SessionEnd
from relay.mail.envelope import Message
from relay.mail.outcome import Deferred, Outcome
from relay.mail.plan import TlsPlan
from relay.mail.reply import Reply
from relay.mail.tls import TlsEvidence
from relay.outbound import outcomes
from relay.outbound.client import Timeouts, Transaction, Transcript, accepted
from relay.outbound.commands import PER_TRANSACTION, Commands, commands, header_is_utf8, needs_look_at_header
from relay.outbound.connection import (
    HAS_ENDED,
    ClientTls,
    Connection,
    NoCertificateError,
    Trouble,
    open_connection,
    open_in_clear,
)
from relay.outbound.pool import Kept, Moment, Pool, Wish
from relay.outbound.reuse import looked_at_again
from relay.outbound.target import Target
from relay.outbound.wire import Answer, Break
from relay.policy.forward import OnBehalfOf
from relay.policy.plan import Step
from relay.policy.published import Published
from relay.policy.verdict import Failed

_AT_ONCE = 65536  # octets
_STILL_WARM = 1.0  # seconds for which a kept connection is taken to be alive: content sent at once to a dead one could arrive twice
_CUT_SHORT = Deferred(451, "4.4.2", "the connection ended before this recipient's turn")
OVERTAKEN = Deferred(
    451, "4.3.5", "the configuration changed during this attempt, so nothing was sent under the old one"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be sent, and under which configuration. `messages`: how many one connection may carry. `client`: on whose behalf, where
    the hop is to be told."""

    message: Message
    body: MessageBytes
    connector: str
    generation: object
    messages: int
    client: OnBehalfOf | None = None

    def record(
        self, at: datetime, hop: str, address: str, plan: TlsPlan | None, results: Mapping[int, Outcome]
    ) -> Attempt:
        """An attempt that ended before there was a connection."""
        return Attempt(self.message.id, at, hop, address, self.connector, plan, None, tuple(sorted(results.items())))

    def withheld(self, at: datetime, hop: str, why: Deferred, indexes: Sequence[int], published: Published) -> Attempt:
        """A host that published policy keeps mail from: nobody connected, and it counts as a failed session in TLS reports."""
        applied = tuple(each.applied for each in (published.dane, published.sts) if each.applied is not None)
        session = Session(SessionEnd.WITHHELD, reason=why.text, failure=why.failure, published=applied)
        return replace(self.record(at, hop, "", None, dict.fromkeys(indexes, why)), session=session)

    @property
    def size(self) -> int:
        """Octets of `content`."""
        return self.message.size + len(self.message.header)

    async def content(self) -> AsyncIterator[bytes]:
        """Our trace header, then the message as received."""
        ahead = self.message.header
        async for piece in self.body.chunks():
            yield ahead + piece if ahead else piece
            ahead = b""
        if ahead:
            yield ahead


@dataclass(slots=True)
class Tried:
    """The records of one address (two where TLS broke and clear text followed). `said_mail`: the hop was asked to take the message."""

    attempts: list[Attempt] = field(default_factory=list)
    said_mail: bool = False

    @property
    def overtaken(self) -> bool:
        """True where a recipient is left because another configuration is in force by now."""
        return any(outcome is OVERTAKEN for _index, outcome in self.attempts[-1].outcomes)


@dataclass(slots=True)
class _Carried:
    """`at_once`: the content may go out with the commands where the hop takes that. `was_dead`: nobody was there to hear MAIL."""

    at_once: bool = False
    results: dict[int, Outcome] = field(default_factory=dict)
    said_mail: bool = False
    was_dead: bool = False


class Attempts:
    """Makes attempts. `clock` is the wall clock in UTC, `in_force` the configuration (`Job.generation`).

    Threat: mail under rules that an admin has just made stricter. A hop decides how long it takes to greet us, so the configuration is
    looked at again before each MAIL, on a new connection as on a kept one.
    """

    def __init__(
        self,
        pool: Pool[Connection],
        tls: ClientTls,
        timeouts: Timeouts,
        clock: Callable[[], datetime],
        in_force: Callable[[], object],
    ) -> None:
        self._pool, self._tls, self._timeouts, self._clock, self._in_force = pool, tls, timeouts, clock, in_force

    async def at(self, job: Job, target: Target, indexes: Sequence[int]) -> Tried:
        """Tries `target` for these recipients. Never raises for what the hop does; cut short, it leaves no open connection behind."""
        tried, begun = Tried(), _Begun(self._clock())
        if self._is_overtaken(job):
            self._note(tried, begun, job, target, None, dict.fromkeys(indexes, OVERTAKEN))
            return tried
        try:
            context = self._tls.context(target.plan)
        except NoCertificateError as error:
            self._note(tried, begun, job, target, None, dict.fromkeys(indexes, Deferred(451, "4.3.5", str(error))))
            return tried
        moment = Moment(begun.at, begun.tick, job.generation)
        kept = self._pool.take(Wish(target, job.messages, context), moment)
        if kept is not None and kept.connection.asks_revocation:
            kept = await looked_at_again(kept, self._pool, self._tls, self._clock)
        if kept is not None:
            carried = await self._carry(job, kept, indexes, is_reused=True)
            if not carried.was_dead:
                self._note(tried, begun, job, target, kept.connection.evidence, carried.results)
                tried.said_mail = carried.said_mail
                return tried
        opened = await open_connection(target, context, self._tls, self._timeouts)
        begun.session = opened.session
        if isinstance(opened, Trouble) and opened.step is Step.SEND_IN_CLEAR:
            self._note(tried, begun, job, target, opened.evidence, dict.fromkeys(indexes, opened.outcome))
            begun = _Begun(self._clock())
            opened = await open_in_clear(
                target, self._timeouts
            )  # no second session for reports: TLS was judged on the first
        if isinstance(opened, Trouble):
            self._note(tried, begun, job, target, opened.evidence, dict.fromkeys(indexes, opened.outcome))
            return tried
        tick = time.monotonic()
        carried = await self._carry(job, Kept(opened, job.generation, tick, tick), indexes, is_reused=False)
        self._note(tried, begun, job, target, opened.evidence, carried.results)
        tried.said_mail = carried.said_mail
        return tried

    def _note(
        self,
        tried: Tried,
        begun: "_Begun",
        job: Job,
        target: Target,
        evidence: TlsEvidence | None,
        results: Mapping[int, Outcome],
    ) -> None:
        ordered = tuple(results.items()) if len(results) == 1 else tuple(sorted(results.items()))
        seconds = time.monotonic() - begun.tick
        tried.attempts.append(
            Attempt(
                job.message.id,
                begun.at,
                target.hop_text,
                target.address_text,
                job.connector,
                target.plan,
                evidence,
                ordered,
                seconds,
                begun.session,
            )
        )

    async def _carry(self, job: Job, kept: Kept[Connection], indexes: Sequence[int], *, is_reused: bool) -> _Carried:
        """Transactions until every recipient is settled or the connection is of no more use. Then it is kept, or told QUIT."""
        carried = _Carried(at_once=not is_reused or time.monotonic() - kept.since < _STILL_WARM)
        connection = kept.connection
        waiting = list(indexes)
        try:
            while waiting:
                waiting = await self._transact(job, connection, waiting, carried)
                if carried.was_dead and is_reused:
                    connection.cut()
                    return carried
                is_reused = False
        except BaseException:
            connection.cut()
            raise
        self._pool.put(kept)
        return carried

    async def _transact(self, job: Job, connection: Connection, waiting: Sequence[int], carried: _Carried) -> list[int]:
        """One transaction, judged first. Returns the recipients that are left for the next one."""
        if self._is_overtaken(job):
            return _refused(connection, waiting, OVERTAKEN, carried)
        approved = connection.judge(self._clock())
        if isinstance(approved, Failed):
            return _refused(connection, waiting, outcomes.of_verdict(approved), carried)
        trouble = await approved.introduce() or await approved.log_in()
        if trouble is not None:
            return _refused(connection, waiting, trouble.outcome, carried)
        begun = time.monotonic()
        load = await self._load(job, connection, waiting[:PER_TRANSACTION])
        carried.results.update(load.refused)
        rest = list(waiting[PER_TRANSACTION:])
        if not load.indexes:
            return rest
        whole = await self._whole(job, connection, begun) if carried.at_once else b""
        # While the hop thought about our login, or our disk about the message.
        if self._is_overtaken(job):
            return _refused(connection, waiting, OVERTAKEN, carried)
        if not connection.holds_at(self._clock()):
            return _refused(connection, waiting, outcomes.of_verdict(HAS_ENDED), carried)
        transcript = await approved.transact(Transaction(load.mail, load.recipients, job.content, whole))
        carried.was_dead = not carried.said_mail and _was_dead(transcript.mail, at_once=bool(whole))
        carried.said_mail = True
        if whole and _knows_no_bdat(transcript):
            connection.forget_chunking()
            return list(waiting)
        settled = outcomes.settle(load.indexes, transcript, dsn=connection.offer.dsn)
        carried.results.update(settled.outcomes)
        return _left(settled.again + rest, load.indexes[0], transcript, carried)

    @staticmethod
    async def _whole(job: Job, connection: Connection, begun: float) -> bytes:
        """The message, where it can go out with the commands; b"" where it can not. `begun`: when its bytes were asked for first."""
        if job.size > _AT_ONCE or not connection.takes_content_at_once:
            return b""
        content = b"".join([piece async for piece in job.content()])
        # Its end may have been long in coming: the connection may be dead by now.
        return content if connection.is_sound and time.monotonic() - begun < _STILL_WARM else b""

    def _is_overtaken(self, job: Job) -> bool:
        return self._in_force() is not job.generation

    async def _load(self, job: Job, connection: Connection, indexes: Sequence[int]) -> Commands:
        is_utf8 = needs_look_at_header(job.message, connection.offer) and await header_is_utf8(job.body)
        return commands(job.message, indexes, connection.offer, utf8_header=is_utf8)


def _left(rest: list[int], first: int, transcript: Transcript, carried: _Carried) -> list[int]:
    """The recipients for the next transaction; none where there can not be one, and their outcome is clear already."""
    if rest and not accepted(transcript.mail):
        # The sender is what it does not like, or nobody is there any more: the others would hear the same.
        carried.results.update(dict.fromkeys(rest, carried.results[first]))
        return []
    if rest and not transcript.usable:
        carried.results.update(dict.fromkeys(rest, _CUT_SHORT))
        return []
    return rest


class _Begun:
    """When an attempt began, on both clocks, and the new session that it came to, if any."""

    __slots__ = ("at", "session", "tick")

    def __init__(self, at: datetime) -> None:
        self.at, self.tick = at, time.monotonic()
        self.session: Session | None = None


def _refused(connection: Connection, waiting: Sequence[int], outcome: Outcome, carried: _Carried) -> list[int]:
    """By us: nothing more is said on this connection but QUIT."""
    connection.reusable = False
    carried.results.update(dict.fromkeys(waiting, outcome))
    return []


def _was_dead(answer: Answer, *, at_once: bool) -> bool:
    """MAIL was answered with 421 (a server that closed an idle connection), or not at all, and nothing of the message had been sent."""
    if isinstance(answer, Reply):
        return answer.code == 421
    return not at_once and answer.kind in (Break.LOST, Break.TLS)


def _knows_no_bdat(transcript: Transcript) -> bool:
    """The hop took recipients and then did not understand BDAT (RFC 5321 section 4.2.4), though it offers CHUNKING."""
    content = transcript.content
    return isinstance(content, Reply) and 500 <= content.code <= 504 and transcript.usable
