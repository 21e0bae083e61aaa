"""Where a running relay is asked and told: its operator, audit log, alerts, evidence, and what steers the flow of mail."""

from contextlib import AsyncExitStack
from functools import partial

from relay.app.alerts import Alerts, Seen
from relay.app.audit import Audit
from relay.app.base import KEEP_AUDIT, Base, utc_now
from relay.app.certificates import Certificates
from relay.app.control import Around, Control
from relay.app.desk import Desk
from relay.app.evidence import Around as Seeing
from relay.app.evidence import Evidence, Refused, proving
from relay.app.inquiries import Inquiries, Sources
from relay.app.operations import Operator, Surroundings
from relay.app.passage import Passage
from relay.app.transfer import Transfer
from relay.app.trial import send_trial
from relay.observe.http import rendered
from relay.outbound.outside import Outside
from relay.queue.alerts import SqliteAlerts
from relay.queue.audit import SqliteAudit
from relay.queue.tallying import Tallying


class Offices:
    """Every worker has them; people come to those of the first one."""

    def __init__(
        self, base: Base, outside: Outside, passage: Passage, certificates: Certificates, refused: Refused
    ) -> None:
        self._base, self._outside, self._passage = base, outside, passage
        self.evidence = self._evidence(refused)
        self.operator = self._operator(certificates)
        self.inquiries = self._inquiries()
        self.audit = Audit(
            SqliteAudit(base.store),
            base.emit,
            utc_now,
            lambda: base.config.admin.audit if base.config.admin else KEEP_AUDIT,
        )
        self.alerts = self._alerts(certificates)
        self.control = self._control()
        self.transfer = Transfer(base.store, passage.intake, passage.operations, lambda: base.config, utc_now)

    def _evidence(self, refused: Refused) -> Evidence:
        base = self._base
        tallying = Tallying(base.store, base.place.share, clock=utc_now, proves=lambda: proving(base.config))
        around = Seeing(base.book, utc_now, base.emit, base.colleagues.flush, leads=base.place.leads)
        return Evidence(tallying, refused, around)

    def _operator(self, certificates: Certificates) -> Operator:
        base, passage = self._base, self._passage
        return Operator(
            Surroundings(
                configuration=base.configuration,
                store=base.store,
                operations=passage.operations,
                reports=passage.reports,
                certificates=certificates,
                evidence=self.evidence,
                listening=lambda: passage.listening,
                sessions=lambda: passage.listeners.by_listener,
                lines_dropped=base.lines_dropped,
                clock=utc_now,
                colleagues=base.colleagues,
                counts=base.metrics.counts,
                alerts=lambda: self.alerts,
                trial=partial(send_trial, base.book, lambda: passage.intake, utc_now),
                last_reload=lambda: self.audit.last("reload"),
            )
        )

    def _inquiries(self) -> Inquiries:
        base, outside = self._base, self._outside

        async def render() -> bytes:
            return await rendered(base.metrics, self.operator)

        return Inquiries(
            Sources(
                base.file,
                base.book,
                lambda: outside.means(base.book()),
                outside.revocations,
                base.store,
                render,
                utc_now,
            )
        )

    def _alerts(self, certificates: Certificates) -> Alerts:
        base = self._base
        seen = Seen(
            book=base.book,
            keyring=base.keyring,
            resolver=self._outside.resolver,
            store=SqliteAlerts(base.store),
            intake=lambda: self._passage.intake,
            store_troubles=self.operator.store_troubles,
            ended=base.colleagues.ended,
            file=str(base.file),
            waiting=lambda: base.configuration.waiting,
            partners=lambda: certificates.partners,
            look=base.times.alerts,
        )
        return Alerts(seen, clock=utc_now, emit=base.emit, leads=base.place.leads, hand_on=base.colleagues.saw)

    def _control(self) -> Control:
        base, passage = self._base, self._passage
        return Control(
            Around(
                store=base.store,
                scheduler=passage.scheduler,
                operations=passage.operations,
                colleagues=base.colleagues,
                resolver=self._outside.resolver,
                book=base.book,
                ourselves=self._outside.ourselves,
                note=self.audit.note,
                clock=utc_now,
                port=passage.port,
            )
        )

    def desk(self) -> Desk:
        """Opened by the first worker only."""
        base = self._base
        rooms = (self.operator, self.inquiries, self.audit, self.control, self.transfer)
        return Desk(base.config.hostname, *rooms, base.keyring, base.trust, base.emit, utc_now)

    async def start(self, stack: AsyncExitStack, *, is_anew: bool) -> None:
        """Before any mail moves. `is_anew`: this is a relay's start, not a worker's that takes the place of another. Raises StoreUnavailable."""
        await self.control.load()
        await self.alerts.load(is_anew=is_anew)
        stack.push_async_callback(self.alerts.close)
        self.evidence.start()
        stack.push_async_callback(self.evidence.close)
