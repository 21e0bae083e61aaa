"""The supervisor with toy workers (toy.py): their starts, deaths and successors, what they say to each other, and the end."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

Line = dict[str, Any]


class Toys:
    """The lines that a scenario prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Line] = []

    async def next(self, what: str, **fields: Any) -> Line:
        """The next line that says that, with those fields; those before it are kept in `lines`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            async for raw in self.process.stdout:
                line: Line = json.loads(raw)
                self.lines.append(line)
                if line["what"] == what and fields.items() <= line.items():
                    return line
        raise AssertionError(f"it ended without {what}: {self.lines}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@asynccontextmanager
async def toys(scenario: str) -> AsyncIterator[Toys]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.unit.workers.toy", scenario),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Toys(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def test_the_first_starts_before_the_others_and_all_stop_together() -> None:
    async with toys("plain") as made:
        await made.next("work", slot=1)
        assert [each["slot"] for each in made.lines if each["what"] == "born"] == [0, 1]
        made.stop()
        assert (await made.next("end"))["problem"] == ""
        assert [each["worker"] for each in made.lines if each["what"] == "WorkerStarted"] == [0, 1]
        assert await made.process.wait() == 0
        assert not any(each["what"] == "WorkerEnded" for each in made.lines)


async def test_one_that_hangs_is_killed_and_one_that_tells_its_counts_is_not() -> None:
    async with toys("silent") as made:
        first = await made.next("work", slot=1)
        ended = await made.next("WorkerEnded")
        assert (ended["worker"], ended["how"]) == (1, "said nothing for 2 seconds, so it was killed")
        second = await made.next("work", slot=1)
        assert second["pid"] != first["pid"]
        assert {each["worker"] for each in made.lines if each["what"] == "WorkerEnded"} == {1}
        made.stop()
        assert await made.process.wait() == 0


async def test_one_that_is_killed_has_a_successor_in_its_slot() -> None:
    async with toys("plain") as made:
        first = await made.next("work", slot=1)
        os.kill(first["pid"], signal.SIGKILL)
        ended = await made.next("WorkerEnded")
        assert (ended["worker"], ended["how"], ended["pause"]) == (1, "killed by SIGKILL", 0.0)
        second = await made.next("work", slot=1)
        assert second["pid"] != first["pid"]
        if not any(each.get("name") == "gone" for each in made.lines):
            await made.next("heard", slot=0, sender=255, name="gone")
        leader = next(each["pid"] for each in made.lines if each["what"] == "work" and each["slot"] == 0)
        os.kill(leader, signal.SIGKILL)
        await made.next("work", slot=0)
        made.stop()
        await made.next("end")


async def test_a_signal_without_a_name_ends_one_worker_and_not_the_relay() -> None:
    async with toys("plain") as made:
        first = await made.next("work", slot=1)
        os.kill(first["pid"], signal.SIGRTMIN + 1)
        assert (await made.next("WorkerEnded"))["how"] == f"killed by signal {signal.SIGRTMIN + 1}"
        await made.next("work", slot=1)
        made.stop()
        assert (await made.next("end"))["problem"] == ""


async def test_what_is_wrong_at_the_start_is_said_once_and_nothing_runs() -> None:
    async with toys("broken") as made:
        assert (await made.next("end"))["problem"] == "no port for the second"
        assert not any(each["what"] == "WorkerEnded" for each in made.lines)


async def test_a_worker_that_crashes_at_the_start_is_no_start() -> None:
    async with toys("crashing") as made:
        assert (await made.next("end"))["problem"] == "a worker ended at its start: exited with 1"
        assert [each["worker"] for each in made.lines if each["what"] == "WorkerStarted"] == [0]
        _out, err = await made.process.communicate()
        assert b"a bug before anything else" in err


async def test_the_mail_of_one_that_dies_again_and_again_is_given_away_before_it_comes_back() -> None:
    async with toys("hopeless") as made:
        await made.next("adopting", slot=1)
        assert sum(each["what"] == "work" for each in made.lines) == 3
        await made.next("adopted", slot=1)
        await made.next("work", slot=1)
        order = [each["what"] for each in made.lines]
        assert "work" not in order[order.index("adopting") : order.index("adopted")]
        pauses = [each["pause"] for each in made.lines if each["what"] == "WorkerEnded"]
        assert pauses == sorted(pauses)
        made.stop()
        await made.next("end")


async def test_what_they_say_to_each_other_and_what_is_kept() -> None:
    async with toys("talking") as made:
        assert (await made.next("answer"))["result"] == 1_000_000
        ended = await made.next("WorkerEnded")
        assert ended["how"] == "killed by SIGTERM"  # the toy does not catch it
        counted = await made.next("counted")
        assert counted["result"] == [{"a": 3.0, "b": 3.0}, 1]
        works = [each for each in made.lines if each["what"] == "work" and each["slot"] == 1]
        if len(works) < 2:
            works.append(await made.next("work", slot=1))
        assert works[1]["kept"] == "a new configuration"
        made.stop()
        await made.next("end")


async def test_one_that_does_not_stop_is_killed() -> None:
    async with toys("stubborn") as made:
        await made.next("work", slot=1)
        made.stop()
        made.stop()
        assert (await made.next("end"))["problem"] == ""


async def test_one_that_reads_nothing_is_replaced() -> None:
    """What it does not read would fill our memory."""
    async with toys("flooding") as made:
        await made.next("work", slot=1)
        ended = await made.next("WorkerEnded")
        assert (ended["worker"], ended["how"]) == (1, "killed by SIGKILL")
        made.stop()
        await made.next("end")


@pytest.mark.parametrize(
    ("scenario", "why"),
    [("unforkable", "Resource temporarily unavailable"), ("lineless", "Too many open files")],
)
async def test_a_successor_that_cannot_be_started_is_tried_again(scenario: str, why: str) -> None:
    async with toys(scenario) as made:
        first = await made.next("work", slot=1)
        os.kill(first["pid"], signal.SIGKILL)
        await made.next("WorkerEnded", how="killed by SIGKILL")
        await made.next("WorkerEnded", how=f"it cannot be started: {why}")
        await made.next("work", slot=1)
        made.stop()
        await made.next("end")


async def test_one_that_is_told_to_stop_before_it_has_begun_stops() -> None:
    """With the handlers that it was forked with it would note the signal, and nobody would ever look."""
    async with toys("early") as made:
        ended = await made.next("WorkerEnded")
        assert (ended["worker"], ended["how"]) == (1, "killed by SIGTERM")
        await made.next("work", slot=1)
        made.stop()
        await made.next("end")


async def test_a_line_that_has_ended_wakes_nobody_while_its_worker_lives() -> None:
    async with toys("mute") as made:
        await made.next("told", name="gone")  # whoever asks it does not wait
        ended = await made.next("WorkerEnded")
        assert (ended["worker"], ended["how"]) == (1, "exited with 7")
        made.stop()
        assert (await made.next("end"))["wakings"] < 100


async def test_without_a_supervisor_the_workers_know() -> None:
    async with toys("plain") as made:
        await made.next("work", slot=1)
        made.process.kill()
        alone = {(await made.next("alone"))["slot"] for _ in range(2)}
        assert alone == {0, 1}


async def test_sighup_reaches_the_first_only() -> None:
    """The others must not die of it either, when a terminal closes."""
    async with toys("plain") as made:
        await made.next("work", slot=1)
        os.killpg(made.process.pid, signal.SIGHUP)
        made.stop()
        await made.next("end")
        assert not any(each["what"] == "WorkerEnded" for each in made.lines)
