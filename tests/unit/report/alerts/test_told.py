"""An alert as mail and as a post, and what is kept of alerts over a restart: every field comes back."""

import email
import email.policy
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address import Address
from relay.mail.alerts import AlertKind, Concern, Notice, NoticeState, Relief, Severity
from relay.mail.envelope import Notify
from relay.policy.alerts import FLAPS, Board, Terms, step
from relay.policy.concerns import Deaths
from relay.report.alerts.kept import GIVE_UP, Kept, Posting, Way, active, decoded, encoded
from relay.report.alerts.mail import compose
from relay.report.alerts.webhook import body, destination, signed
from relay.report.dsn import Issuer

NOW = datetime(2026, 11, 27, 12, 0, 0, 123000, UTC)
ISSUER = Issuer("relay.example.com", Address("postmaster", "example.com"))
TO = (Address("a", "example.com"), Address("b", "example.net"))


def notice(**more: object) -> Notice:
    values = {
        "id": "ab" * 10,
        "state": NoticeState.RAISED,
        "kind": AlertKind.PARTNER,
        "subject": "contoso.com",
        "severity": Severity.CRITICAL,
        "title": "contoso.com cannot be reached safely",
        "text": "Mail waits.",
        "remedy": "Call them.",
        "since": NOW - timedelta(hours=1),
        "at": NOW,
    }
    return Notice(**{**values, **more})  # type: ignore[arg-type]


def test_mail() -> None:
    mail = compose(ISSUER, notice(), TO)
    read = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert read["From"] == "Ironpost <postmaster@example.com>"
    assert read["To"] == "a@example.com, b@example.net"
    assert read["Subject"] == "[relay.example.com] critical: contoso.com cannot be reached safely"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["Message-ID"] == mail.message_id == f"<{'ab' * 10}@relay.example.com>"
    assert read["X-Ironpost-Alert"] == "partner-unsafe; raised; critical"
    text = read.get_content()
    for part in ("Mail waits.", "Call them.", "since: 2026-11-27 11:00:00 UTC", "about: partner-unsafe contoso.com"):
        assert part in text
    assert mail.envelope.sender == ISSUER.postmaster
    assert [each.address for each in mail.envelope.recipients] == list(TO)
    assert all(each.notify == {Notify.NEVER} for each in mail.envelope.recipients)
    assert not mail.envelope.tls_optional


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_leaves_its_place_in_a_mail(title: str, text: str) -> None:
    """As the board gives them: one line each, clean."""
    concern = Concern(AlertKind.PARTNER, "contoso.com", title, text)
    _board, (told,) = step(Board(), Terms(), NOW, [concern])
    mail = compose(ISSUER, told, TO)
    head, _, _rest = mail.content.partition(b"\r\n\r\n")
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert names[:7] == [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"X-Ironpost-Alert"]
    assert len(names) <= 11
    assert mail.content.isascii()
    assert all(len(line) <= 998 for line in mail.content.split(b"\r\n"))
    assert json.loads(body(told, "relay.example.com"))["title"] == told.title


@pytest.mark.parametrize(
    ("state", "severity", "text"),
    [
        (NoticeState.RAISED, Severity.CRITICAL, "[relay.example.com] critical: T. D R"),
        (NoticeState.REPEATED, Severity.WARNING, "[relay.example.com] warning: still: T. D R"),
        (NoticeState.CLEARED, Severity.INFO, "[relay.example.com] T. D R"),
    ],
)
def test_the_text_for_chats(state: NoticeState, severity: Severity, text: str) -> None:
    told = notice(state=state, severity=severity, title="T", text="D", remedy="R")
    assert json.loads(body(told, "relay.example.com"))["text"] == text


def test_the_shape_of_a_post_is_a_contract() -> None:
    assert json.loads(body(notice(), "relay.example.com")) == {
        "version": 1,
        "id": "ab" * 10,
        "hostname": "relay.example.com",
        "state": "raised",
        "kind": "partner-unsafe",
        "subject": "contoso.com",
        "severity": "critical",
        "title": "contoso.com cannot be reached safely",
        "detail": "Mail waits.",
        "remedy": "Call them.",
        "since": "2026-11-27T11:00:00.123Z",
        "at": "2026-11-27T12:00:00.123Z",
        "text": "[relay.example.com] critical: contoso.com cannot be reached safely. Mail waits. Call them.",
    }


def test_the_signature() -> None:
    fields = signed(b"{}", "1", "a secret", NOW)
    stamp = str(int(NOW.timestamp()))
    assert fields["Ironpost-Timestamp"] == stamp
    made = hmac.digest(b"a secret", f"{stamp}.{{}}".encode(), hashlib.sha256).hex()
    assert fields["Ironpost-Signature"] == f"v1={made}"


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443, "/"),
        ("https://Hooks.Example.com:8443/a/b?c=d", "hooks.example.com", 8443, "/a/b?c=d"),
        ("https://[::1]:9/x", "::1", 9, "/x"),
        ("https://127.0.0.1/", "127.0.0.1", 443, "/"),
    ],
)
def test_destinations(url: str, host: str, port: int, target: str) -> None:
    found = destination(url)
    assert (found.host, found.port, found.target) == (host, port, target)


def test_everything_is_kept() -> None:
    board = Board()
    for minute in range(30):
        concerns = [
            Concern(
                AlertKind.PARTNER,
                f"{minute}.example",
                "t\u00e9",
                "x",
                "r",
                Severity.CRITICAL,
                2,
                repeats=False,
                about="01J",
            ),
            Concern(AlertKind.EXCEPTION, "old.example", "t", "x", stage=minute),
        ]
        board, notices = step(board, Terms(hourly=6), NOW + timedelta(minutes=minute), concerns)
    for minutes, seen in ((60, True), (61, False), (76, True), (77, False)):  # it comes and goes
        queue = [Concern(AlertKind.QUEUE, "queue", "t", "x")] if seen else []
        over = [] if seen else [Relief(AlertKind.QUEUE, "queue", "x")]
        board, _told = step(board, Terms(), NOW + timedelta(minutes=minutes), queue, over)
    assert board.ended
    assert [each.away for each in board.of(AlertKind.QUEUE)] == [NOW + timedelta(minutes=77)]
    kept = Kept(board, Deaths(3, (NOW,))).with_postings([notice(), *notices], [Way.MAIL, Way.WEBHOOK], NOW)
    assert kept.postings
    assert decoded(encoded(kept)) == kept
    assert decoded(encoded(Kept())) == Kept()
    assert [each["kind"] for each in active(kept)][:1] == ["partner-unsafe"]
    assert len(active(kept)) == len(board.standing)


def test_what_was_kept_when_there_was_one_room() -> None:
    board, _notices = step(
        Board(), Terms(hourly=2), NOW, [Concern(AlertKind.PARTNER, f"{n}", "t", "x") for n in range(4)]
    )
    found = json.loads(encoded(Kept(board)))
    del found["own"]
    for each in found["standing"]:
        del each["summed"], each["returns"], each["away"], each["over"]
    found["ended"] = [["partner-unsafe", "gone.example", "2026-11-27T12:15:00.000Z"]]
    kept = decoded(json.dumps(found)).board
    assert kept.strange == board.strange
    assert kept.standing.keys() == board.standing.keys()
    (ended,) = kept.ended.values()
    assert (ended.quiet - ended.at, ended.returns) == (FLAPS, 0)


def test_a_posting_is_tried_for_a_day() -> None:
    posting: Posting | None = Posting(notice(), Way.WEBHOOK, NOW)
    waits, now = [], NOW
    while posting is not None:
        following = posting.later(now)
        if following is not None:
            waits.append((following.due - now).total_seconds())
            now = following.due
        posting = following
    assert waits[:8] == [10, 20, 40, 80, 160, 320, 640, 900]
    assert set(waits[7:]) == {900}
    assert GIVE_UP - timedelta(minutes=16) < now - NOW < GIVE_UP


def test_a_posting_that_is_done_goes_and_the_other_stays() -> None:
    kept = Kept().with_postings([notice()], [Way.MAIL, Way.WEBHOOK], NOW)
    first, second = kept.postings
    assert kept.without(first).postings == (second,)
    later = second.later(NOW)
    assert later is not None
    assert kept.without(second, later).postings == (first, later)
