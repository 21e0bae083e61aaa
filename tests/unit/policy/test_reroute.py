"""A detour never asks for less: by connector, refused; to a host, all that the own way asks stays."""

from typing import Any

import pytest

from relay.config.models import On5xx
from relay.config.values import HostPort
from relay.mail.outcome import Deferred
from relay.mail.plan import Encryption, Level, Pins, Pkix
from relay.policy.plan import choose_plan
from relay.policy.reroute import (
    Detour,
    by_connector,
    by_host,
    find_connector,
    is_key,
    keeps_requiretls,
    key,
    lane_of_key,
    parse_key,
    refusal,
)
from tests.unit.policy.builders import NOW, OTHER_PIN, PIN, book

HOP = HostPort("detour.example", 2525)


def connector(name: str, domain: str, **keys: Any) -> dict[str, Any]:
    if "smart_hosts" in keys:
        keys["route"] = {"smart_hosts": keys.pop("smart_hosts")}
    return {"name": name, "direction": "outbound", "match": {"recipient_domains": [domain]}, **keys}


def rules(own: dict[str, Any], other: dict[str, Any]) -> Any:
    return book(connectors=[connector("own", "a.example", **own), connector("other", "b.example", **other)])


SMART, ELSEWHERE = ["mail.a.example:25"], ["mail.b.example:25"]
FIXED = {"tls": "domain", "names": ["mx.a.example"]}


@pytest.mark.parametrize(
    ("own", "other", "why"),
    [
        ({"smart_hosts": SMART}, {"smart_hosts": ELSEWHERE}, ""),
        ({"smart_hosts": SMART}, {"tls": "encryption", "smart_hosts": ELSEWHERE}, ""),
        ({"tls": "encryption", "smart_hosts": SMART}, {"smart_hosts": ELSEWHERE}, "tls goes from encryption to opport"),
        (
            {"tls": "domain", "smart_hosts": SMART},
            {"tls": "certificate", "smart_hosts": ELSEWHERE},
            "tls goes from domain",
        ),
        ({"plaintext": "never", "smart_hosts": SMART}, {"smart_hosts": ELSEWHERE}, "plaintext goes from never"),
        # Whoever may be at the other end is somebody else.
        (
            {"tls": "domain", "smart_hosts": SMART},
            {"tls": "domain", "smart_hosts": ELSEWHERE},
            "names accept mail.b.example",
        ),
        (FIXED, {**FIXED, "smart_hosts": ELSEWHERE}, ""),
        ({**FIXED, "pins": [PIN]}, {**FIXED, "smart_hosts": ELSEWHERE}, "pins are gone"),
        ({**FIXED, "pins": [PIN]}, {**FIXED, "pins": [PIN, OTHER_PIN]}, "pins has"),
        ({"tls_version": "TLSv1.3", "smart_hosts": SMART}, {"smart_hosts": ELSEWHERE}, "tls_version goes"),
        ({"mta_sts": "require"}, {}, "mta_sts goes from require to auto"),
        # By MX, what the domain publishes is asked; of a smart host it is not.
        ({}, {}, ""),
        ({}, {"smart_hosts": ELSEWHERE}, "what the domain publishes"),
        ({}, {"tls": "certificate", "smart_hosts": ELSEWHERE}, "what the domain publishes"),
        ({}, {"tls": "domain", "smart_hosts": ELSEWHERE}, ""),
        ({}, {"tls": "encryption", "pins": [PIN], "smart_hosts": ELSEWHERE}, ""),
    ],
)
def test_another_connector(own: dict[str, Any], other: dict[str, Any], why: str) -> None:
    made, detour = rules(own, other), Detour(connector="other")
    told = refusal(made, ["a.example"], detour)
    acting = by_connector(made, "a.example", detour)
    if not why:
        assert told == ""
        assert acting == find_connector(made, "other")
        return
    assert why in told
    assert "a.example" in told
    # A configuration that became so later holds the mail, and loses none of it.
    assert isinstance(acting, Deferred)
    assert why in acting.text
    allowed = Detour(connector="other", weaker=True)
    assert refusal(made, ["a.example"], allowed) == ""
    assert by_connector(made, "a.example", allowed) == find_connector(made, "other")


def test_a_connector_that_is_gone() -> None:
    made, detour = rules({}, {}), Detour(connector="nobody", weaker=True)
    assert "no outbound connector nobody (own, other)" in refusal(made, [], detour)
    acting = by_connector(made, "a.example", detour)
    assert isinstance(acting, Deferred)
    assert acting.failure is None
    assert "--via default" in acting.text


@pytest.mark.parametrize(
    ("own", "level", "names"),
    [
        ({}, Level.OPPORTUNISTIC, None),
        ({"tls": "encryption"}, Level.ENCRYPTION, None),
        ({"tls": "certificate", "smart_hosts": SMART}, Level.CERTIFICATE, ()),
        # The names that hold are those of the configured host, whatever the detour's is called.
        (
            {"tls": "domain", "smart_hosts": [*SMART, "two.a.example:25"]},
            Level.DOMAIN,
            ("mail.a.example", "two.a.example"),
        ),
        (FIXED, Level.DOMAIN, ("mx.a.example",)),
        ({**FIXED, "smart_hosts": SMART}, Level.DOMAIN, ("mx.a.example",)),
    ],
)
def test_another_host_must_satisfy_the_same(own: dict[str, Any], level: Level, names: tuple[str, ...] | None) -> None:
    made = rules(own, {})
    before = made.outbound_for("a.example")
    acting = by_host(before, HOP)
    assert acting.route.hosts == (HOP,)
    plan = choose_plan(made, acting, "a.example", HOP.host, NOW)
    assert plan.level is level
    asked = [demand.names for demand in plan.demands if isinstance(demand, Pkix)]
    assert asked == ([] if names is None else [names])
    kinds = {type(demand) for demand in plan.demands}
    assert kinds == {type(demand) for demand in choose_plan(made, before, "a.example", "mail.a.example", NOW).demands}
    assert (Encryption in kinds) is (level is not Level.OPPORTUNISTIC)


def test_pins_and_client_certificate_stay_and_the_password_stays_at_home(tmp_path: Any) -> None:
    secret = {"smart_hosts": SMART, "auth": {"user": "us", "password": "secret"}}
    own = {"tls": "encryption", "pins": [PIN], "client_certificate": "relay.example.com", "route": secret}
    made = book(connectors=[connector("own", "a.example", **own)])
    acting = by_host(made.outbound_for("a.example"), HOP)
    assert acting.route.auth is None
    plan = choose_plan(made, acting, "a.example", HOP.host, NOW)
    assert plan.client_certificate == "relay.example.com"
    assert any(isinstance(demand, Pins) and demand.pins == (PIN,) for demand in plan.demands)


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({}, False),
        ({"tls": "encryption", "smart_hosts": SMART}, False),
        ({"tls": "certificate", "smart_hosts": SMART}, False),
        ({"tls": "domain", "smart_hosts": SMART}, True),
        (FIXED, True),
        ({"tls": "encryption", "pins": [PIN]}, True),
    ],
)
def test_requiretls_needs_somebody_who_vouches(own: dict[str, Any], kept: bool) -> None:
    why = keeps_requiretls(by_host(rules(own, {}).outbound_for("a.example"), HOP))
    assert (why is None) is kept
    assert why is None or why.failure is None, "with a failure the message would bounce at once"


@pytest.mark.parametrize(
    "detour", [Detour("other"), Detour("other", weaker=True), Detour(hop=HOP), Detour(hop=HostPort("2001:db8::1", 25))]
)
def test_a_detour_is_kept_as_text(detour: Detour) -> None:
    text = key("a.example", detour)
    assert is_key(text)
    assert parse_key(text) == ("a.example", detour)
    assert parse_key("a.example") == ("a.example", None)
    assert not is_key("a.example")
    with pytest.raises(ValueError, match="no detour"):
        parse_key("a.example>elsewhere")


def test_lanes() -> None:
    made = rules({"limits": {"concurrency": 3}}, {"smart_hosts": ELSEWHERE, "limits": {"concurrency": 7}})
    other = lane_of_key(made, key("a.example", Detour("other")))
    assert other == lane_of_key(made, "b.example"), "with the connector's own mail"
    host = lane_of_key(made, key("a.example", Detour(hop=HOP)))
    assert (host.key, host.connector, host.concurrency) == ("detour.example:2525 for own", "own", 3)
    holding = rules({"on_5xx": "hold"}, {"smart_hosts": ELSEWHERE})
    for detour, held in ((Detour(hop=HOP), True), (Detour("gone"), True), (Detour("other"), False)):
        assert (lane_of_key(holding, key("a.example", detour)).on_5xx is On5xx.HOLD) is held
    assert lane_of_key(made, key("a.example", Detour("gone"))).key == "missing connector gone"
    assert lane_of_key(rules({}, {}), key("a.example", Detour("other"))).key == "a.example by other"
