"""The machine's contract with its driver. What the peer sees is in tests/dialogs."""

from dataclasses import replace

import pytest

from relay.config.models import ListenerKind
from relay.mail.address import Address
from relay.mail.envelope import Body, Envelope, Notify, Recipient, Ret
from relay.mail.reply import Reply
from relay.smtp import replies
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
from relay.smtp.session import ServerSession, SessionSettings
from tests.unit.smtp.harness import DENIED, LATER, QUEUED, SETTINGS, Harness, start_message

SUBMISSIONS = replace(SETTINGS, kind=ListenerKind.SUBMISSIONS, tls_active=True)
TLS = replace(SETTINGS, tls_offered=True)
OPENING = b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n"


# mypy believes that a property which was False stays False; a function is asked anew.
def in_message(harness: Harness) -> bool:
    return harness.session.in_message


def waiting(harness: Harness) -> bool:
    return harness.session.waiting


def wants_pause(harness: Harness) -> bool:
    return harness.session.wants_pause


def closed(harness: Harness) -> str:
    return harness.closed


def last(harness: Harness) -> SmtpEvent:
    return harness.events[-1]


def kinds(harness: Harness) -> list[type[SmtpEvent]]:
    return [type(event) for event in harness.events]


def test_events_of_a_message() -> None:
    harness = Harness.greeted()
    harness.feed(b"EHLO c\r\nMAIL FROM:<a@example.org> BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x\r\n")
    harness.feed(b"RCPT TO:<b@example.com> NOTIFY=NEVER ORCPT=rfc822;c@example.com\r\nDATA\r\n")
    harness.feed(b"caf\xe9\r\n", b"more\r\n.", b"\r\nQUIT\r\n")
    recipient = Recipient(Address("b", "example.com"), frozenset({Notify.NEVER}), "rfc822;c@example.com")
    envelope = Envelope(Address("a", "example.org"), (recipient,), Body.EIGHT_BIT, True, Ret.FULL, "x")
    assert harness.events[1:3] == [RcptTo(recipient), DataBegins(envelope)]
    assert b"".join(event.data for event in harness.events if isinstance(event, DataChunk)) == b"caf\xe9\r\nmore\r\n"
    assert harness.events[-2:] == [DataEnds(envelope, 12, True), Close("quit")]
    assert TransactionEnds not in kinds(harness)


def test_no_event_passes_an_unanswered_one() -> None:
    harness = Harness.greeted(hold=(MailFrom, RcptTo, DataBegins, DataEnds))
    session = harness.session
    harness.feed(OPENING + b"RCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n")
    seen: list[type[SmtpEvent]] = []
    for _ in range(4):
        assert waiting(harness)
        assert session.next_event() is None
        seen.append(type(harness.events[-1]))
        session.proceed()
        harness.run()
    assert seen == [MailFrom, RcptTo, RcptTo, DataBegins]
    assert not waiting(harness)
    harness.feed(b"text\r\n.\r\nMAIL FROM:<next@example.org>\r\n")
    assert isinstance(last(harness), DataEnds)
    session.answer(QUEUED)
    harness.run()
    assert isinstance(last(harness), MailFrom)
    session.answer(Reply(550, "5.7.1", "no"))
    harness.run()
    assert harness.log.endswith(b"354 end data with <CR><LF>.<CR><LF>\r\n250 2.0.0 queued\r\n550 5.7.1 no\r\n")


def test_the_driver_chooses_replies_and_recipients() -> None:
    harness = Harness.greeted(hold=(MailFrom, RcptTo))
    session = harness.session
    harness.feed(OPENING)
    session.answer(Reply(250, "2.1.0", "welcome"))
    assert session.take_output() == b"250 2.1.0 welcome\r\n"
    harness.feed(b"RCPT TO:<postmaster>\r\n")
    chief = Recipient(Address("chief", "example.com"))
    session.accept_recipient(chief)
    harness.feed(b"RCPT TO:<b@example.com>\r\n")
    session.answer(Reply(251, "2.1.5", "will forward"))
    harness.feed(b"DATA\r\n.\r\n")
    assert harness.messages[0][0].recipients == (chief, Recipient(Address("b", "example.com")))
    assert b"251 2.1.5 will forward\r\n" in harness.log


@pytest.mark.parametrize("reply", [Reply(451, "4.3.0", "later"), Reply(550, "5.7.1", "no")])
def test_a_refused_recipient_is_not_in_the_envelope(reply: Reply) -> None:
    harness = Harness.greeted(hold=(RcptTo,))
    harness.feed(OPENING + b"RCPT TO:<b@example.com>\r\n")
    harness.session.answer(reply)
    assert harness.feed(b"DATA\r\n").endswith(b"554 5.5.1 no valid recipients\r\n")


def test_answers_that_nothing_asked_for_are_bugs() -> None:
    session = Harness.greeted().session
    recipient = Recipient(Address("b", "example.com"))
    for call in (
        session.proceed,
        session.tls_established,
        session.greet,
        lambda: session.answer(QUEUED),
        lambda: session.accept_recipient(recipient),
        lambda: session.refuse(replies.NOT_SMTP),
    ):
        with pytest.raises(RuntimeError):
            call()


def test_the_wrong_kind_of_answer_is_a_bug() -> None:
    harness = Harness.greeted(hold=(MailFrom, DataBegins, DataEnds))
    harness.feed(OPENING)
    with pytest.raises(RuntimeError):
        harness.session.accept_recipient(Recipient(Address("b", "example.com")))
    harness.session.proceed()
    harness.feed(b"RCPT TO:<b@example.com>\r\nDATA\r\n")
    with pytest.raises(RuntimeError):
        harness.session.answer(Reply(354, "", "go on"))
    harness.session.proceed()
    harness.feed(b".\r\n")
    with pytest.raises(RuntimeError):
        harness.session.proceed()
    harness.session.answer(QUEUED)
    assert harness.session.take_output().endswith(b"250 2.0.0 queued\r\n")


def test_answers_and_input_after_the_end_are_ignored() -> None:
    harness = Harness.greeted(hold=(DataEnds,))
    start_message(harness)
    harness.feed(b"DATA\r\ntext\r\n.\r\n")
    session = harness.session
    session.hang_up(Reply(421, "4.3.2", "shutting down"), "shutdown")
    session.answer(QUEUED)
    session.proceed()
    session.tls_established()
    session.greet()
    session.accept_recipient(Recipient(Address("b", "example.com")))
    session.hang_up(Reply(421, "4.3.2", "again"), "again")
    session.receive(b"NOOP\r\n")
    harness.run()
    assert harness.log.endswith(b"421 4.3.2 shutting down\r\n")
    # The message is the driver's already: nothing is thrown away.
    assert kinds(harness)[-2:] == [DataEnds, Close]
    assert session.next_event() is None
    assert not waiting(harness)


@pytest.mark.parametrize(
    "until",
    [
        b"",
        b"RCPT TO:<b@example.com>\r\n",
        b"RCPT TO:<b@example.com>\r\nDATA\r\ntext\r\n",
        b"RCPT TO:<b@example.com>\r\nBDAT 9\r\nte",
    ],
)
@pytest.mark.parametrize("end", [b"RSET\r\n", b"EHLO again\r\n", b"STARTTLS\r\n", b"QUIT\r\n", b"\n", b"hang up"])
def test_every_transaction_ends_once(until: bytes, end: bytes) -> None:
    harness = Harness.greeted(TLS)
    harness.feed(OPENING + until)
    if end == b"hang up" or harness.session.in_message:
        harness.session.hang_up(Reply(421, "4.4.2", "too slow"), "too slow")
        harness.run()
    else:
        harness.feed(end)
    assert len(harness.of(TransactionEnds)) == 1
    harness.feed(b"QUIT\r\n")
    assert len(harness.of(TransactionEnds)) == 1


def test_in_message() -> None:
    harness = Harness.greeted()
    start_message(harness)
    assert not in_message(harness)
    harness.feed(b"DATA\r\n")
    assert in_message(harness)
    harness.feed(b"text\r\n.\r\n")
    assert not in_message(harness)
    start_message(harness)
    harness.feed(b"BDAT 3\r\na\r\n")
    assert in_message(harness)
    harness.feed(b"BDAT 0 LAST\r\n")
    assert not in_message(harness)
    start_message(harness)
    harness.feed(b"BDAT 3\r\na\0\n")
    assert not in_message(harness)


def test_protocol_keywords() -> None:
    harness = Harness.greeted()
    harness.feed(b"HELO c\r\n")
    assert harness.session.protocol == "SMTP"
    harness.feed(b"EHLO c\r\n")
    assert harness.session.protocol == "ESMTP"
    harness.feed(b"MAIL FROM:<a@example.org> SMTPUTF8\r\n")
    assert harness.session.protocol == "UTF8SMTP"
    harness.feed(b"RSET\r\nMAIL FROM:<a@example.org>\r\n")
    assert harness.session.protocol == "ESMTP"

    submission = Harness.greeted(SUBMISSIONS)
    submission.feed(b"HELO c\r\n")
    assert submission.session.protocol == "ESMTPS"
    submission.feed(b"EHLO c\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")
    assert (submission.session.protocol, submission.session.user) == ("ESMTPSA", "alice")
    submission.feed(b"MAIL FROM:<a@example.org> SMTPUTF8\r\nRCPT TO:<b@example.com>\r\nDATA\r\n.\r\n")
    assert submission.session.protocol == "UTF8SMTPSA"
    assert len(submission.messages) == 1


def test_starttls_forgets_what_was_known() -> None:
    harness = Harness.greeted(TLS)
    harness.feed(b"EHLO before\r\nMAIL FROM:<a@example.org> SMTPUTF8\r\nSTARTTLS\r\n")
    session = harness.session
    assert waiting(harness)
    assert kinds(harness)[-2:] == [TransactionEnds, StartTls]
    session.receive(b"EHLO injected\r\n")  # clear text that the driver had read already
    session.tls_established()
    assert not waiting(harness)
    assert session.next_event() is None
    assert (session.helo, session.esmtp, session.tls_active, session.protocol) == ("", False, True, "ESMTPS")
    assert harness.feed(b"MAIL FROM:<a@example.org>\r\n") == b"503 5.5.1 EHLO first\r\n"


def test_login_events() -> None:
    harness = Harness.greeted(SUBMISSIONS, hold=(Login,))
    harness.feed(b"EHLO c\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<a@example.org>\r\n")
    assert harness.events == [Login("alice", "secret")]
    harness.session.answer(Reply(454, "4.7.0", "try again later"))
    harness.run()
    assert harness.log.endswith(b"454 4.7.0 try again later\r\n530 5.7.0 authentication required\r\n")
    assert harness.session.user == ""


def test_temporary_login_failures_are_not_guesses() -> None:
    harness = Harness.greeted(replace(SUBMISSIONS, logins=1), hold=(Login,))
    harness.feed(b"EHLO c\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")
    harness.session.answer(Reply(454, "4.7.0", "try again later"))
    harness.feed(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")
    harness.session.answer(DENIED)
    harness.run()
    assert closed(harness) == "too many failed logins"


def test_said_never_holds_what_the_peer_wrote() -> None:
    harness = Harness.greeted(SUBMISSIONS)
    harness.feed(b"EHLO c\r\nc2VjcmV0\r\nAUTH LOGIN\r\n!secret\r\nVRFY\r\nEXPN secret\r\n")
    said = [event for event in harness.events if isinstance(event, Said)]
    assert [event.command for event in said] == ["", "AUTH", "VRFY", ""]
    assert all("secret" not in repr(event) and "c2VjcmV0" not in repr(event) for event in said)
    assert b"secret" not in harness.log


def test_content_does_not_show_in_a_repr() -> None:
    assert "private" not in repr(DataChunk(b"private"))


def test_input_before_the_greeting_is_kept_and_told() -> None:
    session = ServerSession(SETTINGS)
    before = session.talked_early
    session.receive(b"NOOP\r\n")
    assert (before, session.talked_early) == (False, True)
    assert session.next_event() is None
    session.greet()
    assert session.next_event() is None
    assert session.take_output() == b"220 relay.example.com ESMTP Ironpost\r\n250 2.0.0 ok\r\n"
    assert session.take_output() == b""


def test_hang_up_before_the_greeting() -> None:
    session = ServerSession(SETTINGS)
    session.hang_up(Reply(421, "4.3.2", "shutting down"), "shutdown")
    session.greet()
    assert session.next_event() == Close("shutdown")
    assert session.take_output() == b"421 4.3.2 shutting down\r\n"


def test_wants_pause_while_an_answer_is_outstanding() -> None:
    harness = Harness.greeted(hold=(MailFrom,))
    harness.feed(OPENING)
    assert not wants_pause(harness)
    harness.feed(b"NOOP\r\n" * 10_000, b"NOOP\r\n" * 1_000)
    assert wants_pause(harness)
    harness.session.answer(LATER)
    harness.run()
    assert not wants_pause(harness)
    assert closed(harness) == "too many commands without a message"


def held(session: ServerSession) -> int:
    """Octets of input that the machine keeps."""
    return len(session._buffer) + len(session._data._held)


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"EHLO c\r\nAUTH LOGIN\r\n",
        OPENING + b"RCPT TO:<b@example.com>\r\nDATA\r\n",
        OPENING + b"RCPT TO:<b@example.com>\r\nBDAT 3000000\r\n",
    ],
)
@pytest.mark.parametrize("filler", [b"x" * 4096, b"\r" * 4096, b".\r" * 2048, b"\r\n" * 2048, b"A" * 4094 + b"\r\n"])
def test_memory_does_not_grow(opening: bytes, filler: bytes) -> None:
    harness = Harness.greeted(replace(SETTINGS, message_size=2**20))
    harness.feed(opening)
    for _ in range(800):
        harness.feed(filler)
        harness.events = harness.events[-1:]
        harness.log.clear()
        assert held(harness.session) <= 4096 + 12288
    assert harness.session.next_event() is None


def test_ten_thousand_recipients() -> None:
    harness = Harness.greeted()
    harness.feed(OPENING)
    output = harness.feed(b"".join(b"RCPT TO:<r%d@example.com>\r\n" % index for index in range(10_000)))
    assert output.count(b"250 2.1.5") == 1000
    assert output.count(b"452 4.5.3") == 9000
    assert len(harness.of(Said)) == 1
    harness.feed(b"DATA\r\ntext\r\n.\r\n")
    assert len(harness.messages[0][0].recipients) == 1000


def test_one_recipient_list_does_not_leak_into_the_next_message() -> None:
    harness = Harness.greeted()
    for name in (b"b", b"c"):
        harness.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<%s@example.com>\r\nDATA\r\n.\r\n" % name)
    assert [[each.address.local for each in envelope.recipients] for envelope, _ in harness.messages] == [["b"], ["c"]]


def test_declined_data_with_421_closes() -> None:
    for body in (b"DATA\r\n", b"BDAT 100\r\n"):
        harness = Harness.greeted(hold=(DataBegins,))
        start_message(harness)
        harness.feed(body)
        harness.session.answer(Reply(421, "4.3.2", "shutting down"))
        harness.run()
        assert harness.log == b"421 4.3.2 shutting down\r\n"
        assert kinds(harness)[-2:] == [TransactionEnds, Close]


def test_declined_data_with_421_and_input_behind_closes_once() -> None:
    harness = Harness.greeted(hold=(DataBegins,))
    start_message(harness)
    harness.feed(b"DATA\r\nQUIT\r\n")
    harness.session.answer(Reply(421, "4.3.2", "shutting down"))
    harness.run()
    assert len(harness.of(Close)) == 1


@pytest.mark.parametrize("reads", [1, 1000])
def test_a_command_line_beyond_all_measure(reads: int) -> None:
    for length, reason in ((65_536, ""), (65_537, "line too long")):
        line = b"x" * (length - 2) + b"\r\n"
        harness = Harness.greeted()
        harness.feed(*(line[start : start + len(line) // reads] for start in range(0, len(line), len(line) // reads)))
        assert harness.log == b"500 5.5.2 line too long\r\n"
        assert closed(harness) == reason


def test_input_behind_a_data_that_the_driver_declines() -> None:
    harness = Harness.greeted()
    start_message(harness)
    harness.feed(b"RCPT TO:<nodata@example.com>\r\nDATA\r\nMAIL FROM:<evil@example.net>\r\n.\r\n")
    assert closed(harness) == "input behind a refused DATA"
    assert not harness.of(MailFrom)


def test_chunks_refused_for_ever_are_not() -> None:
    harness = Harness.greeted(replace(SETTINGS, message_size=100_000))
    harness.feed(b"EHLO c\r\n")
    for _ in range(5):
        harness.feed(b"BDAT 100000\r\n" + b"x" * 100_000)
    assert closed(harness) == "too much thrown away"


def test_a_chunk_full_of_faults_is_given_up() -> None:
    harness = Harness.greeted(replace(SETTINGS, message_size=100_000))
    start_message(harness)
    harness.feed(b"BDAT 200000\r\n\0", *[b"x" * 50_000] * 3)
    harness.feed(b"x" * 49_999)
    assert harness.log == b"550 5.6.11 bare CR, bare LF or NUL in the message\r\n"
    start_message(harness)
    harness.feed(b"BDAT 100\r\n" + b"x" * 100 + b"BDAT 265500\r\n", *[b"x" * 66_000] * 5)
    assert harness.log == b"250 2.0.0 100 octets received\r\n552 5.3.4 the message is larger than this server takes\r\n"
    assert closed(harness) == "too much thrown away"


def test_a_failed_chunk_counts_once() -> None:
    harness = Harness.greeted(replace(SETTINGS, errors=2))
    start_message(harness)
    harness.feed(b"BDAT 1\r\n\0" + b"BDAT 1\r\nx" * 50)
    assert not closed(harness)
    harness.feed(b"RSET\r\nBDAT 1\r\nx")
    assert closed(harness) == "too many errors"


@pytest.mark.parametrize("kind", list(ListenerKind))
def test_submission_needs_a_login(kind: ListenerKind) -> None:
    harness = Harness.greeted(SessionSettings("relay.example.com", kind=kind, tls_active=True))
    output = harness.feed(b"EHLO c\r\n")
    assert (b"AUTH PLAIN LOGIN" in output) is (kind is not ListenerKind.MX)
    taken = harness.feed(b"MAIL FROM:<a@example.org>\r\n").startswith(b"250")
    assert taken is (kind is ListenerKind.MX)


def test_verbs_are_ascii() -> None:
    harness = Harness.greeted(TLS)
    output = harness.feed("\u017fTARTTL\u017f\r\nQU\u0131T\r\n".encode())
    assert output == b"500 5.5.1 unknown command\r\n" * 2


def test_every_reply_of_ours_is_on_its_line() -> None:
    own = [each for each in vars(replies).values() if isinstance(each, Reply)]
    assert len(own) > 40
    for reply in own:
        assert reply.encode().count(b"\r\n") == 1
        # RFC 2034 section 4: a status on all but 3xx, of the same class.
        assert reply.code == 354 or reply.status.startswith(f"{reply.code // 100}.")
