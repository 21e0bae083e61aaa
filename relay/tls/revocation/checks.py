"""Is any certificate of a verified path revoked? Every one but the anchor is looked at, each by the first of these that has an answer:

the staple (the leaf only), what is at hand or in the store, its OCSP responders, its CRLs. Whoever says "revoked" is believed against all others
that are at hand. A result is used again for a minute at most, and never beyond the end of an answer.

Threat: who checks can be made to fetch. So paths are checked only that lead to somebody whom a connector trusts (`relay.policy` sees to that),
and nobody waits longer than `RevocationSettings.wait`: the fetch goes on, and the next one finds what came of it.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from relay.mail.events import CertificateRevokedSeen, Emit, RevocationUnavailable
from relay.mail.revocation import By, CertificateStatus, NotFetchedError, State, Statuses, ends_of, first_of
from relay.mail.tls import TlsEvidence, Trusted
from relay.tls.revocation.answers import Answers, RevocationSettings
from relay.tls.revocation.crl import look_up
from relay.tls.revocation.links import Link, UnusableError, link_of
from relay.tls.revocation.ocsp import Answer, read_answer, status

_KEEP = timedelta(minutes=1)
_KEEP_UNKNOWN = timedelta(seconds=10)
_MANY = 4096
_OCSP_SHARE = 0.5  # of the time: a responder behind a firewall must not take all of it from the CRL

Path = Sequence[bytes]
"""DER, from the leaf to the anchor."""


class RevocationChecks(Protocol):
    """`Revocations`, or what takes its place."""

    def held(self, path: Path) -> Statuses | None:
        """What was found out less than a minute ago; None where `check` is to be asked."""
        ...

    async def check(self, path: Path, staple: bytes = b"") -> Statuses:
        """One for each certificate but the anchor. Never raises for what certificates, responders or the network do."""
        ...

    async def again(self, path: Path, before: Statuses) -> Statuses:
        """By what is at hand now, without asking anybody; `before` where that is nothing."""
        ...


class NotChecked:
    """Where nobody is there to find out."""

    def held(self, path: Path) -> Statuses:
        return tuple(_unknown(f"certificate {number}", "", "nobody here checks") for number in range(1, len(path)))

    async def check(self, path: Path, _staple: bytes = b"") -> Statuses:
        return self.held(path)

    async def again(self, _path: Path, before: Statuses) -> Statuses:
        return before


async def with_statuses(checks: RevocationChecks, evidence: TlsEvidence, trusts: Iterable[str]) -> TlsEvidence:
    """The evidence with what was found out about the paths to `trusts`, and without its staple. Where there is no path there is nothing."""
    found = dict(evidence.revocation)
    for trust in trusts:
        path = _path(evidence, trust)
        if path:
            found[trust] = await checks.check(path, evidence.staple)
    return replace(evidence, revocation=MappingProxyType(found), staple=b"")


async def with_news(checks: RevocationChecks, evidence: TlsEvidence) -> TlsEvidence:
    """The evidence of a connection that is an hour or a second old, with what is known by now. The very evidence where that is nothing new."""
    found = {trust: await checks.again(_path(evidence, trust), before) for trust, before in evidence.revocation.items()}
    return evidence if found == evidence.revocation else replace(evidence, revocation=MappingProxyType(found))


def with_held(checks: RevocationChecks, evidence: TlsEvidence, trusts: Iterable[str]) -> TlsEvidence:
    """The same with what is at hand; what is not, or not any more, is left out. The very evidence where that changes nothing."""
    found = dict(evidence.revocation)
    for trust in trusts:
        found.pop(trust, None)
        path = _path(evidence, trust)
        statuses = checks.held(path) if path else None
        if statuses is not None:
            found[trust] = statuses
    return evidence if found == evidence.revocation else replace(evidence, revocation=MappingProxyType(found))


def _path(evidence: TlsEvidence, trust: str) -> Path:
    result = evidence.paths.get(trust)
    return result.path if isinstance(result, Trusted) else ()


@dataclass(frozen=True, slots=True)
class _Result:
    statuses: Statuses
    begins: datetime
    until: datetime


class Revocations:
    """`settings` are those of `answers`."""

    def __init__(
        self,
        answers: Answers,
        *,
        clock: Callable[[], datetime],
        emit: Emit,
        settings: RevocationSettings = RevocationSettings(),  # noqa: B008 - frozen
    ) -> None:
        self._answers, self._clock, self._emit, self._wait = answers, clock, emit, settings.wait
        self._keep_unknown = min(_KEEP_UNKNOWN, settings.again)
        self._results: dict[tuple[bytes, ...], _Result] = {}
        self._checks: dict[tuple[bytes, ...], asyncio.Task[Statuses]] = {}
        self._looked: dict[tuple[bytes, ...], datetime] = {}

    def held(self, path: Path) -> Statuses | None:
        found = self._results.get(tuple(path))
        return found.statuses if found is not None and found.begins <= self._clock() < found.until else None

    async def check(self, path: Path, staple: bytes = b"") -> Statuses:
        key = tuple(path)
        held = self.held(key)
        if held is not None and not (staple and first_of(held, State.UNKNOWN)):
            return held
        if staple:
            return await self._check(key, staple)
        task = self._checks.get(key)
        if task is None:
            task = self._checks[key] = asyncio.get_running_loop().create_task(self._check(key, b""))
            task.add_done_callback(lambda _done: self._checks.pop(key, None))
        return await asyncio.shield(task)

    async def again(self, path: Path, before: Statuses) -> Statuses:
        key, now = tuple(path), self._clock()
        held = self.held(key)
        if held is not None:
            return held
        looked = self._looked.get(key)
        if looked is not None and looked <= now < looked + _KEEP:
            return before
        found = [await self._at_hand(own, above) for own, above in itertools.pairwise(key)]
        self._looked.pop(key, None)
        self._looked[key] = now
        if len(self._looked) > _MANY:
            del self._looked[next(iter(self._looked))]
        statuses = tuple(new or old for new, old in zip(found, before, strict=True))
        if all(found) or first_of(statuses, State.REVOKED):  # other connections are to hear of it too
            self._keep(key, statuses)
        self._tell([each for each in statuses if each.state is State.REVOKED])
        return statuses

    async def _at_hand(self, certificate: bytes, issuer: bytes) -> CertificateStatus | None:
        try:
            return await _Look(self._answers, link_of(certificate, issuer), self._clock).at_hand(b"")
        except UnusableError:
            return None

    async def close(self) -> None:
        tasks = tuple(self._checks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check(self, path: tuple[bytes, ...], staple: bytes) -> Statuses:
        pairs = itertools.pairwise(path)
        works = (self._one(own, above, b"" if number else staple) for number, (own, above) in enumerate(pairs))
        statuses = tuple(await asyncio.gather(*works))
        self._keep(path, statuses)
        self._tell(statuses)
        return statuses

    def _tell(self, statuses: Iterable[CertificateStatus]) -> None:
        for each in statuses:
            if each.state is State.REVOKED:
                told = CertificateRevokedSeen(each.subject, each.serial, each.revoked_at, each.reason, each.by.value)
                self._emit(told)
            elif each.state is State.UNKNOWN:
                self._emit(RevocationUnavailable(each.subject, each.serial, each.why))

    def _keep(self, path: tuple[bytes, ...], statuses: Statuses) -> None:
        now = self._clock()
        until = now + (self._keep_unknown if first_of(statuses, State.UNKNOWN) else _KEEP)
        ends = ends_of(statuses)
        if ends is not None and ends > now:
            until = min(until, ends)
        self._results.pop(path, None)
        self._results[path] = _Result(statuses, now, until)
        if len(self._results) > _MANY:
            del self._results[next(iter(self._results))]

    async def _one(self, certificate: bytes, issuer: bytes, staple: bytes) -> CertificateStatus:
        try:
            link = link_of(certificate, issuer)
        except UnusableError as error:
            return _unknown("an unreadable certificate", "", str(error))
        if link.exempt:
            return CertificateStatus(link.subject, link.serial, State.GOOD, why=link.exempt)
        look = _Look(self._answers, link, self._clock)
        found = await look.at_hand(staple)
        if found is not None:
            return found
        if not link.points and not link.responders:
            text = "; ".join(link.left_out) or "it names neither a CRL nor an OCSP responder"
            return _unknown(link.subject, link.serial, "; ".join((*look.troubles, text)))
        try:
            async with asyncio.timeout(self._wait):
                found = await look.ask(self._wait * _OCSP_SHARE)
        except TimeoutError:
            look.troubles.append(f"no answer from {look.asking} in {self._wait:g} seconds, the fetch goes on")
        return found or _unknown(link.subject, link.serial, "; ".join(look.troubles) or "nothing was found out")


class _Look:
    """One certificate. `troubles` are what was tried in vain, `asking` who is being asked."""

    def __init__(self, answers: Answers, link: Link, clock: Callable[[], datetime]) -> None:
        self._answers, self._link, self._clock = answers, link, clock
        self.troubles: list[str] = []
        self.asking = ""

    async def at_hand(self, staple: bytes) -> CertificateStatus | None:
        """The staple, then what is held. REVOKED wins whoever says it."""
        found: list[CertificateStatus] = []
        if staple:
            answer = self._stapled(staple)
            if answer is not None:
                found.extend(self._said(answer, By.STAPLED, ""))
                self._answers.learn_staple(self._link, answer)
        for url in self._link.crl_urls:
            crl = await self._answers.held_crl(self._link, url)
            if crl is not None:
                try:
                    found.append(look_up(crl, self._link, url, self._clock()))
                except UnusableError as error:
                    self.troubles.append(f"{url}: {error}")
        held = await self._answers.held_answer(self._link)
        if held is not None:
            answer, url = held
            found.extend(self._said(answer, By.OCSP, url))
        return first_of(found, State.REVOKED) or next(iter(found), None)

    def _stapled(self, staple: bytes) -> Answer | None:
        try:
            return read_answer(staple, self._link, self._clock())
        except UnusableError as error:
            self.troubles.append(f"stapled: {error}")
            return None

    def _said(self, answer: Answer, by: By, url: str) -> list[CertificateStatus]:
        try:
            return [status(answer, self._link, by, url)]
        except UnusableError as error:
            self.troubles.append(f"{url or by.value}: {error}")
            return []

    async def ask(self, ocsp_seconds: float) -> CertificateStatus | None:
        """Each in turn until one has an answer."""
        for url in self._link.responders:
            self.asking = url
            try:
                async with asyncio.timeout(ocsp_seconds / len(self._link.responders)):
                    answer = await self._answers.answer(self._link, url)
            except (UnusableError, NotFetchedError) as error:
                self.troubles.append(f"{url}: {error}")
            except TimeoutError:
                self.troubles.append(f"{url}: no answer yet")
            else:
                said = self._said(answer, By.OCSP, url)
                if said:
                    return said[0]
        for url in self._link.crl_urls:
            self.asking = url
            try:
                crl = await self._answers.crl(self._link, url)
                return look_up(crl, self._link, url, self._clock())
            except (UnusableError, NotFetchedError) as error:
                self.troubles.append(f"{url}: {error}")
        return None


def _unknown(subject: str, serial: str, why: str) -> CertificateStatus:
    return CertificateStatus(subject, serial, State.UNKNOWN, why=why)
