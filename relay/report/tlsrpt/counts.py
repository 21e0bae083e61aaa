"""Sessions of the day, counted in memory and handed to the store in groups.

One dictionary look-up for a session that is like one before. Counts survive a restart up to the last group (`Counter.flush`).

Threat: domains, host names, policies and replies are strangers' text, and whoever can make us send mail chooses the domains. So what is
remembered has a budget, for each domain and altogether. Past it sessions are summed up by failure type; past that they are counted in
`uncounted` and nowhere else.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from relay.mail.tlsreport import Failing, Judged, Line, Policy

Write = Callable[[Mapping[Line, int]], Awaitable[None]]

_LINE = 400  # octets that a line takes without its texts
_LONGEST_POLICY = 8192
_GROUP = 500  # lines in one transaction: nobody's message waits long for it


@dataclass(frozen=True, slots=True)
class Budget:
    """Octets, roughly. A quarter of each is kept for sums."""

    all: int = 32 * 2**20
    one: int = 64 * 2**10


class Counter:
    """`write` adds numbers to the store's. Not for several threads."""

    def __init__(self, write: Write, clock: Callable[[], datetime], budget: Budget = Budget()) -> None:
        self.uncounted = 0
        self._write, self._clock, self._budget = write, clock, budget
        self._lines: dict[Line, int] = {}  # not yet written; 0 where all is
        self._changed: set[Line] = set()
        self._used: dict[str, int] = {}
        self._total = 0
        self._day = clock().date()

    def count(self, domain: str, judged: Iterable[Judged]) -> None:
        """One session. DANE's results are told to the domain that publishes the TLSA records too: that one is the policy's
        (RFC 8460 section 1.1), the other the one whose mail it concerns."""
        day = self._clock().date()
        for each in judged:
            policy = each.policy
            self._add(Line(day, domain, policy, each.failing))
            if policy.domain != domain:
                self._add(Line(day, policy.domain, policy, each.failing))

    def restore(self, lines: Iterable[Line]) -> None:
        """Lines of today that the store has already: they take their part of the budget."""
        for line in lines:
            if line not in self._lines:
                self._remember(line, 0)

    async def flush(self) -> None:
        """Returns when all that was counted before is in the store. What cannot be written is kept; the exception is the store's.

        Do not cancel it: whether a group was written would not be known.
        """
        changed = list(self._changed)
        for start in range(0, len(changed), _GROUP):
            group = {line: self._lines[line] for line in changed[start : start + _GROUP]}
            self._lines.update(dict.fromkeys(group, 0))
            self._changed -= group.keys()
            try:
                await self._write(group)
            except BaseException:
                for line, number in group.items():
                    self._lines[line] += number
                self._changed |= group.keys()
                raise
        if self._day != self._clock().date():
            self._begin_day()

    def _add(self, line: Line) -> None:
        lines = self._lines
        if line not in lines:
            known = self._fitting(line)
            if known is None:
                self.uncounted += 1
                return
            line = known
        lines[line] += 1
        self._changed.add(line)

    def _fitting(self, line: Line) -> Line | None:
        """The line, or the sum that it goes into, remembered; None where there is no room for either."""
        whole = replace(line, policy=_bounded(line.policy))
        summed = _summed(whole)
        candidates = [(whole, 3 / 4), (replace(summed, policy=_bare(whole.policy)), 1.0)]
        if summed != whole:
            candidates.insert(1, (summed, 7 / 8))
        for candidate, share in candidates:
            if candidate in self._lines:
                return candidate
            weight, used = _weight(candidate), self._used.get(line.domain, 0)
            if used + weight <= self._budget.one * share and self._total + weight <= self._budget.all * share:
                self._remember(candidate, 0)
                return candidate
        return None

    def _remember(self, line: Line, number: int) -> None:
        weight = _weight(line)
        self._lines[line] = number
        self._used[line.domain] = self._used.get(line.domain, 0) + weight
        self._total += weight

    def _begin_day(self) -> None:
        """Forgets the days that are over and written."""
        self._day = self._clock().date()
        kept = {line: number for line, number in self._lines.items() if line.day == self._day or number}
        self._lines, self._used, self._total = {}, {}, 0
        for line, number in kept.items():
            self._remember(line, number)


def _weight(line: Line) -> int:
    policy, failing = line.policy, line.failing
    texts = sum(map(len, policy.strings)) + sum(map(len, policy.mx))
    if failing is not None:
        texts += len(failing.host) + len(failing.reason)
    return _LINE + texts


def _bounded(policy: Policy) -> Policy:
    """A policy that is too long to be repeated to its owner is named without its text."""
    size = sum(map(len, policy.strings)) + sum(map(len, policy.mx))
    return policy if size <= _LONGEST_POLICY else _bare(policy)


def _bare(policy: Policy) -> Policy:
    return Policy(policy.kind, policy.domain)


def _summed(line: Line) -> Line:
    return line if line.failing is None else replace(line, failing=Failing(line.failing.result))
