"""What the table plan_by_offer.txt does not show: sources, dates, and who counts as governed."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from relay.mail.plan import Encryption, Level, Pins, Pkix, Plaintext, TlsPlan, TlsVersion
from relay.mail.tls import Undecided
from relay.policy.book import RuleBook
from relay.policy.plan import as_strong, choose_plan, running_exception
from relay.policy.verdict import Failed, judge
from tests.unit.policy.builders import NOW, PIN, book, certificate, evidence


def rules(*, exception: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None, **keys: Any) -> RuleBook:
    connector = {
        "name": "c",
        "direction": "outbound",
        "match": {"recipient_domains": ["*.contoso.com", "contoso.com"]},
    } | keys
    exceptions = [{"recipient_domain": "contoso.com", "reason": "test"} | exception] if exception else []
    return book(connectors=[connector], exceptions=exceptions, defaults={"outbound": defaults or {}})


def plan(rule_book: RuleBook, domain: str = "contoso.com", now: datetime = NOW) -> TlsPlan:
    return choose_plan(rule_book, rule_book.outbound_for(domain), domain, "mx.contoso.com", now)


def test_every_demand_names_who_asked_for_it() -> None:
    found = plan(
        rules(tls="domain", names=["mail.contoso.com"], defaults={"tls_version": "TLSv1.3", "tls": "encryption"})
    )
    assert found.demands == {
        Encryption("connector c"),
        Pkix("connector c", "system", ("mail.contoso.com",)),
        TlsVersion("default", "TLSv1.3"),
    }
    inherited = plan(rules(defaults={"tls": "certificate", "tls_version": "TLSv1.3"}))
    assert {demand.source for demand in inherited.demands} == {"default"}
    assert inherited.level is Level.CERTIFICATE
    own = plan(rules(tls="encryption", pins=[PIN], tls_version="TLSv1.3"))
    assert own.demands == {Encryption("connector c"), Pins("connector c", (PIN,)), TlsVersion("connector c", "TLSv1.3")}


def test_a_connectors_own_word_wins_over_the_defaults() -> None:
    found = plan(rules(tls="opportunistic", plaintext="if-tls-fails", defaults={"plaintext": "never"}))
    assert (found.plaintext, found.requires_tls) == (Plaintext.IF_TLS_FAILS, False)
    stricter = plan(rules(tls="encryption", defaults={"plaintext": "if-tls-fails"}))
    assert (stricter.plaintext, stricter.requires_tls) == (Plaintext.NEVER, True)


def test_what_no_connector_names_goes_by_the_defaults() -> None:
    found = plan(rules(tls="domain", names=["a.example"], defaults={"plaintext": "never"}), "elsewhere.example")
    assert found.demands == {Encryption("default"), TlsVersion("default", "TLSv1.2")}


def test_the_client_certificate_is_part_of_the_plan_even_beside_an_exception() -> None:
    keys: dict[str, Any] = {"tls": "encryption", "client_certificate": "relay.example.com"}
    assert plan(rules(**keys)).client_certificate == "relay.example.com"
    excepted = plan(rules(exception={"allow": "plaintext", "until": NOW.date()}, **keys))
    assert (excepted.client_certificate, excepted.level) == ("relay.example.com", Level.OPPORTUNISTIC)


@pytest.mark.parametrize(
    ("now", "runs"),
    [
        (datetime(2026, 11, 22, 0, 0, tzinfo=UTC), True),
        (datetime(2026, 11, 22, 23, 59, 59, 999999, tzinfo=UTC), True),
        (datetime(2026, 11, 23, 0, 0, tzinfo=UTC), False),
        # The last day is a day of UTC, wherever the relay stands.
        (datetime(2026, 11, 23, 1, 0, tzinfo=timezone(timedelta(hours=2))), True),
        (datetime(2026, 11, 22, 23, 0, tzinfo=timezone(timedelta(hours=-2))), False),
    ],
)
def test_an_exception_ends_with_its_last_day_in_utc(now: datetime, runs: bool) -> None:
    found = plan(rules(tls="encryption", exception={"allow": "plaintext", "until": "2026-11-22"}), now=now)
    assert found.requires_tls is not runs
    assert found.until == (datetime(2026, 11, 23, tzinfo=UTC) if runs else None)


def test_an_exception_is_for_exactly_its_domain() -> None:
    rule_book = rules(tls="encryption", exception={"allow": "plaintext", "until": "2027-01-01"})
    assert running_exception(rule_book, "contoso.com", NOW.date()) is not None
    assert running_exception(rule_book, "sub.contoso.com", NOW.date()) is None
    assert plan(rule_book, "sub.contoso.com").requires_tls


@pytest.mark.parametrize(
    ("back", "out", "strong"),
    [
        ("opportunistic", "opportunistic", True),
        ("opportunistic", "encryption", False),
        ("encryption", "encryption", True),
        ("encryption", "certificate", False),
        ("certificate", "encryption", True),
        ("domain", "certificate", True),
    ],
)
def test_the_way_back(back: str, out: str, strong: bool) -> None:
    def of(level: str) -> TlsPlan:
        names: dict[str, Any] = {"names": ["mail.contoso.com"]} if level == "domain" else {}
        return plan(rules(tls=level, **names))

    assert as_strong(of(back), of(out)) is strong


def test_the_way_back_of_a_pinned_partner_needs_pins_too() -> None:
    pinned, plain = plan(rules(tls="certificate", pins=[PIN])), plan(rules(tls="certificate"))
    assert not as_strong(plain, pinned)
    assert as_strong(pinned, plain)


def test_a_trust_store_that_cannot_be_read_fails_the_plan() -> None:
    leaf = certificate("mail.contoso.com")
    verdict = judge(plan(rules(tls="certificate")), evidence(leaf, paths={"system": Undecided("no such file")}))
    assert isinstance(verdict, Failed)
    assert "no such file" in verdict.text
    assert plan(rules(tls="certificate")).trusts == {"system"}


def test_a_failure_names_its_source() -> None:
    verdict = judge(plan(rules(tls="encryption")), None)
    assert isinstance(verdict, Failed)
    assert verdict.source == "connector c"
    never = judge(TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER), None)
    assert isinstance(never, Failed)
    assert never.source == "default"
