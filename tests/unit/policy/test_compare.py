"""`weakened` and `needs_restart`: no key of the models may be forgotten. What is said in which case stands in tests/golden/compare.yaml."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from relay.config.connectors import InboundConnector, Model, OutboundConnector
from relay.config.keys import fields
from relay.config.models import Config
from relay.config.values import parse_network
from relay.policy.compare import AT_RESTART, HARMLESS, needs_restart, weakened
from relay.policy.difference import few, more_names, more_networks, unknown
from tests.unit.policy.builders import OTHER_PIN, PIN, config

FILES = Path(__file__).parents[2] / "golden/config/files"
CA = str(FILES / "ca.pem")
Path_ = tuple[str | int, ...]

# Every key of every model, once.
FULL: dict[str, Any] = {
    "hostname": "relay.example.com",
    "postmaster": "postmaster@example.com",
    "listeners": [
        {"address": "127.0.0.1:25", "kind": "mx", "starttls": "on", "proxy_protocol": {"from": ["10.0.0.0/16"]}},
    ],
    "certificates": "certs",
    "trust": "system",
    "workers": 2,
    "queue": "sqlite:queue.db",
    "admin": {
        "socket": "relay.sock",
        "listen": "127.0.0.1:8443",
        "certificate": "relay.example.com",
        "accounts": "accounts",
        "clients": {"ca": CA, "names": {"ops.example.com": "operate"}},
        "tls": "on",
        "audit": "30d",
    },
    "observe": "127.0.0.1:9925",
    "limits": {
        "message_size": 1000,
        "recipients": 200,
        "connections": 200,
        "connections_per_ip": 20,
        "free_space": 1000,
        "line_length": 2000,
        "command_timeout": "1m",
        "data_timeout": "1m",
        "session_messages": 10,
    },
    "dns": {
        "resolver": "127.0.0.1:53",
        "validating": True,
        "self_test": {"signed": "a.example", "broken": "b.example"},
    },
    "accept": {
        "domains": ["contoso.com", "asked.example"],
        "recipients": {
            "contoso.com": "file:plain.txt",
            "asked.example": {
                "callout": {"timeout": "5s", "positive": "2h", "negative": "2m", "on_failure": "defer"},
            },
        },
        "networks": ["10.0.0.0/16"],
    },
    "publish": {
        "mode": "enforce",
        "mx": ["a.contoso.com"],
        "other_mx": ["b.contoso.com"],
        "max_age": "2w",
        "reports": ["mailto:reports@contoso.com"],
        "tlsa": True,
        "domains": {"contoso.com": {"mode": "enforce", "max_age": "3w"}},
        "https": ["127.0.0.1:443"],
    },
    "submission": {"passwords": "passwords"},
    "retention": {"traces": "20d", "tls_reports": "20d"},
    "bare_lf": {"normalise": ["10.0.0.0/16"]},
    "tls_required_no": "ignore",
    "tlsrpt": {
        "send": "on",
        "organization": "Example Inc.",
        "contact": "tls@example.com",
        "sender": "tls@example.com",
        "dkim": {"domain": "example.com", "selector": "a", "key": "file:dkim.pem"},
        "mailbox": ["tlsrpt@example.com"],
        "unsigned": "ignore",
    },
    "alerts": {
        "mail": ["admin@example.com"],
        "webhook": {"url": "https://hooks.example.com/a", "secret": "0123456789abcdef", "private": "refuse"},
        "repeat": "1d",
        "withheld_after": "1m",
        "queue_age": "4h",
        "hourly": 20,
    },
    "defaults": {"outbound": {"tls": "certificate"}, "inbound": {"revocation": "require"}},
    "revocation_hosts": ["pki.example.internal:8080"],
    "connectors": [
        {
            "name": "in",
            "direction": "inbound",
            "match": {
                "sender_domains": ["contoso.com"],
                "certificate_names": ["a.contoso.com"],
                "networks": ["10.0.0.0/16"],
                "header_from": True,
            },
            "require": {
                "tls": True,
                "tls_version": "TLSv1.3",
                "certificate": {"names": ["a.contoso.com"], "ca": CA, "pins": [PIN]},
                "networks": ["10.0.0.0/16"],
            },
            "grant": {"relay": True},
        },
        {
            "name": "out",
            "direction": "outbound",
            "match": {"recipient_domains": ["contoso.com"]},
            "tls": "domain",
            "names": ["a.contoso.com"],
            "ca": CA,
            "pins": [PIN],
            "tls_version": "TLSv1.3",
            "dane": "require",
            "mta_sts": "require",
            "revocation": "require",
            "client_certificate": "us",
            "route": {"smart_hosts": ["a.contoso.com:25"], "auth": {"user": "us", "password": "one"}},
            "helo": "a.example",
            "source": "192.0.2.1",
            "retry": {"initial": "1m", "maximum": "1h", "expire": "5d", "delay_warning": "4h"},
            "limits": {"concurrency": 5, "messages_per_connection": 5, "rate": "5/s"},
            "on_5xx": "hold",
            "forward_client": "xclient",
        },
        {
            "name": "mx",
            "direction": "outbound",
            "match": {"recipient_domains": ["b.example"]},
            "tls": "opportunistic",
            "plaintext": "never",
            "route": {"private": "refuse"},
        },
    ],
    "exceptions": [
        {"recipient_domain": "b.example", "allow": "encryption", "until": "2027-03-31", "reason": "old"},
    ],
}

# Another value of each key: weaker where there is a weaker one.
OTHER: dict[str, Any] = {
    "hostname": "other.example",
    "postmaster": "postmaster@other.example",
    "address": "127.0.0.1:26",
    "kind": "submission",
    "starttls": "off",
    "from": ["10.0.0.0/8"],
    "certificates": "others",
    "trust": CA,
    "workers": 3,
    "queue": "sqlite:other.db",
    "socket": "other.sock",
    "listen": "127.0.0.1:8444",
    "certificate": "other.example.com",
    "accounts": "others",
    "ops.example.com": "admin",
    "audit": "500d",
    "observe": "127.0.0.1:9926",
    "message_size": 2000,
    "recipients": 300,
    "connections": 300,
    "connections_per_ip": 30,
    "free_space": 10,
    "line_length": 3000,
    "command_timeout": "2m",
    "data_timeout": "2m",
    "session_messages": 20,
    "traces": "10d",
    "tls_reports": "10d",
    "resolver": "127.0.0.2:53",
    "validating": False,
    "signed": "c.example",
    "broken": "c.example",
    "domains": ["contoso.com", "asked.example", "b.example"],
    "networks": ["10.0.0.0/8"],
    "mode": "testing",
    "mx": ["c.contoso.com"],
    "other_mx": ["d.contoso.com"],
    "max_age": "1w",
    "reports": ["https://contoso.com/"],
    "tlsa": False,
    "https": ["127.0.0.1:444"],
    "passwords": "others",
    "normalise": ["10.0.0.0/8"],
    "tls_required_no": "honour",
    "tls": "encryption",
    "name": "other",
    "sender_domains": ["other.example"],
    "certificate_names": ["*.contoso.com"],
    "header_from": False,
    "tls_version": "TLSv1.2",
    "names": ["*.contoso.com"],
    "ca": "system",
    "pins": [PIN, OTHER_PIN],
    "recipient_domains": ["other.example"],
    "plaintext": "if-tls-fails",
    "dane": "auto",
    "mta_sts": "auto",
    "revocation": "prefer",
    "revocation_hosts": ["pki.example.internal"],
    "client_certificate": "them",
    "smart_hosts": ["b.contoso.com:25"],
    "user": "them",
    "password": "two",
    "private": "allow",
    "helo": "b.example",
    "source": "192.0.2.2",
    "initial": "2m",
    "maximum": "2h",
    "mail": ["other@example.com"],
    "url": "https://hooks.example.com/b",
    "secret": "fedcba9876543210",
    "repeat": "0s",
    "withheld_after": "2m",
    "queue_age": "5h",
    "hourly": 21,
    "expire": "4d",
    "delay_warning": "5h",
    "concurrency": 6,
    "messages_per_connection": 6,
    "rate": "6/s",
    "send": "off",
    "organization": "Others",
    "contact": "other@example.com",
    "sender": "other@example.com",
    "domain": "mail.example.com",
    "selector": "b",
    "key": "file:dkim-other.pem",
    "mailbox": ["tlsrpt@example.com", "other@example.com"],
    "unsigned": "accept",
    "on_5xx": "bounce",
    "forward_client": "proxy",
    "timeout": "6s",
    "positive": "3h",
    "negative": "3m",
    "on_failure": "accept",
    "recipient_domain": "c.example",
    "allow": "plaintext",
    "until": "2027-04-30",
    "reason": "other",
}

# Keys of which only leaving them out weakens, or that are told by what they are part of.
ONLY_TRUE = {"relay", "direction"}
TELLS_NOTHING = {key for keys in HARMLESS.values() for key in keys} | {
    *("concurrency", "messages_per_connection", "rate"),  # of `limits`
    *("initial", "maximum", "delay_warning"),  # of `retry`: patience
    "secret",  # of the webhook: the same
    "password",  # how a secret is rotated
}


def made(values: dict[str, Any]) -> Config:
    return Config.model_validate(values, context={"base": FILES})


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all keys whose value is no mapping."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, each in enumerate(value):
            yield from leaves(each, (*path, index))
    else:
        yield path


def changed(path: Path_, value: Any) -> dict[str, Any]:
    """FULL with another value at `path`."""
    values = copy.deepcopy(FULL)
    node: Any = values
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return values


def models(model: type[Model], seen: set[type[Model]]) -> set[type[Model]]:
    if model not in seen:
        seen.add(model)
        for each in (each for each in fields(model).values() if each is not None):
            models(each, seen)
    return seen


EVERY_MODEL = models(InboundConnector, set()) | models(OutboundConnector, set()) | models(Config, set())
# A value that cannot be another, and one whose change only strengthens: the golden table has what weakens them.
APART: set[Path_] = {("connectors", 0, "require", "tls"), ("connectors", 2, "tls")}
APART.add(("admin", "tls"))  # `off` goes with nothing else that stands there
# These are under the domain's own words, which act in their place.
APART |= {("publish", "mode"), ("publish", "max_age")}
LEAVES = [path for path in leaves(FULL) if path[-1] in OTHER and path not in APART]


def test_the_full_configuration_has_every_key_of_every_model() -> None:
    keys = {part for path in leaves(FULL) for part in path}
    assert {key for model in EVERY_MODEL for key in fields(model)} - keys == set()
    assert {path[-1] for path in leaves(FULL)} - OTHER.keys() - ONLY_TRUE == {"contoso.com"}


@pytest.mark.parametrize("path", LEAVES, ids=[".".join(map(str, path)) for path in LEAVES])
def test_a_change_of_any_key_is_told_or_is_known_to_be_harmless(path: Path_) -> None:
    values = changed(path, OTHER[str(path[-1])])
    told = weakened(made(FULL), made(values)) + needs_restart(made(FULL), made(values))
    assert bool(told) == (path[-1] not in TELLS_NOTHING)


@pytest.mark.parametrize(
    "path",
    [
        ("connectors", 0),
        ("connectors", 1),
        ("connectors", 2),
        ("connectors", 0, "require", "tls_version"),
        ("connectors", 0, "require", "certificate"),
        ("connectors", 0, "require", "certificate", "names"),
        ("connectors", 0, "require", "certificate", "ca"),
        ("connectors", 0, "require", "certificate", "pins"),
        ("connectors", 0, "require", "networks"),
        ("connectors", 0, "match", "certificate_names"),
        ("connectors", 0, "match", "networks"),
        ("connectors", 0, "match", "header_from"),
        ("connectors", 1, "pins"),
        ("connectors", 1, "ca"),
        ("connectors", 1, "tls"),
        ("connectors", 1, "client_certificate"),
        ("connectors", 1, "route"),
        ("connectors", 1, "route", "auth"),
        ("connectors", 1, "tls_version"),
        ("connectors", 2, "plaintext"),
        ("accept",),
        ("accept", "domains"),
        ("accept", "recipients"),
        ("accept", "recipients", "contoso.com"),
        ("accept", "recipients", "asked.example"),
        ("connectors", 1, "on_5xx"),
        ("connectors", 1, "forward_client"),
        ("publish",),
        ("publish", "https"),
        ("publish", "reports"),
        ("publish", "domains", "contoso.com", "max_age"),
        ("certificates",),
        ("submission",),
        ("admin",),
        ("observe",),
        ("workers",),
        ("tlsrpt",),
        ("tlsrpt", "dkim"),
        ("tlsrpt", "mailbox"),
        ("alerts",),
        ("alerts", "mail"),
        ("alerts", "webhook"),
        ("listeners", 0, "proxy_protocol"),
    ],
)
def test_leaving_a_rule_out_is_told(path: Path_) -> None:
    values = copy.deepcopy(FULL)
    node: Any = values
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    assert weakened(made(FULL), made(values)) + needs_restart(made(FULL), made(values))


def test_recipients_that_are_asked_about() -> None:
    def said(before: object, after: object) -> tuple[str, ...]:
        old, new = (
            {} if each is None else {"recipients": {"contoso.com": each}, "domains": ["contoso.com"]}
            for each in (before, after)
        )
        return weakened(
            config(accept={"domains": ["contoso.com"], **old}), config(accept={"domains": ["contoso.com"], **new})
        )

    file, asked = f"file:{FILES / 'plain.txt'}", "callout"
    accepting = {"callout": {"on_failure": "accept"}}
    assert said(None, asked) == said(asked, {"callout": {}}) == said(accepting, asked) == ()
    assert said(asked, None) == ("accept.recipients asks nobody about contoso.com any more: any recipient is taken",)
    assert said(file, asked) == (
        "accept.recipients for contoso.com is no list any more: the mail server inside is asked",
    )
    assert said(asked, file) == (
        "accept.recipients for contoso.com is a list: mail for those who are not in it is refused",
    )
    assert said(asked, accepting) == (
        "accept.recipients for contoso.com: callout.on_failure goes from defer to accept",
    )


def test_recipient_lists() -> None:
    short, longer = made(FULL), made(changed(("accept", "recipients", "contoso.com"), "file:recipients.txt"))
    assert weakened(short, longer) == ()
    fewer = made(changed(("accept", "recipients", "contoso.com"), "file:one.txt"))
    assert weakened(short, fewer) == ("accept.recipients for contoso.com lacks alice: mail for them is refused",)
    assert weakened(fewer, short) == ()
    values = changed(("accept", "recipients", "contoso.com"), "")
    del values["accept"]["recipients"]["contoso.com"]
    none = made(values)
    assert weakened(none, short) == ()
    assert weakened(short, none) == ("accept.recipients has no list for contoso.com any more: any recipient is taken",)


class Before(Model):
    known: int = 0
    added: int = 0


def test_a_key_without_a_rule_counts() -> None:
    assert list(unknown(Before(), Before(known=1, added=1), {"known"}, "place.")) == ["place.added changes"]
    assert list(unknown(Before(), Before(known=1), {"known"})) == []


class FutureConfig(Config):
    vault: Literal["open", "shut"] = "shut"


def test_a_section_without_a_rule_counts() -> None:
    shut = FutureConfig.model_validate(FULL, context={"base": FILES})
    opened = FutureConfig.model_validate(FULL | {"vault": "open"}, context={"base": FILES})
    assert weakened(shut, opened) == ("vault changes",)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((), ("10.0.0.0/8",), "10.0.0.0/8"),
        (("10.0.0.0/8",), ("10.1.0.0/16", "10.2.3.4"), ""),
        (("10.0.0.0/9", "10.128.0.0/9"), ("10.0.0.0/8",), ""),
        (("10.0.0.0/8",), ("::/1",), "::/1"),
        (("::/1",), ("2001:db8::/32", "10.0.0.0/8"), "10.0.0.0/8"),
    ],
)
def test_more_networks(old: tuple[str, ...], new: tuple[str, ...], expected: str) -> None:
    assert more_networks([parse_network(each) for each in old], [parse_network(each) for each in new]) == expected


def test_more_names() -> None:
    assert more_names(["*.contoso.com"], ["mail.contoso.com", "*.contoso.com"]) == ""
    assert more_names(["*.contoso.com"], ["a.mail.contoso.com", "contoso.com"]) == "a.mail.contoso.com, contoso.com"
    assert more_names(["mail.contoso.com"], ["*.contoso.com"]) == "*.contoso.com"


def test_few() -> None:
    assert few("cab") == "a, b, c"
    assert few("abcdefg") == "a, b, c, d, e and 2 more"


def test_what_only_a_start_can_take_over() -> None:
    old = config(admin={"socket": "a.sock"}, listeners=[{"address": "127.0.0.1:25"}])
    new = config(
        hostname="other.example",
        certificates="certs",
        observe="127.0.0.1:9925",
        workers=3,
        queue="sqlite:other.db",
        listeners=[{"address": "127.0.0.1:26"}],
        limits={"recipients": 200},
    )
    assert needs_restart(old, new) == tuple(f"{key} changes" for key in AT_RESTART)
    assert needs_restart(old, old) == ()


def test_no_secret_is_told() -> None:
    values = changed(
        ("connectors", 1, "route"), {"smart_hosts": ["b.example"], "auth": {"user": "x", "password": "hunter2"}}
    )
    assert "hunter2" not in str(weakened(made(FULL), made(values))) + str(weakened(made(values), made(FULL)))
