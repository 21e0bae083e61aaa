"""A ledger in memory, and a day of sessions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from relay.mail.address import Address
from relay.mail.codec import received_json
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.mail.tlsreport import Counts, Failing, Line, Policy, Posting, PostState, Received, Summary, Wanted
from relay.report.tlsrpt.document import Reporter, Subject, end_of

DAY = date(2026, 11, 25)
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
STS = Policy(PolicyKind.STS, "b.example", ("version: STSv1", "mode: enforce", "mx: *.b.example"), ("*.b.example",))
TLSA = Policy(PolicyKind.TLSA, "mx.b.example", ("3 1 1 ab12",))
NONE = Policy(PolicyKind.NONE, "b.example")
EXPIRED = Failing(TlsFailure.CERTIFICATE_EXPIRED, "192.0.2.1", "mx.b.example", "203.0.113.7", "certificate has expired")
CLEAR = Failing(TlsFailure.STARTTLS_NOT_SUPPORTED)
COUNTS = (Counts(STS, 3, ((EXPIRED, 2), (CLEAR, 1))), Counts(TLSA, 5), Counts(NONE, 7))
ADDRESS = Address("tls", "example.com")
REPORTER = Reporter("Example Inc.", ADDRESS, ADDRESS, "relay.example.com")
ABOUT = Subject(DAY, "b.example", end_of(DAY))


class Busy(Exception):  # noqa: N818 - as the store's
    """The store cannot do it now."""


@dataclass
class MemoryLedger:
    """relay.report.tlsrpt.ledger.Ledger. While `busy`, everything raises."""

    numbers: dict[Line, int] = field(default_factory=dict)
    posted: dict[tuple[date, str, str], Posting] = field(default_factory=dict)
    kept: list[Received] = field(default_factory=list)
    busy: bool = False

    def _check(self) -> None:
        if self.busy:
            raise Busy

    async def add(self, group: Mapping[Line, int]) -> None:
        self._check()
        for line, number in group.items():
            self.numbers[line] = self.numbers.get(line, 0) + number

    async def lines(self, day: date) -> Sequence[Line]:
        return [line for line in self.numbers if line.day == day]

    async def counts(self, day: date, domain: str) -> Sequence[Counts]:
        self._check()
        found: dict[Policy, Counts] = {}
        for line, number in self.numbers.items():
            if (line.day, line.domain) == (day, domain):
                counts = found.get(line.policy, Counts(line.policy, 0))
                if line.failing is None:
                    found[line.policy] = replace(counts, successes=number)
                else:
                    found[line.policy] = replace(counts, failures=(*counts.failures, (line.failing, number)))
        return list(found.values())

    async def summaries(self, wanted: Wanted) -> Sequence[Summary]:
        raise NotImplementedError

    async def unposted(self, day: date, ends: datetime) -> Sequence[str]:
        self._check()
        domains = {line.domain for line in self.numbers if line.day == day}
        done = {each.domain for each in self.posted.values() if each.day == day and each.ends >= ends}
        return sorted(domains - done)

    async def post(self, day: date, domain: str, postings: Sequence[Posting]) -> None:
        self._check()
        self.posted = {key: each for key, each in self.posted.items() if key[:2] != (day, domain)}
        self.posted |= {(day, domain, each.to): each for each in postings}

    async def note(self, posting: Posting) -> None:
        self._check()
        self.posted[posting.day, posting.domain, posting.to] = posting

    async def due(self, now: datetime, limit: int) -> Sequence[Posting]:
        self._check()
        found = [each for each in self.posted.values() if not each.state.is_final and each.due <= now]
        return sorted(found, key=lambda each: each.due)[:limit]

    async def postings(self, day: date, domain: str) -> Sequence[Posting]:
        return [each for key, each in self.posted.items() if key[:2] == (day, domain)]

    async def take(self, received: Received) -> bool:
        self._check()
        if any(
            (each.organization, each.report_id) == (received.organization, received.report_id) for each in self.kept
        ):
            return False
        self.kept.append(received)
        return True

    async def received(self, since: datetime | None, limit: int) -> Sequence[Mapping[str, Any]]:
        return [received_json(each) for each in self.kept]

    async def forget(self, *, days: date, received: datetime, most: int) -> None:
        raise NotImplementedError


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def wait(self, **span: float) -> None:
        self.now += timedelta(**span)


def waiting(to: str = "mailto:r@b.example", **values: Any) -> Posting:
    made = Posting(DAY, "b.example", to, PostState.WAITING, end_of(DAY), NOW, NOW + timedelta(days=1))
    return replace(made, **values)
