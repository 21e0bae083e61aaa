"""Has the relay read its configuration again: `POST /reload`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.admin.endpoint import Answer, Asked, Change, Endpoint, Question, Scope, Shape
from relay.admin.parameters import Flag


@dataclass(frozen=True, slots=True)
class Reload:
    """`changed`: the file differs from what is in force. `taken`: it is in force now, or would be but for the dry run.

    `weaker` is what it allows that was not allowed; `restart` what takes effect only when the relay is started again.
    `errors` are those of the file, each with line, key and fix; then nothing was taken.
    """

    taken: bool
    changed: bool
    weaker: Sequence[str] = ()
    restart: Sequence[str] = ()
    errors: Sequence[str] = ()


class Reloading(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def reload(self, *, dry_run: bool) -> Reload:
        """Read the configuration file again and put it in force, whatever it weakens; `dry_run` only says what would happen."""
        ...


class ReloadQuestion(Question):
    dry_run: Flag = False
    """Only say what would happen."""


class Reloaded(Shape):
    taken: bool
    """It is in force now, or would be but for the dry run."""
    changed: bool
    """The file differs from what was in force."""
    dry_run: bool
    weaker: list[str]
    """What it allows that was not allowed before."""
    restart: list[str]
    """What takes effect only when the relay is started again."""
    errors: list[str]
    """Why nothing was taken: errors of the file with line, key and fix."""


def endpoints(relay: Reloading) -> tuple[Endpoint[Any], ...]:
    async def reload(asked: Asked[ReloadQuestion]) -> Answer:
        dry_run = asked.given.dry_run
        result = await relay.reload(dry_run=dry_run)
        body = {
            "taken": result.taken,
            "changed": result.changed,
            "dry_run": dry_run,
            "weaker": list(result.weaker),
            "restart": list(result.restart),
            "errors": list(result.errors),
        }
        change = None if dry_run else Change("; ".join(result.weaker), int(result.taken))
        return Answer(body, 422 if result.errors else 200, change)

    return (
        Endpoint(
            "POST",
            "/reload",
            Scope.ADMIN,
            "Read the configuration file again and put it in force, whatever it weakens.",
            ReloadQuestion,
            Reloaded,
            reload,
            action="reload",
            also={422: "The file has errors, or cannot be put in force: nothing was taken."},
        ),
    )
