import json
import logging
import os
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from relay.mail import events as e
from relay.mail.address import Address
from relay.mail.outcome import Deferred
from relay.mail.plan import TlsPlan
from relay.mail.published import StsMode
from relay.mail.reply import Reply
from relay.mail.tls import TlsFailure
from relay.observe.fields import is_debug, known, record
from relay.observe.log import EventLog, LogFormat, LogStyle, event_log, format_for, library_logs
from tests.unit.observe.samples import ALL, DELIVERED, GONE, LEAF, MISMATCH, NOW, TLS, attempt, message


class Lines:
    def __init__(self) -> None:
        self.raw: list[bytes] = []

    def __call__(self, line: bytes) -> None:
        self.raw.append(line)

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def make(lines: Lines, **options: Any) -> EventLog:
    return EventLog(lines, clock=lambda: NOW, **options)


def test_what_an_accepted_message_asks_of_tls(lines: Lines) -> None:
    about = message()
    for envelope in (replace(about.envelope, requiretls=True), replace(about.envelope, tls_optional=True)):
        make(lines)(e.MessageAccepted(replace(about, envelope=envelope)))
    make(lines)(e.MessageAccepted(about))
    keys = ("requiretls", "tls_optional")
    assert [{key: line[key] for key in keys if key in line} for line in lines.json] == [
        {"requiretls": True},
        {"tls_optional": True},
        {},
    ]


@pytest.mark.parametrize("event", [*ALL, e.SessionClosed("mx", "192.0.2.1", "quit", 0.1, "")])
def test_what_is_left_out_unbuilt_would_have_been_debug(event: e.Event) -> None:
    assert is_debug(event) == (record(event)[0] == "debug")


def test_every_event_class_has_a_record_of_its_own() -> None:
    classes = {each for each in vars(e).values() if isinstance(each, type) and issubclass(each, e.Event)}
    assert classes - {e.Event} == set(known())
    assert known() == {type(each) for each in ALL}


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_every_event_is_one_line_in_both_formats(event: e.Event, lines: Lines) -> None:
    for style in LogFormat:
        make(lines, style=style, level="debug")(event)
    as_json, as_text = lines.raw
    assert as_json.count(b"\n") == 1
    assert as_json.endswith(b"\n")
    values = json.loads(as_json)
    assert list(values)[:3] == ["time", "level", "event"]
    assert values["time"] == "2026-11-22T03:04:05.678Z"
    assert values["event"].encode() in as_text
    assert as_text.count(b"\n") == (3 if isinstance(event, e.Unexpected) else 1)


def test_an_accepted_message_says_how_it_came(lines: Lines) -> None:
    make(lines)(e.MessageAccepted(message(sender=Address("alice", "example.com"))))
    assert lines.json == [
        {
            "time": "2026-11-22T03:04:05.678Z",
            "level": "info",
            "event": "message-accepted",
            "message": "01JABCDEFGHJKMNPQRST",
            "sender": "alice@example.com",
            "recipients": ["user0@contoso.com"],
            "recipient_count": 1,
            "size": 4096,
            "message_id": "<id@example.com>",
            "client": "192.0.2.1",
            "helo": "client.example",
            "listener": "mx 0.0.0.0:25",
            "protocol": "ESMTPS",
            "connector": "a-in",
            "user": "joe",
            "tls_version": "TLSv1.3",
            "tls_cipher": "TLS_AES_256_GCM_SHA384",
            "tls_group": "X25519MLKEM768",
            "client_certificate": "mx.contoso.com",
            "client_certificate_sha256": LEAF.sha256,
        }
    ]


def test_the_null_sender_and_a_message_in_clear(lines: Lines) -> None:
    make(lines)(e.MessageAccepted(message(tls=None)))
    assert lines.json[0]["sender"] == "<>"
    assert not [key for key in lines.json[0] if key.startswith(("tls_", "client_certificate"))]


def test_an_attempt_says_what_became_of_whom(lines: Lines) -> None:
    make(lines)(e.AttemptMade(message(3), attempt(DELIVERED, MISMATCH, GONE)))
    (line,) = lines.json
    assert line["level"] == "warning"  # TLS kept a recipient's mail back
    assert line["tls_level"] == "domain"
    assert line["certificate_sha256"] == LEAF.sha256
    assert [(each["recipient"], each["state"]) for each in line["outcomes"]] == [
        ("user0@contoso.com", "delivered"),
        ("user1@contoso.com", "deferred"),
        ("user2@contoso.com", "bounced"),
    ]
    assert line["outcomes"][1]["failure"] == "certificate-host-mismatch"
    assert "failure" not in line["outcomes"][2]


def test_an_attempt_that_never_came_to_a_host_is_info_and_has_no_empty_fields(lines: Lines) -> None:
    plan: TlsPlan | None = None
    made = attempt(Deferred(451, "4.4.3", "SERVFAIL"), evidence=None, plan=plan)
    object.__setattr__(made, "hop", "")
    object.__setattr__(made, "address", "")
    make(lines)(e.AttemptMade(message(), made))
    assert lines.json[0]["level"] == "info"
    assert not {"hop", "address", "tls_level", "tls_version"} & set(lines.json[0])


def test_a_thousand_recipients_make_no_endless_line(lines: Lines) -> None:
    make(lines)(e.MessageAccepted(message(1000)))
    make(lines)(e.AttemptMade(message(1000), attempt(*[DELIVERED] * 1000)))
    accepted, made = lines.json
    assert (len(accepted["recipients"]), accepted["recipient_count"]) == (20, 1000)
    assert (len(made["outcomes"]), made["recipient_count"]) == (20, 1000)


def test_levels(lines: Lines) -> None:
    closed = [e.SessionClosed("mx", "192.0.2.1", reason, 1.0) for reason in ("quit", "lost")]
    certificates = [e.CertificateEnding("a", "CN=a", "ab", NOW, days, 7) for days in (5, -1)]
    taken = [e.ConfigurationTaken("f", weaker) for weaker in ((), ("x",))]
    assert [record(each)[0] for each in (*closed, *certificates, *taken)] == [
        "debug",
        "info",
        "warning",
        "error",
        "info",
        "warning",
    ]
    sts = [
        e.StsPolicyChanged("b.example", StsMode.ENFORCE, StsMode.TESTING, ()),
        e.StsPolicyChanged("b.example", StsMode.TESTING, StsMode.ENFORCE, ("mx.b.example",)),
        *(
            e.StsFetchFailed("b.example", TlsFailure.STS_POLICY_FETCH_ERROR, "404", held)
            for held in ("enforce", "none", "")
        ),
    ]
    assert [record(each)[0] for each in sts] == ["warning", "info", "warning", "info", "info"]
    make(lines)(closed[0])
    make(lines, level="error")(certificates[0])
    assert lines.raw == []


def test_text_from_a_peer_can_neither_forge_a_line_nor_talk_to_the_terminal(lines: Lines) -> None:
    nasty = 'x\r\n{"event":"message-accepted"}\x1b[2J\x9b1m\u2028\u202e\udc80'
    event = e.CommandRefused("mx", "192.0.2.1", "MAIL", Reply(550, "5.1.7", nasty), sender=nasty)
    for style in LogFormat:
        make(lines, style=style)(event)
    as_json, as_text = lines.raw
    assert as_json.isascii()
    assert json.loads(as_json)["sender"] == nasty
    for line in (as_json, as_text):
        assert line.count(b"\n") == 1
        assert not any(byte < 32 for byte in line.rstrip(b"\n"))
    assert b"\x1b" not in as_text
    assert "\u202e".encode() not in as_text


def test_peer_text_is_cut(lines: Lines) -> None:
    make(lines)(e.CommandRefused("mx", "192.0.2.1", "MAIL", Reply(550, "5.1.7", "x" * 10_000)))
    assert len(lines.json[0]["text"]) == 500


def test_a_certificate_without_names_is_called_by_its_subject(lines: Lines) -> None:
    bare = replace(TLS, group="", chain=(replace(LEAF, dns_names=()),))
    make(lines)(e.MessageAccepted(replace(message(tls=bare), message_id="")))
    make(lines)(e.MessageAccepted(message(tls=replace(TLS, chain=()))))
    assert lines.json[0]["client_certificate"] == "CN=mx.contoso.com"
    assert not {"tls_group", "message_id"} & set(lines.json[0])
    assert "client_certificate" not in lines.json[1]


def test_the_relay_is_named_where_asked_for(lines: Lines) -> None:
    make(lines, relay="a.example")(e.StoreRecovered())
    assert lines.json[0]["relay"] == "a.example"


def test_an_event_class_that_is_not_known_is_written_field_by_field(lines: Lines) -> None:
    @dataclass(frozen=True, slots=True)
    class SomethingNew(e.Event):
        count: int
        address: Address

    make(lines)(SomethingNew(3, Address("a", "b.example")))
    assert lines.json[0]["event"] == "something-new"
    assert (lines.json[0]["count"], lines.json[0]["address"]) == (3, "a@b.example")


def test_a_fault_in_the_log_is_counted_and_goes_no_further() -> None:
    def broken(line: bytes) -> None:
        raise OSError("no")

    log = EventLog(broken, clock=lambda: NOW)
    log(e.StoreRecovered())
    with library_logs(log):
        logging.getLogger("asyncio").warning("x")
    assert log.failed == 2


def test_times_are_utc(lines: Lines) -> None:
    elsewhere = datetime(2026, 11, 22, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    EventLog(lines, clock=lambda: elsewhere)(e.StoreRecovered())
    assert lines.json[0]["time"] == "2026-11-22T03:04:05.000Z"
    assert elsewhere.astimezone(UTC).hour == 3


def test_library_logs_come_in_the_same_form_and_only_while_asked_for(lines: Lines) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with library_logs(make(lines)):
        logging.getLogger("asyncio").warning("slow callback: %s", "x")
        logging.getLogger("asyncio").info("not wanted")
        try:
            raise ValueError("inner")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("failed")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert (root.handlers, root.level) == before
    slow, failed, warned = lines.json
    assert (slow["event"], slow["level"], slow["logger"], slow["text"]) == (
        "library-log",
        "warning",
        "asyncio",
        "slow callback: x",
    )
    assert failed["level"] == "error"
    assert "ValueError: inner" in failed["trace"]
    assert warned["logger"] == "py.warnings"


def test_dropped_lines_are_told_of(lines: Lines) -> None:
    notice = json.loads(make(lines).dropped_notice(7))
    assert (notice["event"], notice["level"], notice["count"]) == ("log-lines-dropped", "warning", 7)


def test_colours_only_where_asked_for(lines: Lines) -> None:
    for colors in (False, True):
        make(lines, style=LogFormat.TEXT, colors=colors)(e.StoreTrouble("disk full"))
    plain, coloured = lines.raw
    assert b"\x1b[" not in plain
    assert b"\x1b[" in coloured


def test_a_log_on_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        assert format_for(file.fileno()) is LogFormat.JSON
        with event_log(file.fileno(), LogStyle(), clock=lambda: NOW) as (log, writer):
            log(e.StoreRecovered())
            log(e.StoreTrouble("disk full"))
        assert writer.dropped == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["store-recovered", "store-trouble"]


def test_a_terminal_gets_text() -> None:
    ours, theirs = os.openpty()
    try:
        assert format_for(theirs) is LogFormat.TEXT
    finally:
        os.close(ours)
        os.close(theirs)
