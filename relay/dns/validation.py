"""Does the resolver validate DNSSEC? It is put to the test before its AD bit is believed, since a line in a file proves nothing.

A signed name must come with AD, a broken one must be SERVFAIL. `find` decides, `Validation` asks, and says when the answer is another.
RFC 4035 section 3.2.3, RFC 7672 section 2.1.1.
Threats: a resolver that was never told to validate, or that sets AD on everything; and whoever keeps its answers from us, to turn DANE
off: so silence proves nothing. Before anything was proved, every question waits for another test; afterwards only a proof counts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

import dns.exception
import dns.flags
import dns.resolver

from relay.config.models import SelfTest
from relay.dns.cache import Cache, Timed

_WAIT = (1.0, 60.0)  # seconds between two tests that prove nothing, doubled from the first to the last

Resolve = Callable[[str, str], Awaitable[dns.resolver.Answer]]
"""Name and record type to what the resolver says; raises what dnspython raises."""


class Probe(Enum):
    """What the resolver made of one question. SILENT: nothing, or nothing that makes sense."""

    SECURE = auto()
    INSECURE = auto()
    SERVFAIL = auto()
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """`trouble` is "" where the resolver validates. `proved`: seen for certain, one way or the other."""

    trouble: str
    proved: bool


def find(resolver: str, names: SelfTest, signed: Probe, broken: Probe) -> Finding:
    """What follows from the answers about a signed name and about a broken one."""
    if signed is Probe.INSECURE:
        text = (
            f"the resolver {resolver} does not validate DNSSEC: it answers about {names.signed}, which is signed, without the AD bit; "
            "turn validation on there, with a trust anchor for that name"
        )
        return Finding(text, proved=True)
    if broken is Probe.INSECURE:
        text = (
            f"the resolver {resolver} does not hold to DNSSEC: it answers about {names.broken}, whose signatures are broken, "
            "where it must say SERVFAIL; is it in a permissive mode?"
        )
        return Finding(text, proved=True)
    if signed is Probe.SECURE and broken is Probe.SERVFAIL:
        return Finding("", proved=True)
    if Probe.SILENT in (signed, broken):
        name = names.signed if signed is Probe.SILENT else names.broken
        text = f"the resolver {resolver} gives no sound answer about {name}: does it run, may we ask it, and does it reach the DNS?"
    elif signed is Probe.SERVFAIL:
        text = (
            f"the resolver {resolver} says SERVFAIL about {names.signed}, which is signed: look at its clock, its trust anchor and its "
            "network; where the public DNS cannot be reached, name a zone of your own in `dns.self_test.signed`"
        )
    else:
        text = f"the resolver {resolver} vouches for {names.broken}, which should be broken: name another in `dns.self_test.broken`"
    return Finding(text, proved=False)


class Validation:
    """`changed` hears the trouble ("" for none) at the first finding, and whenever it is another one.

    A proof stands until another proof: a test that proves nothing takes nothing back.
    """

    def __init__(
        self,
        resolver: str,
        names: SelfTest,
        resolve: Resolve,
        changed: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._resolver, self._names, self._resolve, self._changed = resolver, names, resolve, changed
        self._found: Finding | None = None
        self._said: str | None = None
        self._wait = _WAIT[0]
        self._tests: Cache[None, Finding] = Cache(self._test, size=1, monotonic=monotonic)

    @property
    def is_settled(self) -> bool:
        """True where the resolver has shown what it is."""
        return self._found is not None and self._found.proved

    async def settle(self) -> None:
        """For a question whose answer may be believed: tests, unless a test has just come to nothing."""
        await self._tests.get(None)

    async def test(self, *, afresh: bool = False) -> None:
        """Now, whatever is known. `afresh`: says what it finds even where that is what it said before."""
        if afresh:
            self._said = None
        self._tests.clear()
        await self._tests.get(None)

    async def close(self) -> None:
        await self._tests.close()

    async def _test(self, _key: None) -> Timed[Finding]:
        signed, broken = await asyncio.gather(
            self._probe(self._names.signed, "DNSKEY"), self._probe(self._names.broken, "A")
        )
        found = find(self._resolver, self._names, signed, broken)
        self._take(found)
        if signed is Probe.SILENT and broken is Probe.SILENT:
            return Timed(found, 0.0)  # it is not there; the next question may be the first that finds it there
        wait, self._wait = self._wait, min(self._wait * 2, _WAIT[1])
        return Timed(found, wait)

    def _take(self, found: Finding) -> None:
        if self._found is None or not self._found.proved or found.proved:
            self._found = found
        if self._said != self._found.trouble:
            self._said = self._found.trouble
            self._changed(self._said)

    async def _probe(self, name: str, kind: str) -> Probe:
        """The keys of a zone are what validating anything in it takes: who keeps them from the resolver keeps all of the zone from it."""
        try:
            answer = await self._resolve(name if name == "." else f"{name}.", kind)
        except dns.resolver.NXDOMAIN as error:
            responses = error.kwargs.get("responses", {}).values()
            return Probe.SECURE if all(each.flags & dns.flags.AD for each in responses) else Probe.INSECURE
        except dns.resolver.NoNameservers as error:
            failed = any(each[3] == "SERVFAIL" for each in error.kwargs.get("errors", ()))
            return Probe.SERVFAIL if failed else Probe.SILENT
        except (dns.exception.DNSException, OSError):
            return Probe.SILENT
        return Probe.SECURE if answer.response.flags & dns.flags.AD else Probe.INSECURE
