import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from relay.observe.lines import LineWriter, _write_all


def notice(count: int) -> bytes:
    return f"dropped {count}\n".encode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def read_all(end: int) -> bytes:
    return b"".join(iter(lambda: os.read(end, 65536), b""))


def test_lines_come_out_in_order_from_any_thread(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], notice=notice)

    def write() -> None:
        for _ in range(100):
            writer.write(b"line\n")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.write(b"last\n")
    writer.close()
    os.close(pipe[1])
    assert read_all(pipe[0]) == b"line\n" * 300 + b"last\n"
    assert writer.dropped == 0


def test_a_line_comes_out_without_waiting_for_close(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], notice=notice)
    writer.write(b"one\n")
    assert os.read(pipe[0], 100) == b"one\n"
    writer.write(b"two\n")
    assert os.read(pipe[0], 100) == b"two\n"
    writer.close()


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK], ids=["blocking", "non-blocking"])
def test_a_reader_that_is_stuck_stops_nothing_and_the_loss_is_told(pipe: tuple[int, int], flags: int) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETFL, flags)
    writer = LineWriter(pipe[1], notice=notice, limit=200_000)  # more than a pipe holds
    line = b"x" * 999 + b"\n"
    for _ in range(500):  # nobody reads, and this returns all the same
        writer.write(line)
    assert writer.dropped == 300
    reader: list[bytes] = []
    reading = threading.Thread(target=lambda: reader.append(read_all(pipe[0])))
    reading.start()
    taken = False
    while not taken:  # until there is room again
        before = writer.dropped
        writer.write(line)
        taken = writer.dropped == before
    writer.close()
    os.close(pipe[1])
    reading.join()
    assert reader[0].count(line) >= 200
    assert b"\ndropped " in reader[0]


def test_a_stuck_reader_does_not_hold_up_the_end(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], notice=notice)
    writer.write(b"x" * 1_000_000)
    writer.close(timeout=0.05)
    writer.write(b"too late\n")
    assert writer.dropped == 1
    os.read(pipe[0], 1_000_000)
    os.close(pipe[0])


def test_a_reader_that_went_away_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = LineWriter(pipe[1], notice=notice)
    writer.write(b"one\n")
    writer.close()
    assert writer.dropped == 1


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    with suppress(BlockingIOError):
        while os.write(pipe[1], b"x" * 4096):
            pass
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(read_all(pipe[0])))
    later = threading.Timer(0.05, reading.start)
    later.start()
    _write_all(pipe[1], b"the end\n")
    later.join()
    os.close(pipe[1])
    reading.join()
    assert read[0].endswith(b"xthe end\n")
