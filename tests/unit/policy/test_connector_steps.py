"""What of a connector can be judged from here: files, listeners, networks, and other connectors that speak of the same partner."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.config.certificates import CertificateFiles, read_folder
from relay.config.connectors import Connector
from relay.policy.book import RuleBook
from relay.policy.connector_steps import Files, asks, configuration_steps, inbound_steps, last_seen
from relay.policy.steps import Result, Step, failed, steps_json
from relay.testing import Pki
from tests.unit.policy.builders import PIN, book

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
OUT = {"name": "out", "direction": "outbound", "match": {"recipient_domains": ["contoso.com"]}, "tls": "encryption"}


def into(name: str = "in", domains: tuple[str, ...] = ("contoso.com",), **require: Any) -> dict[str, Any]:
    return {
        "name": name,
        "direction": "inbound",
        "match": {"sender_domains": list(domains)},
        "require": require or {"tls": True},
    }


def named(rules: RuleBook, name: str) -> Connector:
    every: tuple[Connector, ...] = (*rules.config.inbound, *rules.config.outbound)
    return next(each for each in every if each.name == name)


def shown(steps: Any) -> list[tuple[str, str, str]]:
    return [(each.name, each.target, each.result.value) for each in steps]


@pytest.mark.parametrize(
    ("problem", "days", "result"),
    [
        ("", 31, "ok"),
        ("", 30, "warning"),
        ("", 0, "failed"),
        ("", -1, "failed"),
        ("cut off", 99, "failed"),
        ("", None, "ok"),
    ],
)
def test_trust(problem: str, days: int | None, result: str) -> None:
    ends = {} if days is None else {"/ca.pem": NOW + timedelta(days=days)}
    rules = book(connectors=[OUT])
    steps = list(configuration_steps(rules, named(rules, "out"), Files(NOW, {"/ca.pem": problem}, ends)))
    assert shown(steps)[1:] == [("ca", "/ca.pem", result)]
    assert bool(steps[1].remedy) == (result != "ok")
    assert failed(steps) == (result == "failed")


def test_what_is_unwise_and_exceptions_are_shown() -> None:
    exceptions = [
        {"recipient_domain": "contoso.com", "allow": "plaintext", "until": "2026-11-27", "reason": "old gateway"},
        {"recipient_domain": "b.example", "allow": "plaintext", "until": "2026-12-01", "reason": "another's"},
    ]
    rules = book(connectors=[{**OUT, "pins": [PIN], "client_certificate": "ours"}], exceptions=exceptions)
    steps = list(configuration_steps(rules, named(rules, "out"), Files(NOW, advice=("one pin only",))))
    assert shown(steps) == [
        ("configuration", "", "ok"),
        ("our-certificate", "ours", "failed"),
        ("exception", "contoso.com", "warning"),
        ("advice", "", "warning"),
    ]
    assert "level encryption, 1 pin" in steps[0].text
    tomorrow = Files(NOW + timedelta(days=1))
    assert "exception" not in [each.name for each in configuration_steps(rules, named(rules, "out"), tomorrow)]


def test_a_listener_that_can_show_nothing() -> None:
    rules = book(connectors=[into()])
    (step,) = inbound_steps(rules, rules.config.inbound[0], Files(NOW))
    assert (step.name, step.result) == ("listener", Result.FAILED)
    assert "no certificate of ours is valid" in step.text


def test_a_listener_in_clear() -> None:
    listeners = [{"address": "127.0.0.1:25", "starttls": "off"}]
    for require, result in (({"tls": True}, Result.FAILED), ({"networks": ["10.0.0.0/8"]}, Result.WARNING)):
        rules = book(connectors=[into(**require)], listeners=listeners)
        (step,) = inbound_steps(rules, rules.config.inbound[0], Files(NOW))
        assert step.result is result


@pytest.mark.parametrize(
    ("other", "accepted", "expected"),
    [
        ("10.1.2.0/24", "192.168.0.0/16", ["connector other"]),
        ("10.0.0.0/8", "10.9.0.0/16", ["accept.networks", "connector other"]),
        ("172.16.0.0/12", "192.168.0.0/16", []),
        ("2001:db8::/32", "192.168.0.0/16", []),
    ],
)
def test_networks_that_overlap(other: str, accepted: str, expected: list[str]) -> None:
    connectors = [into(networks=["10.0.0.0/8"]), into("other", ("b.example",), networks=[other])]
    rules = book(connectors=connectors, accept={"networks": [accepted]})
    steps = [each for each in inbound_steps(rules, rules.config.inbound[0], Files(NOW)) if each.name == "networks"]
    assert len(steps) == len(expected)
    assert all(word in each.text for word, each in zip(expected, steps, strict=True))


def test_others_that_speak_of_the_same_senders() -> None:
    rules = book(
        connectors=[
            into("wide", ("*.contoso.com", "fabrikam.com")),
            into("narrow", ("mail.contoso.com",)),
            into("narrower", ("*.eu.contoso.com",)),
            into("beside", ("fabrikam.com",)),
            into("apart", ("xcontoso.com", "contoso.com")),
        ]
    )
    found = {
        name: [
            (each.name, each.target) for each in inbound_steps(rules, connector, Files(NOW)) if each.name != "listener"
        ]
        for name, connector in ((each.name, each) for each in rules.config.inbound)
    }
    assert found["wide"] == [
        ("alternatives", "fabrikam.com"),
        ("shadowed", "mail.contoso.com"),
        ("shadowed", "*.eu.contoso.com"),
    ]
    assert found["narrow"] == found["narrower"] == found["apart"] == []
    assert found["beside"] == [("alternatives", "fabrikam.com")]


def test_json_has_stable_names() -> None:
    step = Step("connect", "a:25", Result.FAILED, "no answer", "see the firewall", 1.23456)
    assert steps_json([step]) == [
        {
            "step": "connect",
            "target": "a:25",
            "result": "failed",
            "text": "no answer",
            "remedy": "see the firewall",
            "seconds": 1.235,
        }
    ]


def ours(folder: Path) -> CertificateFiles:
    Pki(folder).issue(folder / "certs", "relay.test")
    return read_folder(folder / "certs", datetime.now(UTC)).certificates[0]


@pytest.mark.parametrize(("left", "result"), [(31, "ok"), (30, "warning"), (-1, "failed")])
def test_our_own_certificate(tmp_path: Path, left: int, result: str) -> None:
    files = replace(ours(tmp_path), not_before=NOW - timedelta(days=99), not_after=NOW + timedelta(days=left))
    rules = book(connectors=[{**OUT, "client_certificate": "relay.test"}])
    steps = list(configuration_steps(rules, named(rules, "out"), Files(NOW, client=files)))
    assert shown(steps)[1] == ("our-certificate", "relay.test", result)


def test_what_an_inbound_connector_asks_in_a_line() -> None:
    certificate = {"names": ["a.example"], "pins": [PIN]}
    rules = book(connectors=[into(tls_version="TLSv1.3", certificate=certificate, networks=["192.0.2.0/24"])])
    said = asks(named(rules, "in"))
    assert said == "TLS, TLSv1.3 or newer, a certificate for a.example with one of 1 pins, from 192.0.2.0/24"


def test_listeners(tmp_path: Path) -> None:
    files = ours(tmp_path)
    valid = replace(files, not_before=NOW - timedelta(days=9), not_after=NOW + timedelta(days=9))
    ended = replace(files, not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))
    rules = book(connectors=[into()])
    connector = rules.config.inbound[0]
    for certificates, result in (((valid,), "ok"), ((ended,), "failed"), ((), "failed")):
        first = next(inbound_steps(rules, connector, Files(NOW, shown=certificates)))
        assert (first.name, first.result.value) == ("listener", result)
    nobody = RuleBook.of(rules.config.model_copy(update={"listeners": ()}))
    first = next(inbound_steps(nobody, connector, Files(NOW)))
    assert (first.name, first.result.value) == ("listener", "failed")


LEAF = {"names": ["a.test", "b.test"], "subject": "CN=a", "issuer": "CN=ca", "not_after": "2027-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (None, "in clear"),
        ({"version": "TLSv1.3", "cipher": "X", "chain": []}, "TLSv1.3, X, no certificate"),
        (
            {"version": "TLSv1.3", "cipher": "X", "chain": [LEAF]},
            "TLSv1.3, X, certificate for a.test, b.test from CN=ca, until 2027-01-01",
        ),
        (
            {"version": "TLSv1.2", "cipher": "X", "chain": [{**LEAF, "names": []}, LEAF]},
            "TLSv1.2, X, certificate for CN=a from CN=ca, until 2027-01-01",
        ),
    ],
)
def test_last_seen(evidence: Any, text: str) -> None:
    found = last_seen({"at": "2026-11-25T08:00:00.000Z", "evidence": evidence}, "")
    assert (found.name, found.result, found.text) == ("last-seen", Result.OK, f"2026-11-25T08:00:00Z: {text}")
    assert last_seen(None, "why") == Step("last-seen", "", Result.SKIPPED, "why")
