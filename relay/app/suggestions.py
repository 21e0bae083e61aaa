"""Suggestions from what was recorded: the tally's lines and the chains that partners showed become values for `relay.policy.suggest`.

Chains are checked again, by the trust of now; which connector is to be added or edited follows from the configuration in force.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from relay.config.models import DEFAULT, OutboundConnector
from relay.mail.codec import certificate_json
from relay.mail.plan import Level
from relay.mail.revocation import Revocation
from relay.mail.tally import CLEAR, NULL_SENDER, OTHER, Result, Sighting, Way
from relay.mail.tls import Certificate, Trusted
from relay.policy.book import RuleBook
from relay.policy.suggest import Record, Sender, Shown, advise, advise_inbound
from relay.report.security.figures import Json, Line
from relay.tls.evidence import parse_certificate
from relay.tls.stores import StoreShelf, Unusable
from relay.tls.trust import Purpose, check_path


class Suggester:
    """Path checks take a fraction of a millisecond each."""

    def __init__(self, book: Callable[[], RuleBook], clock: Callable[[], datetime]) -> None:
        self._book, self._clock = book, clock
        self._shelf = StoreShelf(interval=timedelta(seconds=1))

    def made_of(self, lines: Iterable[Line], seen: Iterable[Sighting], least: int) -> list[Json]:
        """One for each partner and direction, in the shape of relay.admin.security.Suggestion. Waits: for a thread."""
        book, now = self._book(), self._clock()
        shown: dict[tuple[Way, str], list[Shown]] = {}
        for each in seen:
            shown.setdefault((each.way, each.domain), []).append(self._shown(each, book, now))
        by_partner: dict[tuple[Way, str], list[Line]] = {}
        for line in lines:
            by_partner.setdefault((line[0].kind.way, line[0].kind.domain), []).append(line)
        made: list[Json] = []
        nameless = {way: _recorded(by_partner.get((way, OTHER), ())) for way in Way}
        taken = {each.name for each in book.config.inbound} | {each.name for each in book.config.outbound}
        for (way, domain), its in sorted(by_partner.items()):
            if domain in (OTHER, NULL_SENDER) or domain.startswith("["):
                continue
            its_shown = shown.get((way, domain), [])
            seen_of = _Seen(domain, its, its_shown, nameless[way])
            one = _outbound(book, seen_of, least) if way is Way.OUT else _inbound(book, seen_of, least)
            if one["how"] == "new":
                one["connector"] = _fresh_name(one["connector"], taken)
            made.append(one)
        return _by_connector(made)

    def _shown(self, seen: Sighting, book: RuleBook, now: datetime) -> Shown:
        """Checked by the trust of now, at the time when it was shown last: a certificate that has been renewed since counts as it was then."""
        leaf = parse_certificate(seen.chain[0]) if seen.chain and seen.complete else None
        if leaf is None:
            untold = None if seen.host == OTHER or not seen.complete else "no certificate was shown"
            return Shown(seen.host, None, untold, seen.messages)
        out = seen.way is Way.OUT
        ca = book.outbound_for(seen.domain).ca if out else None
        store = self._shelf.get(ca or book.config.trust, now)
        if isinstance(store, Unusable):
            return Shown(seen.host, leaf, store.text, seen.messages)
        result = check_path(store, seen.chain, Purpose.SERVER if out else Purpose.CLIENT, seen.latest)
        return Shown(seen.host, leaf, "" if isinstance(result, Trusted) else result.text, seen.messages)


def _moved(lines: Iterable[Line]) -> tuple[int, int]:
    """Messages that went, and how many of them in clear."""
    moved = [count for count, _first, _last in lines if count.kind.result.moved]
    return sum(each.messages for each in moved), sum(
        each.messages for each in moved if each.kind.style.version in (CLEAR, OTHER)
    )


def _recorded(lines: Iterable[Line]) -> int:
    return sum(count.messages for count, _first, _last in lines)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of one partner in one direction. `nameless` as in `relay.policy.suggest.Record`."""

    domain: str
    lines: list[Line]
    shown: list[Shown]
    nameless: int


def _outbound(book: RuleBook, seen: _Seen, least: int) -> Json:
    domain, lines, shown = seen.domain, seen.lines, seen.shown
    messages, clear = _moved(lines)
    connector = book.outbound_for(domain)
    failures = sum(count.messages for count, _first, _last in lines if count.kind.failure)
    delivered = [
        count.kind.style.asked.split("+") for count, _first, _last in lines if count.kind.result is Result.DELIVERED
    ]
    everywhere = frozenset({"dane", "mta-sts"}).intersection(*delivered) if delivered else frozenset[str]()
    checks = connector.revocation is not Revocation.OFF
    record = Record(domain, messages, clear, failures, shown, connector.tls, everywhere, seen.nameless, checks)
    advice = advise(record, least=least)
    how = "none" if advice.level is None else "new" if connector.name == DEFAULT else "edit"
    name = f"{_word(domain)}-out" if how == "new" else "" if connector.name == DEFAULT else connector.name
    return _suggestion(
        domain,
        Way.OUT,
        shown,
        now=connector.tls.value,
        suggested=advice.level.value if advice.level else None,
        why=advice.text,
        limit=advice.limit if advice.level else "",
        how=how,
        connector=name,
        names=list(advice.names),
        messages=messages,
        drop=_in_the_way(book, connector.name) if how == "edit" else [],
    )


def _in_the_way(book: RuleBook, name: str) -> list[str]:
    """Keys of a connector as it is written that no level above opportunistic takes."""
    written = [each for each in book.config.connectors if isinstance(each, OutboundConnector) and each.name == name]
    return ["plaintext"] if any(each.plaintext is not None for each in written) else []


def _inbound(book: RuleBook, seen: _Seen, least: int) -> Json:
    domain, shown = seen.domain, seen.shown
    messages, clear = _moved(seen.lines)
    named = book.senders.find(domain).values
    known = ""
    if named:
        known = f"connector {named[0].name} names it"
    elif book.accepted.find(domain).values:
        known = "it is one of our own (`accept.domains`)"
    versions = frozenset(count.kind.style.version for count, _first, _last in seen.lines)
    checks = book.config.defaults.inbound.revocation is not Revocation.OFF
    sender = Sender(domain, messages, clear, shown, versions, known, seen.nameless, checks)
    advice = advise_inbound(sender, least=least)
    return _suggestion(
        domain,
        Way.IN,
        shown,
        now=None,
        suggested="inbound" if advice.require else None,
        why=advice.text,
        limit="",
        how="new" if advice.require else "none",
        connector=f"{_word(domain)}-in" if advice.require else named[0].name if named else "",
        names=list(advice.names),
        messages=messages,
        tls_version=advice.tls_version,
    )


def _suggestion(domain: str, way: Way, shown: list[Shown], **rest: Any) -> Json:
    return {
        "domain": domain,
        "direction": way.value,
        "tls_version": "",
        "drop": [],
        **rest,
        "hosts": sorted({each.host for each in shown if each.host and each.host != OTHER}),
        "certificates": [
            _certificate(each.leaf, each)
            for each in sorted(shown, key=lambda one: -one.messages)
            if each.leaf is not None
        ][:20],
    }


def _certificate(leaf: Certificate, shown: Shown) -> Json:
    told = certificate_json(leaf)
    kept = {key: told[key] for key in ("subject", "issuer", "names", "not_after", "spki_sha256")}
    trusted = None if shown.trusted is None else not shown.trusted
    return {**kept, "trusted": trusted, "text": shown.trusted or "", "messages": shown.messages}


def _by_connector(made: list[Json]) -> list[Json]:
    """A connector that governs several domains is raised only as far as all of them that were seen could be."""
    by_name: dict[str, list[Json]] = {}
    for each in made:
        if each["direction"] == Way.OUT and each["connector"] and each["how"] != "new":
            by_name.setdefault(each["connector"], []).append(each)
    for its in by_name.values():
        if len(its) < 2:
            continue
        lowest = min(
            (Level(each["suggested"]) if each["suggested"] else Level.OPPORTUNISTIC for each in its),
            key=lambda level: level.rank,
        )
        names = sorted({name for each in its for name in each["names"]}) if lowest is Level.DOMAIN else []
        for each in its:
            if each["how"] != "edit":
                continue
            if lowest.rank <= Level(each["now"]).rank:
                why = f"another domain of connector {each['connector']} could not be raised"
                each.update(how="none", suggested=None, names=[], drop=[], why=why)
            else:
                each.update(suggested=lowest.value, names=names)
    return made


def _word(domain: str) -> str:
    """The beginning of a connector's name."""
    return domain[:58] if domain[0].isalnum() else f"x{domain[:57]}"


def _fresh_name(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name[:58]}-{number}", number + 1
    taken.add(found)
    return found
