"""Prometheus metrics from events, and gauges read when somebody asks (docs/operations.md lists them all).

Each relay has its own registry, so that several run in one process. Where a relay has several processes, one of them shows the `totals`
of all: what each has counted (`Metrics.counts`), those that ended among them, so that no sum ever goes back.

Labels are few and bounded: connector names yes; domains,
addresses and what peers say never. Whatever happens, a metric has at most `_DISTINCT` time series, the rest count as "other":
a stranger must not be able to make them grow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample

from relay import __version__
from relay.mail import events as e
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.tls import TlsFailure
from relay.observe.processes import Processes

_DISTINCT = 1000
_COUNTED = frozenset(("counter", "histogram"))
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 14400, 86400)
_ATTEMPT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
M = TypeVar("M", bound=MetricWrapperBase)
_COMMANDS = frozenset(
    ("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "STARTTLS", "AUTH")
)
_RESULTS = frozenset(TlsFailure)
_STATES: Mapping[type[Outcome], str] = {Delivered: "delivered", Deferred: "deferred", Bounced: "bounced"}


@dataclass(frozen=True, slots=True)
class Readings:
    """What is looked up at scrape time. `queue` counts recipients by state; `oldest` is the age in seconds of the oldest message, 0 if none.

    `store_bytes` and `free_bytes` are the queue's size and the room left for it; `connections` open sessions by listener;
    `certificates` days left by name (negative once it has ended), `partner_certificates` by connector. `processes` are the ids of all that
    belong to the relay, `workers` how many of them take mail. `store_ok`: no process is kept from taking mail by the queue. `alerts`: those
    that are active, by kind.
    """

    queue: Mapping[str, int] = field(default_factory=dict)
    oldest: float = 0.0
    store_bytes: int = 0
    free_bytes: int = 0
    connections: Mapping[str, int] = field(default_factory=dict)
    certificates: Mapping[str, float] = field(default_factory=dict)
    partner_certificates: Mapping[str, float] = field(default_factory=dict)
    log_lines_dropped: int = 0
    tls_sessions_uncounted: int = 0
    processes: Sequence[int] = ()
    workers: int = 1
    store_ok: bool = True
    alerts: Mapping[str, int] = field(default_factory=dict)


CountKey = tuple[str, str, tuple[tuple[str, str], ...]]
"""A count by metric, sample name, and labels."""

WORKERS_ENDED: CountKey = ("ironpost_workers_ended", "ironpost_workers_ended_total", ())
"""What the supervisor counts."""


class _Family(Generic[M]):
    """A metric's children by label values, found without the library's lock and checks. At most `_DISTINCT`; later ones are all "other".

    A metric without labels is its own only child: `family()`.
    """

    def __init__(self, metric: M, labels: int) -> None:
        self._metric = metric
        self._other = ("other",) * labels
        self._children: dict[tuple[str, ...], M] = {} if labels else {(): metric}

    def __call__(self, *values: str) -> M:
        child = self._children.get(values)
        if child is not None:
            return child
        if len(self._children) >= _DISTINCT and values != self._other:
            return self(*self._other)
        child = self._children[values] = self._metric.labels(*values)
        return child

    def clear(self) -> None:
        """Forget every child: what is not set again is not shown."""
        self._children.clear()
        self._metric.clear()


class _Plain:
    """The registry without the `_created` series, which double the exposition and say nothing that a restart does not.

    `totals` take the place of what was counted here, None: they do not.
    """

    def __init__(self, registry: CollectorRegistry, totals: Mapping[CountKey, float] | None) -> None:
        self._registry = registry
        self._totals: dict[str, list[Sample]] | None = None
        if totals is not None:
            self._totals = {}
            for (metric, sample, labels), count in totals.items():
                self._totals.setdefault(metric, []).append(Sample(sample, dict(labels), count))

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            if self._totals is not None and metric.type in _COUNTED and not metric.name.startswith("process_"):
                metric.samples = self._totals.get(metric.name, [])
            else:
                metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


class Metrics:
    """Call it with each event; `render` gives the exposition text. Not for use from several threads at once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._processes = Processes()
        self.registry.register(self._processes)
        self._define_inbound()
        self._define_outbound()
        self._define_tlsrpt()
        self._define_state()
        self._define_alerts()
        self._define_gauges()
        self._waiting: set[str] = set()
        self._counters: dict[type[e.Event], Callable[[Any], None]] = {
            e.SessionOpened: self._opened,
            e.SessionClosed: self._closed,
            e.ConnectionRefused: self._connection_refused,
            e.CommandRefused: self._command_refused,
            e.LoginFailed: lambda event: self._logins(event.listener).inc(),
            e.MessageAccepted: self._accepted,
            e.AttemptMade: self._attempt,
            e.RecipientEnded: lambda event: self._ended(event.state).inc(),
            e.TlsWithheld: lambda event: self._withheld(event.failure.value).inc(),
            e.ReportQueued: lambda event: self._reports(event.kind).inc(),
            e.ReportHeld: lambda event: self._reports_held().inc(),
            e.RecipientAsked: lambda event: self._callouts(event.result).inc(),
            e.RefusalHeld: lambda event: self._refusals_held().inc(),
            e.StsPolicyFetched: lambda event: self._sts_fetches(event.mode.value).inc(),
            e.StsPolicyChanged: lambda event: self._sts_changes(event.before.value, event.mode.value).inc(),
            e.StsFetchFailed: self._sts_failed,
            e.CrlFetched: lambda _event: self._crl_fetches().inc(),
            e.RevocationFetchFailed: lambda event: self._revocation_failures("yes" if event.held else "no").inc(),
            e.RevocationUnavailable: lambda _event: self._revocation_unavailable().inc(),
            e.CertificateRevokedSeen: lambda _event: self._revoked_seen().inc(),
            e.TlsSessionTried: self._tls_session,
            e.TlsReportSent: lambda event: self._tlsrpt_sent(event.to.partition(":")[0], event.state.value).inc(),
            e.TlsReportReceived: self._tls_report,
            e.TlsReportIgnored: lambda event: self._tlsrpt_received("ignored").inc(),
            e.ConfigurationTaken: self._configuration_taken,
            e.ConfigurationWaiting: lambda event: self._waits(event.file, True),
            e.ConfigurationSettled: lambda event: self._waits(event.file, False),
            e.StoreTrouble: self._store_trouble,
            e.StoreRecovered: lambda event: self._store_ok().set(1),
            e.DaneUnusable: lambda event: self._dane_trouble().set(1),
            e.DaneUsable: lambda event: self._dane_trouble().set(0),
            e.AlertRaised: lambda event: self._alerts_raised(event.kind).inc(),
            e.AlertCleared: lambda event: self._alerts_cleared(event.kind).inc(),
            e.AlertSent: lambda event: self._alerts_sent(event.way).inc(),
            e.AlertNotSent: lambda event: self._alerts_not_sent(event.way).inc(),
            e.Unexpected: lambda event: self._unexpected(event.where).inc(),
        }

    @property
    def hears(self) -> frozenset[type[e.Event]]:
        """What is counted."""
        return frozenset(self._counters)

    def __call__(self, event: e.Event) -> None:
        count = self._counters.get(type(event))
        if count is not None:
            count(event)

    def counts(self) -> dict[CountKey, float]:
        """What was counted here."""
        return {
            (metric.name, sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for metric in self.registry.collect()
            if metric.type in _COUNTED and not metric.name.startswith("process_")
            for sample in metric.samples
            if not sample.name.endswith("_created")
        }

    def render(self, readings: Readings | None, totals: Mapping[CountKey, float] | None = None) -> bytes:
        """The exposition text. `readings` is None where they could not be had (the store is gone): then those gauges keep no stale value.

        `totals`: what all processes of the relay have counted, None where there is only this one.
        """
        gauges = (
            self._queue,
            self._connections,
            self._days_left,
            self._partner_days_left,
            self._alerts_active,
        )
        for gauge in gauges:
            gauge.clear()
        self._readings_ok().set(readings is not None)
        readings = readings or Readings(oldest=float("nan"), store_bytes=-1, free_bytes=-1)
        for state, count in readings.queue.items():
            self._queue(state).set(count)
        for listener, count in readings.connections.items():
            self._connections(listener).set(count)
        for name, days in readings.certificates.items():
            self._days_left(name).set(days)
        for connector, days in readings.partner_certificates.items():
            self._partner_days_left(connector).set(days)
        for kind, count in readings.alerts.items():
            self._alerts_active(kind).set(count)
        self._oldest().set(readings.oldest)
        self._store_bytes().set(readings.store_bytes)
        self._free_bytes().set(readings.free_bytes)
        self._lines_dropped().set(readings.log_lines_dropped)
        self._tls_uncounted().set(readings.tls_sessions_uncounted)
        self._workers().set(readings.workers)
        if totals is not None:  # else the events have told
            self._store_ok().set(readings.store_ok)
        self._processes.ids = readings.processes
        return generate_latest(_Plain(self.registry, totals))

    def _counter(self, name: str, text: str, *labels: str) -> _Family[Counter]:
        return _Family(Counter(f"ironpost_{name}", text, labels, registry=self.registry), len(labels))

    def _gauge(self, name: str, text: str, *labels: str) -> _Family[Gauge]:
        return _Family(Gauge(f"ironpost_{name}", text, labels, registry=self.registry), len(labels))

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> _Family[Histogram]:
        metric = Histogram(f"ironpost_{name}", text, labels, buckets=buckets, registry=self.registry)
        return _Family(metric, len(labels))

    def _define_inbound(self) -> None:
        counter = self._counter
        self._sessions = counter("sessions_total", "Inbound sessions opened", "listener")
        self._sessions_ended = counter(
            "sessions_ended_total", "Inbound sessions ended, by why", "listener", "reason", "tls_version"
        )
        self._refused = counter("connections_refused_total", "Connections that never became a session", "reason")
        self._commands = counter("commands_refused_total", "4xx and 5xx replies", "command", "status", "connector")
        self._logins = counter("logins_failed_total", "Failed AUTH", "listener")
        self._messages = counter(
            "messages_accepted_total", "Messages taken", "listener", "protocol", "connector", "tls_version"
        )
        self._bytes = counter("message_bytes_accepted_total", "Bytes of the messages taken")

    def _define_outbound(self) -> None:
        counter = self._counter
        self._outcomes = counter("recipient_outcomes_total", "What attempts did to recipients", "connector", "state")
        self._deliveries = counter(
            "deliveries_total", "Attempts that delivered, by TLS in use", "connector", "tls_version", "cipher", "group"
        )
        self._tls_failures = counter(
            "tls_failures_total", "Recipients kept back by a TLS finding", "connector", "failure"
        )
        self._withheld = counter(
            "tls_withheld_total", "Mail that waits because TLS broke or failed its plan", "failure"
        )
        self._sts_fetches = counter(
            "sts_fetches_total", "MTA-STS policies fetched, by the policy's mode or by what failed", "result"
        )
        self._sts_changes = counter("sts_changes_total", "MTA-STS policies that were replaced", "before", "mode")
        self._sts_refresh_failures = counter(
            "sts_refresh_failures_total", "Failures to fetch an MTA-STS policy anew while one is in force", "mode"
        )
        self._crl_fetches = counter("crl_fetches_total", "CRLs fetched")
        self._revocation_failures = counter(
            "revocation_fetch_failures_total",
            "CRLs and OCSP answers that could not be fetched, by whether one is held",
            "held",
        )
        self._revocation_unavailable = counter(
            "revocation_unavailable_total", "Certificates of which it could not be found out whether they are revoked"
        )
        self._revoked_seen = counter("revoked_certificates_seen_total", "Revoked certificates that somebody showed")
        self._ended = counter("recipients_ended_total", "Recipients in their last state", "state")
        self._reports = counter("reports_total", "Delivery status notifications written", "kind")
        self._callouts = counter(
            "callouts_total", "Questions to the mail server inside whether a recipient exists", "result"
        )
        self._refusals_held = counter(
            "refusals_held_total", "Recipients refused by the hop and held for the postmaster"
        )
        self._reports_held = counter("reports_held_total", "Notifications that could not be delivered and are held")
        self._attempt_seconds = self._histogram("attempt_seconds", "How long attempts took", _ATTEMPT, "connector")
        self._latency = self._histogram(
            "delivery_seconds", "From taking a message to delivering it", _LATENCY, "connector"
        )

    def _define_tlsrpt(self) -> None:
        counter = self._counter
        self._tls_sessions = counter(
            "tlsrpt_sessions_total",
            "New connections to other domains, by what they publish about TLS",
            "policy",
            "result",
        )
        self._tlsrpt_sent = counter("tlsrpt_reports_total", "TLS reports sent or given up", "transport", "state")
        self._tlsrpt_received = counter("tlsrpt_received_total", "Mails to our TLS report mailboxes", "result")
        self._tls_reported = counter(
            "tlsrpt_received_sessions_total", "Sessions to us, as others report them", "policy", "result"
        )
        self._tls_uncounted = self._gauge(
            "tlsrpt_sessions_uncounted", "Sessions that no report tells of, for lack of room"
        )

    def _define_state(self) -> None:
        self._configurations = self._counter("configurations_taken_total", "Configurations put in force")
        self._unexpected = self._counter("unexpected_errors_total", "Bugs met", "where")
        self._store_troubles = self._counter("store_troubles_total", "Times the queue could not take mail")
        self._configuration_waiting = self._gauge(
            "configuration_waiting", "1 while a file on disk is not what is in force"
        )
        self._counter("workers_ended_total", "Processes of the relay that ended and were replaced")
        self._store_ok = self._gauge("store_ok", "1 while the queue takes mail")
        self._store_ok().set(1)
        self._dane_trouble = self._gauge(
            "dane_trouble", "1 while a resolver is declared to validate DNSSEC and DANE cannot be used"
        )
        info = self._gauge("info", "Always 1", "version")
        info(__version__).set(1)

    def _define_alerts(self) -> None:
        counter = self._counter
        self._alerts_raised = counter("alerts_raised_total", "Alerts told, and told again while they last", "kind")
        self._alerts_cleared = counter("alerts_cleared_total", "Alerts that are over", "kind")
        self._alerts_sent = counter("alerts_sent_total", "Alerts handed over", "way")
        self._alerts_not_sent = counter(
            "alerts_not_sent_total", "Alerts that could not be handed over: first tries, and those given up", "way"
        )
        self._alerts_active = self._gauge("alerts_active", "What somebody should see to", "kind")

    def _define_gauges(self) -> None:
        self._readings_ok = self._gauge("readings_ok", "0 where the gauges of the queue could not be read")
        self._queue = self._gauge("queue_recipients", "Recipients in the queue", "state")
        self._oldest = self._gauge("queue_oldest_seconds", "Age of the oldest message in the queue")
        self._store_bytes = self._gauge("store_bytes", "Size of the queue on disk")
        self._free_bytes = self._gauge("store_free_bytes", "Room left on the queue's disk")
        self._connections = self._gauge("connections", "Open inbound sessions", "listener")
        self._days_left = self._gauge("certificate_days_left", "Days until a certificate of ours ends", "name")
        self._partner_days_left = self._gauge(
            "partner_certificate_days_left", "Days until the first certificate of a verified partner ends", "connector"
        )
        self._workers = self._gauge("workers", "Processes of the relay that take mail")
        self._lines_dropped = self._gauge("log_lines_dropped", "Log lines that nobody took, since the start")

    def _opened(self, event: e.SessionOpened) -> None:
        self._sessions(event.listener).inc()

    def _closed(self, event: e.SessionClosed) -> None:
        self._sessions_ended(event.listener, _kind(event.reason), event.tls or "none").inc()

    def _connection_refused(self, event: e.ConnectionRefused) -> None:
        self._refused(_kind(event.reason)).inc()

    def _command_refused(self, event: e.CommandRefused) -> None:
        verb = event.command.partition(" ")[0].upper()
        command = verb if verb in _COMMANDS else "other"
        status = event.reply.status or str(event.reply.code)
        self._commands(command, status, event.connector).inc()

    def _accepted(self, event: e.MessageAccepted) -> None:
        accepted = event.message.accepted
        version = accepted.tls.version if accepted.tls else "none"
        self._messages(accepted.listener, accepted.protocol, accepted.connector, version).inc()
        self._bytes().inc(event.message.size)

    def _attempt(self, event: e.AttemptMade) -> None:
        attempt = event.attempt
        connector = attempt.connector
        delivered = False
        for _index, outcome in attempt.outcomes:
            self._outcomes(connector, _STATES[type(outcome)]).inc()
            if isinstance(outcome, Delivered):
                delivered = True
            elif outcome.failure is not None:
                self._tls_failures(connector, outcome.failure.value).inc()
        self._attempt_seconds(connector).observe(attempt.seconds)
        if not delivered:
            return
        evidence = attempt.evidence
        tls = (evidence.version, evidence.cipher, evidence.group) if evidence else ("none", "", "")
        self._deliveries(connector, *tls).inc()
        waited = attempt.at - event.message.accepted.at + timedelta(seconds=attempt.seconds)
        self._latency(connector).observe(max(waited.total_seconds(), 0.0))

    def _tls_session(self, event: e.TlsSessionTried) -> None:
        for each in event.judged:
            self._tls_sessions(each.policy.kind.value, each.failing.result.value if each.failing else "success").inc()

    def _tls_report(self, event: e.TlsReportReceived) -> None:
        """The result types are a stranger's words: those that we do not know are one."""
        self._tlsrpt_received("taken").inc()
        for policy in event.report.policies:
            self._tls_reported(policy.kind.value, "success").inc(policy.successes)
            for each in policy.failing:
                self._tls_reported(policy.kind.value, each.result if each.result in _RESULTS else "other").inc(
                    each.sessions
                )

    def _configuration_taken(self, event: e.ConfigurationTaken) -> None:
        self._configurations().inc()
        self._dane_trouble().set(0)  # a resolver declared to validate is tested anew, and says so where it fails
        self._waits(event.file, False)

    def _waits(self, file: str, waits: bool) -> None:
        """There may be several: connectors.yaml, the password file."""
        (self._waiting.add if waits else self._waiting.discard)(file)
        self._configuration_waiting().set(bool(self._waiting))

    def _sts_failed(self, event: e.StsFetchFailed) -> None:
        self._sts_fetches(event.failure.value).inc()
        if event.held:
            self._sts_refresh_failures(event.held).inc()

    def _store_trouble(self, event: e.StoreTrouble) -> None:
        self._store_troubles().inc()
        self._store_ok().set(0)


def _kind(reason: str) -> str:
    """What stands behind a colon is the particular case; the kind is in front of it."""
    return reason.partition(":")[0][:60]
