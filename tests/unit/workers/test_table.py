"""Counts in memory that several processes share: each writes its own part, and reads the others'."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from relay.workers.table import Table


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table(3)
    yield made
    made.close()


def test_each_sees_what_the_others_count(table: Table) -> None:
    one, two, three = (table.sketch("clients", slot) for slot in range(3))
    key = one.cells("192.0.2.1")
    assert key == two.cells("192.0.2.1")
    one.add(key)
    one.add(key)
    two.add(key)
    assert (one.others(key), two.others(key), three.others(key)) == (1, 2, 3)
    one.remove(key)
    assert three.others(key) == 2


def test_sketches_are_apart(table: Table) -> None:
    clients, running = table.sketch("clients", 0), table.sketch("running", 0)
    clients.add(clients.cells("x"))
    assert table.sketch("running", 1).others(running.cells("x")) == 0
    assert clients.cells("x") != running.cells("x")


def test_the_dead_count_nothing(table: Table) -> None:
    one, two = table.sketch("clients", 0), table.sketch("clients", 1)
    key = one.cells("x")
    one.add(key)
    two.add(key)
    table.own(0)[0] = 5
    table.own(1)[0] = 6
    table.common[0] = 7
    table.times[3] = 8
    table.clear(0)
    assert (two.others(key), one.others(key)) == (0, 1)
    assert (table.own(0)[0], table.own(1)[0], table.common[0], table.times[3]) == (0, 6, 7, 8)
    one.add(key)
    assert two.others(key) == 1


def test_a_count_is_never_too_low_and_seldom_too_high(table: Table) -> None:
    chance = random.Random(20261127)
    one, two = table.sketch("clients", 0), table.sketch("clients", 1)
    true: Counter[str] = Counter()
    for _ in range(20_000):
        key = str(chance.randrange(10_000))
        true[key] += 1
        one.add(one.cells(key))
    off = 0
    for number in range(20_000):
        found = two.others(two.cells(str(number)))
        assert found >= true[str(number)]
        off += found != true[str(number)]
    assert off < 60  # about 0.1 %
    for key, count in true.items():
        for _ in range(count):
            one.remove(one.cells(key))
    assert all(two.others(two.cells(str(number))) == 0 for number in range(100))


def test_the_hash_has_a_secret(table: Table) -> None:
    other = Table(2)
    assert other.sketch("clients", 0).cells("x") != table.sketch("clients", 0).cells("x")
    other.close()


def test_any_key_has_cells(table: Table) -> None:
    """A destination's name is whatever a configuration or a stranger made of it."""
    sketch = table.sketch("running", 0)
    for key in ("", "a" * 100_000, "\udc80", "ü"):
        sketch.add(sketch.cells(key))
        assert table.sketch("running", 1).others(sketch.cells(key)) >= 1
