"""What pages ask of the admin API, and its answers as the values that they show. One object for each visit: it asks as the caller."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from relay.admin.console.desk import Desk, Json
from relay.admin.console.values import Destination, WaitingChange
from relay.admin.console.words import moment, rfc3339
from relay.admin.endpoint import Caller
from relay.policy.suspension import Stops, Suspension


class Facts:
    """Raises what `Desk.ask` raises."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk, self._caller = desk, caller

    async def ask(self, name: str, given: Json | None = None) -> Json:
        return await self._desk.ask(self._caller, name, given)

    async def _list(self, name: str, given: Json, key: str) -> Sequence[Json]:
        found: Sequence[Json] = (await self.ask(name, given))[key]
        return found

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
        more = {"reason": reason} if reason else {}
        return await self.ask(f"POST /queue/{action}", {**selection, **more})

    async def reroute(self, selection: Json, via: str, weaker: bool) -> Json:
        """As `act`, with what is {weaker}. BadQuestionError, and RefusedError with what would be lost."""
        more = {"weaker": True} if weaker else {}
        return await self.ask("POST /queue/reroute", {**selection, "via": via, **more})

    async def traces(self, given: Json) -> Sequence[Json]:
        return await self._list("GET /trace", {name: value for name, value in given.items() if value}, "traces")

    async def destinations(self, after: str, limit: int) -> Sequence[Destination]:
        """By name, from behind `after`."""
        found = await self._list("GET /queue/destinations", {"after": after, "limit": str(limit)}, "destinations")
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
        return [_suspension(each) for each in await self._list("GET /suspensions", {}, "suspensions")]

    async def suspend(self, kind: str, value: str, reason: str, until: str) -> None:
        """`kind` is a word of `Stops`. BadQuestionError for what cannot be suspended."""
        more = {"until": until} if until else {}
        await self.ask("POST /suspensions", {kind: value, "reason": reason, **more})

    async def resume(self, number: str) -> Json:
        return await self.ask("POST /suspensions/resume", {"id": number})

    # What went through.

    async def overview(self, since: datetime, until: datetime, step: str) -> Json:
        return await self.ask("GET /security/overview", {**_span(since, until), "step": step})

    async def shares(self, since: datetime, until: datetime, direction: str) -> Json:
        return await self.ask("GET /security/shares", {**_span(since, until), "direction": direction})

    async def troubles(self) -> Json:
        """{troubled, more}."""
        return await self.ask("GET /security/troubled")

    async def partners(self, since: datetime, until: datetime, domain: str) -> Sequence[Json]:
        """The rows of the report by partner, without the rest."""
        more = {"domain": domain} if domain else {}
        return await self._list("GET /security/partners", {**_span(since, until), **more, "limit": "5000"}, "partners")

    async def report(self, since: datetime, until: datetime, domain: str) -> Json:
        more = {"domain": domain} if domain else {}
        return await self.ask("GET /security/report", {**_span(since, until), **more})

    # Certificates.

    async def certificates(self) -> Json:
        """{ours, partners}."""
        return await self.ask("GET /certificates")

    async def sheet(self, name: str) -> Json:
        """What partners must be told of one of ours. NotFoundError."""
        return (await self._list("GET /certificates/sheet", {"name": name}, "sheets"))[0]

    # Connectors and the configuration.

    async def connectors(self) -> Sequence[Json]:
        return await self._list("GET /connectors", {}, "connectors")

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
        found = await self.ask("GET /change")
        diff, weaker, restart, errors = (found[key] for key in ("diff", "weaker", "restart", "errors"))
        mark = _mark([found["differs"], diff, weaker, restart, errors])
        return WaitingChange(found["differs"], diff.splitlines(), weaker, restart, errors, found["last"], mark)

    async def take(self) -> Json:
        """What `relay reload --json` says: {taken, changed, weaker, restart, errors}."""
        return await self.ask("POST /reload", {})

    async def audit(self, given: Json) -> Json:
        """{entries, next}."""
        return await self.ask("GET /audit", {name: value for name, value in given.items() if value})


def _suspension(found: Json) -> Suspension:
    stops = next(each for each in Stops if found.get(each) is not None)
    since, until = datetime.fromisoformat(found["since"]), moment(found["until"])
    return Suspension(stops, found[stops], found["reason"], found["who"], since, until, int(found["id"]))


def _span(since: datetime, until: datetime) -> dict[str, str]:
    return {"since": rfc3339(since), "until": rfc3339(until)}


def _mark(state: Any) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
