"""When the end of a certificate is worth a warning, ours or a partner's: at 30, 14, 7, 3 and 1 days and once ended, each once.

A certificate that is first looked at with ten days left is warned of once, at 14, and then goes on as any other. A renewed one is another
certificate, so it starts anew.

Threat: a certificate that ends unnoticed stops every partner that verifies it, all at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.config.models import Config
from relay.mail.plan import Level
from relay.mail.seen import Dated, Direction, Said, SeenCertificate
from relay.mail.tls import Certificate

THRESHOLDS = (30, 14, 7, 3, 1)
ENDED = 0
KEEP = timedelta(days=90)
"""How long a certificate that nobody shows any more is remembered."""
CURRENT = timedelta(days=30)
"""A partner's certificate counts while it was seen that lately: a host that is gone must not warn for ever."""

_DAY = timedelta(days=1)
_VERIFIED = (Level.CERTIFICATE, Level.DOMAIN)


def threshold(ends: datetime, now: datetime) -> int | None:
    """The tightest of THRESHOLDS that is reached, ENDED once it has ended, None while it is far."""
    if now > ends:
        return ENDED
    return min((days for days in THRESHOLDS if ends - now <= days * _DAY), default=None)


def due(ends: datetime, now: datetime, said: int | None) -> int | None:
    """The threshold to warn of now; None where there is none, or it was said. `said` is the tightest one said so far."""
    reached = threshold(ends, now)
    return reached if reached is not None and (said is None or reached < said) else None


def days_left(ends: datetime, now: datetime) -> float:
    """Negative once it has ended."""
    return round((ends - now) / _DAY, 3)


def sooner_than_leaf(chain: Sequence[Certificate]) -> Dated | None:
    """The intermediate that ends first, where that is before the leaf does. `chain` as presented, leaf first.

    Only those on the leaf's line of issuers count, and no self-signed one: anchors come from the trust store, not from the peer.
    """
    if not chain:
        return None
    leaf, soonest, wanted = chain[0], None, chain[0].issuer
    for each in chain[1:]:
        if each.subject != wanted or each.subject == each.issuer:
            break
        wanted = each.issuer
        if each.not_after < (soonest or leaf).not_after:
            soonest = each
    return Dated(soonest.subject, soonest.sha256, soonest.not_after) if soonest is not None else None


@dataclass(frozen=True, slots=True)
class Ending:
    """One to give. `owner` is "" for ours; `seen` where it is a partner's."""

    said: Said
    subject: str
    days: int
    name: str = ""
    seen: SeenCertificate | None = None


Known = Mapping[tuple[str, str], int]
"""The tightest threshold said, by owner and certificate."""


def our_warnings(ours: Iterable[tuple[str, Dated]], said: Known, now: datetime) -> Iterator[Ending]:
    """`ours` are names with what ends first of each chain in use."""
    for name, dated in ours:
        reached = due(dated.ends, now, said.get(("", dated.sha256)))
        if reached is not None:
            days = (dated.ends - now) // _DAY
            yield Ending(Said("", dated.sha256, reached, dated.ends), dated.subject, days, name=name)


def partner_warnings(config: Config, seen: Iterable[SeenCertificate], said: Known, now: datetime) -> Iterator[Ending]:
    """Once for each connector, certificate and threshold, at however many hops it is shown."""
    given: set[tuple[str, str]] = set()
    for each in counted(config, seen, now):
        dated, connector = each.soonest, each.spot.connector
        reached = due(dated.ends, now, said.get((connector, dated.sha256)))
        if reached is None or (connector, dated.sha256) in given:
            continue
        given.add((connector, dated.sha256))
        days = (dated.ends - now) // _DAY
        yield Ending(Said(connector, dated.sha256, reached, dated.ends), dated.subject, days, seen=each)


def counted(config: Config, seen: Iterable[SeenCertificate], now: datetime) -> Iterator[SeenCertificate]:
    """Those whose end stops mail: taken, seen lately, and verified by their connector."""
    verified = _verifying(config)
    for each in seen:
        spot = each.spot
        if not spot.refused and (spot.direction, spot.connector) in verified and now - each.last <= CURRENT:
            yield each


def partner_days(config: Config, seen: Iterable[SeenCertificate], now: datetime) -> dict[str, float]:
    """Days until the first certificate ends, by connector: at most one value a connector."""
    found: dict[str, float] = {}
    for each in counted(config, seen, now):
        days = days_left(each.soonest.ends, now)
        found[each.spot.connector] = min(days, found.get(each.spot.connector, days))
    return found


def verifies(config: Config, direction: Direction, connector: str) -> bool:
    """True where the connector asks more of a certificate than that there is one."""
    return (direction, connector) in _verifying(config)


def _verifying(config: Config) -> frozenset[tuple[Direction, str]]:
    outbound = (each.name for each in config.outbound if each.tls in _VERIFIED or each.pins)
    inbound = (each.name for each in config.inbound if each.require.certificate is not None)
    return frozenset(
        (*((Direction.OUTBOUND, name) for name in outbound), *((Direction.INBOUND, name) for name in inbound))
    )
