"""The admin API of a running relay: all its topics, and what becomes of a change that somebody made."""

from typing import Any

from relay.admin import queue, reload, reports, status, trace
from relay.admin.endpoint import Caller, Change, Endpoint
from relay.app.operations import Operator
from relay.mail.events import AdminActed, Emit


def endpoints(operator: Operator) -> tuple[Endpoint[Any], ...]:
    """A topic is one file in `relay.admin`, and one line here."""
    return (
        *status.endpoints(operator),
        *queue.endpoints(operator),
        *trace.endpoints(operator),
        *reports.endpoints(operator),
        *reload.endpoints(operator),
    )


class Audit:
    """Takes down who changed what."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    async def note(self, caller: Caller, action: str, change: Change) -> None:
        self._emit(AdminActed(caller.name, caller.via, action, change.what, change.count))
