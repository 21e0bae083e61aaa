"""When ends are announced, and of whom."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.models import Config
from relay.mail.seen import Dated, Direction, SeenCertificate, Spot
from relay.mail.tls import Certificate
from relay.policy.expiry import (
    ENDED,
    THRESHOLDS,
    due,
    our_warnings,
    partner_days,
    partner_warnings,
    sooner_than_leaf,
    threshold,
)

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("days", "reached"),
    [
        *(
            (31, None),
            (30.01, None),
            (30, 30),
            (14.5, 30),
            (14, 14),
            (7, 7),
            (6.9, 7),
            (3, 3),
            (1, 1),
            (0.001, 1),
            (0, 1),
        ),
        *((-0.001, ENDED), (-400, ENDED)),
    ],
)
def test_thresholds(days: float, reached: int | None) -> None:
    assert threshold(NOW + days * DAY, NOW) == reached


@pytest.mark.parametrize(
    ("days", "said", "given"),
    [
        *((40, None, None), (20, None, 30), (20, 30, None), (10, 30, 14), (10, None, 14), (10, 14, None), (-1, 1, 0)),
        *((-1, 0, None), (-50, None, 0), (20, 14, None)),
    ],
)
def test_each_is_given_once(days: float, said: int | None, given: int | None) -> None:
    assert due(NOW + days * DAY, NOW, said) == given


@given(st.lists(st.floats(0, 45), min_size=1, max_size=60).map(lambda steps: sorted(steps)))
def test_however_often_one_looks_each_threshold_comes_once_and_in_order(moments: list[float]) -> None:
    ends, said, given = NOW + 40 * DAY, None, list[int]()
    for moment in moments:
        reached = due(ends, NOW + moment * DAY, said)
        if reached is not None:
            given.append(reached)
            said = reached
    assert given == sorted(set(given), reverse=True)
    assert set(given) <= {*THRESHOLDS, ENDED}
    last = threshold(ends, NOW + moments[-1] * DAY)
    assert (given[-1] if given else None) == last


def link(subject: str, issuer: str, days: float) -> Certificate:
    return Certificate(subject, issuer, (), (), NOW - DAY, NOW + days * DAY, subject * 8, "sha256:" + subject)


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ([], None),
        ([link("leaf", "mid", 90)], None),
        ([link("leaf", "mid", 90), link("mid", "root", 400)], None),
        ([link("leaf", "mid", 90), link("mid", "root", 20)], "mid"),
        ([link("leaf", "mid", 90), link("mid", "top", 50), link("top", "root", 20)], "top"),
        # An anchor that the peer shows too, and what does not belong to the chain at all.
        ([link("leaf", "mid", 90), link("mid", "root", 400), link("root", "root", 5)], None),
        ([link("leaf", "mid", 90), link("other", "root", 5)], None),
    ],
)
def test_an_intermediate_that_ends_first(chain: list[Certificate], found: str | None) -> None:
    sooner = sooner_than_leaf(chain)
    assert (sooner.subject if sooner is not None else None) == found


_LEVELS: dict[str, dict[str, Any]] = {
    "easy": {"tls": "encryption"},
    "pinned": {"tls": "encryption", "pins": ["sha256:" + "A" * 43 + "="]},
    "chain": {"tls": "certificate"},
    "named": {"tls": "domain", "names": ["mx.named.example"]},
}
CONFIG = Config.model_validate(
    {
        "hostname": "relay.example.com",
        "postmaster": "postmaster@example.com",
        "listeners": [{"address": "127.0.0.1:0"}],
        "connectors": [
            *(
                {"name": name, "direction": "outbound", "match": {"recipient_domains": [f"{name}.example"]}, **more}
                for name, more in _LEVELS.items()
            ),
            {
                "name": "tls-in",
                "direction": "inbound",
                "match": {"sender_domains": ["t.example"]},
                "require": {"tls": True},
            },
            {
                "name": "cert-in",
                "direction": "inbound",
                "match": {"sender_domains": ["c.example"]},
                "require": {"certificate": {"names": ["mx.c.example"]}},
            },
        ],
    }
)


def seen(connector: str, days: float, direction: Direction = Direction.OUTBOUND, **more: object) -> SeenCertificate:
    found = SeenCertificate(
        spot=Spot(direction, connector, "mx.example:25"),
        leaf=Dated(f"CN={connector}", f"{connector}{days}", NOW + days * DAY),
        issuer="CN=CA",
        names=("mx.example",),
        not_before=NOW - DAY,
        pin="sha256:x",
        domain="d.example",
        address="192.0.2.1",
        failure="",
        first=NOW - DAY,
        last=NOW,
    )
    return replace(found, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("certificate", "warned"),
    [
        (seen("easy", 5), False),
        (seen("gone", 5), False),
        (seen("pinned", 5), True),
        (seen("chain", 5), True),
        (seen("named", 5), True),
        (seen("named", 50), False),
        (seen("tls-in", 5, Direction.INBOUND), False),
        (seen("cert-in", 5, Direction.INBOUND), True),
        (seen("cert-in", 5, Direction.OUTBOUND), False),
        (seen("named", 5, last=NOW - 31 * DAY), False),
        (seen("named", 5, spot=Spot(Direction.OUTBOUND, "named", "mx.example:25", refused=True)), False),
        (seen("named", 500, sooner=Dated("CN=intermediate", "i", NOW + 5 * DAY)), True),
    ],
)
def test_partners_that_are_verified_are_warned_of(certificate: SeenCertificate, warned: bool) -> None:
    found = list(partner_warnings(CONFIG, [certificate], {}, NOW))
    assert bool(found) is warned
    if warned:
        assert (found[0].said.owner, found[0].said.threshold, found[0].days) == (certificate.spot.connector, 7, 5)
        assert found[0].subject == certificate.soonest.subject


def test_one_certificate_at_many_hops_is_one_warning() -> None:
    spots = [Spot(Direction.OUTBOUND, "named", f"mx{number}.example:25") for number in range(5)]
    assert len(list(partner_warnings(CONFIG, [seen("named", 5, spot=spot) for spot in spots], {}, NOW))) == 1


def test_what_was_said_is_not_said_again() -> None:
    certificate = seen("named", 5)
    (first,) = partner_warnings(CONFIG, [certificate], {}, NOW)
    said = {(first.said.owner, first.said.sha256): first.said.threshold}
    assert not list(partner_warnings(CONFIG, [certificate], said, NOW))
    (later,) = partner_warnings(CONFIG, [certificate], said, NOW + 3 * DAY)
    assert later.said.threshold == 3
    ours = [("relay", Dated("CN=relay", "ab", NOW + 5 * DAY))]
    assert [each.name for each in our_warnings(ours, said, NOW)] == ["relay"]
    assert not list(our_warnings(ours, {("", "ab"): 7}, NOW))


def test_days_of_partners_are_the_fewest_of_each_connector() -> None:
    hosts = [seen("named", 50), seen("named", 5), seen("chain", -2), seen("easy", 1)]
    assert partner_days(CONFIG, hosts, NOW) == {"named": 5.0, "chain": -2.0}
