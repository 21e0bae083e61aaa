"""The invariant of the session machine, hunted with hypothesis: any bytes give a valid reply or a close, never another exception, never
unbounded memory; and what the machine makes of a stream does not depend on how it was cut into reads."""

import re
from dataclasses import replace

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from relay.config.models import ListenerKind
from relay.mail.address import NULL, Address
from relay.smtp.commands import CommandError, parse_mail, parse_rcpt
from relay.smtp.events import Close, DataBegins, DataChunk, DataEnds, MailFrom, SmtpEvent, StartTls, TransactionEnds
from relay.smtp.session import SessionSettings
from tests.unit.smtp.harness import Harness
from tests.unit.smtp.reference import decode_data, split_lines

MX = SessionSettings(
    "relay.example.com", message_size=400, recipients=3, line_length=60, session_messages=4, errors=8, idle_commands=30
)
PLAIN = replace(MX, message_size=10**6, line_length=10**6)
LISTENERS = [
    MX,
    replace(MX, tls_offered=True),
    replace(MX, normalise_bare_lf=True),
    replace(MX, kind=ListenerKind.SUBMISSION, tls_offered=True),
    replace(MX, kind=ListenerKind.SUBMISSIONS, tls_active=True),
]
REPLIES = re.compile(rb"(?:(?:[2345]\d\d-[ -~]*\r\n)*[2345]\d\d [ -~]*\r\n)*")
TIMING = ("input behind a refused DATA", "input behind STARTTLS")

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Lines that are commands, nearly commands, or the stuff of attacks.
COMMANDS = """\
EHLO client.example
HELO c
EHLO
MAIL FROM:<a@example.org>
MAIL FROM:<>
MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME
MAIL FROM:<a@example.org> SIZE=401
MAIL FROM:<é@é.example> SMTPUTF8
MAIL FROM:<a@example.org> RET=HDRS ENVID=a+20
MAIL FROM:<a@example.org> REQUIRETLS
MAIL FROM:<> BODY=8BITMIME REQUIRETLS
MAIL FROM:<a@example.org> REQUIRETLS=1
MAIL FROM:<unknown@example.org>
RCPT TO:<b@example.com>
RCPT TO:<b@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x
RCPT TO:<unknown@example.com>
RCPT TO:<nodata@example.com>
RCPT TO:<full@example.com>
RCPT TO:<postmaster>
RCPT TO:<gone@example.com>
RCPT TO:<"a b"@[192.0.2.1]>
DATA
DATA x
.
..
BDAT 10
BDAT 0
BDAT 5 LAST
BDAT 0 LAST
BDAT x
BDAT 500
RSET
NOOP
QUIT
VRFY x
HELP
EXPN x
STARTTLS
STARTTLS x
AUTH PLAIN
AUTH PLAIN AGFsaWNlAHNlY3JldA==
AUTH LOGIN
YWxpY2U=
c2VjcmV0
*
AUTH LOGIN =
GET / HTTP/1.1
Subject: x
text
""".encode().splitlines()
LONG_AND_ODD = [b"", b"x" * 70, b"x" * 2100, b"A" * 13000, b"\x16\x03\x01"]
LINE_ENDS = [b"\r\n"] * 12 + [b"\n", b"\r", b"", b"\r\r\n", b"\n\r"]
ODD = [b"\0", b"\xff", b"\x80", b" ", b"\t", b"<", b">", b"\x1b", b"\r", b"\n", b".", b'"', b"\xc3\xa9"]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One line, sometimes with a wrong end, sometimes with an octet changed."""
    line = draw(st.sampled_from(COMMANDS + LONG_AND_ODD)) + draw(st.sampled_from(LINE_ENDS))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(st.sampled_from(ODD)) + line[at + draw(st.integers(0, 1)) :]
    return line


streams = st.lists(lines(), max_size=40).map(b"".join)
transactions = st.tuples(
    st.just(b"EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"),
    st.lists(lines(), max_size=25).map(b"".join),
).map(b"".join)
sessions = st.one_of(streams, transactions, st.binary(max_size=300))
cuts = st.lists(st.integers(1, 40), max_size=60)
# What matters to framing, dense.
EVIL = b"MAIL FROM:<evil@example.net>\r\n"
texts = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r\n", b"\r", b"\n", b".", b".", b"\0", b"a", b"\xe9", b"\r\n.\r\n", b"\r\n.", EVIL, b"QUIT\r\n"]
    ),
    max_size=30,
).map(b"".join)
# The same without faults.
clean_texts = st.lists(st.sampled_from([b"\r\n", b"\r\n", b".", b"..", b"a", b"text", b"\xe9"]), max_size=30).map(
    b"".join
)


def play(listener: SessionSettings, stream: bytes, sizes: list[int]) -> Harness:
    """The whole stream, a handshake wherever one is asked for; checks after every read that the machine is sane."""
    harness = Harness.greeted(listener)
    position = 0
    for size in [*sizes, *[max(1, len(stream))]]:
        harness.feed(stream[position : position + size])
        position += size
        if harness.handshakes and not harness.closed:
            harness.handshakes = 0
            harness.session.tls_established()
        check(harness)
    return harness


def check(harness: Harness) -> None:
    session = harness.session
    assert not session.waiting or harness.closed
    assert REPLIES.fullmatch(harness.log)
    assert all(len(line) <= 510 for line in harness.log.split(b"\r\n"))  # RFC 5321 section 4.5.3.1.5
    assert len(session._buffer) - session._position <= 12288 + 2
    assert len(session._data._held) <= 4
    assert len(session._recipients) <= harness.settings.recipients
    # RFC 8689 section 2: never in clear. TLS does not end before the session does.
    assert session.tls_active or not any(isinstance(each, MailFrom) and each.requiretls for each in harness.events)
    if harness.closed:
        assert isinstance(harness.events[-1], Close)
        assert session.next_event() is None


def transactions_end_once(events: list[SmtpEvent]) -> None:
    """MailFrom (that was accepted) ... DataEnds | TransactionEnds, and content only in between."""
    is_open = in_content = False
    for event in events:
        match event:
            case MailFrom(sender):
                assert not is_open
                is_open = sender.local not in ("unknown", "later", "gone")
            case DataBegins(envelope):
                assert is_open
                assert envelope.recipients
                in_content = True
            case DataChunk(data):
                assert in_content
                assert data
                assert not data.endswith(b"\r")
            case DataEnds() | TransactionEnds():
                assert is_open
                assert in_content or isinstance(event, TransactionEnds)
                is_open = in_content = False
            case _:
                pass
    assert not (is_open and isinstance(events[-1], Close))


@fuzz
@given(st.sampled_from(LISTENERS), sessions, cuts)
def test_any_bytes_give_valid_replies_or_a_close(listener: SessionSettings, stream: bytes, sizes: list[int]) -> None:
    harness = play(listener, stream, sizes)
    transactions_end_once(harness.events)
    for envelope, content in harness.messages:
        assert envelope.recipients
        assert len(content) <= listener.message_size
        assert content == b"" or content.endswith(b"\r\n")
        assert split_lines(content, normalise=False)[1]


def visible(harness: Harness) -> list[SmtpEvent]:
    """The events, with the chunks of a message joined, and those of a message thrown away left out: how many there were is chance."""
    shown: list[SmtpEvent] = []
    content = bytearray()
    for event in harness.events:
        if isinstance(event, DataChunk):
            content += event.data
            continue
        if isinstance(event, DataEnds) and content:
            shown.append(DataChunk(bytes(content)))
        if isinstance(event, DataBegins | DataEnds | TransactionEnds):
            content.clear()
        shown.append(event)
    return shown


@fuzz
@given(st.sampled_from(LISTENERS), sessions, cuts)
def test_reads_do_not_matter(listener: SessionSettings, stream: bytes, sizes: list[int]) -> None:
    assume(not (listener.tls_offered and b"STARTTLS" in stream.upper()))  # what stands in one read with it does matter
    whole, split = play(listener, stream, []), play(listener, stream, sizes)
    octets = play(listener, stream, [1] * len(stream))
    runs = sorted((whole, split, octets), key=lambda each: each.closed not in TIMING)
    if runs[0].closed in TIMING:
        # That close is about what had come already; up to it nothing may differ.
        shown = visible(runs[0])[:-1]
        if shown and isinstance(shown[-1], TransactionEnds):  # it came with the close
            del shown[-1]
        for other in runs[1:]:
            if other.closed not in TIMING:
                assert visible(other)[: len(shown)] == shown
                assert other.log.startswith(runs[0].log)
        return
    assert visible(whole) == visible(split) == visible(octets)
    assert whole.log == split.log == octets.log


@fuzz
@given(texts, cuts, st.booleans(), st.booleans())
@example(b"\n.\r\nMAIL FROM:<evil@example.net>\r\n", [1, 1, 1], False, False)
def test_data_is_what_the_slow_decoder_says(text: bytes, sizes: list[int], normalise: bool, bare: bool) -> None:
    assume(normalise or not bare)
    harness = Harness.greeted(replace(PLAIN, normalise_bare_lf=normalise))
    line_end = b"\n" if bare else b"\r\n"
    harness.feed(b"EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA" + line_end)
    harness.events.clear()
    harness.log.clear()
    expected = decode_data(text, normalise=normalise, ended_bare=bare)
    # Only the message: what follows is commands again.
    harness.feed_split(text if expected.consumed < 0 else text[: expected.consumed], sizes)
    if expected.consumed < 0:
        assert not harness.log
        assert not harness.messages
    elif expected.sound:
        assert harness.log == b"250 2.0.0 queued\r\n"
        assert harness.messages[0][1] == expected.content
        assert harness.of(DataEnds) == [
            DataEnds(harness.messages[0][0], len(expected.content), not expected.content.isascii())
        ]
    else:
        assert harness.log == b"550 5.6.11 bare CR, bare LF or NUL in the message\r\n"
        assert not harness.messages
        assert len(harness.of(TransactionEnds)) == 1
    assert not harness.of(MailFrom)
    assert harness.session.in_message is (expected.consumed < 0)


@fuzz
@given(texts, cuts)
def test_nothing_in_data_is_a_command_before_its_true_end(text: bytes, sizes: list[int]) -> None:
    harness = Harness.greeted(PLAIN)
    harness.feed(b"EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
    harness.feed_split(text, sizes)
    if b"\r\n.\r\n" not in b"\r\n" + text:
        assert len(harness.of(MailFrom)) == 1
        assert not harness.closed


@fuzz
@given(st.one_of(texts, clean_texts), cuts, st.lists(st.integers(0, 20), max_size=10), st.booleans())
def test_chunks_are_what_was_sent(text: bytes, sizes: list[int], borders: list[int], normalise: bool) -> None:
    """The same octets by BDAT, in chunks of any sizes and reads of any sizes: a message, or one refusal and nothing read as a command."""
    harness = Harness.greeted(replace(PLAIN, normalise_bare_lf=normalise))
    harness.feed(b"EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n")
    harness.log.clear()
    stream, position = b"", 0
    for size in borders:
        piece = text[position : position + size]
        position += size
        stream += b"BDAT %d\r\n%s" % (len(piece), piece)
    stream += b"BDAT %d LAST\r\n%s" % (len(text[position:]), text[position:])
    harness.feed_split(stream, sizes)
    wire_lines, sound = split_lines(text, normalise=normalise)
    content = b"".join(wire_lines)
    if sound:
        assert harness.messages[0][1] == content + (b"" if content.endswith(b"\r\n") or not content else b"\r\n")
        assert harness.log.endswith(b"250 2.0.0 queued\r\n")
    else:
        assert not harness.messages
        assert harness.log.count(b"550 5.6.11") == 1
    assert not harness.closed
    assert len(harness.of(MailFrom)) == 1


@fuzz
@given(clean_texts, cuts, st.sampled_from(["DATA", "BDAT"]))
def test_both_ways_of_sending_give_the_same_message(text: bytes, sizes: list[int], way: str) -> None:
    message = text if text.endswith(b"\r\n") or not text else text + b"\r\n"
    harness = Harness.greeted(PLAIN)
    harness.feed(b"EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n")
    if way == "DATA":
        stuffed = (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:]
        harness.feed(b"DATA\r\n")
        harness.feed_split(stuffed + b".\r\n", sizes)
    else:
        harness.feed_split(b"BDAT %d LAST\r\n%s" % (len(message), message), sizes)
    assert [content for _, content in harness.messages] == [message]


@fuzz
@given(sessions, cuts)
def test_nothing_from_before_tls_is_known_behind_it(stream: bytes, sizes: list[int]) -> None:
    harness = Harness.greeted(
        replace(MX, kind=ListenerKind.SUBMISSION, tls_offered=True, errors=10**6, idle_commands=10**6)
    )
    harness.feed_split(b"EHLO c\r\n" + stream.replace(b"QUIT", b"NOOP"), sizes)
    harness.feed(b"\r\nRSET\r\nSTARTTLS\r\n")
    assume(harness.of(StartTls) and not harness.closed)
    harness.session.tls_established()
    start = len(harness.log)
    harness.feed(b"MAIL FROM:<a@example.org>\r\n")
    assert harness.log[start:] == b"503 5.5.1 EHLO first\r\n"
    assert (harness.session.user, harness.session.helo) == ("", "")


arguments = st.tuples(
    st.sampled_from(["FROM:", "TO:", "FROM:<", "TO:<", ""]),
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(
                ['"', "\\", "@", "<", ">", ":", " ", "xn--", ".", "=", "SIZE=", "ORCPT=utf-8;", "[IPv6:", "]"]
            ),
        ),
        max_size=12,
    ),
).map(lambda parts: parts[0] + "".join(parts[1]))


@fuzz
@given(arguments, st.booleans())
def test_any_argument_gives_a_value_or_a_refusal(argument: str, utf8: bool) -> None:
    for address in (sender_of(argument + (" SMTPUTF8" if utf8 else "")), recipient_of(argument, utf8)):
        assert utf8 or str(address).isascii()
        assert address.domain == address.domain.lower() or address.is_literal
        assert not re.search(r"[\s<>]", address.domain)


def sender_of(argument: str) -> Address:
    """The sender, or NULL where the argument is refused in good order."""
    try:
        return parse_mail(argument, auth_offered=True, tls=True).sender
    except CommandError as refused:
        return NULL if 500 <= refused.reply.code < 560 else Address("", str(refused))


def recipient_of(argument: str, utf8: bool) -> Address:
    try:
        return parse_rcpt(argument, smtputf8=utf8).address
    except CommandError as refused:
        return NULL if 500 <= refused.reply.code < 560 else Address("", str(refused))
