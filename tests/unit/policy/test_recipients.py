"""Who may send to whom: nobody who may not relay does, and the postmaster always gets through."""

from pathlib import Path

import pytest

from relay.config.models import Config
from relay.mail.address import parse_path
from relay.policy.book import RuleBook
from relay.policy.recipients import DENIED, ROUTED, UNKNOWN, Accepting, judge_recipient


@pytest.fixture
def rules(tmp_path: Path) -> RuleBook:
    (tmp_path / "list.txt").write_text("bob@listed.example\nAlice  # the boss\n")
    values = {
        "hostname": "relay.example.com",
        "postmaster": "admin@example.com",
        "listeners": [{"address": "127.0.0.1:0"}],
        "accept": {
            "domains": ["example.com", "*.example.com", "listed.example"],
            "recipients": {"listed.example": "file:list.txt"},
        },
    }
    return RuleBook.of(Config.model_validate(values, context={"base": tmp_path}))


@pytest.mark.parametrize("may_relay", [False, True])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("<bob@example.com>", "bob@example.com"),
        ("<bob@sub.example.com>", "bob@sub.example.com"),
        ("<postmaster>", "admin@example.com"),
        ("<PostMaster>", "admin@example.com"),
        ("<bob@listed.example>", "bob@listed.example"),
        ("<ALICE@listed.example>", "ALICE@listed.example"),
        ("<carol@listed.example>", UNKNOWN),
        ("<postmaster@listed.example>", "postmaster@listed.example"),
        ("<bob%evil.example@example.com>", ROUTED),
        ("<evil.example!bob@example.com>", ROUTED),
        ('<"bob@evil.example"@example.com>', ROUTED),
        ('<"b o b"@example.com>', '"b o b"@example.com'),
    ],
)
def test_accepted_domains(rules: RuleBook, path: str, expected: object, may_relay: bool) -> None:
    found = judge_recipient(rules, parse_path(path), may_relay=may_relay)
    assert (str(found.address) if isinstance(found, Accepting) else found) == expected


@pytest.mark.parametrize(
    "path", ["<x@elsewhere.example>", "<x@[192.0.2.1]>", "<x@notexample.com>", "<a%b@elsewhere.example>"]
)
def test_elsewhere_only_for_those_who_may_relay(rules: RuleBook, path: str) -> None:
    address = parse_path(path)
    assert judge_recipient(rules, address, may_relay=False) == DENIED
    assert judge_recipient(rules, address, may_relay=True) == Accepting(address)


def test_report_mailboxes_take_mail_from_anybody_whoever_else_is_at_their_domain() -> None:
    values = {
        "hostname": "relay.example.com",
        "postmaster": "admin@example.com",
        "listeners": [{"address": "127.0.0.1:0"}],
        "tlsrpt": {"mailbox": ["TlsRpt@example.com", "odd%one@reports.example"]},
    }
    rules = RuleBook.of(Config.model_validate(values))
    for path in ("<tlsrpt@example.com>", "<TLSRPT@EXAMPLE.com>", "<odd%one@reports.example>"):
        address = parse_path(path)
        assert rules.is_report_mailbox(address)
        assert judge_recipient(rules, address, may_relay=False) == Accepting(address)
    for path in ("<other@example.com>", "<tlsrpt@sub.example.com>"):
        assert judge_recipient(rules, parse_path(path), may_relay=False) == DENIED
