"""The security report's figures, and its forms: nothing that a stranger wrote becomes a formula, a tag or a line of its own."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.mail.tally import CLEAR, OTHER, Count, Kind, Refusal, Result, Style, Waiting, Way
from relay.report.security import figures
from relay.report.security.document import Found, Subject, report
from relay.report.security.page import page_of
from relay.report.security.table import csv_of, defused
from relay.report.security.text import text_lines
from tests.unit.policy.builders import config

NOW = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
DAY = (datetime(2026, 11, 25, tzinfo=UTC), datetime(2026, 11, 26, tzinfo=UTC))
NEW = Style("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519", "pkix", "certificate")
OLD = Style("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "X25519", "encrypted", "opportunistic")
PLAIN = Style(CLEAR, CLEAR, CLEAR, "none", "opportunistic")
EVIL = "=cmd|' /C calc'!A0<script>alert(1)</script>\r\n\x1b[31m\u202e.example"


def line(
    domain: str = "b.example", style: Style = NEW, result: Result = Result.DELIVERED, messages: int = 1, **more: Any
) -> figures.Line:
    way = Way.IN if result is Result.ACCEPTED else Way.OUT
    kind = Kind(way, domain, more.get("connector", "default"), style, result, more.get("failure", ""))
    first = more.get("first", DAY[0])
    return Count(first, kind, messages, messages * 2), first, more.get("last", first)


def made(*lines: figures.Line, domain: str = "", **more: Any) -> figures.Json:
    subject = Subject(*DAY, NOW, NOW, domain)
    refusals = [(Refusal("command", "mx", "MAIL", "x", 550, "5.7.1"), 3)]
    return report(config(**more), subject, Found(lines, refusals, ()))


def test_every_step_of_an_overview_is_there() -> None:
    counted = [(DAY[0], "accepted", 3, 9), (DAY[0] + timedelta(hours=2), "delivered", 2, 5)]
    found = figures.overview(DAY, "hour", counted, [(DAY[0], 4)])
    assert len(found["points"]) == 24
    assert found["points"][0] == {
        "at": "2026-11-25T00:00:00.000Z",
        "accepted": 3,
        "delivered": 0,
        "deferred": 0,
        "bounced": 0,
        "refused": 4,
    }
    assert found["points"][2]["delivered"] == 5
    assert found["totals"] == {"accepted": 3, "delivered": 5, "deferred": 0, "bounced": 0, "refused": 4}
    assert len(figures.overview(DAY, "day", [(DAY[0], "accepted", 3, 9)], [])["points"]) == 1


def test_shares_are_of_what_went() -> None:
    lines = [
        line(style=NEW, messages=3),
        line(style=PLAIN),
        line(style=OLD, result=Result.DEFERRED, messages=50),
        line(result=Result.ACCEPTED),
    ]
    found = figures.shares(lines, Way.OUT)
    assert found["messages"] == 4
    assert found["version"] == [
        {"name": "TLSv1.3", "messages": 3, "share": 0.75},
        {"name": "none", "messages": 1, "share": 0.25},
    ]
    assert [each["name"] for each in found["verified"]] == ["pkix", "none"]
    assert figures.shares([], Way.IN) == {
        "direction": "in",
        "messages": 0,
        "version": [],
        "cipher": [],
        "group": [],
        "verified": [],
    }


def test_a_partner_in_one_row() -> None:
    later = DAY[0] + timedelta(hours=5)
    (row,) = figures.partners(
        [
            line(messages=3, last=later),
            line(style=OLD, connector="x"),
            line(style=OLD, result=Result.DEFERRED, messages=2, failure="handshake-failed"),
            line(style=OLD, result=Result.BOUNCED),
        ]
    )
    assert (row["messages"], row["recipients"], row["clear"], row["deferred"], row["bounced"]) == (4, 8, 0, 4, 2)
    assert (row["versions"], row["connectors"]) == ({"TLSv1.3": 3, "TLSv1.2": 1}, ["default", "x"])
    assert row["failures"] == {"handshake-failed": 2}
    assert row["weakest"] == {"version": "TLSv1.2", "cipher": OLD.cipher, "group": "X25519", "verified": "encrypted"}
    assert (row["first_seen"], row["last_seen"]) == ("2026-11-25T00:00:00.000Z", "2026-11-25T05:00:00.000Z")


@pytest.mark.parametrize(
    ("styles", "weakest"),
    [
        ((NEW, PLAIN), "none"),
        ((NEW, OLD), "TLSv1.2"),
        ((OLD, Style("TLSv1.1", "x", "y", "pins")), "TLSv1.1"),
        ((NEW, Style(OTHER, OTHER, OTHER, "encrypted")), OTHER),
        ((PLAIN, Style(OTHER, OTHER, OTHER, "encrypted")), "none"),
    ],
)
def test_the_weakest(styles: tuple[Style, ...], weakest: str) -> None:
    (row,) = figures.partners([line(style=each) for each in styles])
    assert row["weakest"]["version"] == weakest


def test_partners_in_order() -> None:
    rows = figures.partners([line("a.example"), line("b.example", messages=5), line(OTHER, messages=99)])
    assert [each["domain"] for each in rows] == ["b.example", "a.example", OTHER]


def test_trouble_has_a_remedy() -> None:
    found = figures.troubled(
        [
            Waiting("down.example", "", NOW, 9, "", "cannot connect"),
            Waiting("tls.example", "certificate-expired", NOW, 1, "mx.tls.example:25", "expired"),
        ],
        lambda _domain: "default",
    )
    assert [(each["domain"], each["reason"], each["failure"]) for each in found] == [
        ("tls.example", "tls", "certificate-expired"),
        ("down.example", "unreachable", None),
    ]
    assert "ask tls.example to renew it" in found[0]["remedy"]
    assert "relay probe down.example" in found[1]["remedy"]


EXCEPTIONS = [
    {"recipient_domain": "old.example", "allow": "plaintext", "until": "2026-11-25", "reason": "was"},
    {"recipient_domain": "now.example", "allow": "encryption", "until": "2026-11-26", "reason": "is"},
]


def test_what_an_auditor_asks() -> None:
    found = made(
        line(style=PLAIN, connector="loose"),
        line(style=Style(CLEAR, CLEAR, CLEAR, "none", "exception"), domain="old.example"),
        line(style=Style(CLEAR, CLEAR, CLEAR, "none"), result=Result.ACCEPTED, connector="", domain="c.example"),
        line(messages=4),
        exceptions=EXCEPTIONS,
    )
    assert found["totals"] == {
        "in": {"messages": 1, "clear": 1, "tls": 0},
        "out": {"messages": 6, "clear": 2, "tls": 4, "deferred": 0, "bounced": 0},
        "refused": 3,
    }
    assert [(each["recipient_domain"], each["running"]) for each in found["exceptions"]] == [
        ("old.example", False),
        ("now.example", True),
    ]
    why = {each["domain"]: each["why"] for each in found["clear"]}
    assert why["old.example"] == "an exception allowed it"
    assert why["c.example"].startswith("no connector names the sender's domain")
    assert why["b.example"].startswith("the default asks for TLS where it is offered only")
    assert found["demands"][0] == {
        "connector": "default", "direction": "out", "asked": "certificate", "domains": 1, "messages": 4, "clear": 0,
        "verified": {"pkix": 4}, "failures": {},
    }  # fmt: skip
    assert (found["hostname"], found["time_zone"], found["made_at"]) == (
        "relay.example.com",
        "UTC",
        "2026-11-26T09:30:00.000Z",
    )
    assert found["left_out"]


def test_about_one_partner_nothing_is_said_of_others() -> None:
    found = made(line(), domain="b.example", exceptions=EXCEPTIONS)
    assert (found["refusals"], found["exceptions"], found["totals"]["refused"]) == ([], [], 0)
    assert any("Refusals are not counted by domain" in each for each in found["left_out"])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " \t=1"])
def test_formulas_are_defused(text: str) -> None:
    assert defused(text).startswith("'") or not defused(text).lstrip().startswith(("=", "+", "-", "@"))
    assert defused("b.example") == "b.example"
    assert defused({"TLSv1.3": 3}) == "TLSv1.3 3"


def hostile() -> figures.Json:
    style = Style(EVIL, EVIL, EVIL, "encrypted", "opportunistic")
    reason = {"recipient_domain": "old.example", "allow": "plaintext", "until": "2026-11-25", "reason": EVIL}
    return made(line(EVIL, style, connector=EVIL), line(EVIL, PLAIN), exceptions=[reason])


def test_a_strangers_text_in_csv() -> None:
    rows = list(csv.reader(io.StringIO(csv_of(hostile()))))
    cells = [cell for row in rows for cell in row]
    assert any("cmd|" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert not [cell for cell in cells if "\x1b" in cell or "\u202e" in cell or "\n" in cell]


def test_a_strangers_text_on_the_page() -> None:
    page = page_of(hostile())
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_a_strangers_text_in_a_terminal() -> None:
    assert not [each for each in text_lines(hostile()) if "\x1b" in each or "\u202e" in each or "\n" in each]


def test_an_empty_report_in_every_form() -> None:
    empty = made()
    assert "No mail was counted." in page_of(empty)
    assert "None: every message that was counted went under TLS." in page_of(empty)
    assert "partners" in csv_of(empty)
    assert "  none" in list(text_lines(empty))
