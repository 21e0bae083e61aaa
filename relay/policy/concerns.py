"""What is a concern, from what the relay sees of itself: events on one side, readings every half minute on the other.

Pure. When any of it is told is `relay.policy.alerts`' business; times come in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

from relay.config.certificates import HAS_ENDED, Problem
from relay.config.certificates import Severity as ProblemSeverity
from relay.config.connectors import DEFAULT, TlsException
from relay.config.models import Config
from relay.mail.alerts import AlertKind, Concern, Relief, Severity
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, DaneUnusable, StsFetchFailed, TlsWithheld
from relay.mail.published import StsMode
from relay.mail.seen import Direction, SeenCertificate
from relay.policy.book import RuleBook
from relay.policy.expiry import counted

THRESHOLDS = (30, 14, 7, 3, 1)
"""Days before the end of a certificate at which it is told; exceptions from the second on."""
DEATHS = 3
"""Workers that end within an hour, at which it is told."""
_HOUR = timedelta(hours=1)
_PARTNER_CERTIFICATES = 10  # told for one connector


def withheld(book: RuleBook, event: TlsWithheld) -> Concern:
    """Mail waits for a partner. One concern for each route: the hosts of a connector, or a domain by MX."""
    domain = event.recipient.rpartition("@")[2]
    subject = partner_of(book, domain)
    whom = domain if subject == domain else f"{domain} ({subject})"
    where = f" at {event.hop}" if event.hop else ""
    return Concern(
        AlertKind.PARTNER,
        subject,
        f"{subject} cannot be reached safely",
        f"Mail for {whom} waits: {event.failure.value}{where}. See relay queue show {event.message}.",
        event.remedy,
        Severity.CRITICAL,
        about=event.message,
    )


def partner_of(book: RuleBook, domain: str) -> str:
    """Whom a failure to deliver to a domain is about: `connector NAME` where that has smart hosts, else the domain."""
    connector = book.outbound_for(domain)
    if connector.route.by_mx:
        return domain
    return "the smart hosts of the defaults" if connector.name == DEFAULT else f"connector {connector.name}"


def reached(subject: str, state: str) -> Relief:
    """No mail for a partner waits because of TLS any more. `state` of the message that showed it last, "" where it is gone."""
    what = {
        "delivered": "it has been delivered: the partner is reached safely again",
        "bounced": "it has been given up and returned to its senders: whether the partner can be reached safely is not known",
        "deleted": "an operator deleted it: whether the partner can be reached safely is not known",
    }.get(state, "what waited has been delivered or has ended otherwise (relay trace shows how)")
    return Relief(AlertKind.PARTNER, subject, f"No mail waits because of TLS any more; {what}.")


def not_renewed(event: StsFetchFailed) -> Concern | None:
    """RFC 8461 section 3.3: a policy in force that cannot be renewed. None where there is none in force, or one that asks nothing."""
    if event.held not in (StsMode.ENFORCE, StsMode.TESTING):
        return None
    return Concern(
        AlertKind.MTA_STS,
        event.domain,
        f"the MTA-STS policy of {event.domain} cannot be renewed",
        f"The policy in force ({event.held}) stays until it ends: {event.failure.value}: {_stopped(event.trouble)}",
        f"Check that https://mta-sts.{event.domain}/.well-known/mta-sts.txt can be fetched from here. If it cannot from anywhere, tell them; "
        "if it can from elsewhere, somebody on the way may be waiting for the policy to end (RFC 8461 section 10.2).",
    )


def _stopped(text: str) -> str:
    """With its full stop, since more is said behind it."""
    return f"{text.rstrip().removesuffix('.')}."


def dane_off(event: DaneUnusable) -> Concern:
    return Concern(
        AlertKind.DANE,
        "dane",
        "DANE is turned off by the resolver",
        f"Of the resolver that is declared to validate DNSSEC: {_stopped(event.trouble)} `dane: auto` is off, `dane: require` defers.",
        "relay explain --to postmaster@DOMAIN shows what the resolver says; restart or mend the one that `dns.resolver` names.",
        Severity.CRITICAL,
    )


def waiting(event: ConfigurationWaiting) -> Concern:
    return Concern(
        AlertKind.CONFIGURATION,
        event.file,
        f"{Path(event.file).name} on disk is not in force",
        _stopped("; ".join(event.reasons[:10])),
        "relay check shows errors with their lines; relay reload puts the file in force whatever it weakens.",
    )


def settled(event: ConfigurationSettled) -> Relief:
    return Relief(AlertKind.CONFIGURATION, event.file, "What is on disk is what is in force.")


def exceptions(running: Iterable[TlsException], today: date) -> tuple[Concern, ...]:
    """Those that are about to end, or have ended and are still written down."""
    found = []
    for each in running:
        left = (each.until - today).days
        stage = _stage(left, THRESHOLDS[1:])
        if not stage:
            continue
        domain, ended = each.recipient_domain, left < 0
        title = f"the exception for {domain} {_ends(left)}"
        found.append(
            Concern(
                AlertKind.EXCEPTION,
                domain,
                title,
                f"It allows {each.allow.value} until {each.until} (reason: {each.reason})."
                + (
                    " It holds no more."
                    if ended
                    else " From then on mail waits unless TLS is as its connector wants it."
                ),
                f"relay probe {domain} says whether TLS is good enough without it; take the exception out, or extend it.",
                stage=stage,
                repeats=False,
            )
        )
    return tuple(found)


def certificates(ends: Mapping[str, datetime], problems: Iterable[Problem], now: datetime) -> tuple[Concern, ...]:
    """Our own: `ends` by name, of what ends first of the chain, and what is wrong with files."""
    found = []
    for name, not_after in ends.items():
        what = "partners that verify it refuse us from then on."
        remedy = "Renew it: a new pair in the folder that `certificates` names is taken by itself. Partners who pin it must hear before."
        found.append(_ending(AlertKind.CERTIFICATE, name, f"our certificate {name}", not_after, what, remedy, now))
    by_file: dict[str, list[Problem]] = {}
    for problem in problems:
        is_told = problem.text.startswith(HAS_ENDED) and problem.file.stem in ends  # above; a next one is not in use
        if not is_told:
            by_file.setdefault(problem.file.name, []).append(problem)
    return (*filter(None, found), *(_file_trouble(name, of_it) for name, of_it in by_file.items()))


def _file_trouble(name: str, problems: Sequence[Problem]) -> Concern:
    unused = any(each.severity is ProblemSeverity.ERROR for each in problems)
    title = f"the certificate file {name} is not used" if unused else f"the certificate file {name} needs a look"
    text, remedy = ("; ".join(getattr(each, part) for each in problems) for part in ("text", "remedy"))
    return Concern(
        AlertKind.CERTIFICATE, f"{name} (file)", title, _stopped(f"{problems[0].file}: {text}"), f"{remedy}."
    )


def partner_certificates(config: Config, seen: Iterable[SeenCertificate], now: datetime) -> tuple[Concern, ...]:
    """Those whose end stops mail (`relay.policy.expiry.counted`), once for a certificate of a connector, at however many hops it is shown.

    Threat: a partner, or a farm of its clients, with certificates without end: the first to end of each connector are told.
    """
    soonest: dict[str, dict[str, SeenCertificate]] = {}
    for each in sorted(counted(config, seen, now), key=lambda each: each.soonest.ends):
        of_it = soonest.setdefault(each.spot.connector, {})
        if len(of_it) < _PARTNER_CERTIFICATES:
            of_it.setdefault(each.soonest.subject, each)
    return tuple(filter(None, (_partner_ending(each, now) for of_it in soonest.values() for each in of_it.values())))


def _partner_ending(each: SeenCertificate, now: datetime) -> Concern | None:
    spot, dated = each.spot, each.soonest
    inbound = spot.direction is Direction.INBOUND
    what = "their mail to us is refused from then on" if inbound else "mail to them waits from then on"
    where = f"{'shown by' if inbound else 'at'} {spot.hop}, {each.domain}, last seen {each.last:%Y-%m-%d %H:%M} UTC"
    remedy = (
        f"Ask {each.domain} whether a new one is on its way (relay certs list shows the present one). If they change key or CA with it, "
        f"write the new pin or CA beside the old one in connector {spot.connector} before they do."
    )
    subject, title = (
        f"{spot.connector}: {dated.subject}",
        f"the certificate {dated.subject} of partner {spot.connector}",
    )
    return _ending(AlertKind.PARTNER_CERTIFICATE, subject, title, dated.ends, f"{what} ({where}).", remedy, now)


def _ending(
    kind: AlertKind, subject: str, title: str, ends: datetime, what: str, remedy: str, now: datetime
) -> Concern | None:
    left = (ends - now) // timedelta(days=1)
    stage, ended = _stage(left, THRESHOLDS), left < 0
    if not stage:
        return None
    text = f"It {'ended' if ended else 'ends'} at {ends:%Y-%m-%d %H:%M} UTC: {what}"
    severity = Severity.CRITICAL if left < THRESHOLDS[-1] else Severity.WARNING
    return Concern(kind, subject, f"{title} {_ends(left)}", text, remedy, severity, stage, repeats=ended)


def _stage(left: int, thresholds: Sequence[int]) -> int:
    """0 where it is not near yet; grows with each threshold, and once more at the end."""
    return sum(left <= each for each in thresholds) + (left < 0)


def _ends(left: int) -> str:
    if left < 0:
        return "has ended"
    return "ends today" if left == 0 else f"ends in {left} day{'s' if left > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Oldest:
    """The oldest message that waits for a delivery. `domain` is one that it waits for."""

    message: str
    since: datetime
    domain: str


def queue_age(oldest: Oldest | None, limit: timedelta, now: datetime) -> tuple[Concern, ...]:
    if oldest is None or limit <= timedelta(0) or now - oldest.since < limit:
        return ()
    age = now - oldest.since
    hours = age // timedelta(hours=1)
    text = f"{hours} hours" if hours > 1 else f"{age // timedelta(minutes=1)} minutes"
    return (
        Concern(
            AlertKind.QUEUE,
            "queue",
            f"mail has been waiting for {text}",
            f"The oldest message that waits is {oldest.message}, for {oldest.domain}, taken {oldest.since:%Y-%m-%d %H:%M} UTC.",
            f"relay queue show {oldest.message} says why; relay queue list --to {oldest.domain} what else waits there.",
        ),
    )


def store_trouble(troubles: Sequence[str]) -> tuple[Concern, ...]:
    if not troubles:
        return ()
    return (
        Concern(
            AlertKind.STORE,
            "queue",
            "no mail is taken: the queue cannot be written",
            _stopped("; ".join(troubles)),
            "Clients get 452 and come again. See the disk of the queue (room, errors); it goes on by itself once that is mended.",
            Severity.CRITICAL,
        ),
    )


@dataclass(frozen=True, slots=True)
class Deaths:
    """When workers ended that should not have, of the last hour. `ended`: how many this supervisor has counted in all."""

    ended: int = 0
    at: tuple[datetime, ...] = ()

    def counted(self, ended: int, now: datetime) -> "Deaths":
        """`ended` begins anew with each supervisor."""
        more = ended - self.ended if ended >= self.ended else ended
        kept = tuple(each for each in self.at if timedelta(0) <= now - each < _HOUR)
        return replace(self, ended=ended, at=(*kept, *(now for _ in range(min(more, DEATHS))))[-2 * DEATHS :])


def deaths(found: Deaths) -> tuple[Concern, ...]:
    """While so many have ended within the last hour."""
    if len(found.at) < DEATHS:
        return ()
    return (
        Concern(
            AlertKind.WORKER,
            "workers",
            "workers of the relay die again and again",
            f"At least {DEATHS} have ended within an hour and were replaced; mail goes on, and is slower.",
            "The log says how (worker-ended, unexpected): a signal may be the kernel's, for want of memory.",
            Severity.CRITICAL,
        ),
    )
