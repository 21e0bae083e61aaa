"""Which mail an operator has stopped."""

from datetime import timedelta

import pytest

from relay.mail.address import NULL, parse_mailbox
from relay.policy.suspension import NONE, Stops, Suspension, Suspensions, sender_key
from tests.unit.policy.builders import NOW

TO, CONNECTOR, FROM = Stops.TO, Stops.CONNECTOR, Stops.FROM


def suspended(*held: tuple[Stops, str]) -> Suspensions:
    return Suspensions(Suspension(stops, what, "", "uid 0", NOW) for stops, what in held)


@pytest.mark.parametrize(
    ("stops", "what", "sender", "domain", "connector", "is_held"),
    [
        (TO, "a.example", "x@y.example", "a.example", "c", True),
        (TO, "a.example", "x@y.example", "b.a.example", "c", False),
        (TO, "*.a.example", "x@y.example", "b.a.example", "c", True),
        (TO, "*.a.example", "x@y.example", "c.b.a.example", "c", True),
        (TO, "*.a.example", "x@y.example", "a.example", "c", False),
        (TO, "*", "x@y.example", "a.example", "c", True),
        (TO, "*", "x@y.example", "[192.0.2.1]", "c", True),
        (TO, "*.a.example", "x@y.example", "[192.0.2.1]", "c", False),
        (CONNECTOR, "c", "x@y.example", "a.example", "c", True),
        (CONNECTOR, "c", "x@y.example", "a.example", "d", False),
        (FROM, "x@y.example", "X@y.example", "a.example", "c", True),
        (FROM, "x@y.example", "xx@y.example", "a.example", "c", False),
        (FROM, "@y.example", "anybody@y.example", "a.example", "c", True),
        (FROM, "@y.example", "anybody@z.y.example", "a.example", "c", False),
        (FROM, "<>", "", "a.example", "c", True),
        (FROM, "<>", "x@y.example", "a.example", "c", False),
    ],
)
def test_what_is_held(stops: Stops, what: str, sender: str, domain: str, connector: str, is_held: bool) -> None:
    found = suspended((stops, what)).of(sender, domain, connector)
    assert (found is not None) is is_held
    assert found is None or found.what == what


def test_none_is_false_and_holds_nothing() -> None:
    assert not NONE
    assert NONE.of("x@y.example", "a.example", "c") is None
    assert suspended((TO, "a.example"))
    assert not suspended((TO, "a.example")).by_sender
    assert suspended((FROM, "<>")).by_sender


def test_one_ends_by_itself() -> None:
    hour = timedelta(hours=1)
    made = Suspensions(
        (Suspension(TO, "a.example", "", "", NOW, NOW + hour), Suspension(TO, "b.example", "", "", NOW, None))
    )
    assert made.ends == NOW + hour
    assert [each.what for each in made.at(NOW + hour - timedelta(seconds=1)).all] == ["a.example", "b.example"]
    later = made.at(NOW + hour)
    assert [each.what for each in later.all] == ["b.example"]
    assert later.ends is None


def test_senders_as_they_are_compared() -> None:
    assert sender_key(NULL) == "<>"
    assert sender_key(parse_mailbox("Bob@Example.COM")) == "bob@example.com"
