"""The mailbox for TLS reports about us: what comes in is read, kept and told, or thrown away; either way it is delivered, never bounced.

Threat: the address is public, and anybody may write to it. One mail is read at a time, in a thread, within the limits of `reading`; a report
counts only with a valid DKIM signature of its sender (RFC 8460 section 3), unless the configuration says otherwise. No answer ever goes
out, so there is no loop and no backscatter. Only what a retry can mend (our store, a DNS failure, a crowd) makes a mail wait.
Mail for the people of the same domain waits in the same lane: so few are taken in at a time, and keys are looked up for seconds only.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.dns.answers import TxtAnswer
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.mail.events import Emit, TlsReportIgnored, TlsReportReceived
from relay.mail.outcome import Deferred, Delivered
from relay.policy.route import LookupFailed
from relay.report.text import ascii_line
from relay.report.tlsrpt.dkim import Parsed, Signature, parse, signatures, verify
from relay.report.tlsrpt.ledger import Ledger
from relay.report.tlsrpt.reading import MAIL_LIMIT, Mailed, NotAReportError, read, report_in
from relay.smtp.from_field import read_from

_PATIENCE = timedelta(hours=24)  # for a key that cannot be looked up
_KEYS = 10.0  # seconds for all keys of one mail: who signs it chooses whose name servers are asked
_CROWD = 4  # mails in here; the others come again
_CROWDED = Deferred(451, "4.3.2", "other reports are being read")
_TAKEN = Delivered(250, "2.0.0", "taken in as a TLS report")


class _KeyUnknownError(Exception):
    """The look-up of a signature's key failed; str() says how."""


@dataclass(frozen=True, slots=True)
class Terms:
    """By the configuration in force. `must_be_signed`: others are ignored."""

    must_be_signed: bool


class Mailbox:
    def __init__(
        self,
        ledger: Ledger,
        txt: Callable[[str], Awaitable[TxtAnswer]],
        *,
        terms: Callable[[], Terms],
        clock: Callable[[], datetime],
        emit: Emit,
    ) -> None:
        self._ledger, self._txt, self._terms = ledger, txt, terms
        self._clock, self._emit = clock, emit
        self._turn = asyncio.Lock()
        self._inside = 0

    async def take(self, message: Message, body: MessageBytes) -> Delivered | Deferred:
        """What became of the mail. Raises what reading `body` and the store raise."""
        if self._inside >= _CROWD:
            return _CROWDED
        self._inside += 1
        try:
            async with self._turn:
                return await self._take(message, body)
        except NotAReportError as error:
            sender = str(message.envelope.sender) or "<>"
            self._emit(TlsReportIgnored(message.id, sender, str(error)))
            return Delivered(250, "2.0.0", f"taken, and thrown away: {error}")
        except _KeyUnknownError as error:
            return Deferred(451, "4.7.5", str(error))
        finally:
            self._inside -= 1

    async def _take(self, message: Message, body: MessageBytes) -> Delivered:
        if message.size > MAIL_LIMIT:
            raise NotAReportError(f"the mail is larger than {MAIL_LIMIT // 2**20} MiB")
        mail = b"".join([chunk async for chunk in body.chunks()])
        parsed = await asyncio.to_thread(parse, mail)
        if parsed is None:
            raise NotAReportError("the mail has no header")
        signer = await self._signer(message, parsed)
        text = await asyncio.to_thread(report_in, mail)
        report = await asyncio.to_thread(read, text, Mailed(self._clock(), _submitter(parsed), signer))
        if not await self._ledger.take(report):
            raise NotAReportError(f"the report {report.report_id} of {report.organization} is here already")
        self._emit(TlsReportReceived(message.id, report))
        return _TAKEN

    async def _signer(self, message: Message, parsed: Parsed) -> str:
        """The domain that signed it, in the name of the From field. Raises NotAReportError where there must be one and is none."""
        if not self._terms().must_be_signed:
            return ""
        senders = parsed.values(b"from")
        sender = read_from(senders[0]).domain if len(senders) == 1 else ""
        if not sender:
            raise NotAReportError("its From field names no sender")
        reason = "it has no DKIM signature"
        until = asyncio.get_running_loop().time() + _KEYS
        for signature in signatures(parsed):
            if not _stands_for(signature.domain, sender):
                reason = f"its signature is {signature.domain}'s, not {sender}'s"
                continue
            reason = await self._check(message, parsed, signature, until)
            if not reason:
                return signature.domain
        raise NotAReportError(f"it is not validly signed: {reason}")

    async def _check(self, message: Message, parsed: Parsed, signature: Signature, until: float) -> str:
        try:
            async with asyncio.timeout_at(until):
                answer = await self._txt(signature.key_name)
        except TimeoutError:
            answer = LookupFailed("no answer in time")
        if isinstance(answer, LookupFailed):
            text = f"the look-up of the DKIM key {signature.key_name} failed: {answer.text}"
            if self._clock() - message.accepted.at < _PATIENCE:
                raise _KeyUnknownError(text)
            return text
        return await asyncio.to_thread(verify, signature, parsed, answer.texts, self._clock())


def _stands_for(signer: str, sender: str) -> bool:
    """A domain signs for itself and for what is below it. Not for what is above: a customer's subdomain is not the provider."""
    return signer == sender or sender.endswith(f".{signer}")


def _submitter(parsed: Parsed) -> str:
    """RFC 8460 section 5.3: what the header says; the report itself counts where they differ (section 5.6)."""
    told = parsed.values(b"tls-report-submitter")
    return ascii_line(told[0][:253].decode("ascii", "replace")) if told else ""
