"""What the answers of the mail server inside mean for a recipient."""

from datetime import timedelta

import pytest

from relay.config.models import Callout, OnFailure
from relay.mail.reply import Reply
from relay.policy.callout import NO_SUCH, NOT_NOW, Answer, Heard, Known, needs_postmaster, read, reply_to, seconds

OK = Reply(250, "2.1.5", "ok")
NOT_ASKED = "it was not asked"

TABLE: list[tuple[Heard, Heard, Heard, Known, bool]] = [
    (OK, OK, NOT_ASKED, Known.EXISTS, True),
    (OK, Reply(251, "2.1.5", "forwarded"), NOT_ASKED, Known.EXISTS, True),
    (OK, Reply(550, "5.1.1", "no such user"), NOT_ASKED, Known.MISSING, True),
    (OK, Reply(550, "5.1.10", "recipient not found"), NOT_ASKED, Known.MISSING, True),
    (OK, Reply(550, "5.1.7", "bad sender address syntax"), Reply(550, "5.1.7", "bad sender"), Known.UNKNOWN, False),
    (OK, Reply(550, "5.1.8", "bad sender's system"), Reply(550, "5.1.8", "bad sender"), Known.UNKNOWN, False),
    (OK, Reply(550, "5.1.8", "not this one"), OK, Known.MISSING, True),
    (OK, Reply(552, "5.2.2", "mailbox full"), NOT_ASKED, Known.EXISTS, True),
    (OK, Reply(450, "4.2.0", "greylisted"), NOT_ASKED, Known.UNKNOWN, True),
    (OK, Reply(421, "4.3.2", "going down"), NOT_ASKED, Known.UNKNOWN, False),
    # Not clearly about the recipient: postmaster tells.
    (OK, Reply(550, "", "unknown user"), OK, Known.MISSING, True),
    (OK, Reply(550, "5.4.1", "access denied"), OK, Known.MISSING, True),
    (OK, Reply(554, "5.7.1", "relay access denied"), Reply(554, "5.7.1", "relay access denied"), Known.UNKNOWN, False),
    (OK, Reply(554, "5.7.1", "denied"), "the connection was lost", Known.UNKNOWN, False),
    (OK, Reply(550, "", "what"), Reply(450, "4.3.0", "later"), Known.UNKNOWN, False),
    # Nobody answered about the recipient.
    (OK, "no answer in time", NOT_ASKED, Known.UNKNOWN, False),
    (Reply(550, "5.7.1", "no bounces here"), NOT_ASKED, NOT_ASKED, Known.UNKNOWN, False),
    (Reply(451, "4.3.0", "later"), NOT_ASKED, NOT_ASKED, Known.UNKNOWN, False),
    ("the connection was lost", NOT_ASKED, NOT_ASKED, Known.UNKNOWN, False),
]


@pytest.mark.parametrize(("mail", "recipient", "postmaster", "known", "reached"), TABLE)
def test_what_was_heard(mail: Heard, recipient: Heard, postmaster: Heard, known: Known, reached: bool) -> None:
    found = read(mail, recipient, postmaster)
    assert (found.known, found.reached) == (known, reached)
    heard = isinstance(recipient, Reply) and recipient.code >= 500
    assert needs_postmaster(recipient) is (heard and postmaster != NOT_ASKED)


@pytest.mark.parametrize(
    ("known", "on_failure", "expected"),
    [
        (Known.EXISTS, OnFailure.DEFER, None),
        (Known.EXISTS, OnFailure.ACCEPT, None),
        (Known.MISSING, OnFailure.DEFER, NO_SUCH),
        (Known.MISSING, OnFailure.ACCEPT, NO_SUCH),
        (Known.UNKNOWN, OnFailure.DEFER, NOT_NOW),
        (Known.UNKNOWN, OnFailure.ACCEPT, None),
    ],
)
def test_what_the_client_hears(known: Known, on_failure: OnFailure, expected: Reply | None) -> None:
    """Never what the server inside said."""
    assert reply_to(Answer(known, "550 secret.internal"), Callout(on_failure=on_failure)) == expected


def test_for_how_long_an_answer_is_good() -> None:
    terms = Callout(positive=timedelta(hours=2), negative=timedelta(minutes=3))
    assert [seconds(Answer(each), terms) for each in (Known.EXISTS, Known.MISSING, Known.UNKNOWN)] == [7200, 180, 0]
