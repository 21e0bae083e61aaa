"""The last step of `relay connectors validate --send-test`: a small message on the real way, and its trace as the proof.

It goes through the running relay, from intake to attempt, since that is what is to be tried: its queue, its keys, its connections.
"""

import time
from typing import Any

from relay.cli.client import Relay
from relay.policy.steps import Result, Step

_AGAIN = 0.25  # seconds


def send_trial(relay: Relay, connector: str, to: str, wait: int) -> tuple[Step, dict[str, Any] | None]:
    """Sends it and waits for its end, or for the first attempt that failed."""
    begun = time.monotonic()
    message = str(relay.post("/connectors/test", {"connector": connector, "to": to})["message"])
    trace = _settled(relay, message, begun + wait)
    return trial_step(connector, to, message, trace, time.monotonic() - begun), trace


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


def trial_step(connector: str, to: str, message: str, trace: dict[str, Any] | None, seconds: float) -> Step:
    """What became of it, and what to do about that."""
    state = _state(trace) if trace is not None else "waiting"
    last = _last(trace) if trace is not None else None
    said = f": {last['code']} {last['status']} {last['text']}" if last is not None else ""
    if state == "delivered":
        return Step("send-test", to, Result.OK, f"delivered as {message}{said}", seconds=seconds)
    if last is None:
        text = f"{message} has had no answer within the time"
        how = f"relay queue show {message} says whether it is still being tried; relay queue delete {message} gives it up."
        return Step("send-test", to, Result.FAILED, text, how, seconds)
    failure = f" ({last['failure']})" if last.get("failure") else ""
    how = _how(connector, message, state, last)
    return Step("send-test", to, Result.FAILED, f"{message} is {state}{said}{failure}", how, seconds)


def _how(connector: str, message: str, state: str, last: dict[str, Any]) -> str:
    status = str(last["status"])
    give_up = f"relay queue delete {message} gives it up."
    if last.get("failure") and state != "bounced":
        return f"relay queue show {message} says what to do; {give_up}"
    if status == "4.7.8":  # RFC 4954 section 6, as a deferral: our password is not the sender's fault
        where = f"`user` and `password` under `route.auth` of connector {connector}"
        return f"Mend {where}, run relay reload and relay queue retry {message}; {give_up}"
    if state != "bounced":
        again = "It is tried again by itself, and greylisting wants no more; where a step above failed, what to do stands there."
        return f"{again} relay queue show {message} says when; {give_up}"
    if status.startswith("5.1."):
        return "The recipient is refused and not the connection: try an address that exists there."
    return f"The partner's server refuses the message: ask its operators, with its answer. relay trace {message} shows the attempt."


def _last(trace: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome of the last attempt."""
    for attempt in reversed(trace["attempts"]):
        for outcome in attempt["outcomes"]:
            found: dict[str, Any] = outcome
            return found
    return None
