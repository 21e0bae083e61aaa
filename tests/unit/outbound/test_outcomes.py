"""What answers mean, as a table."""

import pytest

from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.reply import Reply
from relay.mail.tls import TlsFailure
from relay.outbound import outcomes
from relay.outbound.client import UNASKED, Transcript
from relay.outbound.wire import Answer, Break, Broken
from relay.policy.verdict import Failed

OK = Reply(250, "2.1.0", "ok")
LATER, NEVER = Reply(450, "4.2.1", "later"), Reply(550, "", "never")
FULL, MANY, MANY_552 = Reply(452, "", "full"), Reply(452, "4.5.3", "too many"), Reply(552, "", "too many")
MAILBOX_FULL = Reply(552, "5.2.2", "mailbox full")
DISK_FULL = Reply(452, "4.3.1", "disk full")
LOST = Broken(Break.LOST, "reset")

DELIVERED = Delivered(250, "2.1.0", "ok", dsn=True)
DEFERRED = Deferred(450, "4.2.1", "later")
BOUNCED = Bounced(550, "5.0.0", "never")


def lost(after: str) -> Deferred:
    return Deferred(451, "4.4.2", f"after {after}: the connection was lost (reset)")


@pytest.mark.parametrize(
    ("mail", "recipients", "content", "expected", "again"),
    [
        (OK, [OK, OK], OK, [DELIVERED, DELIVERED], []),
        (OK, [OK, LATER, NEVER], OK, [DELIVERED, DEFERRED, BOUNCED], []),
        (OK, [OK, NEVER], LATER, [DEFERRED, BOUNCED], []),
        (OK, [OK, LATER], NEVER, [BOUNCED, DEFERRED], []),
        (OK, [OK, LATER], LOST, [lost("the message"), DEFERRED], []),
        (OK, [OK, LOST], LOST, [lost("the message"), lost("RCPT")], []),
        (LATER, [NEVER, NEVER], UNASKED, [DEFERRED, DEFERRED], []),
        (NEVER, [OK, OK], OK, [BOUNCED, BOUNCED], []),
        (LOST, [LOST], LOST, [lost("MAIL")], []),
        (OK, [OK, MANY, FULL, MANY_552], OK, [DELIVERED, None, None, None], [1, 2, 3]),
        (OK, [MANY, FULL], UNASKED, [Deferred(452, "4.5.3", "too many"), Deferred(452, "4.0.0", "full")], []),
        (OK, [OK, MAILBOX_FULL], OK, [DELIVERED, Bounced(552, "5.2.2", "mailbox full")], []),
        (OK, [OK, DISK_FULL], OK, [DELIVERED, Deferred(452, "4.3.1", "disk full")], []),
    ],
)
def test_settle(
    mail: Answer, recipients: list[Answer], content: Answer, expected: list[Outcome | None], again: list[int]
) -> None:
    transcript = Transcript(mail, tuple(recipients), content, usable=True)
    settled = outcomes.settle(range(len(recipients)), transcript, dsn=True)
    assert settled.outcomes == {index: each for index, each in enumerate(expected) if each is not None}
    assert settled.again == again


def test_texts_of_hops_are_bounded_and_on_one_line() -> None:
    outcome = outcomes.of_answer(Reply(550, "5.0.0", "a\nb" + "x" * 5000), "RCPT", dsn=False)
    assert outcome.text.startswith("a bxxx")
    assert len(outcome.text) == 1000


@pytest.mark.parametrize(
    ("answer", "status", "failure"),
    [
        (Reply(454, "4.7.0", "no"), "4.7.5", TlsFailure.HANDSHAKE_FAILED),
        (Reply(554, "5.7.0", "no"), "4.7.5", TlsFailure.HANDSHAKE_FAILED),
        (LOST, "4.7.5", TlsFailure.HANDSHAKE_FAILED),
    ],
)
def test_starttls_offered_and_not_done(answer: Answer, status: str, failure: TlsFailure) -> None:
    outcome = outcomes.refused_starttls(answer)
    assert (outcome.status, outcome.failure, outcome.code // 100) == (status, failure, 4)


def test_tls_that_breaks_later_is_a_tls_failure_too() -> None:
    outcome = outcomes.of_answer(Broken(Break.TLS, "bad record mac"), "MAIL", dsn=False)
    assert isinstance(outcome, Deferred)
    assert outcome.failure is TlsFailure.HANDSHAKE_FAILED


@pytest.mark.parametrize(
    ("failure", "source", "status"),
    [
        (TlsFailure.STARTTLS_NOT_SUPPORTED, "connector c", "4.7.4"),
        (TlsFailure.PIN_MISMATCH, "connector c", "4.7.5"),
        (TlsFailure.REQUIRETLS_NOT_SUPPORTED, "requiretls", "4.7.30"),
        (TlsFailure.CERTIFICATE_EXPIRED, "requiretls", "4.7.30"),
        (TlsFailure.VALIDATION_FAILURE, "requiretls", "4.7.5"),
        (TlsFailure.CERTIFICATE_EXPIRED, "dane", "4.7.5"),
    ],
)
def test_a_verdict_says_who_asked(failure: TlsFailure, source: str, status: str) -> None:
    outcome = outcomes.of_verdict(Failed(failure, source, "why"))
    assert outcome == Deferred(451, status, f"why (asked by {source})", failure)
