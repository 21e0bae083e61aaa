"""What a run costs, read from /proc: CPU time and memory of a process and all that came from it; and what machine this was.

Memory is PSS: pages that several processes share are counted once, in parts, so that one relay process and Postfix's hundred are
measured alike.
"""

import os
import platform
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; empty where the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(roots: Iterable[int]) -> set[int]:
    """The processes, and their children's children."""
    parents: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = {pid for pid in roots if pid in parents}
    more = True
    while more:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        more = bool(children)
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Those of the processes that run; a zombie, which nobody has waited for, does not."""
    return [pid for pid in pids if (fields := _stat(pid)) and fields[0] != "Z"]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes, those of their children included that have ended."""
    ticks = sum(int(each) for pid in pids if (fields := _stat(pid)) for each in fields[11:15])
    return ticks / _TICKS


def memory_mib(pids: Iterable[int]) -> float:
    """Their PSS together."""
    total = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def rss_mib(pid: int) -> float:
    """Resident memory of one process, for many quick looks."""
    pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, and its device."""
    place, best = folder.resolve(), ("", "unknown")
    for line in (_PROC / "mounts").read_text().splitlines():
        device, mount, kind, *_ = line.split()
        if place.is_relative_to(mount) and len(mount) > len(best[0]):
            best = (mount, f"{kind} ({device})")
    return best[1]


def describe(folder: Path) -> dict[str, str]:
    """For the head of a result. `folder` is where the queues are."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in (_PROC / "cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cores": str(os.cpu_count()),
        "cpu": cpu,
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "queues on": file_system(folder),
    }
