"""An event reaches those who want it, in order, and nobody else."""

from relay.app.hearing import Hearing
from relay.mail.events import DaneUsable, Event, SessionOpened, StoreRecovered

OPENED, RECOVERED, USABLE = SessionOpened("mx", "192.0.2.1"), StoreRecovered(), DaneUsable("127.0.0.1")


def test_each_hears_of_what_it_named_and_one_that_named_nothing_of_all() -> None:
    emit, heard = Hearing(), list[tuple[str, Event]]()
    emit.add(lambda event: heard.append(("sessions", event)), {SessionOpened, StoreRecovered})
    emit.add(lambda event: heard.append(("log", event)))
    for event in (OPENED, USABLE, RECOVERED):
        emit(event)
    assert heard == [
        ("sessions", OPENED),
        ("log", OPENED),
        ("log", USABLE),
        ("sessions", RECOVERED),
        ("log", RECOVERED),
    ]


def test_who_comes_later_hears_of_kinds_that_were_told_before() -> None:
    emit, heard = Hearing(), list[Event]()
    emit(OPENED)
    emit.add(heard.append, {SessionOpened})
    emit(OPENED)
    assert heard == [OPENED]
