"""Who gets the next connection, with the kernel's own sockets: one process while clients come one by one, all of them otherwise."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import relay.workers.steering as steering
from relay.workers.locks import Byte
from relay.workers.steering import Steering
from relay.workers.table import Table
from tests.unit.workers.holder import holding

MANY = 64  # that none of several sockets gets one of them happens once in 2**63 runs


class Relay:
    """Processes of one relay, all of them in this one; `now` in seconds."""

    def __init__(self, count: int) -> None:
        self.now = 1000.0
        self.table = Table(count)
        self.processes = [Steering(self.table, slot, lambda: self.now) for slot in range(count)]
        self._open: list[socket.socket] = []

    def listen(self, port: int = 0) -> socket.socket:
        made = socket.create_server(("127.0.0.1", port), backlog=2 * MANY, reuse_port=True)
        made.setblocking(False)
        self._open.append(made)
        return made

    def close(self) -> None:
        for each in self._open:
            each.close()
        self.table.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay(2)
    yield made
    made.close()


@pytest.fixture
def doors(relay: Relay) -> list[socket.socket]:
    """One of each process, on one address."""
    first = relay.listen()
    return [first, relay.listen(first.getsockname()[1])]


def half_opened(relay: Relay, doors: list[socket.socket]) -> tuple[socket.socket, socket.socket]:
    """A new address in the middle of a reload: one process has it already, gathered, and the other, which has not told of its own socket
    yet, sees the second client."""
    one, two = relay.processes
    one.left(0, doors[:1])
    first = relay.listen()
    one.opened([first])
    two.came(2, doors[1:])
    return first, relay.listen(first.getsockname()[1])


def shares(sockets: list[socket.socket]) -> list[int]:
    """How many of MANY connections each gets."""
    address = sockets[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(MANY)]
    found = [_accept(each) for each in sockets]
    for each in clients:
        each.close()
    assert sum(found) == MANY
    return found


def _accept(listening: socket.socket) -> int:
    count = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


def is_shared_out(sockets: list[socket.socket]) -> bool:
    return all(shares(sockets))


def has_one(sockets: list[socket.socket]) -> bool:
    return sorted(shares(sockets))[-1] == MANY


def test_at_first_all_get_some(doors: list[socket.socket]) -> None:
    assert is_shared_out(doors)


def test_one_gets_all_when_the_last_client_has_left(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.left(1, doors[:1])
    assert is_shared_out(doors)
    two.left(0, doors[1:])  # whichever of them sees it
    assert has_one(doors)
    one.came(1, doors[:1])
    assert has_one(doors)


def test_all_get_some_from_the_second_at_once_on(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.left(0, doors[:1])
    two.came(2, doors[1:])
    assert is_shared_out(doors)
    one.came(3, doors[:1])
    one.left(2, doors[:1])
    one.left(1, doors[:1])
    assert is_shared_out(doors)


def test_who_comes_again_and_again_with_several_at_once_meets_all(relay: Relay, doors: list[socket.socket]) -> None:
    """All of them have connected before the first is accepted."""
    one, two = relay.processes
    one.left(0, doors[:1])
    for _ in range(2):
        two.came(2, doors[1:])
        one.came(3, doors[:1])
        one.left(2, doors[:1])
        two.left(1, doors[1:])
        one.left(0, doors[:1])
        assert is_shared_out(doors)
    one.came(1, doors[:1])
    one.left(0, doors[:1])
    assert has_one(doors), "one at a time again"


def test_a_client_that_stays_does_not_have_the_next_beside_it(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.left(0, doors[:1])
    one.came(1, doors[:1])
    relay.now += 1
    two.look(doors[1:])
    assert has_one(doors), "it may be a short one"
    relay.now += 0.1
    two.look(doors[1:])
    assert is_shared_out(doors)
    one.left(0, doors[:1])
    assert has_one(doors)


def test_who_comes_after_a_while_with_several_at_once_meets_all(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    for _ in range(5):
        one.came(1, doors[:1])
        one.left(0, doors[:1])
        relay.now += 0.9
        two.look(doors[1:])
        assert has_one(doors), "one comes after the other"
    relay.now += 0.5
    two.look(doors[1:])
    assert is_shared_out(doors)


def test_the_others_go_on_where_the_one_dies(relay: Relay, doors: list[socket.socket]) -> None:
    relay.processes[0].left(0, doors[:1])
    before = shares(doors)
    dead = before.index(MANY)
    doors.pop(dead).close()
    successor = relay.listen(doors[0].getsockname()[1])
    relay.processes[dead].opened([successor])
    assert shares([*doors, successor]) == [MANY, 0]


def test_a_new_address_is_as_the_others_are(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.left(0, doors[:1])
    first = relay.listen()
    one.opened([first])
    second = relay.listen(first.getsockname()[1])
    two.opened([second])
    assert has_one([first, second])
    two.came(2, [doors[1], second])
    assert is_shared_out([first, second])
    assert is_shared_out(doors)


def test_an_address_that_one_did_not_have_yet_is_shared_out_when_it_opens_it(
    relay: Relay, doors: list[socket.socket]
) -> None:
    two, (first, second) = relay.processes[1], half_opened(relay, doors)
    assert has_one([first, second])
    two.opened([second])
    assert is_shared_out([first, second])


def test_one_that_hangs_does_not_keep_all(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.look(doors[:1])
    relay.now += 2
    two.left(0, doors[1:])
    two.look(doors[1:])
    assert has_one(doors)
    relay.now += 0.5
    two.look(doors[1:])
    assert is_shared_out(doors)
    two.left(0, doors[1:])
    assert is_shared_out(doors), "it hangs still"
    one.look(doors[:1])
    two.left(0, doors[1:])
    assert has_one(doors)


def test_one_that_is_dead_does_not_hang(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.look(doors[:1])
    relay.now += 60
    relay.table.clear(0)
    two.left(0, doors[1:])
    two.look(doors[1:])
    assert has_one(doors)


def test_a_system_that_does_not_allow_it_is_asked_once(
    relay: Relay, doors: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def gather(listening: socket.socket) -> None:
        asked.append(listening.fileno())
        if len(asked) > 1:
            raise PermissionError(1, "not here")
        real(listening)

    real: Callable[[socket.socket], None] = steering.gather
    monkeypatch.setattr(steering, "gather", gather)
    other = relay.listen()
    one, two = relay.processes
    one.left(0, [doors[0], other])
    assert len(asked) == 2
    assert is_shared_out(doors), "what was done before the refusal is undone"
    one.left(0, [doors[0], other])
    assert len(asked) == 2
    two.came(2, doors[1:])
    assert is_shared_out(doors)


def test_a_new_address_that_is_refused_leaves_the_others_as_they_are(
    relay: Relay, doors: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_listening: socket.socket) -> None:
        raise OSError(12, "no memory for that")

    one, two = relay.processes
    one.left(0, doors[:1])
    first = relay.listen()
    second = relay.listen(first.getsockname()[1])
    monkeypatch.setattr(steering, "gather", refuse)
    one.opened([first])
    assert is_shared_out([first, second])
    assert has_one(doors)
    two.came(2, [doors[1], second])
    assert is_shared_out(doors)


def test_what_a_system_could_not_undo_is_not_done(
    relay: Relay, doors: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 4.5 to 5.2 knows the filter, and no way to take it away: one would get all connections for ever."""
    monkeypatch.setattr(steering, "_DETACH_FILTER", 9999)
    one, two = relay.processes
    one.left(0, doors[:1])
    two.came(2, doors[1:])
    assert is_shared_out(doors)


def test_one_with_much_to_deliver_does_not_get_all(relay: Relay, doors: list[socket.socket]) -> None:
    one, two = relay.processes
    one.left(0, doors[:1])
    one.look(doors[:1], 50)
    assert has_one(doors)
    one.look(doors[:1], 51)
    assert is_shared_out(doors)
    one.left(0, doors[:1])
    two.left(0, doors[1:])
    assert is_shared_out(doors), "there is much to do still"
    one.look(doors[:1], 50)
    two.left(0, doors[1:])
    assert has_one(doors)


async def test_one_that_stops_does_not_hang(relay: Relay, doors: list[socket.socket]) -> None:
    """It may take half a minute for it, and has no doors any more."""
    one, two = relay.processes
    watching = asyncio.create_task(one.watch(lambda: doors[:1], lambda: 51))
    await asyncio.sleep(0)
    two.left(0, doors[1:])
    assert is_shared_out(doors)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    relay.now += 10
    two.left(0, doors[1:])
    assert has_one(doors)


def test_while_another_process_is_at_it_nothing_is_done(relay: Relay, doors: list[socket.socket]) -> None:
    with holding(relay.table, Byte.DOORS):
        relay.processes[0].left(0, doors[:1])
        assert is_shared_out(doors)
    relay.processes[0].left(0, doors[:1])
    assert has_one(doors)


def test_an_address_that_was_opened_while_another_process_was_at_it_is_looked_at_later(
    relay: Relay, doors: list[socket.socket]
) -> None:
    two, (first, second) = relay.processes[1], half_opened(relay, doors)
    with holding(relay.table, Byte.DOORS):
        two.opened([second])
        two.look([doors[1], second])
        assert has_one([first, second])
    two.look([doors[1], second])
    assert is_shared_out([first, second])
