"""From an address to a connection that may carry mail. The types say how far it is:

`open_connection` gives a `Connection`: EHLO said, TLS made where the plan wants it, evidence taken. It has no method to send mail.
`Connection.judge` gives an `Approved` for one transaction, or the demand that fails. Only `Approved` can log in and say MAIL.

Whether clear text is allowed is decided by `relay.policy.plan` alone; here its steps are carried out.
RFC 5321 section 3.1 and 3.2, RFC 3207, RFC 4954 (AUTH). Threats: STARTTLS stripped, broken or injected into; a password in clear.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Protocol

from aiosmtplib import SMTPAuthenticationError, SMTPException, SMTPHeloError, SMTPResponseException

from relay.config.models import ForwardClient, RouteAuth
from relay.mail.attempt import Session, SessionEnd
from relay.mail.outcome import Deferred
from relay.mail.plan import Pins, Pkix, TlsPlan
from relay.mail.reply import Reply
from relay.mail.revocation import State, ends_of
from relay.mail.tls import TlsEvidence, TlsFailure, Trusted
from relay.outbound import outcomes
from relay.outbound.client import Client, Timeouts, Transaction, Transcript
from relay.outbound.offer import NOTHING, Offer
from relay.outbound.target import Target
from relay.outbound.wire import Answer, Break, Broken, words
from relay.policy.forward import spoken_helo, xclient_attributes
from relay.policy.plan import Step, after_broken_tls, after_ehlo
from relay.policy.verdict import Failed, Satisfied, Verdict, judge
from relay.tls.connection import TlsConnection
from relay.tls.revocation.crl import SKEW


class NoCertificateError(Exception):
    """The plan's client certificate is not among ours; str() says so."""


class ClientTls(Protocol):
    """Our side of TLS as a client. `relay.outbound.handshake` has the real one."""

    def context(self, plan: TlsPlan) -> ssl.SSLContext:
        """The same object for as long as its certificate and settings are in force. Raises NoCertificateError."""
        ...

    def evidence(self, ssl_object: object, plan: TlsPlan) -> TlsEvidence:
        """What the connection is, its chain checked against the plan's trust stores and TLSA records."""
        ...

    async def with_revocation(self, evidence: TlsEvidence, plan: TlsPlan) -> TlsEvidence:
        """The evidence with what can be found out, within seconds, about the paths that `plan.revocation` names."""
        ...

    async def with_news(self, evidence: TlsEvidence) -> TlsEvidence:
        """The evidence with what is known of its paths by now. Asks nobody."""
        ...

    def resuming(self, target: Target, context: ssl.SSLContext) -> ssl.SSLContext:
        """What to make the next connection with: a context that offers to resume an earlier session with the target, or `context` itself."""
        ...

    def keep(self, target: Target, context: ssl.SSLContext, ssl_object: object) -> None:
        """Keeps the session of a connection that was made with `context`, for a later one with an equal target."""
        ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no connection to send on. `step` SEND_IN_CLEAR: TLS broke, and the plan allows clear text on a new connection.

    `session` is None where it never came so far that TLS could be judged.
    """

    outcome: Deferred
    evidence: TlsEvidence | None = None
    step: Step = Step.REFUSE
    session: Session | None = None


class Stage(StrEnum):
    """How far a new connection has come."""

    CONNECTED = "connected"
    GREETED = "greeted"
    EHLO = "ehlo"
    TLS = "tls"  # the handshake is done
    EHLO_INSIDE = "ehlo-inside"  # TLS holds: with TLS 1.3 a hop refuses our certificate after its own handshake


Reached = Callable[[Stage], None]


def _nobody(_stage: Stage) -> None:
    """Deliveries do not ask how far it came."""


HAS_ENDED = Failed(TlsFailure.CERTIFICATE_EXPIRED, "default", "what made this connection good has ended")


class Connection:
    """Open and not judged. `offer` is what the hop said last; `context` is None in clear. `session` is what it counts in TLS reports."""

    def __init__(
        self, target: Target, client: Client, evidence: TlsEvidence | None, context: ssl.SSLContext | None
    ) -> None:
        self.target, self.evidence, self.context = target, evidence, context
        self.offer: Offer = _offer(client, evidence)
        end = SessionEnd.SECURED if evidence is not None else SessionEnd.NOT_OFFERED
        self.session = Session(end, client.source)
        self.transactions = 0
        self.logged_in = False
        self.introduced = target.client is None or target.client.how is not ForwardClient.XCLIENT
        self.reusable = True
        self._client = client
        self._is_proved = any(isinstance(demand, Pkix | Pins) for demand in target.plan.demands)
        self._until = _until(target.plan, evidence)

    @property
    def is_sound(self) -> bool:
        return self._client.wire.is_sound

    @property
    def takes_content_at_once(self) -> bool:
        """True where a small message may go out together with MAIL and RCPT (BDAT): one round trip instead of two.

        Threat: a hop that refuses the recipient and then reads the message as commands would do what the message says, as us. So only
        where the plan proves who the hop is: a partner that someone chose, not whatever host an MX record names.
        """
        return self.offer.pipelining and self.offer.chunking and self._is_proved

    async def _introduce(self) -> Trouble | None:
        """XCLIENT, and EHLO as the client. None when the hop takes us for the client now."""
        target, client, offered = self.target, self._client, self.offer.xclient
        facts = target.client
        if facts is None or self.introduced:
            return None
        if "ADDR" not in offered:
            return Trouble(outcomes.no_xclient(target.hop_text), self.evidence)
        try:
            await client.xclient(xclient_attributes(facts, offered))
        except SMTPException:
            return Trouble(outcomes.before_mail(client.wire.last, "XCLIENT"), self.evidence)
        try:
            await client.ehlo(hostname=spoken_helo(facts, target.helo))
        except SMTPException:
            return Trouble(outcomes.before_mail(client.wire.last, "EHLO after XCLIENT"), self.evidence)
        self.offer, self.introduced = _offer(client, self.evidence), True
        return None

    def forget_chunking(self) -> None:
        """The hop offered CHUNKING and does not know BDAT."""
        self.offer = replace(self.offer, chunking=False)

    @property
    def is_gone(self) -> bool:
        return self._client.wire.gone.done()

    def holds_at(self, now: datetime) -> bool:
        """False once an exception in the plan, or a certificate of the verified path, has ended."""
        return self._until is None or now < self._until

    def judge(self, now: datetime) -> "Approved | Failed":
        """The verdict on this connection under its plan, for one transaction."""
        verdict: Verdict = judge(self.target.plan, self.evidence, requiretls_offered=self.offer.requiretls)
        if isinstance(verdict, Failed):
            return verdict
        return Approved(self, verdict) if self.holds_at(now) else HAS_ENDED

    @property
    def asks_revocation(self) -> bool:
        return self.evidence is not None and bool(self.evidence.revocation)

    async def still_holds(self, tls: ClientTls, clock: Callable[[], datetime]) -> bool:
        """False where a certificate has been revoked since the connection was made, as far as that is known here by now."""
        if self.evidence is not None:
            self.evidence = await tls.with_news(self.evidence)
            self._until = _until(self.target.plan, self.evidence)
        return isinstance(self.judge(clock()), Approved)

    def when_lost(self, call: Callable[[], None]) -> None:
        self._client.lost = call

    def leave(self) -> None:
        """QUIT, without waiting."""
        self._client.leave()

    def cut(self) -> None:
        self._client.wire.cut()

    async def gone(self) -> None:
        await self._client.wire.gone


class Approved:
    """A connection that its plan allows to carry one transaction. Made by `Connection.judge` only."""

    def __init__(self, connection: Connection, _verdict: Satisfied) -> None:
        self._connection = connection
        self._spent = False

    async def introduce(self) -> Trouble | None:
        """Tells the hop who the client is, where the target has one and it has not been done. Fail closed: a hop that will not hear it
        would judge our own address in the client's place. Call it before `log_in`."""
        return await self._connection._introduce()

    async def log_in(self) -> Trouble | None:
        """AUTH where the route asks for it and it has not been done; None when all is well. Call it before `transact`."""
        connection = self._connection
        auth, client = connection.target.auth, connection._client
        if auth is None or connection.logged_in:
            return None
        trouble = await _log_in(client, auth, connection.evidence, connection.offer)
        connection.logged_in = trouble is None
        return trouble

    async def transact(self, transaction: Transaction) -> Transcript:
        connection = self._spend()
        connection.transactions += 1
        return await connection._client.transact(transaction)

    async def verify(self, mail: bytes, recipients: tuple[bytes, ...]) -> tuple[Answer, tuple[Answer, ...]]:
        """MAIL and RCPT without a message: would the hop take these recipients? Commands with their CRLF."""
        return await self._spend()._client.verify(mail, recipients)

    def _spend(self) -> Connection:
        connection = self._connection
        ready = connection.introduced and (connection.target.auth is None or connection.logged_in)
        if self._spent or not ready:
            raise RuntimeError("one verdict, one transaction, and XCLIENT and AUTH first")
        self._spent = True
        return connection


async def open_connection(
    target: Target, context: ssl.SSLContext, tls: ClientTls, timeouts: Timeouts, reached: Reached = _nobody
) -> Connection | Trouble:
    """Connects, says EHLO and does what the plan says next. `context` is what `tls` gave for the plan. `reached` is told how far it comes.

    A resumed session shows what the hop had when it began. Where that fails the plan, the hop is asked anew by a whole handshake: it may
    have been renewed, and the rules with it (a TLSA record, a pin).
    """
    means = _Means(tls, timeouts, reached)
    opened = await _open(target, context, means)
    if isinstance(opened, Trouble) or opened.evidence is None or not opened.evidence.resumed:
        return opened
    if _may_resume(target.plan, opened.evidence):
        return opened
    opened.leave()
    return await _open(target, context, replace(means, resumes=False))


@dataclass(frozen=True, slots=True)
class _Means:
    """What a connection is made with. `resumes`: by an earlier session, where there is one."""

    tls: ClientTls
    timeouts: Timeouts
    reached: Reached
    resumes: bool = True


async def _open(target: Target, context: ssl.SSLContext, means: _Means) -> Connection | Trouble:
    client = await _reach(target, means.timeouts, means.reached)
    if isinstance(client, Trouble):
        return client
    step = after_ehlo(target.plan, starttls_offered=client.offer.starttls)
    if step is Step.START_TLS:
        return await _secure(target, client, context, means)
    if step is Step.SEND_IN_CLEAR:
        return Connection(target, client, None, None)
    session = Session(SessionEnd.NOT_OFFERED, client.source)
    client.leave()
    return _not_offered(target, session)


async def open_in_clear(target: Target, timeouts: Timeouts) -> Connection | Trouble:
    """A new connection without TLS, after TLS broke on another. Raises ValueError where the plan does not allow that."""
    if after_broken_tls(target.plan) is not Step.SEND_IN_CLEAR:
        raise ValueError("the plan does not allow clear text")
    client = await _reach(target, timeouts)
    if isinstance(client, Trouble):
        return client
    connection = Connection(target, client, None, None)
    connection.reusable = False  # the next message tries TLS first again
    return connection


async def _reach(target: Target, timeouts: Timeouts, reached: Reached = _nobody) -> Client | Trouble:
    """Connection, greeting, EHLO."""
    opening = target.opening
    # By PROXY the hop sees the client's address, and by EHLO the name that goes with it.
    helo = spoken_helo(target.client, target.helo) if opening else target.helo
    client = Client(target.endpoint, helo=helo, source=target.source, timeouts=timeouts, opening=opening)
    client.reached = partial(reached, Stage.CONNECTED)
    try:
        await client.connect()
    except SMTPException:
        client.wire.cut()
        return Trouble(outcomes.before_mail(client.wire.last, "the greeting"))
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else words(error)
        return Trouble(outcomes.no_connection(str(target.endpoint), reason))
    reached(Stage.GREETED)
    try:
        await _greet(client, target.plan)
    except SMTPException:
        client.leave()
        return Trouble(outcomes.before_mail(client.wire.last, "EHLO"))
    except BaseException:
        client.wire.cut()
        raise
    reached(Stage.EHLO)
    return client


async def _greet(client: Client, plan: TlsPlan) -> None:
    """EHLO; HELO where that is refused for good and the plan allows clear text, since HELO leads to no STARTTLS."""
    try:
        await client.ehlo()
    except SMTPHeloError as refusal:
        may_be_clear = after_ehlo(plan, starttls_offered=False) is Step.SEND_IN_CLEAR
        if refusal.code < 500 or not may_be_clear or not client.wire.is_sound:
            raise
        await client.helo()


async def _secure(target: Target, client: Client, context: ssl.SSLContext, means: _Means) -> Connection | Trouble:
    """STARTTLS, handshake, evidence, EHLO again."""
    tls, reached = means.tls, means.reached
    step, source = after_broken_tls(target.plan), client.source
    evidence: TlsEvidence | None = None
    bare = target.on_behalf_of(None)  # a TLS session is the hop's, whoever the mail is from
    try:
        used = tls.resuming(bare, context) if means.resumes else context
        ssl_object = await client.secure(used, target.server_name)
        evidence = tls.evidence(ssl_object, target.plan)
        reached(Stage.TLS)
        evidence = await tls.with_revocation(evidence, target.plan)
        await client.ehlo()
        reached(Stage.EHLO_INSIDE)
        if _may_resume(target.plan, evidence):
            tls.keep(bare, context, ssl_object)
    except SMTPException as error:
        refused = isinstance(error, SMTPResponseException)
        client.leave() if refused else client.wire.cut()
        if evidence is None:
            return _broken(outcomes.refused_starttls(client.wire.last), step, source)
        outcome = _after_handshake(client)
        if outcome.failure is None:
            return Trouble(outcome, evidence, session=Session(SessionEnd.SECURED, source))
        return Trouble(outcome, evidence, step, Session(SessionEnd.BROKEN, source, outcome.text))
    except (ssl.SSLError, OSError) as error:
        client.wire.cut()
        late = isinstance(error, ConnectionAbortedError | TimeoutError)
        text = f"the TLS handshake failed: {'no end in time' if late else words(error)}"
        return _broken(outcomes.broken_tls(text), step, source)
    except BaseException:
        client.wire.cut()
        raise
    return Connection(target, client, evidence, context)


def _may_resume(plan: TlsPlan, evidence: TlsEvidence) -> bool:
    """Where all is well. A resumed session shows the old certificate and brings no staple: where the certificate fails the plan, or nobody
    knows whether it is revoked, the next handshake is to be a whole one, as the hop may have another by then."""
    known = all(each.state is State.GOOD for statuses in evidence.revocation.values() for each in statuses)
    return known and isinstance(judge(plan, evidence, requiretls_offered=True), Satisfied)


def _broken(outcome: Deferred, step: Step, source: str) -> Trouble:
    return Trouble(outcome, step=step, session=Session(SessionEnd.BROKEN, source, outcome.text))


def _after_handshake(client: Client) -> Deferred:
    """EHLO inside TLS came to nothing. With TLS 1.3 our side of the handshake is over before the hop has judged our certificate, or
    its absence: a hop that cuts without close_notify has refused the handshake."""
    last, tls = client.wire.last, client.wire.ssl_object
    if (
        isinstance(last, Broken)
        and last.kind is Break.LOST
        and isinstance(tls, TlsConnection)
        and not tls.closed_by_peer
    ):
        return outcomes.broken_tls("the hop hung up right after the TLS handshake; it may want a client certificate")
    return outcomes.before_mail(last, "EHLO inside TLS")


def _not_offered(target: Target, session: Session) -> Trouble:
    verdict = judge(target.plan, None)
    if isinstance(verdict, Failed) and verdict.failure is TlsFailure.REQUIRETLS_NOT_SUPPORTED:
        return Trouble(
            outcomes.of_verdict(replace(verdict, text=f"{target.hop} does not offer STARTTLS")), session=session
        )
    source = verdict.source if isinstance(verdict, Failed) else "default"
    return Trouble(
        Deferred(
            451,
            "4.7.4",
            f"{target.hop} does not offer STARTTLS, and TLS is required (asked by {source})",
            TlsFailure.STARTTLS_NOT_SUPPORTED,
        ),
        session=session,
    )


async def _log_in(client: Client, auth: RouteAuth, evidence: TlsEvidence | None, offer: Offer) -> Trouble | None:
    """AUTH PLAIN or LOGIN, only inside TLS. What the hop says is not passed on: it might hold the password."""
    if evidence is None:
        text = "the smart host wants a password and the connection is in clear: it is not sent"
        return Trouble(Deferred(451, "4.7.11", text))
    if not offer.auth & {"plain", "login"}:
        return Trouble(Deferred(451, "4.7.0", "the smart host offers neither AUTH PLAIN nor AUTH LOGIN"), evidence)
    log_in = client.auth_plain if "plain" in offer.auth else client.auth_login
    try:
        await log_in(auth.user, auth.password.reveal())
    except SMTPAuthenticationError as error:
        status = client.wire.last.status if isinstance(client.wire.last, Reply) else ""
        text = f"the smart host refuses our user name or password: {error.code} {status}".rstrip()
        return Trouble(Deferred(error.code if 400 <= error.code < 500 else 451, "4.7.8", text), evidence)
    except SMTPException:
        return Trouble(outcomes.before_mail(client.wire.last, "AUTH"), evidence)
    return None


def _offer(client: Client, evidence: TlsEvidence | None) -> Offer:
    offer = client.offer if client.supports_esmtp else NOTHING
    # RFC 8689 section 2: in clear REQUIRETLS means nothing, whoever offers it.
    return replace(offer, requiretls=offer.requiretls and evidence is not None)


def _until(plan: TlsPlan, evidence: TlsEvidence | None) -> datetime | None:
    """The first moment at which the verdict would be another; None where there is none."""
    ends = [plan.until] if plan.until is not None else []
    if evidence is not None:
        paths = (evidence.paths.get(trust) for trust in (*plan.trusts, *(each.trust for each in plan.tlsa)))
        ends.extend(path.until for path in paths if isinstance(path, Trusted))
        ends.extend(end + SKEW for each in evidence.revocation.values() if (end := ends_of(each)) is not None)
    return min(ends, default=None)
