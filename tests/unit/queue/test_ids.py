from datetime import UTC, datetime, timedelta

import pytest

from relay.queue.ids import (
    SLOTS,
    Ids,
    Numbers,
    begun,
    first_number,
    milliseconds,
    moment,
    number,
    slot_of,
    spell,
    whole,
)
from tests.unit.queue.world import START, Clock


def test_ids_sort_by_time_and_are_unique_within_a_millisecond() -> None:
    clock = Clock()
    ids = Ids(clock)
    given = []
    for _ in range(500):
        given += [ids.new(), ids.new(), ids.new()]
        clock.now += timedelta(milliseconds=1)
    assert given == sorted(given)
    assert len({each[:12] for each in given}) == len(given)
    assert all(len(each) == 20 and each.isalnum() and each.upper() == each for each in given)
    assert begun(number(given[0])) == START


def test_the_tail_is_random() -> None:
    assert len({Ids(Clock()).new() for _ in range(100)}) == 100


def test_a_clock_set_back_gives_no_id_twice() -> None:
    clock = Clock()
    first = Ids(clock).new()
    clock.now -= timedelta(days=1)
    assert number(first) < number(Ids(clock, number(first)).new()) <= number(first) + SLOTS


@pytest.mark.parametrize(
    "text", ["", "D20CGA4000000LU8IS0", "d20cga4000000lu8is00", "D20CGA4000000LU8IS0Z", "../../../../etc/pass"]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a message id"):
        number(text)


def test_spelling_is_the_inverse_of_reading() -> None:
    assert number(spell(12345, 99)) == 12345
    assert spell(0) == "0" * 20


def test_times_are_never_read_back_earlier() -> None:
    odd = datetime(2026, 11, 22, 12, 0, 0, 1, tzinfo=UTC)
    assert moment(milliseconds(odd)) == START + timedelta(milliseconds=1)
    assert moment(milliseconds(START)) == START
    assert whole(START) == milliseconds(START)
    assert begun(first_number(milliseconds(START))) == START


@pytest.mark.parametrize("after", [0, 1, 63, 64, 12345])
def test_slots_never_give_out_the_same_number(after: int) -> None:
    clock = Clock()
    high = after + first_number(milliseconds(START))  # ahead of the clock, as after it was set back
    given = [n for slot in (0, 1, 63) for n in Numbers(clock, high, slot).take(1000)]
    assert len(set(given)) == len(given)
    assert min(given) > high
    assert {slot_of(each) for each in given} == {0, 1, 63}


def test_none_are_taken_where_none_are_wanted() -> None:
    numbers = Numbers(Clock())
    assert not numbers.take(0)
    first = numbers.take(3)
    assert list(first) == [first[0], first[0] + SLOTS, first[0] + 2 * SLOTS]
    assert numbers.take(1)[0] == first[-1] + SLOTS
