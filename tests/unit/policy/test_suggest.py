"""Which level is suggested, as tables: never one that would have lost a message, never from too little."""

from typing import Any

import pytest

from relay.mail.plan import Level
from relay.policy.suggest import Advice, Record, Sender, Shown, Why, advise, advise_inbound, common_names
from tests.unit.policy.builders import certificate

OWN = Shown("mx.b.example:25", certificate("mx.b.example"), "", 100)
SELF = Shown("mx.b.example:25", certificate("mx.b.example"), "self-signed certificate", 100)
GONE = Shown("mx.b.example:25", None, None, 100)
BARE = Shown("mx.b.example:25", None, "no certificate was shown", 100)
STRANGE = Shown("mx.b.example:25", certificate("host.elsewhere.net"), "", 100)


def record(*shown: Shown, **more: Any) -> Record:
    values: dict[str, Any] = {"messages": 100, "clear": 0, "failures": 0, "now": Level.OPPORTUNISTIC}
    return Record("b.example", shown=shown, **(values | more))


@pytest.mark.parametrize(
    ("seen", "level", "why"),
    [
        (record(OWN), Level.DOMAIN, Why.RAISED),
        (record(STRANGE), Level.CERTIFICATE, Why.RAISED),
        (record(SELF), Level.ENCRYPTION, Why.RAISED),
        (record(GONE), Level.ENCRYPTION, Why.RAISED),
        (record(BARE), Level.ENCRYPTION, Why.RAISED),
        (record(), Level.ENCRYPTION, Why.RAISED),
        (record(OWN, SELF, messages=200), Level.ENCRYPTION, Why.RAISED),
        (record(OWN, messages=101), Level.ENCRYPTION, Why.RAISED),  # of one connection the chain is not known
        (record(OWN, clear=1), None, Why.CLEAR),
        (record(OWN, failures=1), None, Why.FAILURES),
        (record(OWN, messages=19), None, Why.TOO_FEW),
        (record(OWN, published=frozenset({"dane"})), None, Why.PROTECTED),
        (record(OWN, published=frozenset({"mta-sts"}), messages=1), None, Why.PROTECTED),
        (record(OWN, nameless=1), None, Why.NAMELESS),
        (record(OWN, now=Level.DOMAIN), None, Why.IN_FORCE),
        (record(OWN, now=Level.CERTIFICATE), Level.DOMAIN, Why.RAISED),
        (record(SELF, now=Level.ENCRYPTION), None, Why.IN_FORCE),
        (record(SELF, now=Level.CERTIFICATE), None, Why.IN_FORCE),
        (record(STRANGE, now=Level.CERTIFICATE), None, Why.IN_FORCE),
        (record(OWN, revocation=True), Level.ENCRYPTION, Why.RAISED),  # nobody knows whether its CA's responder answers
        (record(OWN, revocation=True, now=Level.ENCRYPTION), None, Why.IN_FORCE),
        (record(OWN, revocation=True, now=Level.CERTIFICATE), Level.DOMAIN, Why.RAISED),  # asked and answered already
    ],
)
def test_levels(seen: Record, level: Level | None, why: Why) -> None:
    advice = advise(seen, least=20)
    assert (advice.level, advice.why) == (level, why)
    assert advice.level is None or advice.level.rank > seen.now.rank
    assert bool(advice.names) == (advice.level is Level.DOMAIN)
    assert advice.text
    assert advice.level in (None, Level.DOMAIN) or advice.limit


def test_small_samples_say_so() -> None:
    assert advise(record(OWN, messages=3), least=20) == Advice(
        None, Why.TOO_FEW, "3 messages are too few to tell from (at least 20)"
    )
    assert advise(record(OWN, messages=1), least=20).text == "1 message is too few to tell from (at least 20)"
    assert "TLS failed in 1 attempt:" in advise(record(OWN, failures=1), least=20).text


def shown(host: str, *names: str) -> Shown:
    return Shown(f"{host}:25", certificate(*names), "", 1)


@pytest.mark.parametrize(
    ("seen", "names"),
    [
        ([shown("mx.b.example", "mx.b.example", "mail.b.example")], ("mx.b.example",)),
        ([shown("mx1.b.example", "*.b.example"), shown("mx2.b.example", "*.b.example")], ("*.b.example",)),
        (
            [
                shown(
                    "b-example.mail.protection.outlook.com",
                    "mail.protection.outlook.com",
                    "*.mail.protection.outlook.com",
                ),
                shown("b-example.mail.protection.outlook.com", "outlook.com", "*.mail.protection.outlook.com"),
            ],
            ("*.mail.protection.outlook.com",),
        ),
        # Each its own name: both are written down.
        (
            [shown("mx1.b.example", "mx1.b.example"), shown("mx2.b.example", "mx2.b.example")],
            ("mx1.b.example", "mx2.b.example"),
        ),
        # A name that they share and that means somebody else is none.
        ([shown("mx1.b.example", "shared.host.net"), shown("mx2.b.example", "shared.host.net")], ()),
        ([shown("mx.host.net", "b.example")], ("b.example",)),
        ([shown("mx1.b.example", "mx1.b.example"), shown("mx2.b.example", "other.net")], ()),
        ([shown("mx.b.com", "*.com")], ()),
        ([shown("192.0.2.1", "host.net")], ()),
        ([shown(f"mx{index}.b.example", f"mx{index}.b.example") for index in range(5)], ()),
        ([Shown("mx.b.example:25", None, "", 1)], ()),
        ([], ()),
    ],
)
def test_names(seen: list[Shown], names: tuple[str, ...]) -> None:
    assert common_names("b.example", seen) == names


CLIENT = Shown("192.0.2.0/24", certificate("mail.a.example"), "", 100)


def sender(*shown: Shown, **more: Any) -> Sender:
    values: dict[str, Any] = {"messages": 100, "clear": 0, "versions": frozenset({"TLSv1.3"})}
    return Sender("a.example", shown=shown, **(values | more))


@pytest.mark.parametrize(
    ("seen", "require", "version", "names"),
    [
        (sender(Shown("192.0.2.0/24", None, "no certificate was shown", 100)), True, "TLSv1.3", ()),
        (sender(CLIENT), True, "TLSv1.3", ("mail.a.example",)),
        (sender(CLIENT, versions=frozenset({"TLSv1.3", "TLSv1.2"})), True, "", ("mail.a.example",)),
        (sender(CLIENT, messages=101), True, "TLSv1.3", ()),
        (sender(CLIENT, revocation=True), True, "TLSv1.3", ()),
        (sender(Shown("192.0.2.0/24", certificate("mail.elsewhere.net"), "", 100)), True, "TLSv1.3", ()),
        (sender(CLIENT, clear=1), False, "", ()),
        (sender(CLIENT, messages=5), False, "", ()),
        (sender(CLIENT, nameless=5), False, "", ()),
        (sender(CLIENT, known="connector x names it"), False, "", ()),
    ],
)
def test_senders(seen: Sender, require: bool, version: str, names: tuple[str, ...]) -> None:
    advice = advise_inbound(seen, least=20)
    assert (advice.require, advice.tls_version, advice.names) == (require, version, names)
    assert advice.text
