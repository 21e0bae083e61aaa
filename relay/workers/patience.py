"""When a worker that died gets its successor, and when its mail is given to another. Values in, values out."""

from dataclasses import dataclass, replace

_SOON = 1.0  # seconds of service: one that had less failed at once
_PAUSES: tuple[float, ...] = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_GIVE_AWAY = 3  # failures in a row after which its mail is better delivered by somebody else


@dataclass(frozen=True, slots=True)
class Record:
    """How a slot has fared: `failures` in a row of processes that died at their start, or soon after."""

    failures: int = 0

    def ended(self, served: float) -> "Record":
        """A process died that had been of use for so many seconds; 0 where it had not come that far."""
        return replace(self, failures=self.failures + 1 if served < _SOON else 0)

    @property
    def pause(self) -> float:
        """Seconds until the successor starts. One that did its work has it at once."""
        return _PAUSES[min(self.failures, len(_PAUSES) - 1)]

    @property
    def is_hopeless(self) -> bool:
        """True while its mail should be in other hands."""
        return self.failures >= _GIVE_AWAY
