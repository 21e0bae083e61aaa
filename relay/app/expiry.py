"""Warns before certificates end, ours and those that partners show: what to say is `relay.policy.expiry`'s, here it is said and kept.

One process of a relay does it. What was said is kept in the queue's store, since the table is there for partners' certificates anyway: a
restart says nothing twice. Where the store cannot be asked, a warning twice is better than none.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from relay.config.models import Config
from relay.mail.events import CertificateEnding, Emit, Event, PartnerCertificateEnding
from relay.mail.seen import Dated, Said, SeenCertificate
from relay.policy.expiry import KEEP, Ending, our_warnings, partner_days, partner_warnings, sooner_than_leaf
from relay.queue.seen import SqliteSeen
from relay.queue.store import StoreUnavailable
from relay.tls.evidence import parse_certificate
from relay.tls.keyring import Keyring

ROUND = timedelta(minutes=1)
_FORGET = timedelta(days=1)


class ExpiryWatch:
    """`look` is called every few seconds. `partners` is what was read last, None where nothing has been."""

    def __init__(
        self,
        keyring: Keyring | None,
        keeper: SqliteSeen,
        *,
        config: Callable[[], Config],
        emit: Emit,
        clock: Callable[[], datetime],
    ) -> None:
        self._keyring, self._keeper = keyring, keeper
        self._config, self._emit, self._clock = config, emit, clock
        self._said: dict[tuple[str, str], int] = {}
        self._unwritten: list[Said] = []
        self._restored = False
        self._next = self._forget = clock()
        self._generation = -1
        self.partners: Sequence[SeenCertificate] | None = None

    async def look(self) -> None:
        now = self._clock()
        generation = self._keyring.generation if self._keyring is not None else 0
        if self._next - ROUND <= now < self._next and generation == self._generation:
            return
        self._next, self._generation = now + ROUND, generation
        await self._read(now)
        given = [
            *our_warnings(first_to_end(self._keyring), self._said, now),
            *partner_warnings(self._config(), self.partners or (), self._said, now),
        ]
        for each in given:
            self._said[each.said.owner, each.said.sha256] = each.said.threshold
            self._emit(_event(each))
        self._unwritten.extend(each.said for each in given)
        await self._write()

    def partner_days(self) -> dict[str, float]:
        """Days until the first certificate ends that a connector's partner shows, by connector."""
        return partner_days(self._config(), self.partners or (), self._clock())

    async def _read(self, now: datetime) -> None:
        try:
            if not self._restored:
                for said in await self._keeper.said():
                    key = (said.owner, said.sha256)
                    self._said[key] = min(said.threshold, self._said.get(key, said.threshold))
                self._restored = True
            if now >= self._forget:
                self._forget = now + _FORGET
                await self._keeper.forget(now - KEEP)
            self.partners = await self._keeper.all()
        except StoreUnavailable:
            return  # told of elsewhere

    async def _write(self) -> None:
        if not self._unwritten:
            return
        try:
            await self._keeper.say(self._unwritten)
            self._unwritten.clear()
        except StoreUnavailable:
            return  # the next round writes it


def first_to_end(keyring: Keyring | None) -> list[tuple[str, Dated]]:
    """By name, what ends first of each chain in use."""
    found = []
    for each in keyring.certificates if keyring is not None else ():
        chain = [parse_certificate(der) for der in each.chain]
        leaf = Dated(chain[0].subject, chain[0].sha256, chain[0].not_after)
        found.append((each.name, sooner_than_leaf(chain) or leaf))
    return found


def _event(ending: Ending) -> Event:
    said, seen = ending.said, ending.seen
    if seen is None:
        return CertificateEnding(ending.name, ending.subject, said.sha256, said.ends, ending.days, said.threshold)
    return PartnerCertificateEnding(
        connector=said.owner,
        direction=seen.spot.direction.value,
        hop=seen.spot.hop,
        subject=ending.subject,
        sha256=said.sha256,
        ends=said.ends,
        days=ending.days,
        threshold=said.threshold,
        seen=seen.last,
    )
