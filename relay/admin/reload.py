"""The configuration on disk and the one in force: `GET /change`, `POST /reload`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.admin.endpoint import Answer, Asked, Change, Endpoint, Json, Nothing, Question, Scope, Shape
from relay.admin.parameters import Flag


@dataclass(frozen=True, slots=True)
class Reload:
    """`changed`: the file differs from what is in force. `taken`: it is in force now, or would be but for the dry run.

    `weaker` is what it allows that was not allowed; `restart` what takes effect only when the relay is started again.
    `errors` are those of the file, each with line, key and fix; then nothing was taken. `diff` is a unified diff, secrets masked;
    empty where there are errors of the file.
    """

    taken: bool
    changed: bool
    weaker: Sequence[str] = ()
    restart: Sequence[str] = ()
    errors: Sequence[str] = ()
    diff: str = ""


class Reloading(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def reload(self, *, dry_run: bool) -> Reload:
        """Read the configuration file again and put it in force, whatever it weakens; `dry_run` only says what would happen."""
        ...

    def waiting(self) -> Sequence[str]:
        """Why the file on disk is not what is in force; empty where it is."""
        ...

    async def last_reload(self) -> Json | None:
        """The newest entry of the audit log about one, in its shape."""
        ...


def told(result: Reload) -> Change:
    """A reload that was asked for, as the audit log has it."""
    if not result.taken:
        what = "nothing was taken"
    elif not result.changed:
        what = "the file says what is in force already"
    else:
        what = "; ".join(result.weaker) or "it weakens nothing"
    after = {"diff": result.diff, "weaker": list(result.weaker), "errors": list(result.errors)}
    return Change(what, int(result.taken), after=after)


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


class Taken(Shape):
    """The last change that was taken: by whom and when."""

    at: str
    who: str
    via: str
    what: str


class WaitingChange(Shape):
    waiting: list[str]
    """Why the file on disk is not what is in force; empty where it is."""
    differs: bool
    """The file says something else than what is in force."""
    diff: str
    """What is in force and what is on disk, as a unified diff. A secret is shown as a mask; another mask is another secret. Empty where
    the file has errors."""
    weaker: list[str]
    restart: list[str]
    errors: list[str]
    last: Taken | None


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
        return Answer(body, 422 if result.errors else 200, None if dry_run else told(result))

    async def change(_asked: Asked[Nothing]) -> Answer:
        result = await relay.reload(dry_run=True)
        last = await relay.last_reload()
        body = {
            "waiting": list(relay.waiting()),
            "differs": result.changed,
            "diff": result.diff,
            "weaker": list(result.weaker),
            "restart": list(result.restart),
            "errors": list(result.errors),
            "last": None if last is None else {key: last[key] for key in ("at", "who", "via", "what")},
        }
        return Answer(body)

    summary = "The change that waits on disk: what it says, what becomes weaker, and who took the last one."
    return (
        Endpoint("GET", "/change", Scope.READ, summary, Nothing, WaitingChange, change),
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
