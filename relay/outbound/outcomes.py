"""What a hop's answers mean for the recipients (RFC 5321 section 4.2, RFC 3463). Values in, values out.

Like Postfix: 4xx to RCPT, DATA or the final dot defers a recipient, and another hop is asked; 5xx to MAIL or later bounces it at once.
Before MAIL even 5xx only defers (RFC 5321 section 3.1 lets a host refuse service): what a host thinks of us is not about the message.
After the final dot, silence is deferral too: the message may arrive twice, it is never lost (RFC 1047).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.reply import Reply
from relay.mail.tls import TlsFailure
from relay.outbound.client import Transcript, accepted
from relay.outbound.wire import Answer, Break, Broken
from relay.policy.requiretls import REFUSED, refuses
from relay.policy.verdict import Failed

_TEXT = 1000  # characters kept of what a hop says
_TOO_MANY = {452: ("", "4.5.3"), 552: ("", "5.5.3")}


def _status(reply: Reply) -> str:
    return reply.status or f"{reply.code // 100}.0.0"


def _said(reply: Reply) -> str:
    return reply.text.replace("\n", " ")[:_TEXT]


def unanswered(broken: Broken, after: str) -> Deferred:
    """No reply to the command `after`."""
    text = f"after {after}: {broken}"[:_TEXT]
    if broken.kind is Break.TLS:
        return broken_tls(text)
    return Deferred(451, "4.5.0" if broken.kind is Break.VIOLATION else "4.4.2", text)


def of_answer(answer: Answer, to: str, *, dsn: bool) -> Outcome:
    """The answer to MAIL, RCPT, DATA or the final dot, for one recipient."""
    if isinstance(answer, Broken):
        return unanswered(answer, to)
    status, text = _status(answer), _said(answer)
    if answer.code < 400:
        return Delivered(answer.code, status, text, dsn)
    if answer.is_transient:
        return Deferred(answer.code, status, text)
    return Bounced(answer.code, status, text, by_hop=True)


def before_mail(answer: Answer, to: str) -> Deferred:
    """The answer that ended a session before MAIL: the greeting, EHLO."""
    if isinstance(answer, Broken):
        return unanswered(answer, to)
    code = answer.code if answer.is_transient else 451
    return Deferred(code, f"4{_status(answer)[1:]}", f"{to}: {answer.code} {_status(answer)} {_said(answer)}")


def no_connection(address: str, reason: str) -> Deferred:
    return Deferred(451, "4.4.1", f"cannot connect to {address}: {reason}")


def broken_tls(text: str) -> Deferred:
    return Deferred(451, "4.7.5", text, TlsFailure.HANDSHAKE_FAILED)


def no_xclient(hop: str) -> Deferred:
    """`forward_client: xclient`, and a hop that does not take it from us."""
    remedy = (
        "let this relay use it (Postfix: smtpd_authorized_xclient_hosts), or take `forward_client` off the connector"
    )
    return Deferred(
        451, "4.7.0", f"{hop} does not offer us XCLIENT with ADDR, so it cannot be told who the client is: {remedy}"
    )


def refused_starttls(answer: Answer) -> Deferred:
    """STARTTLS was offered, and then not done."""
    if isinstance(answer, Broken):
        return broken_tls(f"after STARTTLS: {answer}")
    code = answer.code if answer.is_transient else 451
    return Deferred(
        code, "4.7.5", f"STARTTLS was offered and refused: {answer.code} {_said(answer)}", TlsFailure.HANDSHAKE_FAILED
    )


def of_verdict(failed: Failed) -> Deferred:
    """The plan does not hold on this connection (design section 8)."""
    status = "4.7.4" if failed.failure is TlsFailure.STARTTLS_NOT_SUPPORTED else "4.7.5"
    if refuses(failed):
        status = REFUSED
    return Deferred(451, status, f"{failed.text} (asked by {failed.source})", failed.failure)


@dataclass(slots=True)
class Settled:
    """`again` are recipients that the hop had no room for in this transaction (RFC 5321 section 4.5.3.1.10)."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)


def settle(indexes: Sequence[int], transcript: Transcript, *, dsn: bool) -> Settled:
    """`indexes` are the recipients of the transaction, in order."""
    settled = Settled()
    if not accepted(transcript.mail):
        outcome = of_answer(transcript.mail, "MAIL", dsn=dsn)
        settled.outcomes.update(dict.fromkeys(indexes, outcome))
        return settled
    some = any(accepted(answer) for answer in transcript.recipients)
    for index, answer in zip(indexes, transcript.recipients, strict=True):
        if accepted(answer):
            settled.outcomes[index] = of_answer(transcript.content, "the message", dsn=dsn)
        elif some and isinstance(answer, Reply) and answer.status in _TOO_MANY.get(answer.code, ()):
            settled.again.append(index)
        else:
            settled.outcomes[index] = of_answer(answer, "RCPT", dsn=dsn)
    return settled
