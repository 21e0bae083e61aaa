"""CPU per message, split by room: `python -m bench.profile [hop | pair | pair-new | size-100k | size-1m | size-25m | pair-25m] [--flame FILE]`.

py-spy looks at our relays 250 times a second while smtp-source sends; each look falls to the innermost frame of ours (the room) and
to the innermost frame of all (whose code it is). The shares are then applied to the CPU time that /proc counts, so what py-spy itself
costs is left out. Time without any frame of ours is the event loop's: sockets, timers, system calls.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import uvloop

from bench.chains import OURS, Shape, contenders
from bench.peers import generate
from bench.rounds import scratch
from bench.sinks import arrivals

SHAPES = {
    "hop": Shape(),
    "pair": Shape(hops=2),
    "pair-new": Shape(hops=2, reuse=False),
    "size-100k": Shape(size=100 * 1024),
    "size-1m": Shape(size=2**20),
    "size-25m": Shape(size=25 * 2**20),
    "pair-25m": Shape(hops=2, size=25 * 2**20),
}
_LARGE = 2**19
_PER_SECOND = 250
_LOOP = "event loop and system calls"


def _py_spy() -> str:
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        raise SystemExit("py-spy is not installed: make .venv/.dev installs it")
    return found


def _file(frame: str) -> str:
    """`function (path/to/file.py:12)` -> the path."""
    return frame.rpartition(" (")[2].rpartition(":")[0] or frame


def room(stack: list[str]) -> str:
    """`relay/smtp/session.py` is of the room smtp."""
    for frame in reversed(stack):
        path = _file(frame)
        if "relay/" in path and "site-packages" not in path:
            name = path.rpartition("relay/")[2].partition("/")[0]
            return _LOOP if name == "cli" else name  # it only started the loop, which is C without frames
    return _LOOP


def owner(stack: list[str]) -> str:
    """Whose code the innermost frame is: a file of ours, or a library."""
    path = _file(stack[-1])
    if "site-packages/" in path:
        return path.rpartition("site-packages/")[2].partition("/")[0]
    if "relay/" in path:
        return "relay/" + path.rpartition("relay/")[2]
    return path.rpartition("/")[2]


def read(profile: Path) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """py-spy's raw format: `frame;frame;frame count`, outermost first."""
    rooms: Counter[str] = Counter()
    owners: Counter[tuple[str, str]] = Counter()
    for line in profile.read_text().split("\n")[:-1]:  # a frame read in passing may hold anything
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        rooms[room(frames)] += int(count)
        owners[room(frames), owner(frames)] += int(count)
    return rooms, owners


async def record(shape: Shape, messages: int, root: Path, folder: Path) -> float:
    """Writes one profile for each relay into `folder`; CPU microseconds per message, of all relays."""
    contender = contenders(ours_alone=True)[OURS]
    async with arrivals(shape.destinations) as (port, arrived):
        with scratch(root) as queues:
            async with contender(Path(queues), shape, port) as chain:
                warming = 4 if shape.size > _LARGE else 200
                await generate(chain.entry, warming, size=shape.size)
                await arrived.reach(warming, 60)
                spies = [
                    await asyncio.create_subprocess_exec(
                        *(_py_spy(), "record", "--format", "raw", "--rate", str(_PER_SECOND), "--duration", "600"),
                        *("--nonblocking", "--subprocesses", "--pid", str(pid)),
                        *("--output", str(folder / f"{number}.raw")),
                        stdout=asyncio.subprocess.DEVNULL,
                        stderr=asyncio.subprocess.DEVNULL,
                    )
                    for number, pid in enumerate(chain.roots)
                ]
                await asyncio.sleep(1)
                before = chain.cpu_seconds()
                await generate(chain.entry, messages, sessions=shape.sessions, size=shape.size)
                await arrived.reach(warming + messages, 300)
                used = chain.cpu_seconds() - before
                for spy in spies:
                    spy.send_signal(2)
                    await spy.wait()
    return used / messages * 1e6


def show(name: str, profiles: list[Path], micros: float, lines: int) -> None:
    rooms: Counter[str] = Counter()
    owners: Counter[tuple[str, str]] = Counter()
    for profile in profiles:
        found = read(profile)
        rooms.update(found[0])
        owners.update(found[1])
    total = rooms.total()
    print(f"{name}: {micros:.0f} us of CPU a message ({total} samples)")
    for each, count in rooms.most_common():
        print(f"  {each:30} {micros * count / total:7.0f} us  {100 * count / total:5.1f} %")
    print("  innermost frame:")
    for (where, whose), count in owners.most_common(lines):
        print(f"    {where:28} {whose:40} {micros * count / total:7.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[*SHAPES, []], help="default: hop and pair")
    parser.add_argument("--messages", type=int, default=0, help="default: 8000, large ones 60")
    parser.add_argument("--lines", type=int, default=25)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the queues are")
    parser.add_argument("--raw", type=Path, metavar="FOLDER", help="keep py-spy's stacks there (for a flame graph)")
    options = parser.parse_args()
    for name in options.case or ("hop", "pair"):
        with tempfile.TemporaryDirectory() as temporary:
            folder: Path = options.raw or Path(temporary)
            folder.mkdir(exist_ok=True)
            shape = SHAPES[name]
            messages = options.messages or (60 if shape.size > _LARGE else 8000)
            micros = uvloop.run(record(shape, messages, options.folder, folder))
            show(name, sorted(folder.glob("*.raw")), micros, options.lines)


if __name__ == "__main__":
    main()
