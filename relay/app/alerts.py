"""Alerts in a running relay: what the workers saw and what is looked at goes to the board, what the board tells goes out by mail and webhook.

Wiring and loops only: what is a concern is decided in `relay.policy.concerns`, what is told when in `relay.policy.alerts`. The first worker
does all of it; the others hand it the few events that matter. What was told is kept in the queue's store, so a restart tells nothing twice;
while the store is in trouble it is kept in memory, and the webhook works all the same.
"""

import asyncio
import contextlib
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay import __version__
from relay.admin.endpoint import Unavailable
from relay.app.expiry import first_to_end
from relay.app.own_mail import put_mail
from relay.config.connectors import PrivateAddresses
from relay.config.models import Alerts as AlertsConfig
from relay.config.models import Config
from relay.dns.answers import Resolver
from relay.mail import events as e
from relay.mail.alerts import AlertKey, AlertKind, Concern, Notice, NoticeState, Relief, Severity
from relay.mail.envelope import ALERTS
from relay.mail.seen import SeenCertificate
from relay.policy import concerns as judge
from relay.policy.alert_terms import terms_of
from relay.policy.alerts import STRANGE, Standing, gone, notice_id, step
from relay.policy.book import RuleBook
from relay.queue.alerts import SqliteAlerts
from relay.queue.intake import Intake
from relay.queue.store import StoreUnavailable
from relay.report.alerts.kept import Kept, Posting, Way, active, decoded, encoded
from relay.report.alerts.mail import compose
from relay.report.alerts.webhook import JSON, body, destination, signed
from relay.report.dsn import Issuer
from relay.report.post import Patience, Poster, Terms
from relay.tls.keyring import Keyring

Json = dict[str, Any]

PATIENCE = Patience(whole=20.0, connect=10.0)
_PENDING = 1000  # concerns that strangers can make, and wait for the next step; others always have a place
_LONGEST = 60.0  # seconds between two looks at what is to be sent

WATCHED: frozenset[type[e.Event]] = frozenset(
    (
        e.TlsWithheld,
        e.StsFetchFailed,
        e.StsPolicyFetched,
        e.DaneUnusable,
        e.DaneUsable,
        e.StoreTrouble,
        e.StoreRecovered,
    )
)
"""What the other workers hand on. What is read from files, the first one sees itself."""
_OURS = WATCHED | {e.ConfigurationWaiting, e.ConfigurationSettled, e.ConfigurationTaken}


@dataclass(frozen=True, slots=True)
class Seen:
    """What alerts look at. `store_troubles` are all workers', `ended` counts those that died, None where that is not known.

    `waiting` says why the configuration's `file` on disk is not in force. `partners`: the certificates that they showed, None while that
    is not known. `look`: seconds between two looks.
    """

    book: Callable[[], RuleBook]
    keyring: Keyring | None
    resolver: Resolver
    store: SqliteAlerts
    intake: Callable[[], Intake]
    store_troubles: Callable[[], Awaitable[Sequence[str]]]
    ended: Callable[[], Awaitable[int | None]]
    file: str
    waiting: Callable[[], Sequence[str]]
    partners: Callable[[], Sequence[SeenCertificate] | None]
    look: float = 30.0


class Alerts:
    """`hear` takes events. `leads`: this worker tells; else it hands on to the one that does (`hand_on`)."""

    def __init__(
        self,
        seen: Seen,
        *,
        clock: Callable[[], datetime],
        emit: e.Emit,
        leads: bool,
        hand_on: Callable[[e.Event], None],
    ) -> None:
        self._seen, self._clock, self._emit = seen, clock, emit
        self._leads, self._hand_on = leads, hand_on
        self._kept, self._saved, self._loaded = Kept(), "", False
        self._concerns: dict[AlertKey, Concern] = {}
        self._reliefs: dict[AlertKey, Relief] = {}
        self._happened, self._look_now = asyncio.Event(), True
        self._to_send = {way: asyncio.Event() for way in Way}
        self._poster = Poster(
            seen.resolver.configured_addresses, self._post_terms, f"ironpost/{__version__}", JSON, PATIENCE
        )
        self._tasks: list[asyncio.Task[None]] = []

    # What happens.

    @property
    def hears(self) -> frozenset[type[e.Event]]:
        return _OURS if self._leads else WATCHED

    def hear(self, event: e.Event) -> None:
        """An observer of what it `hears`."""
        if not self._leads:
            self._hand_on(event)
            return
        self._take(event)
        self._happened.set()

    def _take(self, event: e.Event) -> None:
        match event:
            case e.TlsWithheld():
                self._concern(judge.withheld(self._seen.book(), event))
            case e.StsFetchFailed():
                self._concern(judge.not_renewed(event))
            case e.StsPolicyFetched():
                self._relieve(Relief(AlertKind.MTA_STS, event.domain, "The policy has been fetched again."))
            case e.DaneUnusable():
                self._concern(judge.dane_off(event))
            case e.DaneUsable():
                self._relieve(Relief(AlertKind.DANE, "dane", f"{event.resolver} has shown that it validates DNSSEC."))
            case e.ConfigurationWaiting():
                self._concern(judge.waiting(event))
            case e.ConfigurationSettled():
                self._relieve(judge.settled(event))
        self._look_now = self._look_now or not isinstance(event, e.TlsWithheld | e.StsFetchFailed | e.StsPolicyFetched)

    def _concern(self, found: Concern | None) -> None:
        """What came last counts."""
        if found is None:
            return
        if found.kind not in STRANGE or found.key in self._concerns or len(self._concerns) < _PENDING:
            self._concerns[found.key] = found

    def _relieve(self, relief: Relief) -> None:
        self._concerns.pop(relief.key, None)
        # What is heard while we start may be about what is still to be loaded; what is about nothing, `step` leaves out.
        if relief.key in self._kept.board.standing or (not self._loaded and len(self._reliefs) < _PENDING):
            self._reliefs[relief.key] = relief

    # Start and stop.

    async def load(self, *, is_anew: bool) -> None:
        """`is_anew`: with the configuration that is on disk now, so that nothing waits of what waited before."""
        if not self._leads:
            return
        try:
            text = await self._seen.store.load()
            self._kept = decoded(text) if text else Kept()
        except (StoreUnavailable, ValueError, KeyError, TypeError):
            self._kept = Kept()  # it begins anew; at worst something is told again
        self._loaded = True
        if is_anew:
            text = "The relay was started with what is on disk."
            for relief in gone(self._kept.board, [AlertKind.CONFIGURATION], self._concerns.values(), text):
                self._reliefs[relief.key] = relief

    def begin(self) -> None:
        """To look and to tell."""
        if not self._leads:
            return
        self._tasks = [
            asyncio.create_task(self._keep_watching(), name="alerts"),
            *(asyncio.create_task(self._keep_sending(way), name=f"alerts-{way.value}") for way in Way),
        ]

    async def close(self) -> None:
        """What is still to be sent is kept, and goes out after the next start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
            await self._save()

    # The board.

    async def _keep_watching(self) -> None:
        next_look = 0.0
        while True:
            self._happened.clear()
            look = self._look_now or time.monotonic() >= next_look
            if look:
                self._look_now, next_look = False, time.monotonic() + self._seen.look
            await self._guarded(self._watch(look=look))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(next_look - time.monotonic(), 0.0)):
                    await self._happened.wait()

    async def _watch(self, *, look: bool) -> None:
        if look:
            await self._read()
        concerns, reliefs = tuple(self._concerns.values()), tuple(self._reliefs.values())
        self._concerns, self._reliefs = {}, {}
        now, config = self._clock(), self._config
        board, notices = step(self._kept.board, terms_of(config), now, concerns, reliefs)
        # The board first, and what it tells with it: a crash between would tell nothing, or twice.
        before = _told(self._kept)
        self._kept = Kept(board, self._kept.deaths, self._kept.postings).with_postings(notices, self._ways, now)
        for notice in notices:
            self._emit(_event(notice))
        if look or before != _told(self._kept):
            await self._save()
        if notices:
            for wake in self._to_send.values():
                wake.set()

    async def _read(self) -> None:
        """What is known by looking. Whatever cannot be looked at just now stays as it is."""
        now, config, keyring = self._clock(), self._config, self._seen.keyring
        self._found(
            [AlertKind.EXCEPTION], judge.exceptions(config.exceptions, now.date()), "It was taken out or extended."
        )
        if keyring is not None:
            ends = {name: dated.ends for name, dated in first_to_end(keyring)}
            text = "It has been renewed, mended or taken away."
            self._found([AlertKind.CERTIFICATE], judge.certificates(ends, keyring.problems, now), text)
        partners = self._seen.partners()
        if partners is not None:
            text = "They show another one, or none for thirty days, or it is not verified any more."
            self._found([AlertKind.PARTNER_CERTIFICATE], judge.partner_certificates(config, partners, now), text)
        self._read_configuration()
        if not config.dns.validating:
            self._found([AlertKind.DANE], (), "`dns.validating` is off: DANE is not used.")
        troubles = await self._seen.store_troubles()
        self._found([AlertKind.STORE], judge.store_trouble(troubles), "Mail is taken again.")
        ended = await self._seen.ended()
        if ended is not None:
            deaths = self._kept.deaths.counted(ended, now)
            self._kept = Kept(self._kept.board, deaths, self._kept.postings)
            self._found([AlertKind.WORKER], judge.deaths(deaths), "The workers live.")
        with contextlib.suppress(StoreUnavailable):
            found = await self._seen.store.oldest()
            limit = (config.alerts or AlertsConfig()).queue_age
            oldest = judge.Oldest(*found) if found is not None else None
            self._found([AlertKind.QUEUE], judge.queue_age(oldest, limit, now), "No mail has been waiting that long.")
            for each in self._kept.board.of(AlertKind.PARTNER):
                await self._look_at_partner(each)

    def _read_configuration(self) -> None:
        """The configuration's own file is looked at, since a restart may find another one there; of others, events tell."""
        kind, reasons = AlertKind.CONFIGURATION, tuple(self._seen.waiting())
        own = [judge.waiting(e.ConfigurationWaiting(self._seen.file, reasons))] if reasons else []
        others = [each.concern for each in self._kept.board.of(kind) if each.concern.subject != self._seen.file]
        for concern in own:
            self._concern(concern)
        for relief in gone(self._kept.board, [kind], (*own, *others), "What is on disk is what is in force."):
            self._reliefs[relief.key] = relief

    def _found(self, kinds: Iterable[AlertKind], found: Sequence[Concern], otherwise: str) -> None:
        for concern in found:
            self._concern(concern)
        for relief in gone(self._kept.board, kinds, found, otherwise):
            self._reliefs[relief.key] = relief

    async def _look_at_partner(self, standing: Standing) -> None:
        """Over once no mail for it waits because of TLS, and the message that showed it does not wait for another reason now."""
        store, subject = self._seen.store, standing.concern.subject
        book = self._seen.book()
        domains = [each for each in await store.domains() if judge.partner_of(book, each) == subject]
        if await store.withheld(domains):
            return
        state = await store.state(standing.concern.about)
        if state not in ("waiting", "held") and standing.concern.key not in self._concerns:
            relief = judge.reached(subject, state)
            self._reliefs[relief.key] = relief

    async def _save(self) -> None:
        text = encoded(self._kept)
        if text == self._saved:
            return
        try:
            await self._seen.store.save(text)
        except StoreUnavailable:
            return  # it is in memory, and saved with the next look
        self._saved = text

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreUnavailable:
            pass
        except Exception:  # noqa: BLE001 - alerts are not worth a relay
            self._emit(e.Unexpected(secrets.token_hex(6), "alerts", traceback.format_exc()))

    # On their way.

    async def _keep_sending(self, way: Way) -> None:
        while True:
            self._to_send[way].clear()
            now = self._clock()
            for posting in [each for each in self._kept.postings if each.way is way and each.due <= now]:
                await self._guarded(self._send(posting))
            now = self._clock()
            waits = [(each.due - now).total_seconds() for each in self._kept.postings if each.way is way]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(min(waits, default=_LONGEST), 0.05), _LONGEST)):
                    await self._to_send[way].wait()

    async def _send(self, posting: Posting) -> None:
        notice, way, now = posting.notice, posting.way, self._clock()
        if way not in self._ways:  # taken out of the configuration meanwhile
            self._kept = self._kept.without(posting)
            return
        error, message = await self._hand_over(notice, way)
        later = posting.later(now) if error else None
        self._kept = self._kept.without(posting, later)
        if not error:
            self._emit(e.AlertSent(notice.id, notice.kind.value, way.value, message))
        elif later is None or not posting.tries:
            tries = posting.tries + 1
            self._emit(e.AlertNotSent(notice.id, notice.kind.value, way.value, error, tries, later is None))
        await self._save()

    async def _hand_over(self, notice: Notice, way: Way) -> tuple[str, str]:
        """Why it failed, "" where it did not, and the mail's id."""
        config, alerts = self._config, self._config.alerts
        if way is Way.MAIL and alerts is not None and alerts.mail is not None:
            mail = compose(Issuer(config.hostname, config.postmaster), notice, alerts.mail)
            try:
                return "", await put_mail(self._seen.intake(), mail, ALERTS, self._clock())
            except StoreUnavailable as error:
                return f"the queue takes no mail: {error.reason}", ""
        if way is Way.WEBHOOK and alerts is not None and alerts.webhook is not None:
            content = body(notice, config.hostname)
            fields = signed(content, notice.id, alerts.webhook.secret.reveal(), self._clock())
            return (await self._poster(destination(alerts.webhook.url), content, fields)).error, ""
        return "it is not configured", ""

    # By the configuration in force.

    @property
    def _config(self) -> Config:
        return self._seen.book().config

    @property
    def _ways(self) -> tuple[Way, ...]:
        alerts = self._config.alerts
        if alerts is None:
            return ()
        by = ((Way.MAIL, alerts.mail), (Way.WEBHOOK, alerts.webhook))
        return tuple(way for way, where in by if where is not None)

    def _post_terms(self) -> Terms:
        webhook = self._config.alerts.webhook if self._config.alerts is not None else None
        return Terms(self._config.trust, webhook is not None and webhook.private is PrivateAddresses.ALLOW)

    # For operators.

    @property
    def counts(self) -> Mapping[str, int]:
        """Active ones by kind."""
        return Counter(kind.value for kind, _subject in self._kept.board.standing)

    def active(self) -> Json:
        """{alerts: [...], waiting: notices that are still to be sent, by way, ways: those that are configured}."""
        waiting = Counter(each.way.value for each in self._kept.postings)
        return {"alerts": active(self._kept), "ways": [way.value for way in self._ways], "waiting": dict(waiting)}

    async def test(self, ways: Sequence[str]) -> Json:
        """Sends one that says it is a test: {WAY: {"error": TEXT or null, "message": id or null}}. Raises Unavailable."""
        wanted = [way for way in self._ways if not ways or way.value in ways]
        missing = [each for each in ways if each not in [way.value for way in wanted]]
        if missing or not wanted:
            what = " and ".join(f"`alerts.{each}`" for each in missing) or "neither `alerts.mail` nor `alerts.webhook`"
            raise Unavailable(f"the configuration in force has {'no ' if missing else ''}{what}")
        now, key = self._clock(), (AlertKind.TEST, "")
        text = "Somebody asked for a test alert. There is nothing to see to."
        name, state = notice_id(key, NoticeState.RAISED, now), NoticeState.RAISED
        notice = Notice(name, state, *key, Severity.INFO, "this is a test", text, "", now, now)
        answers: Json = {}
        for way in wanted:
            error, message = await self._hand_over(notice, way)
            answers[way.value] = {"error": error or None, "message": message or None}
        return answers


def _told(kept: Kept) -> object:
    """What must be kept at once. When a concern was seen last can wait for the next look."""
    board = kept.board
    standing = frozenset((key, each.told, each.shown, each.summed) for key, each in board.standing.items())
    return standing, board.strange, board.own, tuple((each.key, each.due) for each in kept.postings)


def _event(notice: Notice) -> e.Event:
    if notice.state is NoticeState.CLEARED:
        return e.AlertCleared(notice.kind.value, notice.subject, notice.text)
    return e.AlertRaised(
        notice.kind.value, notice.subject, notice.severity.value, notice.state.value, notice.title, notice.text
    )
