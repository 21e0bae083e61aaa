"""A relay that does nothing, for the API and for the commands that speak with it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from starlette.types import ASGIApp

from relay.admin import alerts, api, asking, connectors, connectors_in_force, queue, reload, reports, security, status
from relay.admin import trace as trace_topic
from relay.admin.asking import Message
from relay.admin.endpoint import Caller, Change, Endpoint, Json, NotFoundError, Unavailable
from relay.admin.queue import Action, Selection
from relay.admin.reload import Reload
from relay.admin.reports import ReportsQuery
from relay.admin.security import PartnersQuery, Span, SuggestQuery
from relay.admin.trace import TraceQuery
from relay.admin.unix import at_socket
from relay.mail.address import Address
from relay.mail.events import AdminActed, Emit
from relay.mail.tally import Way


def recipient(address: str = "bob@contoso.com", state: str = "waiting", **more: Any) -> dict[str, Any]:
    return {
        "address": address,
        "state": state,
        "connector": "contoso-out",
        "attempts": 0,
        "next_attempt": "2026-11-25T08:30:00.000Z" if state == "waiting" else None,
        "last": None,
        **more,
    }


LAST = {
    "at": "2026-11-25T08:00:01.000Z",
    "hop": "mx.contoso.com:25",
    "state": "deferred",
    "code": 451,
    "status": "4.7.4",
    "text": "mx.contoso.com does not offer STARTTLS",
    "failure": "starttls-not-supported",
}


def message(number: int, *recipients: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"01JD3M8Z7Q{number:010d}",
        "message_id": f"<{number}@example.com>",
        "sender": "alice@example.com",
        "size": 4096,
        "requiretls": False,
        "tls_optional": False,
        "accepted_at": "2026-11-25T08:00:00.000Z",
        "recipients": list(recipients) or [recipient()],
        **more,
    }


def trace(number: int) -> dict[str, Any]:
    one = message(number, recipient(state="delivered"))
    del one["accepted_at"]
    return {
        **one,
        "accepted": {
            "at": "2026-11-25T08:00:00.000Z",
            "client": "192.0.2.1",
            "client_port": 40025,
            "server": "198.51.100.1:25",
            "helo": "client.example",
            "listener": "mx 0.0.0.0:25",
            "protocol": "ESMTP",
            "connector": None,
            "auth": None,
            "may_relay": False,
            "tls": None,
        },
        "attempts": [],
    }


class FakeRelay:
    """Implements what the topics ask. `asked` lists what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.queue: list[dict[str, Any]] = []
        self.queued_for: list[dict[str, Any]] = []
        self.traces: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {
            "changed": 1,
            "running": 0,
            "unknown": [],
            "before": {"waiting": 1},
            "after": {"held": 1},
        }
        self.reloaded = Reload(taken=True, changed=True)
        self.reports_answer: dict[str, Any] = {"sending": True, "reports": [], "uncounted": 0}
        self.report_answer: dict[str, Any] | None = None
        self.sent_answer: dict[str, Any] = {"states": {}, "reports": []}
        self.received: list[dict[str, Any]] = []
        self.active: list[dict[str, Any]] = []
        self.tested: dict[str, Any] = {"mail": {"error": None, "message": "0" * 20}}
        self.error: Exception | None = None
        self.ready = True
        self.found: dict[str, Any] = {}
        """What an explanation, a probe or a validation finds."""
        self.in_force: list[dict[str, Any]] = []
        self.security_answer: dict[str, Any] = {}

    def _ask(self, what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    async def alerts(self) -> Json:
        self._ask("alerts")
        return {"alerts": self.active, "ways": ["mail"], "waiting": {"webhook": 1}}

    async def test_alerts(self, ways: Sequence[str]) -> Json:
        self._ask(("test-alerts", tuple(ways)))
        return self.tested

    async def test_connector(self, connector: str, to: Address) -> Json:
        self._ask(("test-connector", connector, str(to)))
        return {"message": "0" * 20, "connector": connector}

    async def status(self) -> Json:
        self._ask("status")
        return {
            "version": "0.1.0",
            "hostname": "relay.example.com",
            "pid": 7,
            "started_at": "2026-11-25T08:00:00.000Z",
            "ready": self.ready,
            "troubles": [] if self.ready else ["no listener is open"],
            "listeners": {"mx 0.0.0.0:25": "0.0.0.0:25"},
            "workers": [{"worker": 0, "pid": 7}],
            "certificates": {"relay.example.com": 12.5, "old": -1.0},
            "one_way": [{"domain": "contoso.com", "connector": "contoso-out", "missing": "inbound"}],
            "configuration": {"waiting": ["tls goes from domain to encryption"]},
            "connections": {"mx 0.0.0.0:25": 3},
            "queue": {
                "messages": 2,
                "waiting": 2,
                "delivering": 0,
                "held": 1,
                "oldest": 90.0,
                "bytes": 4096,
                "free": 2**30,
            },
        }

    async def messages(self, selection: Selection, *, after: str, limit: int) -> Json:
        self._ask((selection, after, limit))
        rest = [each for each in self.queue if each["id"] > after]
        page = rest[:limit]
        return {"messages": page, "next": page[-1]["id"] if len(rest) > limit else None}

    async def message(self, message_id: str) -> Json | None:
        self._ask(message_id)
        return next((each for each in self.queue if each["id"] == message_id), None)

    async def destinations(self, after: str, limit: int) -> Json:
        self._ask((after, limit))
        return {"destinations": [each for each in self.queued_for if each["domain"] > after][:limit]}

    async def act(self, action: Action, selection: Selection, reason: str = "") -> Json:
        self._ask((action, selection, reason) if reason else (action, selection))
        return {"before": {}, "after": {}, **self.result}

    async def trace(self, query: TraceQuery) -> Sequence[Json]:
        self._ask(query)
        return self.traces[: query.limit]

    async def reports(self, query: ReportsQuery) -> Json:
        self._ask(query)
        return self.reports_answer

    async def report(self, query: ReportsQuery) -> Json | None:
        self._ask(query)
        return self.report_answer

    async def send_reports(self, query: ReportsQuery) -> Json:
        self._ask(query)
        return self.sent_answer

    async def received_reports(self, since: datetime | None, limit: int) -> Json:
        self._ask((since, limit))
        return {"received": self.received}

    async def overview(self, span: Span, step: str) -> Json:
        self._ask((span, step))
        return self.security_answer

    async def shares(self, span: Span, way: Way) -> Json:
        self._ask((span, way))
        return self.security_answer

    async def partners(self, query: PartnersQuery) -> Json:
        self._ask(query)
        return self.security_answer

    async def troubled(self) -> Json:
        self._ask("troubled")
        return self.security_answer

    async def security_report(self, span: Span, domain: str) -> Json:
        self._ask((span, domain))
        return self.security_answer

    async def suggest(self, query: SuggestQuery) -> Json:
        self._ask(query)
        return self.security_answer

    async def explain(self, message: Message) -> Json:
        self._ask(message)
        return self.found

    async def probe(self, target: str, about: str) -> Json:
        self._ask((target, about))
        return self.found

    async def validate(self, connector: str, domain: str) -> Json:
        self._ask((connector, domain))
        if not self.found:
            raise NotFoundError(f"there is no connector {connector!r}; there are: none")
        return self.found

    async def check(self) -> Json:
        self._ask("check")
        return {"file": "connectors.yaml", "valid": True, "problems": []}

    async def connectors(self) -> Sequence[Json]:
        self._ask("connectors")
        return self.in_force

    async def connector(self, name: str) -> Json | None:
        self._ask(name)
        return next((each for each in self.in_force if each["name"] == name), None)

    async def reload(self, *, dry_run: bool) -> Reload:
        self._ask(dry_run)
        return self.reloaded

    def waiting(self) -> Sequence[str]:
        return ()

    async def last_reload(self) -> Json | None:
        return None


def topics(relay: FakeRelay) -> list[Endpoint[Any]]:
    named = (status, queue, trace_topic, reports, alerts, connectors, connectors_in_force, asking, reload, security)
    return [each for topic in named for each in topic.endpoints(relay)]


def application(relay: FakeRelay, emit: Emit = lambda event: None) -> ASGIApp:
    """The API as it is on the unix socket."""

    async def note(caller: Caller, action: str, change: Change) -> None:
        emit(AdminActed(caller.name, caller.via, action, change.what, change.count))

    return api.application(topics(relay), at_socket, note)


GONE = Unavailable("the queue cannot be read now: disk gone")
