"""What the system knows of the relay's processes (`process_*`), all of them together.

Memory that they share is counted once for each. The first one given has started the others, and may have seen some of them end.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import Metric, ProcessCollector

_LEAST = frozenset(("process_start_time_seconds", "process_max_fds"))
_CPU = "process_cpu_seconds"


class Processes:
    """A collector. `ids` empty: this process alone."""

    def __init__(self) -> None:
        self.ids: Sequence[int] = ()

    def collect(self) -> Iterator[Metric]:
        together: dict[str, Metric] = {}
        for each in self.ids or (os.getpid(),):
            for metric in ProcessCollector(pid=lambda each=each: each, registry=None).collect():  # type: ignore[misc]
                known = together.setdefault(metric.name, metric)
                if known is not metric:
                    _merge(known, metric)
        if self.ids and _CPU in together:
            # Else the sum would go back when one of them ends.
            (sample,) = together[_CPU].samples
            together[_CPU].samples = [sample._replace(value=sample.value + _of_those_that_ended(self.ids[0]))]
        yield from together.values()


def _merge(known: Metric, more: Metric) -> None:
    least = known.name in _LEAST
    known.samples = [
        one._replace(value=min(one.value, other.value) if least else one.value + other.value)
        for one, other in zip(known.samples, more.samples, strict=True)
    ]


def _of_those_that_ended(parent: int) -> float:
    """CPU seconds of its children that it has waited for."""
    try:
        fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
