"""The last step of `relay connectors validate --send-test`: a small message on the real way, and its trace as the proof.

It goes through the running relay, from intake to attempt, since that is what is to be tried: its queue, its keys, its connections.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.cli.client import Relay
from relay.cli.common import ExitCode, stop
from relay.policy.steps import Result, Step

if TYPE_CHECKING:
    from relay.config.models import Config

_AGAIN = 0.25  # seconds


def send_trial(config: "Config", connector: str, to: str, wait: int) -> tuple[list[Step], dict[str, Any] | None]:
    """Sends it and waits for its end, or for the first attempt that failed. Ends the program where no relay runs (3)."""
    if config.admin is None:
        stop(
            "--send-test needs the running relay: write `admin: {socket: relay.sock}` and restart it",
            ExitCode.UNREACHABLE,
        )
    with Relay.at(Path(config.admin.socket)) as relay:
        begun = time.monotonic()
        message = str(relay.post("/connectors/test", {"connector": connector, "to": to})["message"])
        trace = _settled(relay, message, begun + wait)
        seconds = time.monotonic() - begun
    return [_step(to, message, trace, seconds)], trace


def _settled(relay: Relay, message: str, end: float) -> dict[str, Any] | None:
    """The trace, once an attempt has had an outcome, or the time is over."""
    while True:
        found = relay.get("/trace", {"id": message})["traces"]
        trace: dict[str, Any] | None = found[0] if found else None
        if trace is not None and (trace["attempts"] or _state(trace) not in ("waiting", "delivering")):
            return trace
        if time.monotonic() >= end:
            return trace
        time.sleep(_AGAIN)


def _state(trace: dict[str, Any]) -> str:
    recipients = trace.get("recipients") or [{}]
    return str(recipients[0].get("state", "waiting"))


def _step(to: str, message: str, trace: dict[str, Any] | None, seconds: float) -> Step:
    state, last = (_state(trace), _last(trace)) if trace is not None else ("waiting", "")
    if state == "delivered":
        return Step("send-test", to, Result.OK, f"delivered as {message}{last}", seconds=seconds)
    how = f"relay queue show {message} says what to do; relay queue delete {message} gives it up."
    if not last:
        return Step("send-test", to, Result.FAILED, f"{message} was not tried within the time", how, seconds)
    return Step("send-test", to, Result.FAILED, f"{message} is {state}{last}", how, seconds)


def _last(trace: dict[str, Any]) -> str:
    """What the last attempt said."""
    for attempt in reversed(trace["attempts"]):
        for outcome in attempt["outcomes"]:
            failure = f" ({outcome['failure']})" if outcome.get("failure") else ""
            return f": {outcome['code']} {outcome['status']} {outcome['text']}{failure}"
    return ""
