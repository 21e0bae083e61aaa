"""What is a concern: exceptions and certificates by the days that are left, the queue by its age, workers by their deaths."""

from datetime import UTC, date, datetime, timedelta

import pytest

from relay.config.connectors import TlsException
from relay.mail.alerts import AlertKind, Severity
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, DaneUnusable, StsFetchFailed, TlsWithheld
from relay.mail.tls import TlsFailure
from relay.policy.concerns import (
    Deaths,
    Oldest,
    certificates,
    dane_off,
    deaths,
    exceptions,
    not_renewed,
    partner_of,
    queue_age,
    reached,
    settled,
    store_trouble,
    waiting,
    withheld,
)
from tests.unit.policy.builders import book

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
TODAY = date(2026, 11, 27)
SMART = {
    "name": "smart",
    "direction": "outbound",
    "match": {"recipient_domains": ["a.example", "b.example"]},
    "route": {"smart_hosts": ["mail.provider.example:25"]},
}


@pytest.mark.parametrize(
    ("left", "stage", "title"),
    [
        (15, None, ""),
        (14, 1, "ends in 14 days"),
        (8, 1, "ends in 8 days"),
        (7, 2, "ends in 7 days"),
        (3, 3, "ends in 3 days"),
        (1, 4, "ends in 1 day"),
        (0, 4, "ends today"),
        (-1, 5, "has ended"),
        (-300, 5, "has ended"),
    ],
)
def test_exceptions(left: int, stage: int | None, title: str) -> None:
    written = TlsException.model_validate(
        {
            "recipient_domain": "old.example",
            "allow": "plaintext",
            "until": str(TODAY + timedelta(days=left)),
            "reason": "x",
        }
    )
    found = exceptions([written], TODAY)
    assert [each.stage for each in found] == ([] if stage is None else [stage])
    assert all(title in each.title and not each.repeats for each in found)


@pytest.mark.parametrize(
    ("left", "stage", "severity"),
    [
        (31, None, None),
        (30, 1, Severity.WARNING),
        (14, 2, Severity.WARNING),
        (7, 3, Severity.WARNING),
        (3, 4, Severity.WARNING),
        (1, 5, Severity.WARNING),
        (0, 5, Severity.CRITICAL),
        (-1, 6, Severity.CRITICAL),
    ],
)
def test_certificates(left: int, stage: int | None, severity: Severity | None) -> None:
    found = certificates({"relay.example.com": NOW + timedelta(days=left, hours=1)}, {}, NOW)
    assert [(each.stage, each.severity) for each in found] == ([] if stage is None else [(stage, severity)])
    assert all(each.repeats == (left < 0) for each in found)


def test_a_certificate_file_in_trouble() -> None:
    (found,) = certificates({}, {"a.pem": "the key does not fit; copy both"}, NOW)
    assert (found.kind, found.subject) == (AlertKind.CERTIFICATE, "a.pem (file)")


def test_whom_a_failure_is_about() -> None:
    rules = book(connectors=[SMART])
    assert partner_of(rules, "a.example") == partner_of(rules, "b.example") == "connector smart"
    assert partner_of(rules, "c.example") == "c.example"
    by_default = book(defaults={"outbound": {"route": {"smart_hosts": ["mail.provider.example:25"]}}})
    assert partner_of(by_default, "c.example") == "the smart hosts of the defaults"


def test_withheld_mail_names_no_person() -> None:
    event = TlsWithheld("01J", "alice.secret@c.example", "mx.c.example:25", TlsFailure.PIN_MISMATCH, "call them")
    found = withheld(book(), event)
    assert (found.subject, found.about, found.remedy) == ("c.example", "01J", "call them")
    assert "pin-mismatch at mx.c.example:25" in found.text
    assert "alice" not in str(found)


@pytest.mark.parametrize("state", ["delivered", "bounced", "deleted", ""])
def test_an_all_clear_says_what_became_of_the_mail(state: str) -> None:
    text = reached("c.example", state).text
    assert ("reached safely again" in text) == (state == "delivered")
    assert ("not known" in text) == (state in ("bounced", "deleted"))


@pytest.mark.parametrize(("held", "told"), [("enforce", True), ("testing", True), ("none", False), ("", False)])
def test_policies_that_cannot_be_renewed(held: str, told: bool) -> None:
    found = not_renewed(StsFetchFailed("c.example", TlsFailure.STS_POLICY_FETCH_ERROR, "no answer", held))
    assert (found is not None) == told
    assert found is None or found.text.endswith("sts-policy-fetch-error: no answer.")


def test_texts_end_with_their_stop() -> None:
    """A chat shows the remedy behind them."""
    events = (dane_off(DaneUnusable("it does not")), waiting(ConfigurationWaiting("connectors.yaml", ("a", "b."))))
    for found in (*events, *store_trouble(["disk full"]), *certificates({}, {"a.pem": "no key"}, NOW)):
        assert found.text.endswith(".")
        assert ".." not in found.text


@pytest.mark.parametrize(
    ("age", "limit", "told"), [("3h", 4, False), ("4h", 4, True), ("9d", 4, True), ("9d", 0, False), ("", 4, False)]
)
def test_the_age_of_the_queue(age: str, limit: int, told: bool) -> None:
    units = {"h": "hours", "d": "days"}
    oldest = Oldest("01J", NOW - timedelta(**{units[age[-1]]: int(age[:-1])}), "c.example") if age else None
    assert bool(queue_age(oldest, timedelta(hours=limit), NOW)) == told


def test_a_store_in_trouble() -> None:
    assert store_trouble([]) == ()
    assert store_trouble(["disk full"])[0].severity is Severity.CRITICAL


def test_workers_that_die_again_and_again() -> None:
    found = Deaths()
    for minute, ended, told in (
        (0, 0, False),
        (1, 1, False),
        (2, 2, False),
        (3, 3, True),
        (59, 3, True),
        (62, 3, False),
    ):
        found = found.counted(ended, NOW + timedelta(minutes=minute))
        assert bool(deaths(found)) == told, minute
    found = found.counted(1, NOW + timedelta(minutes=63))  # another supervisor counts from the beginning
    assert len(found.at) == 1
    found = found.counted(10**6, NOW + timedelta(minutes=64))
    assert len(found.at) <= 6


def test_a_configuration_that_is_in_force_again() -> None:
    relief = settled(ConfigurationSettled("connectors.yaml"))
    assert (relief.kind, relief.subject) == (AlertKind.CONFIGURATION, "connectors.yaml")
