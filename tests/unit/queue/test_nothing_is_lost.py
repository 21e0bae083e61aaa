"""Any sequence of outcomes, orders, restarts and crashes: every recipient ends exactly once, or waits; every bounce is there once."""

import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.config.models import Retry
from relay.mail.events import RecipientEnded
from relay.mail.outcome import Outcome
from relay.queue.operations import Selection
from relay.queue.reports import Fate
from tests.unit.queue.world import DOWN, LATER, NO, OK, World

SENDER = "alice@example.org"
ENDED = {"delivered", "bounced", "deleted"}

outcomes = st.sampled_from([OK, LATER, DOWN, NO, RuntimeError("bug")])
recipients = st.lists(
    st.sampled_from([f"u{i}@{d}.example" for i in range(3) for d in "abc"]), min_size=1, max_size=4, unique=True
)
steps = st.one_of(
    st.tuples(st.just("put"), recipients),
    st.tuples(st.just("pass"), st.sampled_from([timedelta(seconds=1), timedelta(minutes=3), timedelta(hours=2)])),
    st.tuples(st.just("clock"), st.sampled_from([timedelta(hours=hours) for hours in (-30, -2, 1, 3)])),
    st.tuples(st.just("says"), st.tuples(st.sampled_from("abc"), st.lists(outcomes, min_size=1, max_size=4))),
    st.tuples(
        st.just("order"),
        st.tuples(st.sampled_from(["retry", "hold", "release", "bounce", "delete"]), st.sampled_from("abc")),
    ),
    st.tuples(st.just("gate"), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("reconfigure"), st.integers(1, 3)),
)


class Life:
    """One queue through its restarts, and what must be true of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generation = 0
        self.queue = World(folder / "0.db")
        self.queue.retry = Retry(initial=timedelta(minutes=1), maximum=timedelta(minutes=30), expire=timedelta(hours=6))
        self.queue.concurrency = 2
        self.put: dict[str, list[str]] = {}
        self.ended: Counter[tuple[str, str]] = Counter()
        self.delivered: Counter[tuple[str, str]] = Counter()
        self.crashes = 0

    async def step(self, kind: str, about: object) -> None:
        queue = self.queue
        match kind, about:
            case "put", list(to):
                message = await queue.put(*to, sender=SENDER)
                self.put[message.id] = [str(each.address) for each in message.envelope.recipients]
            case "pass", timedelta() as span:
                await queue.pass_(span)
            case "clock", timedelta() as step:
                queue.set_clock(step)
            case "says", (str(domain), list(said)):
                queue.hops.says[f"{domain}.example"] = list[Outcome | Exception](said)
            case "order", (str(order), str(domain)):
                await getattr(queue.operations, order)(Selection(domain=f"{domain}.example"))
            case "gate", bool(is_open):
                (queue.hops.gate.set if is_open else queue.hops.gate.clear)()
            case "reconfigure", int(concurrency):
                queue.concurrency = concurrency
                queue.scheduler.reconfigured()
            case "restart", _:
                await self.restart()
            case _:
                await self.crash()

    async def restart(self) -> None:
        queue = self.queue
        await queue.close(grace=0.0)
        self._count()
        following = World(queue.path, queue.clock)
        await self._go_on(following)

    async def crash(self) -> None:
        self.generation += 1
        self.crashes += 1
        queue = self.queue
        # What is not committed when the files are copied did not happen, whatever the old process goes on to do.
        await queue.store.barrier()
        events, seen = len(queue.events), len(queue.hops.delivered)
        following = await queue.crash(self.folder / f"{self.generation}.db")
        del queue.events[events:]
        self._count()
        del seen
        await self._go_on(following)

    async def _go_on(self, following: World) -> None:
        old = self.queue
        following.retry, following.concurrency = old.retry, old.concurrency
        following.hops.says, following.hops.gate = old.hops.says, old.hops.gate
        self.queue = following
        await following.start()

    def _count(self) -> None:
        queue = self.queue
        self.ended.update((each.message, each.recipient) for each in queue.of(RecipientEnded))
        self.delivered.update(queue.hops.delivered)

    async def judge(self) -> None:
        """After all has been let go, nothing may be left in anybody's hands, and every recipient accounted for."""
        queue = self.queue
        queue.hops.gate.set()
        queue.hops.says = {}
        await queue.settle()
        await queue.operations.release(Selection(everything=True))
        await queue.pass_(timedelta(hours=7))
        assert len(queue.scheduler.claims) == 0
        assert (queue.scheduler._windows.candidates, queue.scheduler._windows.memory) == (0, 0)
        self._count()
        bounced = 0
        for message, to in self.put.items():
            assert set(await queue.states(message)) <= ENDED, message
            found = await queue.operations.show(message)
            assert found is not None
            for address, recipient in zip(to, found["recipients"], strict=True):
                state = recipient["state"]
                bounced += state == "bounced"
                assert recipient["address"] == address
                assert self.ended[message, address] <= 1
                if state == "delivered" and not self.crashes:
                    assert self.delivered[message, address] == 1
                assert (self.delivered[message, address] > 0) >= (state == "delivered")
        reports = await queue.store.ask(
            lambda db: db.execute(
                "SELECT count(*) FROM message WHERE sender = '' AND json_extract(about, '$.accepted.protocol') = 'local'"
            ).fetchone()[0]
        )
        delays = sum(fate is Fate.DELAYED for _id, fate, _i in queue.reporter.told)
        assert delays <= reports
        failures = await queue.store.ask(
            lambda db: db.execute("SELECT count(*) FROM recipient WHERE state = 3").fetchone()[0]
        )
        assert failures == bounced
        if not self.crashes and self.generation == 0:
            assert reports >= bounced
        await queue.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=3, max_size=14))
def test_every_recipient_ends_once_or_waits(script: list[tuple[str, object]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            life = Life(Path(folder))
            await life.queue.start()
            for kind, about in script:
                await life.step(kind, about)
            await life.judge()

    asyncio.run(run())


CLIENT = """
import asyncio, sys
from pathlib import Path
from tests.unit.queue.world import World

async def main():
    queue = World(Path(sys.argv[1]))
    await queue.open()
    async def client(number):
        while True:
            size = 400_000 if number == 0 else 3000
            message = await queue.put(f"u@d{number}.example", body=b"%d" % number * size)
            print(message.id, flush=True)
    await asyncio.gather(*(client(n) for n in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("round_", range(10))
async def test_what_was_committed_survives_kill_9(tmp_path: Path, round_: int) -> None:
    process = await asyncio.to_thread(  # a plain pipe, which a thread reads: the event loop's own reader may lag behind the kill
        subprocess.Popen[str],
        [sys.executable, "-c", CLIENT, str(tmp_path / "queue.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [await asyncio.to_thread(process.stdout.readline) for _ in range(5 + 13 * round_)]
    process.kill()
    rest, _ = await asyncio.to_thread(process.communicate)
    # The last line may be cut short by the kill.
    ids = [line.strip() for line in [*said, *rest.splitlines(keepends=True)] if line.endswith("\n")]
    assert len(ids) >= len(said)
    queue = World(tmp_path / "queue.db")
    queue.concurrency = 100
    await queue.start()
    await queue.settle()
    assert set(ids) <= {each for each, _to in queue.hops.delivered}
    for each in ids:
        body = queue.hops.bodies[each]
        assert body == body[:1] * len(body)
        assert len(body) in (400_000, 3000)
    await queue.store.tidy()
    assert await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM chunk").fetchone()[0]) == 0
    assert queue.files() == {}
    await queue.close()
