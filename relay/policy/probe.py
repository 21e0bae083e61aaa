"""What our policy, and each level that is stricter or weaker, says of a host that was looked at: for `relay probe`.

Adds no rule of its own: plans are chosen, joined and judged as for a delivery. What the host really did comes in as values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.mail.outcome import Deferred
from relay.mail.plan import Demand, Level, Plaintext, Tlsa, TlsPlan, TlsVersion
from relay.mail.tls import TlsEvidence, TlsFailure
from relay.policy.book import RuleBook
from relay.policy.plan import Step, after_broken_tls, after_ehlo, choose_plan, connector_plan
from relay.policy.published import Published, Says, join
from relay.policy.requiretls import require_tls
from relay.policy.verdict import Failed, judge

IN_FORCE = "in force"
_LEVELS = (Level.ENCRYPTION, Level.CERTIFICATE, Level.DOMAIN)


class Standing(StrEnum):
    PASSES = "passes"
    FAILS = "fails"
    ABSENT = "absent"
    """Nothing is published that could be held to."""


@dataclass(frozen=True, slots=True)
class LevelVerdict:
    """`text` is why it fails or is absent, or what is to be known where it passes; `failure` where TLS is the reason."""

    level: str
    standing: Standing
    text: str = ""
    failure: TlsFailure | None = None


@dataclass(frozen=True, slots=True)
class NoTls:
    """There was no TLS: not offered, or offered and broken. `text` says what happened."""

    offered: bool
    failure: TlsFailure
    text: str


NOT_OFFERED = NoTls(False, TlsFailure.STARTTLS_NOT_SUPPORTED, "STARTTLS is not offered")
Seen = TlsEvidence | NoTls


@dataclass(frozen=True, slots=True)
class Absent:
    """A level that asks nothing of this host: there is no such policy, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One level: the plan that it makes, or why it makes none. `remark` is said where the host passes."""

    level: str
    plan: TlsPlan | Deferred | Absent
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A host that mail to `domain` would go to. `mx_secure` as in `Published`."""

    connector: OutboundConnector
    domain: str
    hop: HostPort
    published: Published


def measures(book: RuleBook, subject: Subject, now: datetime) -> tuple[Measure, ...]:
    """What the host is held against: first what is in force, then each level, each policy that is published, by itself, and what is in force
    for a message that asks for REQUIRETLS."""
    connector, domain, host, published = subject.connector, subject.domain, subject.hop.host, subject.published
    in_force = join(choose_plan(book, connector, domain, host, now), published)
    all_the_way = in_force
    if isinstance(in_force, TlsPlan):
        trust = book.config.trust
        all_the_way = require_tls(in_force, connector=connector, host=host, published=published, trust=trust)
    levels = (Measure(each.value, _at(book, connector, each, host), _remark(subject, each)) for each in _LEVELS)
    return (
        Measure(IN_FORCE, in_force),
        *levels,
        Measure("dane", _published(published.dane)),
        Measure("mta-sts", _published(published.sts)),
        Measure("requiretls", all_the_way),
    )


def _at(book: RuleBook, connector: OutboundConnector, level: Level, host: str) -> TlsPlan:
    """The connector's plan if it asked for this level: its own names, CA, pins and version."""
    return connector_plan(book, connector.model_copy(update={"tls": level, "plaintext": None}), host)


def _remark(subject: Subject, level: Level) -> str:
    connector = subject.connector
    named = connector.names or not connector.route.by_mx or subject.published.mx_secure
    if level is not Level.DOMAIN or named:
        return ""
    return f"for {subject.hop.host}, a name that unsigned DNS gave: write `names` to hold to one"


def _published(says: Says) -> TlsPlan | Deferred | Absent:
    if says.withheld is not None:
        return says.withheld
    applied = says.applied
    demands = says.demands or (applied.demands if applied is not None else frozenset())
    if not demands:
        return Absent(says.reason or "nothing is published")
    return TlsPlan(Level.ENCRYPTION, Plaintext.NEVER, demands)


def everything(measured: Iterable[Measure]) -> frozenset[Demand]:
    """Every demand of every level: what evidence must be taken for, so that each can be judged."""
    plans = (each.plan for each in measured if isinstance(each.plan, TlsPlan))
    return frozenset(
        demand
        for plan in plans
        for demand in (*plan.demands, *(one for each in plan.published for one in each.demands))
    )


def probe_plan(measured: Iterable[Measure]) -> TlsPlan:
    """What the probe itself goes by: TLS where it is offered, of any version that is allowed us, and then whatever comes is looked at.

    TLSA records are in it since they say which name is asked for (RFC 7672 section 8.1).
    """
    plans = [each.plan for each in measured if isinstance(each.plan, TlsPlan)]
    first = next(iter(plans), TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED))
    versions = (each for each in first.demands if isinstance(each, TlsVersion))
    tlsa = (each for plan in plans for each in plan.demands if isinstance(each, Tlsa))
    certificate = first.client_certificate
    return TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED, frozenset((*versions, *tlsa)), certificate)


def verdicts(measured: Iterable[Measure], seen: Seen, *, requiretls_offered: bool = False) -> tuple[LevelVerdict, ...]:
    """What each level says of what was seen, in their order."""
    return tuple(_verdict(each, seen, requiretls_offered=requiretls_offered) for each in measured)


def _verdict(measure: Measure, seen: Seen, *, requiretls_offered: bool) -> LevelVerdict:
    level, plan = measure.level, measure.plan
    if isinstance(plan, Absent):
        return LevelVerdict(level, Standing.ABSENT, plan.why)
    if isinstance(plan, Deferred):
        return LevelVerdict(level, Standing.FAILS, plan.text, plan.failure)
    if isinstance(seen, NoTls):
        step = after_broken_tls(plan) if seen.offered else after_ehlo(plan, starttls_offered=False)
        if step is Step.SEND_IN_CLEAR:
            return LevelVerdict(level, Standing.PASSES, f"the mail would go in clear: {seen.text}", seen.failure)
        return LevelVerdict(level, Standing.FAILS, seen.text, seen.failure)
    verdict = judge(plan, seen, requiretls_offered=requiretls_offered)
    if isinstance(verdict, Failed):
        return LevelVerdict(level, Standing.FAILS, f"{verdict.text} (asked by {verdict.source})", verdict.failure)
    return LevelVerdict(level, Standing.PASSES, measure.remark)
