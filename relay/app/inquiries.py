"""What the admin API asks about connectors and before any mail is sent, answered from the rooms that know."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from relay.admin.asking import Message
from relay.admin.endpoint import BadQuestionError, Json, NotFoundError, Unavailable
from relay.config.connectors import InboundConnector, OutboundConnector
from relay.config.files import Secret
from relay.config.values import duration_text
from relay.outbound.asking import Words, WrongWordError, explain_message, probe, probe_target, question_of
from relay.outbound.probe import Means
from relay.outbound.probe_json import probe_json
from relay.outbound.validate import connector_named, domains_of, steps_here, steps_there
from relay.policy.book import RuleBook
from relay.policy.connector_steps import last_seen
from relay.policy.explain_json import explanation_json
from relay.policy.steps import failed, steps_json
from relay.queue.live import Live, live
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreUnavailable
from relay.tls.check import check, check_json
from relay.tls.revocation.checks import RevocationChecks

_PROBES = 4  # at the same time, of all callers
_EXPLAINED = 8  # as well: each may wait for a policy host, with places for fetches that deliveries need
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Sources:
    """`means` gives what look-ups are made with, as deliveries have it now. `render` gives the metrics."""

    file: Path
    book: Callable[[], RuleBook]
    means: Callable[[], Means]
    revocations: RevocationChecks
    store: SqliteStore
    render: Callable[[], Awaitable[bytes]]
    clock: Callable[[], datetime]


class Inquiries:
    """Implements `relay.admin.connectors.Connectors`, `relay.admin.asking.Asking` and `relay.admin.metrics.Metrics`."""

    def __init__(self, around: Sources) -> None:
        self._around = around
        self._probing = asyncio.Semaphore(_PROBES)
        self._explaining = asyncio.Semaphore(_EXPLAINED)

    async def connectors(self) -> Sequence[Json]:
        found, book = await self._live(), self._around.book()
        counts = _by_connector(book, found)
        return [_state(each, found, counts) for each in _all(book)]

    async def connector(self, name: str) -> Json | None:
        book = self._around.book()
        chosen = next((each for each in _all(book) if each.name == name), None)
        if chosen is None:
            return None
        found = await self._live()
        settings = {key: _plain(getattr(chosen, key)) for key in type(chosen).model_fields}
        return {**_state(chosen, found, _by_connector(book, found)), "settings": settings}

    async def _live(self) -> Live:
        try:
            return await self._around.store.ask(live)
        except StoreUnavailable as error:
            raise Unavailable(error.reason) from error

    async def explain(self, message: Message) -> Json:
        if self._explaining.locked():
            raise Unavailable(f"{_EXPLAINED} questions are being looked up: ask again when one has its answer")
        async with self._explaining:
            return await self._explain(message)

    async def _explain(self, message: Message) -> Json:
        means = self._around.means()
        words = Words(message.to, message.sender, message.client_ip, message.client_certificate, message.tls_version)
        try:
            async with asyncio.timeout(_PATIENCE):
                question = await question_of(means.book, words, self._around.clock(), self._around.revocations)
                return explanation_json(await explain_message(means, question))
        except WrongWordError as error:
            raise BadQuestionError(f"{error.name}: {error}") from None
        except TimeoutError:
            raise Unavailable(
                f"DNS, or who says what is revoked, did not answer within {_PATIENCE:.0f} seconds"
            ) from None

    async def probe(self, target: str, about: str) -> Json:
        try:
            domain, hop = probe_target(target, about)
        except WrongWordError as error:
            raise BadQuestionError(f"{error.name}: {error}") from None
        async with self._turn():
            return probe_json(await probe(self._around.means(), domain, hop))

    async def validate(self, connector: str, domain: str) -> Json:
        means = self._around.means()
        try:
            chosen = connector_named(means.book, connector)
        except WrongWordError as error:
            raise NotFoundError(str(error)) from None
        try:
            domains = domains_of(means.book, chosen, domain)
        except WrongWordError as error:
            raise BadQuestionError(f"{error.name}: {error}") from None
        async with self._turn():
            found = await asyncio.to_thread(lambda: list(steps_here(means.book, chosen, means.clock())))
            if isinstance(chosen, InboundConnector):
                last = (await self._live()).accepted.get(chosen.name)
                found.append(last_seen(last, "no message of the partner is among the last ones"))
            found += await steps_there(means, domains)
        return {
            "connector": chosen.name,
            "direction": chosen.direction,
            "passes": not failed(found),
            "steps": steps_json(found),
        }

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Of those who connect to hosts because a caller says so. Raises Unavailable where all are taken, and where it lasts too long."""
        if self._probing.locked():
            raise Unavailable(f"{_PROBES} probes or validations are under way: try again when one has ended")
        async with self._probing:
            try:
                async with asyncio.timeout(_PATIENCE):
                    yield
            except TimeoutError:
                raise Unavailable(f"the hosts did not answer within {_PATIENCE:.0f} seconds") from None

    async def check(self) -> Json:
        file = self._around.file
        return await asyncio.to_thread(lambda: check_json(file, check(file, self._around.clock())))

    async def metrics(self) -> bytes:
        return await self._around.render()


Connector = InboundConnector | OutboundConnector


def _all(book: RuleBook) -> Sequence[Connector]:
    return (*book.config.connectors, book.config.default)


def _by_connector(book: RuleBook, found: Live) -> Mapping[str, tuple[int, int]]:
    """Recipients that wait and that are held."""
    counts: dict[str, tuple[int, int]] = {}
    for domain, (waiting, held) in found.by_domain.items():
        name = book.outbound_for(domain).name
        before = counts.get(name, (0, 0))
        counts[name] = (before[0] + waiting, before[1] + held)
    return counts


def _state(connector: Connector, found: Live, counts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    if isinstance(connector, InboundConnector):
        return {
            "name": connector.name,
            "direction": "inbound",
            "level": None,
            "plaintext": None,
            "domains": [str(each) for each in connector.match.sender_domains or ()],
            "waiting": None,
            "held": None,
            "last": found.accepted.get(connector.name),
        }
    waiting, held = counts.get(connector.name, (0, 0))
    return {
        "name": connector.name,
        "direction": "outbound",
        "level": connector.tls.value,
        "plaintext": None if connector.plaintext is None else connector.plaintext.value,
        "domains": [str(each) for each in connector.match.recipient_domains],
        "waiting": waiting,
        "held": held,
        "last": found.attempted.get(connector.name),
    }


def _plain(value: Any) -> Any:
    """As JSON, in the words of connectors.yaml. Secrets are masked."""
    match value:
        case Secret():
            return "********"
        case BaseModel():
            return {info.alias or key: _plain(getattr(value, key)) for key, info in type(value).model_fields.items()}
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple() | frozenset():
            return [_plain(each) for each in value]
        case timedelta():
            return duration_text(value)
        case date():
            return value.isoformat()
        case bool() | int() | float() | None:
            return value
        case _:
            return str(value)
