"""Which keys belong where, and where an unknown one would belong."""

from relay.config.connectors import InboundConnector, OutboundConnector, Require, Route
from relay.config.document import Node, read
from relay.config.keys import elsewhere, fields, likely_key, model_at
from relay.config.models import Config, DomainPublication, Limits, Listener
from relay.config.rules import Place

TEXT = """
limits: {recipients: 100}
listeners: [{address: x}]
accept: {recipients: {a.example: x}}
publish: {domains: {mode: {max_age: 1w}}}
defaults: {outbound: {retry: {expire: 1d}}}
connectors:
  - {direction: inbound, require: {tls: true}, match: {a: b}}
  - {direction: outbound, route: {smart_hosts: [a]}}
  - {direction: sideways, match: {}}
  - {match: {}}
"""


def tree() -> Node:
    return read(TEXT, {})[0]


def test_the_model_of_each_mapping() -> None:
    expected: tuple[tuple[Place, object], ...] = (
        ((), Config),
        (("limits",), Limits),
        (("listeners", 0), Listener),
        (("connectors", 0), InboundConnector),
        (("connectors", 0, "require"), Require),
        (("connectors", 1), OutboundConnector),
        (("connectors", 1, "route"), Route),
        (("connectors", 2), None),
        (("connectors", 2, "match"), None),
        (("connectors", 3), None),
        (("connectors",), None),
        (("connectors", 9), None),
        (("limits", "recipients"), None),
        (("accept", "recipients"), None),
        (("publish", "domains"), None),
        (("publish", "domains", "mode"), DomainPublication),  # "mode" is a domain's name here
        (("publish", "domains", "mode", "max_age"), None),
        (("none", "at all"), None),
    )
    assert [model_at(tree(), place) for place, _ in expected] == [model for _, model in expected]


def test_keys_are_listed_as_they_are_written() -> None:
    assert list(fields(OutboundConnector))[:3] == ["name", "direction", "match"]
    assert "from" in fields(next(each for each in fields(Listener).values() if each is not None))


def test_where_an_unknown_key_would_belong() -> None:
    found = {
        (place, key): elsewhere(tree(), place, key)
        for place, key in (
            ((), "recipients"),
            (("connectors", 0), "names"),
            (("connectors", 0), "tls_version"),
            (("connectors", 0), "route"),
            (("connectors", 1), "grant"),
            (("connectors", 1), "nothing"),
            (("connectors", 0, "match"), "require"),
            (("connectors", 2), "tls"),
            (("listeners", 0), "tls"),
        )
    }
    assert list(found.values()) == [
        "it belongs under `limits`",
        "it is a key of outbound connectors",
        "it belongs under `require`",
        "it is a key of outbound connectors",
        "it is a key of inbound connectors",
        "",
        "it belongs one level up",
        "",
        "",
    ]


def test_the_key_that_was_likely_meant() -> None:
    allowed = ("recipients", "message_size", "connections_per_ip")
    assert likely_key("MessageSize", allowed) == "message_size"
    assert likely_key("recipent", allowed) == "recipients"
    assert likely_key("connections-per-ip", allowed) == "connections_per_ip"
    assert likely_key("colour", allowed) == ""
