"""Which level could be asked of a partner without having lost a message: decided from what was recorded. Pure, and a table test.

A level is suggested only where every message of the time looked at would have gone under it. Nothing is suggested below what is in force,
nor from a sample that is too small, nor where published policy (DANE, MTA-STS) protects the domain already: what a domain publishes follows
its own changes, a connector that we write does not.

Threat: a suggestion that an attacker prepared. It rests on what was seen, so who has been in between for all of that time would be written
down as the partner. So a name counts only where the host or the domain itself says it, and what is printed says what it rests on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.mail.plan import Level
from relay.mail.tls import Certificate
from relay.policy.names import matching_name

MOST_NAMES = 4
_PROTECTED = ("dane", "mta-sts")


@dataclass(frozen=True, slots=True)
class Shown:
    """A chain at one host, as it was shown last. `trusted`: "" where it leads to our trust, else why not; None where it cannot be said,
    since its bytes were not kept. `leaf` None: no certificate."""

    host: str
    leaf: Certificate | None
    trusted: str | None
    messages: int


@dataclass(frozen=True, slots=True)
class Record:
    """What was recorded of a domain that we send to. `failures`: attempts that TLS failed. `published`: messages that DANE or an enforced
    MTA-STS policy was held to, by kind. `now` is the level in force. `nameless`: what was counted in this time without its domain, since there
    were too many domains: some of it may be this one's. `revocation`: its connector asks about it from level
    certificate on."""

    domain: str
    messages: int
    clear: int
    failures: int
    shown: Sequence[Shown]
    now: Level
    published: frozenset[str] = frozenset()
    nameless: int = 0
    revocation: bool = False


class Why(StrEnum):
    """Why it is this level and no higher, or none."""

    RAISED = "raised"
    TOO_FEW = "too-few"
    CLEAR = "clear"
    FAILURES = "failures"
    PROTECTED = "protected"
    IN_FORCE = "in-force"
    NAMELESS = "nameless"


@dataclass(frozen=True, slots=True)
class Advice:
    """`level` is None where nothing is suggested. `limit` says in words what keeps it from a higher level, "" at the highest."""

    level: Level | None
    why: Why
    text: str
    names: tuple[str, ...] = ()
    limit: str = ""


def advise(record: Record, *, least: int) -> Advice:
    """`least`: messages below which nothing is said."""
    protected = sorted(record.published & set(_PROTECTED))
    if protected:
        kinds = " and ".join("DANE" if each == "dane" else "MTA-STS" for each in protected)
        return Advice(None, Why.PROTECTED, f"what it publishes ({kinds}) is held to already")
    if record.messages < least:
        return Advice(None, Why.TOO_FEW, _too_few(record.messages, least))
    if record.clear:
        return Advice(None, Why.CLEAR, f"{record.clear} of {record.messages} messages went in clear")
    if record.failures:
        return Advice(
            None,
            Why.FAILURES,
            f"TLS failed in {_counted(record.failures, 'attempt')}: find out why first (relay trace --to {record.domain})",
        )
    if record.nameless:
        return Advice(None, Why.NAMELESS, _nameless(record.nameless))
    level, names, limit = highest(record)
    if level.rank <= record.now.rank:
        return Advice(
            None,
            Why.IN_FORCE,
            f"level {record.now.value} is in force" + (f"; no higher, since {limit}" if limit else ""),
        )
    return Advice(level, Why.RAISED, f"all {record.messages} messages would have gone at this level", names, limit)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _too_few(messages: int, least: int) -> str:
    return f"{_counted(messages, 'message')} {'is' if messages == 1 else 'are'} too few to tell from (at least {least})"


def _nameless(number: int) -> str:
    return (
        f"{_counted(number, 'message')} of this time, perhaps some of its own among them, were counted without their domain since there were "
        "so many domains in an hour: ask for fewer days"
    )


def highest(record: Record) -> tuple[Level, tuple[str, ...], str]:
    """The highest level that every connection satisfied, its names, and what keeps it from a higher one."""
    if not record.shown:
        return Level.ENCRYPTION, (), "no certificate was recorded"
    for each in record.shown:
        if each.trusted is None:
            return Level.ENCRYPTION, (), f"the certificate of {each.host} was not kept, so it cannot be checked"
        if each.trusted:
            return Level.ENCRYPTION, (), f"the certificate of {each.host} is not trusted: {each.trusted}"
    if sum(each.messages for each in record.shown) < record.messages:
        return Level.ENCRYPTION, (), "the certificates of some connections were not kept"
    if record.revocation and record.now.rank < Level.CERTIFICATE.rank:
        return Level.ENCRYPTION, (), "`revocation` would be asked too, and below level certificate nobody has"
    names = common_names(record.domain, record.shown)
    if not names:
        return Level.CERTIFICATE, (), "its hosts have no name in common that says who they are"
    return Level.DOMAIN, names, ""


def common_names(domain: str, shown: Sequence[Shown]) -> tuple[str, ...]:
    """Names of which every leaf has one, for `names` of a connector; () where there are none that mean the partner.

    First a name that all leaves share and that is the hosts' own or the domain's; then a wildcard, where all of them hold the same one for
    all the hosts; at last the hosts themselves, where each shows its own name and they are few.
    """
    leaves = [(_host(each.host), each.leaf) for each in shown]
    if not leaves or any(leaf is None for _host_name, leaf in leaves):
        return ()
    certificates = [leaf for _host_name, leaf in leaves if leaf is not None]
    hosts = sorted({host for host, _leaf in leaves})
    shared = set(certificates[0].dns_names).intersection(*(each.dns_names for each in certificates))
    fitting = sorted(each for each in shared if _means(each, hosts, domain))
    plain = [each for each in fitting if not each.startswith("*.")]
    for own in (plain if len(hosts) == 1 else [], [each for each in fitting if each.startswith("*.")], plain):
        best = [each for each in own if _covers_all(each, hosts)] or own
        if best and all(matching_name(best[:1], each) for each in certificates):
            return (best[0],)
    if len(hosts) <= MOST_NAMES and all(leaf is not None and matching_name((host,), leaf) for host, leaf in leaves):
        return tuple(hosts)
    return ()


def _host(hop: str) -> str:
    return hop.rpartition(":")[0].strip("[]").lower()


def _covers_all(name: str, hosts: Iterable[str]) -> bool:
    return all(_covers(name, host) for host in hosts)


def _covers(name: str, host: str) -> bool:
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def _means(name: str, hosts: Sequence[str], domain: str) -> bool:
    """True where the name is a host's, or lies in the domain itself, and is no wildcard over a whole top-level domain."""
    bare = name.removeprefix("*.")
    if "." not in bare or "*" in bare:
        return False
    ours = bare == domain or bare.endswith(f".{domain}")
    return ours or (bool(hosts) and _covers_all(name, hosts))


@dataclass(frozen=True, slots=True)
class Sender:
    """What was recorded of a domain that sends to us. `known`: an inbound connector names it, or it is ours. `shown` as in Record, of client
    certificates; `host` is the client's network. `versions`: TLS versions that were used. `nameless` as in Record. `revocation`: it is asked of
    certificates that a connector requires."""

    domain: str
    messages: int
    clear: int
    shown: Sequence[Shown]
    versions: frozenset[str]
    known: str = ""
    nameless: int = 0
    revocation: bool = False


@dataclass(frozen=True, slots=True)
class InboundAdvice:
    """`require`: whether a connector with `tls: true` is suggested; `tls_version` and `names` what it could ask beside, "" and () where
    nothing."""

    require: bool
    why: Why
    text: str
    tls_version: str = ""
    names: tuple[str, ...] = ()


def advise_inbound(sender: Sender, *, least: int) -> InboundAdvice:
    if sender.known:
        return InboundAdvice(False, Why.IN_FORCE, sender.known)
    if sender.messages < least:
        return InboundAdvice(False, Why.TOO_FEW, _too_few(sender.messages, least))
    if sender.clear:
        return InboundAdvice(False, Why.CLEAR, f"{sender.clear} of {sender.messages} messages came in clear")
    if sender.nameless:
        return InboundAdvice(False, Why.NAMELESS, _nameless(sender.nameless))
    version = "TLSv1.3" if sender.versions == {"TLSv1.3"} else ""
    counted = sum(each.messages for each in sender.shown)
    names: tuple[str, ...] = ()
    proved = all(each.leaf is not None and each.trusted == "" for each in sender.shown) and not sender.revocation
    if counted >= sender.messages and proved:
        leaves = [each.leaf for each in sender.shown if each.leaf is not None]
        shared = set(leaves[0].dns_names).intersection(*(each.dns_names for each in leaves)) if leaves else set()
        names = tuple(sorted(each for each in shared if _means(each, (), sender.domain) and not each.startswith("*.")))[
            :MOST_NAMES
        ]
    return InboundAdvice(True, Why.RAISED, f"all {sender.messages} messages came under TLS", version, names)
