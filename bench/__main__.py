"""Ironpost beside Postfix on this machine: `make bench`, or `python -m bench [--quick | --full] [--case NAME]...`.

Generator, relays and sink run on this machine, each a process of its own; queues are on the disk of --folder, and both relays sync
them. Prints a line per turn, then a table; --json FILE keeps everything. bench/README.md says how it is measured.
"""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bench.cases import CASES, Case, Settings
from bench.chains import has_postfix
from bench.machine import describe
from bench.rounds import Result


def chosen(options: argparse.Namespace) -> dict[str, Case]:
    if options.case:
        return {name: CASES[name] for name in options.case}
    return {name: case for name, case in CASES.items() if options.full or (case.quick if options.quick else case.usual)}


def table(results: dict[str, Result]) -> str:
    """One row per case, contender and value: the median, and how many times ours is of Postfix's."""
    lines = ["case          contender             " + "value                        median   ours / theirs"]
    for case, result in results.items():
        ratios = result.ratios()
        for name, values in result.medians().items():
            for key, value in values.items():
                times = "  ".join(f"{each[name][key]:.2f}" for each in ratios.values() if key in each.get(name, {}))
                lines.append(f"{case:13} {name:21} {key:24} {value:10g}   {times}")
        lines.extend(f"{case:13} {note}" for note in result.notes)
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, Result]:
    settings = Settings(
        rounds=options.rounds or (1 if options.quick else 3),
        scale=options.scale,
        root=options.folder,
        workers=options.workers or [""],
        ours_alone=options.alone,
        say=lambda line: print(line, flush=True),
    )
    results: dict[str, Result] = {}
    for name, case in chosen(options).items():
        print(f"{name}: {case.title}", flush=True)
        begun = time.perf_counter()
        results[name] = uvloop.run(_run(case, settings))
        print(f"  {time.perf_counter() - begun:.0f} s", flush=True)
    return results


async def _run(case: Case, settings: Settings) -> Result:
    return await case.run(settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=[*CASES], metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--quick", action="store_true", help="the three that matter most, one round: two minutes")
    parser.add_argument("--full", action="store_true", help="all of them: about an hour")
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of messages")
    parser.add_argument(
        "--workers",
        action="append",
        metavar="N|auto",
        help="ours with so many processes; repeatable, then they take turns",
    )
    parser.add_argument("--alone", action="store_true", help="without Postfix")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the queues are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    if options.list:
        for name, case in CASES.items():
            print(f"{name:14} {case.title}")
        return
    if not options.alone and not has_postfix():
        print("Postfix is not installed, or this is not root: Ironpost alone", file=sys.stderr)
    head: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **describe(options.folder)}
    print("  ".join(f"{key}: {value}" for key, value in head.items()), flush=True)
    results = run(options)
    print(table(results))
    if options.json:
        content = {"machine": head, "cases": {name: result.as_json() for name, result in results.items()}}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
