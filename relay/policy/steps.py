"""What a validation found, step by step: the nouns, and their one JSON form. Who takes a step decides what it means."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from relay.mail.codec import Json


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should look at it."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not taken, since one before it failed, or since there is nothing to look at."""


@dataclass(frozen=True, slots=True)
class Step:
    """`name` is one of a fixed list (docs/operations.md); `target` what it was taken on: a host, an address, "" for the connector itself.

    `text` is what was found, `remedy` what to do about it; `seconds` None where it took no time worth telling.
    """

    name: str
    target: str
    result: Result
    text: str
    remedy: str = ""
    seconds: float | None = None


def failed(steps: Iterable[Step]) -> bool:
    return any(each.result is Result.FAILED for each in steps)


def steps_json(steps: Iterable[Step]) -> list[Json]:
    return [
        {
            "step": each.name,
            "target": each.target or None,
            "result": each.result.value,
            "text": each.text,
            "remedy": each.remedy or None,
            "seconds": None if each.seconds is None else round(each.seconds, 3),
        }
        for each in steps
    ]
