"""What pages ask of the admin API, and its answers as the values that they show. One object for each visit: it asks as the caller.

An endpoint that this relay does not offer gives an empty answer where a page only shows it.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from relay.admin.console.desk import Desk, Json
from relay.admin.console.values import (
    Destination,
    Suspension,
    WaitingChange,
)
from relay.admin.console.words import moment, rfc3339
from relay.admin.endpoint import Caller


class Facts:
    """Raises what `Desk.ask` raises."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk, self._caller = desk, caller

    def has(self, name: str) -> bool:
        """Whether this relay offers it to this caller."""
        return self._desk.lets(self._caller, name)

    async def ask(self, name: str, given: Json | None = None) -> Json:
        return await self._desk.ask(self._caller, name, given)

    async def _shown(self, name: str, given: Json, key: str) -> Sequence[Json]:
        """A list in an answer, empty where this relay does not offer it."""
        return (await self.ask(name, given))[key] if self.has(name) else ()

    async def _given(self, name: str, given: Json) -> Json | None:
        return await self.ask(name, given) if self.has(name) else None

    # The queue and the traces.

    async def status(self) -> Json:
        return await self.ask("GET /status")

    async def messages(self, given: Json) -> Json:
        """A page of the queue: {messages, next}."""
        return await self.ask("GET /queue", {name: value for name, value in given.items() if value})

    async def message(self, message_id: str) -> Json:
        """NotFoundError where there is none."""
        return await self.ask("GET /queue/{id}", {"id": message_id})

    async def act(self, action: str, selection: Json, reason: str) -> Json:
        """{changed, running, unknown}."""
        name = f"POST /queue/{action}"
        more = {"reason": reason} if reason and self._desk.takes(name, "reason") else {}
        return await self.ask(name, {**selection, **more})

    def tells_why(self, action: str) -> bool:
        """Whether an action hands on a reason."""
        return self._desk.takes(f"POST /queue/{action}", "reason")

    async def traces(self, given: Json) -> Sequence[Json]:
        found: Sequence[Json] = (await self.ask("GET /trace", {name: value for name, value in given.items() if value}))[
            "traces"
        ]
        return found

    async def destinations(self, after: str, limit: int) -> Sequence[Destination]:
        found = await self._shown("GET /queue/destinations", {"after": after, "limit": str(limit)}, "destinations")
        return [
            Destination(
                each["domain"],
                each["connector"],
                each["waiting"],
                each["held"],
                moment(each["oldest"]),
                moment(each["next_attempt"]),
                each["last"],
            )
            for each in found
        ]

    async def suspensions(self) -> Sequence[Suspension]:
        found = await self._shown("GET /suspensions", {}, "suspensions")
        return [_suspension(each) for each in found]

    async def suspend(self, kind: str, value: str, reason: str, until: str) -> None:
        """`kind` is one of those of `Suspension`. BadQuestionError for what cannot be suspended."""
        more = {"until": until} if until else {}
        await self.ask("POST /suspensions", {kind: value, "reason": reason, **more})

    async def resume(self, number: str) -> Json:
        return await self.ask("POST /suspensions/resume", {"id": number})

    # What went through.

    async def overview(self, since: datetime, until: datetime, step: str) -> Json | None:
        """None where this relay keeps no tally."""
        return await self._given("GET /security/overview", {**_span(since, until), "step": step})

    async def shares(self, since: datetime, until: datetime, direction: str) -> Json | None:
        return await self._given("GET /security/shares", {**_span(since, until), "direction": direction})

    async def troubles(self) -> Sequence[Json]:
        return await self._shown("GET /security/troubled", {}, "troubled")

    async def report(self, since: datetime, until: datetime, domain: str) -> Json:
        more = {"domain": domain} if domain else {}
        return await self.ask("GET /security/report", {**_span(since, until), **more})

    # Certificates.

    async def certificates(self) -> Json:
        """{ours, partners}, both empty where this relay does not tell."""
        found = await self._given("GET /certificates", {})
        return found if found is not None else {"ours": [], "partners": []}

    async def sheet(self, name: str) -> Json:
        """What partners must be told of one of ours. NotFoundError."""
        found: Sequence[Json] = (await self.ask("GET /certificates/sheet", {"name": name}))["sheets"]
        return found[0]

    # Connectors and the configuration.

    async def connectors(self) -> Sequence[Json]:
        return await self._shown("GET /connectors", {}, "connectors")

    async def connector(self, name: str) -> Json:
        """With its settings. NotFoundError."""
        return await self.ask("GET /connectors/{name}", {"name": name})

    async def explain(self, asked: Json) -> Json:
        """The JSON of `relay explain`. BadQuestionError for what is no address."""
        return await self.ask("POST /explain", {name: value for name, value in asked.items() if value})

    async def probe(self, domain: str) -> Json:
        """The JSON of `relay probe`. BadQuestionError for what is no domain."""
        return await self.ask("POST /probe", {"target": domain})

    async def change(self) -> WaitingChange:
        found = await self._given("GET /change", {})
        if found is None:
            reasons = (await self.status())["configuration"]["waiting"]
            return WaitingChange(reasons, (), (), (), (), None, _mark(reasons))
        weaker, restart, errors = (found[key] for key in ("weaker", "restart", "errors"))
        mark = _mark([found["diff"], weaker, restart, errors])
        return WaitingChange(found["waiting"], found["diff"].splitlines(), weaker, restart, errors, found["last"], mark)

    async def take(self) -> Json:
        """What `relay reload --json` says: {taken, changed, weaker, restart, errors}."""
        return await self.ask("POST /reload", {})

    async def audit(self, given: Json) -> Json:
        """{entries, next}."""
        return await self.ask("GET /audit", {name: value for name, value in given.items() if value})


def _suspension(found: Json) -> Suspension:
    kind = next(each for each in ("to", "connector", "from") if found.get(each) is not None)
    since, until = moment(found["since"]), moment(found["until"])
    return Suspension(int(found["id"]), kind, found[kind], since, found["who"], found["reason"], until)


def _span(since: datetime, until: datetime) -> dict[str, str]:
    return {"since": rfc3339(since), "until": rfc3339(until)}


def _mark(state: Any) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
