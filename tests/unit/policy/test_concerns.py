"""What is a concern: exceptions and certificates by the days that are left, the queue by its age, workers by their deaths."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from relay.config.certificates import HAS_ENDED, Problem
from relay.config.certificates import Severity as ProblemSeverity
from relay.config.connectors import TlsException
from relay.config.models import Config
from relay.mail.alerts import AlertKind, Severity
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, DaneUnusable, StsFetchFailed, TlsWithheld
from relay.mail.seen import Dated, Direction, SeenCertificate, Spot
from relay.mail.tls import TlsFailure
from relay.policy.concerns import (
    Deaths,
    Oldest,
    certificates,
    dane_off,
    deaths,
    exceptions,
    not_renewed,
    partner_certificates,
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
    found = certificates({"relay.example.com": NOW + timedelta(days=left, hours=1)}, (), NOW)
    assert [(each.stage, each.severity) for each in found] == ([] if stage is None else [(stage, severity)])
    assert all(each.repeats == (left < 0) for each in found)


def test_certificate_files_in_trouble() -> None:
    """What is not used and what is used and unwise are told apart; that one has ended is told by the certificate."""
    key, pem, old = Path("certs/a.key"), Path("certs/b.pem"), Path("certs/c.pem")
    problems = (
        Problem(ProblemSeverity.ERROR, pem, "is cut off", "write all of it"),
        Problem(ProblemSeverity.WARNING, key, "everybody can read the key", "chmod 600 a.key"),
        Problem(ProblemSeverity.WARNING, pem, "it is old", "renew it"),
        Problem(ProblemSeverity.WARNING, old, f"{HAS_ENDED} 2026-01-01", "renew it"),
        Problem(ProblemSeverity.WARNING, Path("certs/c.next.pem"), f"{HAS_ENDED} 2026-01-01", "renew it"),
    )
    far = NOW + timedelta(days=99)
    found = certificates({"c": far, "b": far}, problems, NOW)
    assert [(each.kind, each.subject, each.title, each.text, each.remedy) for each in found] == [
        (
            AlertKind.CERTIFICATE,
            "b.pem (file)",
            "the certificate file b.pem is not used",
            "certs/b.pem: is cut off; it is old.",
            "write all of it; renew it.",
        ),
        (
            AlertKind.CERTIFICATE,
            "a.key (file)",
            "the certificate file a.key needs a look",
            "certs/a.key: everybody can read the key.",
            "chmod 600 a.key.",
        ),
        (
            AlertKind.CERTIFICATE,
            "c.next.pem (file)",
            "the certificate file c.next.pem needs a look",
            f"certs/c.next.pem: {HAS_ENDED} 2026-01-01.",
            "renew it.",
        ),
    ]


def config(*names: str) -> Config:
    """Connectors of these names, outbound and inbound, that verify; and one that does not."""
    out = [
        {**SMART, "name": name, "match": {"recipient_domains": [f"{name}.example"]}, "tls": "certificate"}
        for name in names
    ]
    inner = {**SMART, "name": "lax", "tls": "encryption"}
    into = {
        "name": "contoso-in",
        "direction": "inbound",
        "match": {"sender_domains": ["contoso.example"]},
        "require": {"certificate": {"names": ["mail.contoso.example"], "ca": "system"}},
    }
    return book(connectors=[*out, inner, into]).config


def shown(connector: str, subject: str, days: float, hop: str = "mail:25", *, inbound: bool = False) -> SeenCertificate:
    spot = Spot(Direction.INBOUND if inbound else Direction.OUTBOUND, connector, hop)
    leaf = Dated(subject, f"{subject}{days}", NOW + timedelta(days=days, hours=1))
    return SeenCertificate(
        spot, leaf, "CN=ca", (), NOW, "sha256:x", "contoso.example", "192.0.2.1", "", NOW, NOW - timedelta(hours=2)
    )


@pytest.mark.parametrize(
    ("left", "stage", "severity"),
    [
        (31, None, None),
        (30, 1, Severity.WARNING),
        (3, 4, Severity.WARNING),
        (0, 5, Severity.CRITICAL),
        (-1, 6, Severity.CRITICAL),
    ],
)
def test_partners_certificates(left: int, stage: int | None, severity: Severity | None) -> None:
    found = partner_certificates(config("contoso"), [shown("contoso", "CN=mail", left)], NOW)
    assert [(each.stage, each.severity) for each in found] == ([] if stage is None else [(stage, severity)])
    for each in found:
        assert (each.kind, each.subject) == (AlertKind.PARTNER_CERTIFICATE, "contoso: CN=mail")
        assert each.title.startswith("the certificate CN=mail of partner contoso ")
        assert (
            "mail to them waits from then on (at mail:25, contoso.example, last seen 2026-11-27 10:00 UTC)" in each.text
        )
        assert "Ask contoso.example" in each.remedy
        assert each.repeats == (left < 0)


def test_a_client_s_certificate() -> None:
    (found,) = partner_certificates(config(), [shown("contoso-in", "CN=mail", 5, "mail", inbound=True)], NOW)
    assert "their mail to us is refused from then on (shown by mail, contoso.example" in found.text


def test_who_is_told_of_partners_certificates_and_how_often() -> None:
    """The soonest of a subject, at however many hops; of a connector that verifies nobody, none; of too many, the first to end."""
    seen = [
        shown("contoso", "CN=mail", 9, "b:25"),
        shown("contoso", "CN=mail", 2, "a:25"),
        shown("lax", "CN=lax", 2),
        shown("gone", "CN=gone", 2),
        *(shown("fabrikam", f"CN={days}", days) for days in range(30)),
    ]
    found = partner_certificates(config("contoso", "fabrikam"), seen, NOW)
    assert [each.subject for each in found if "contoso" in each.subject] == ["contoso: CN=mail"]
    assert [each.stage for each in found if "contoso" in each.subject] == [4]
    assert [each.subject for each in found if "fabrikam" in each.subject] == [
        f"fabrikam: CN={days}" for days in range(10)
    ]
    assert len(found) == 11


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
    for found in (
        *events,
        *store_trouble(["disk full"]),
        *certificates({}, [Problem(ProblemSeverity.ERROR, Path("a.pem"), "no key", "write it")], NOW),
    ):
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
