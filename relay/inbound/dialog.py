"""What one session says about mail: every event of the machine that asks for an answer gets it here.

`relay.policy` decides, the intake keeps the bytes; this asks them, at the right moment, and tells the log what was refused. Bytes on the
wire, TLS and time limits are `relay.inbound.session`'s.

No exception's text reaches the peer: an error of ours is 451 4.3.0 with an id that stands in the log beside the traceback.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from relay.clients.verifier import Denied
from relay.inbound.client import Client
from relay.inbound.passwords import Account
from relay.inbound.port import Port, Terms
from relay.inbound.transaction import Arrival, Transaction
from relay.mail.events import CertificateTrouble, CommandRefused, LoginFailed
from relay.mail.reply import Reply
from relay.policy.admission import Admitted, Refused
from relay.policy.callout import GUESSING, Answer, Known, reply_to
from relay.policy.recipients import Accepting, Asking
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
from relay.smtp.session import ServerSession

WRONG_LOGIN = Reply(535, "5.7.8", "wrong user or password")
LOGIN_BUSY = Reply(454, "4.7.0", "too many logins at the moment: try again later")
LOGIN_BLOCKED = Reply(454, "4.7.0", "too many failed logins from your address: try again later")
LOGIN_NEEDED = Reply(530, "5.7.0", "authentication required")
ACCOUNT_CHANGED = Reply(421, "4.7.0", "the account has changed: connect and log in again")

UNEXPECTED = "unexpected error"

Pause = StartTls | Close


class Dialog:
    """One session's conversation. `transaction` is None between messages. `draining`: the store is behind, read no more for now."""

    __slots__ = (
        "_account",
        "_broken",
        "_held",
        "_key",
        "_port",
        "_resume",
        "client",
        "draining",
        "machine",
        "transaction",
    )

    def __init__(self, port: Port, terms: Terms, client: Client, resume: Callable[[], None]) -> None:
        """`resume` is called when an answer that took its time has been given."""
        self.machine = ServerSession(terms.settings(client.address))
        self.client = client
        self.transaction: Transaction | None = None
        self.draining = False
        self._port, self._resume = port, resume
        self._account: Account | None = None
        self._broken = False
        self._held: DataEnds | None = None  # the message is complete, but the store is behind

    @property
    def busy(self) -> bool:
        """In the middle of something that should end before the session is closed."""
        return self.transaction is not None or self.machine.waiting

    @property
    def committing(self) -> bool:
        return self.transaction is not None and self.transaction.committing

    def advance(self) -> Pause | None:
        """Works on what came in. StartTls and Close are the caller's; None: more input or an answer is needed."""
        machine = self.machine
        while True:
            try:
                event: Any = machine.next_event()
                handler = _HANDLERS.get(type(event))
                if handler is None:
                    pause: Pause | None = event
                    return pause
                handler(self, event)
            except Exception as error:  # noqa: BLE001 - a bug must cost one command or one session, never the listener
                if self._broken:
                    return Close(UNEXPECTED)
                self._unexpected(error)

    def drop(self) -> None:
        """What came since MAIL is thrown away, unless it is being committed."""
        self._held = None
        if self.transaction is not None:
            self.transaction.abort()
            self._close(self.transaction)

    def _close(self, transaction: Transaction) -> None:
        transaction.close()
        self.transaction = None

    # The events ------------------------------------------------------------------------------------------------------

    def _login(self, event: Login) -> None:
        self._port.floor.spawn(self._log_in(event))

    async def _log_in(self, event: Login) -> None:
        authenticator = self._port.floor.authenticator
        result: Account | Denied = Denied.BUSY
        reply: Reply | None = None
        try:
            if authenticator is not None:
                result = await authenticator.login(event.user, event.password, self.client.key)
        except Exception as error:  # noqa: BLE001 - as in `advance`: 451 and a line in the log
            reply = self._reply_to(error, "AUTH")
        if isinstance(result, Account):
            self._account = result
            self._later(self.machine.proceed)
            return
        if result is Denied.WRONG:
            self._port.floor.services.emit(LoginFailed(self._port.name, self.client.text, event.user))
        self._later(lambda: self._refuse("AUTH", reply or _LOGIN_REPLIES[result]))

    def _mail(self, event: MailFrom) -> None:
        services = self._port.floor.services
        if services.book().asks_revocation and not self._port.is_submission:
            paths = self.client.unchecked(services.means(), event.sender.domain)
            if paths:
                self._port.floor.spawn(self._find_out(paths, lambda: self._judge_mail(event)))
                return
        self._judge_mail(event)

    async def _find_out(self, paths: Sequence[Sequence[bytes]], go_on: Callable[[], None]) -> None:
        """Whether certificates of the paths are revoked. It takes seconds at most, and who goes on finds the answer at hand.

        Where it is not, nothing is decided: 451.
        """
        revocations = self._port.floor.services.revocations
        try:
            await asyncio.gather(*(revocations.check(path) for path in paths))
        except Exception as error:  # noqa: BLE001 - as in `advance`; nothing was found out then
            self._port.floor.unexpected(error, "revocation")
        self._later(go_on)

    def _judge_mail(self, event: MailFrom) -> None:
        means = self._port.floor.services.means()
        book = means.book
        is_user = self._port.is_submission
        admission = self._admit_user(event) if is_user else self.client.admit(means, event.sender.domain)
        if isinstance(admission, Refused):
            self._tell_undecided(admission)
            self._refuse("MAIL", admission.reply, admission.connector, sender=str(event.sender))
            return
        user = "" if self._account is None else self._account.user
        self.transaction = Transaction(book, event.sender, admission, user, self._port.floor.room)
        self.machine.proceed()

    def _admit_user(self, event: MailFrom) -> Admitted | Refused:
        """RFC 6409 section 6.1: who may send as whom. The file is asked each time: an account that is gone is gone at once."""
        authenticator, account = self._port.floor.authenticator, self._account
        if authenticator is None or account is None or not self.machine.user:
            return Refused(LOGIN_NEEDED, "")
        current = authenticator.account(account.user)
        if current is None or current.hash != account.hash:
            return Refused(ACCOUNT_CHANGED, "")
        if not current.senders.allow(event.sender):
            return Refused(Reply(553, "5.7.1", f"{account.user} may not send as <{event.sender}>"), "")
        return Admitted("", may_relay=True)

    def _rcpt(self, event: RcptTo) -> None:
        judged = self._open.judge_recipient(event.recipient)
        if not isinstance(judged, Asking):
            self._answer_rcpt(event, judged)
            return
        callouts = self._port.floor.callouts
        known = callouts.held(judged.address, judged.callout)
        if known is not None and known.known is Known.EXISTS:
            self._answer_rcpt(event, Accepting(judged.address))
        elif self._open.is_of_stranger and callouts.is_guessing(self.client.key):
            # A large provider has its share of old addresses: whom we know to exist is not kept from it.
            self._answer_rcpt(event, GUESSING)
        elif known is not None:
            self._answer_rcpt(event, self._heard(judged, known))
        else:
            self._port.floor.spawn(self._ask(self._open, event, judged))

    async def _ask(self, transaction: Transaction, event: RcptTo, asking: Asking) -> None:
        """The machine waits meanwhile, so pipelined commands are answered in order."""
        judged: Accepting | Reply
        try:
            answer = await self._port.floor.callouts.answer(asking.address, asking.callout)
            judged = self._heard(asking, answer)
        except Exception as error:  # noqa: BLE001 - as in `advance`
            judged = self._reply_to(error, "RCPT")
        if self.transaction is transaction:  # else the client has gone
            self._later(lambda: self._answer_rcpt(event, judged))

    def _heard(self, asking: Asking, answer: Answer) -> Accepting | Reply:
        if answer.known is Known.MISSING and self._open.is_of_stranger:
            self._port.floor.callouts.guessed(self.client.key)
        return reply_to(answer, asking.callout) or Accepting(asking.address)

    def _answer_rcpt(self, event: RcptTo, judged: Accepting | Reply) -> None:
        found = judged if isinstance(judged, Reply) else self._open.enter(event.recipient, judged.address)
        if isinstance(found, Reply):
            self._refuse("RCPT", found, recipient=str(event.recipient.address))
        else:
            self.machine.accept_recipient(found)

    def _data_begins(self, event: DataBegins) -> None:
        try:
            self._open.begin(self._port.floor.services)
        except Exception as error:  # noqa: BLE001 - as in `advance`; mostly the store, which has a reply of its own
            self._refuse("DATA", self._reply_to(error, "DATA"))
            return
        self.machine.proceed()

    def _data_chunk(self, event: DataChunk) -> None:
        transaction = self._open
        try:
            transaction.write(event.data)
        except Exception as error:  # noqa: BLE001 - the rest of the message is read past, its end gets the 451
            transaction.fail(self._reply_to(error, "DATA"))
        if transaction.full and not self.draining:
            self.draining = True
            self._port.floor.spawn(self._drain(transaction))

    async def _drain(self, transaction: Transaction) -> None:
        try:
            await transaction.drain()
        except Exception as error:  # noqa: BLE001 - as in `_data_chunk`
            transaction.fail(self._reply_to(error, "DATA"))
        self.draining = False
        held, self._held = self._held, None
        if held is not None:
            self._later(lambda: self._data_ends(held))
        else:
            self._resume()

    def _data_ends(self, event: DataEnds) -> None:
        if self.draining:
            self._held = event
            return
        transaction = self._open
        paths = transaction.unchecked(self._port.floor.services, self.client)
        if not paths:
            self._judge_message(transaction, event)
            return
        self._port.floor.spawn(self._find_out(paths, lambda: self._judge_message(transaction, event)))

    def _judge_message(self, transaction: Transaction, event: DataEnds) -> None:
        if self.transaction is not transaction:
            return  # the session ended meanwhile
        refused = transaction.judge(self._port.floor.services, self.client, event.envelope)
        if refused is not None:
            transaction.abort()
            self._tell_undecided(refused)
            self._refuse("DATA", refused.reply, refused.connector)
            self._close(transaction)
            return
        machine = self.machine
        arrival = Arrival(machine.helo, self._port.name, machine.protocol)
        transaction.committing = True  # from here on, a client that goes away takes nothing with it
        self._port.floor.spawn(self._commit(transaction, event, arrival))

    async def _commit(self, transaction: Transaction, event: DataEnds, arrival: Arrival) -> None:
        try:
            reply = await transaction.commit(self._port.floor.services, self.client, event, arrival)
        except Exception as error:  # noqa: BLE001 - as in `advance`
            reply = self._reply_to(error, "DATA")
        self._close(transaction)
        if reply.is_positive:
            self._later(lambda: self.machine.answer(reply))
        else:
            self._later(lambda: self._refuse("DATA", reply, sender=str(transaction.sender)))

    def _transaction_ends(self, event: TransactionEnds) -> None:
        self.drop()

    def _said(self, event: Said) -> None:
        self._tell(event.command, event.reply)

    # Answers ---------------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> Transaction:
        if self.transaction is None:
            raise RuntimeError("no transaction is open")
        return self.transaction

    def _later(self, answer: Callable[[], None]) -> None:
        """Gives an answer from a task. The session may have ended meanwhile: then nobody hears it."""
        try:
            answer()
        except Exception as error:  # noqa: BLE001 - as in `advance`
            self._unexpected(error)
        self._resume()

    def _refuse(
        self, command: str, reply: Reply, connector: str = "", *, sender: str = "", recipient: str = ""
    ) -> None:
        self._tell(command, reply, connector, sender=sender, recipient=recipient)
        self.machine.answer(reply)

    def _tell(self, command: str, reply: Reply, connector: str = "", *, sender: str = "", recipient: str = "") -> None:
        if not sender and self.transaction is not None:
            sender = str(self.transaction.sender)
        port = self._port
        port.floor.services.emit(
            CommandRefused(port.name, self.client.text, command, reply, sender, recipient, connector)
        )

    def _tell_undecided(self, refused: Refused) -> None:
        """The peer hears only that we cannot judge it now; which file of ours is in trouble, and why, is for the admin."""
        for finding in refused.findings:
            for requirement in finding.failed:
                if requirement.undecided:
                    self._port.floor.services.emit(CertificateTrouble(finding.connector.name, requirement.found))

    def _reply_to(self, error: Exception, where: str) -> Reply:
        """An exception with a reply of its own is an answer (the store cannot take mail now); any other is a bug."""
        reply = getattr(error, "reply", None)
        if isinstance(reply, Reply):
            return reply
        reference = self._port.floor.unexpected(error, where)
        return Reply(451, "4.3.0", f"local error, try again later; our log has it as {reference}")

    def _unexpected(self, error: Exception) -> None:
        """Within a command: the command fails. Outside of one: the session ends."""
        reply = self._reply_to(error, "")
        if self.machine.waiting:
            self.machine.answer(reply)
            return
        self._broken = True
        self.machine.hang_up(Reply(421, reply.status, reply.text), UNEXPECTED)


_LOGIN_REPLIES = {Denied.WRONG: WRONG_LOGIN, Denied.BUSY: LOGIN_BUSY, Denied.BLOCKED: LOGIN_BLOCKED}

# StartTls and Close are not here: they are about the connection.
_HANDLERS: dict[type[SmtpEvent | None], Callable[[Dialog, Any], None]] = {
    Login: Dialog._login,
    MailFrom: Dialog._mail,
    RcptTo: Dialog._rcpt,
    DataBegins: Dialog._data_begins,
    DataChunk: Dialog._data_chunk,
    DataEnds: Dialog._data_ends,
    TransactionEnds: Dialog._transaction_ends,
    Said: Dialog._said,
}
