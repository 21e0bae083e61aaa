"""The part of a report that people read: what happened to the message, why, what was required, what was found (RFC 3464 section 2, first part).

Written for the person who sent a message, not for an admin. The technical details stand below, one block per recipient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from relay.mail.address import Address
from relay.mail.envelope import Recipient
from relay.mail.outcome import Delivered, Outcome, reason_given
from relay.mail.tls import TlsFailure
from relay.report.explanation import explanation
from relay.report.notify import Kind
from relay.report.text import CRLF, one_line, paragraph

SUBJECTS = {
    Kind.FAILURE: "Undeliverable: your message was not delivered",
    Kind.DELAY: "Delayed: your message has not been delivered yet",
    Kind.SUCCESS: "Passed on: your message left this mail system",
}

_OPENINGS = {
    Kind.FAILURE: "Your message could not be delivered to the recipients below, and it will not be tried again.",
    Kind.DELAY: "Your message could not be delivered to the recipients below yet. There is no need to send it again: "
    "it is being tried until {until}.",
    Kind.SUCCESS: "Your message was passed on to the mail servers of the recipients below. You asked to be told. These servers do not report "
    "deliveries, so this is the last that you hear of it unless something goes wrong there.",
}

# By the subject and detail of the enhanced status code (RFC 3463), the longest that fits.
_REASONS = {
    "1.1": "The address does not exist at {partner}.",
    "1.2": "The domain {partner} does not exist, or cannot be reached by mail.",
    "1.10": "The domain {partner} takes no mail.",
    "1": "{partner} does not know this address.",
    "2.2": "The mailbox is full.",
    "2": "The mailbox cannot take mail at this time.",
    "3.4": "The message is too large for {partner}.",
    "4.1": "The mail server of {partner} does not answer.",
    "4.3": "The mail servers of {partner} could not be found in DNS.",
    "4.6": "Mail for {partner} goes round in a circle.",
    "4.7": "The message could not be delivered in the time allowed.",
    "4": "The mail server of {partner} could not be reached.",
    "6": "{partner} cannot take the message in the form in which it was sent.",
    "7": "{partner} refuses the message by its rules.",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One recipient in a report. `said` is what the last hop said, None where none was tried; `outcome` is the result, perhaps our own word.

    `required` says in words what TLS its connector asks, "" where that is nothing. `until` is when we give up (for a delay).
    """

    recipient: Recipient
    outcome: Outcome
    said: Outcome | None
    hop: str
    at: datetime
    attempts: int
    until: datetime
    connector: str
    required: str = ""

    @property
    def partner(self) -> str:
        return self.recipient.address.domain

    @property
    def failure(self) -> TlsFailure | None:
        """The TLS failure behind it, whoever's word the outcome is."""
        found = (each.failure for each in (self.outcome, self.said) if each and not isinstance(each, Delivered))
        return next((each for each in found if each is not None), None)

    @property
    def is_our_finding(self) -> bool:
        """True where no server said it: a failed plan, or nobody that answered (RFC 3463 section 3.5)."""
        said = self.said or self.outcome
        unreachable = said.status[1:] in (".4.1", ".4.2", ".4.3", ".4.4")
        return self.said is None or not self.hop or unreachable or self.failure is not None


def human_part(hostname: str, postmaster: Address, kind: Kind, items: Sequence[Item], enclosed: str) -> str:
    """The text, CRLF. `enclosed` says in words what of the message is enclosed."""
    until = min(each.until for each in items)
    blocks = [
        paragraph(f"This is the mail system at {hostname}."),
        paragraph(_OPENINGS[kind].format(until=time_words(until))),
        *(_block(kind, each) for each in items),
        paragraph(f"{enclosed} If you need help, write to {one_line(str(postmaster))} and send this message along."),
    ]
    return CRLF.join(blocks)


def _block(kind: Kind, item: Item) -> str:
    lines = [paragraph(f"<{one_line(str(item.recipient.address))}>"), paragraph(_reason(kind, item), "    ")]
    if item.failure is not None:
        if item.required:
            lines.append(paragraph(f"Required: {item.required}", "    "))
        lines.append(paragraph(f"Found: {one_line((item.said or item.outcome).text)}", "    "))
        lines.append(paragraph("Nothing was sent without this protection.", "    "))
    reason = reason_given(item.outcome)
    if reason:
        lines.append(
            paragraph(f"The administrator of this mail system gave up on it and says: {one_line(reason)}", "    ")
        )
    lines.append(CRLF)
    lines.append(paragraph(f"Technical details: {_details(item)}", "    "))
    return "".join(lines)


def _reason(kind: Kind, item: Item) -> str:
    if kind is Kind.SUCCESS:
        return f"Passed on to the mail server of {item.partner}."
    if item.failure is not None:
        return explanation(item.failure, connector=item.connector, partner=item.partner)
    status = (item.said or item.outcome).status
    subject, _, detail = status[2:].partition(".")
    for key in (f"{subject}.{detail}", subject):
        if key in _REASONS:
            return _REASONS[key].format(partner=item.partner)
    if item.is_our_finding:
        return f"The message could not be passed on to {item.partner}."
    return f"The mail server of {item.partner} refused the message."


def _details(item: Item) -> str:
    said = item.said or item.outcome
    words = [said_words(said)]
    if item.hop:
        words.append(f"at {item.hop}")
    if item.said is not None and item.said != item.outcome:
        words.append(f"then {said_words(item.outcome)}")
    tries = f"{item.attempts} attempt{'' if item.attempts == 1 else 's'}"
    return ", ".join([*words, tries, f"last on {time_words(item.at)}"])


def said_words(said: Outcome) -> str:
    """A reply in one line: code, enhanced status code where there is one, text."""
    return one_line(f"{said.code} {said.status} {said.text}")


def time_words(moment: datetime) -> str:
    """For people; always UTC, and says so."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
