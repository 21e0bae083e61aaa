"""docs/operations.md is a contract: every event, every field and every metric stands in it, and nothing else does."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from relay.mail import events as e
from relay.observe.fields import record
from relay.observe.metrics import Metrics
from tests.unit.observe.samples import ALL, MISMATCH, attempt, message

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
LOG = PAGE.partition("\n## The log\n")[2].partition("\n## ")[0]
EVENTS = {
    row[1]: set(row[2].split(", "))
    for row in re.finditer(r"^\| `([a-z-]+)` \| [a-z; A-Z,]+ \| ([a-z0-9_, ]*?) ?\|", LOG, re.MULTILINE)
}
BY_HAND = {"library-log", "log-lines-dropped"}


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_every_event_and_field_is_documented(event: e.Event) -> None:
    _level, name, fields = record(event)
    assert name in EVENTS
    assert set(fields) <= EVENTS[name]


def test_no_event_is_documented_that_does_not_exist() -> None:
    assert set(EVENTS) - {record(each)[1] for each in ALL} == BY_HAND


def test_every_documented_field_exists() -> None:
    asking = replace(message(), envelope=replace(message().envelope, requiretls=True, tls_optional=True))
    for event in (e.AttemptMade(message(), attempt(MISMATCH)), e.MessageAccepted(asking)):
        _level, name, fields = record(event)
        assert set(fields) == EVENTS[name]


def test_metrics_are_those_documented() -> None:
    documented = set(re.findall(r"`(ironpost_[a-z_]+)`", PAGE))
    families = {each.name: each.type for each in Metrics().registry.collect() if each.name.startswith("ironpost_")}
    real = {f"{name}_total" if kind == "counter" else name for name, kind in families.items()}
    assert documented == real
