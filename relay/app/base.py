"""What every room of a running relay stands on: its configuration, certificates, store, and the workers beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.app.colleagues import Colleagues
from relay.app.configuration import Configuration
from relay.app.place import Place
from relay.config.models import Config
from relay.mail.events import Emit
from relay.observe.metrics import Metrics
from relay.policy.book import RuleBook
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreLocked, StoreUnusable
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores

KEEP_AUDIT = timedelta(days=400)


class StartError(Exception):
    """The relay cannot start; str() names what, why and the remedy."""


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds. `watch`: how often files are looked at. `grace`: how long sessions and deliveries under way may take at the end;
    `orphaned`: and where the supervisor has gone, so that somebody else may soon start the relay anew. `counts`: how often a worker tells
    the supervisor what it has counted; `alerts`: how often what may be worth an alert is looked at."""

    watch: float = 2.0
    grace: float = 30.0
    orphaned: float = 3.0
    counts: float = 5.0
    alerts: float = 30.0


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Base:
    """`keyring` is None without certificates. `lines_dropped` counts log lines that nobody took."""

    file: Path
    place: Place
    times: Times
    configuration: Configuration
    keyring: Keyring | None
    trust: TrustStores
    store: SqliteStore
    colleagues: Colleagues
    metrics: Metrics
    lines_dropped: Callable[[], int]
    emit: Emit

    @property
    def config(self) -> Config:
        """The one in force."""
        return self.configuration.config

    @property
    def grace(self) -> float:
        """Seconds that sessions and deliveries under way may take at the end."""
        link = self.place.link
        return self.times.grace if link is None or not link.lost.is_set() else self.times.orphaned

    @property
    def book(self) -> Callable[[], RuleBook]:
        """Gives the rule book in force."""
        return self.configuration.book


def keyring_of(config: Config) -> Keyring | None:
    if config.certificates is None:
        return None
    return Keyring(config.certificates, hostname=config.hostname, clock=utc_now)


async def store_of(config: Config, place: Place, emit: Emit) -> SqliteStore:
    """Raises StartError."""
    try:
        return await SqliteStore.open(
            config.queue_file,
            emit=emit,
            clock=utc_now,
            free_space=config.limits.free_space,
            keep=config.retention.traces,
            share=place.share,
        )
    except (StoreLocked, StoreUnusable) as error:
        raise StartError(str(error)) from error
