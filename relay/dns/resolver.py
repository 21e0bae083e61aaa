"""MX and address look-ups on dnspython's asyncio resolver: no thread, no getaddrinfo. Every failure becomes an answer that says so.

Leaves to others what to do with the answers (`relay.policy.route`) and whether they are DNSSEC-secure (not asked here).
RFC 5321 section 5.1 (MX), RFC 7505 (null MX), RFC 2308 (how long "no" is good), RFC 2181 section 10.3 (an MX names a host).
Threat: an MX answer is a stranger's word: what is no host name is left out, and the number of records is bounded.
"""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX

from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Addresses, IpAddress
from relay.dns.cache import Cache, Timed
from relay.dns.hosts import HostsFile
from relay.mail.address import AddressError, normalise_domain
from relay.policy.route import LookupFailed, MxAnswer, MxRecord, MxRecords, NoDomain

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_RECORDS = 100

_TTL = (5.0, 86400.0)
_NO_TTL = (5.0, 300.0)  # RFC 2308 section 5 allows up to three hours; mail is mostly sent to what has just been set up
_FAILED = 5.0  # RFC 2308 section 7.1: at most five minutes. Enough to spare a resolver in trouble
_ENTRIES = 10_000
_AT_ONCE = 200  # sockets
_TRY, _LIFETIME = 3.0, 10.0  # seconds: for one server's answer, for all of a question
_NO_LOOK = 5.0  # seconds between two looks at resolv.conf's date

T = TypeVar("T")


class DnsResolver:
    """The system's resolvers (resolv.conf, read again when it changes) or the one named. Makes no use of a running loop until asked."""

    def __init__(
        self,
        server: Literal["system"] | HostPort = "system",
        *,
        hosts: HostsFile | None = None,
        resolv_conf: Path = RESOLV_CONF,
        monotonic: Callable[[], float] = time.monotonic,
        lifetime: float = _LIFETIME,
    ) -> None:
        self._source = _Source(server, resolv_conf, monotonic)
        self._hosts = hosts or HostsFile(monotonic=monotonic)
        self._lifetime = lifetime
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._mx = Cache(self._ask_mx, size=_ENTRIES, monotonic=monotonic)
        self._addresses = Cache(self._ask_addresses, size=_ENTRIES, monotonic=monotonic)

    async def mx(self, domain: str) -> MxAnswer:
        return await self._mx.get(domain)

    async def addresses(self, host: str) -> AddressAnswer:
        literal = _literal(host)
        return literal or await self._find(f"{host}.")

    async def configured_addresses(self, host: str) -> AddressAnswer:
        literal = _literal(host)
        if literal:
            return literal
        named = self._hosts.find(host)
        return Addresses(named) if named else await self._find(host)

    async def close(self) -> None:
        await self._mx.close()
        await self._addresses.close()

    async def _find(self, name: str) -> AddressAnswer:
        """Both families at the same time; the failure of one does not hide what the other found."""
        v4, v6 = self._addresses.held((name, "A")), self._addresses.held((name, "AAAA"))
        if v4 is None or v6 is None:
            v4, v6 = await asyncio.gather(self._addresses.get((name, "A")), self._addresses.get((name, "AAAA")))
        elif isinstance(v6, Addresses) and not v6.addresses:
            return v4  # the usual case, without a new object
        found = tuple(each for answer in (v4, v6) if isinstance(answer, Addresses) for each in answer.addresses)
        if found:
            return Addresses(found)
        failed = [each for each in (v4, v6) if isinstance(each, LookupFailed)]
        if failed:
            return failed[0]
        return NoDomain() if isinstance(v4, NoDomain) or isinstance(v6, NoDomain) else Addresses(())

    async def _ask_mx(self, domain: str) -> Timed[MxAnswer]:
        return await self._ask(f"{domain}.", "MX", _mx_records)

    async def _ask_addresses(self, key: tuple[str, str]) -> Timed[AddressAnswer]:
        return await self._ask(key[0], key[1], _addresses)

    async def _ask(
        self, name: str, kind: str, read: Callable[[dns.resolver.Answer], T]
    ) -> Timed[T | NoDomain | LookupFailed]:
        """One question to the resolver. `name` with a trailing dot is absolute, else the search list applies."""
        try:
            resolver = self._source.resolver()
            async with self._slots:
                answer = await resolver.resolve(
                    name,
                    kind,
                    raise_on_no_answer=False,
                    lifetime=self._lifetime,
                    search=True,
                    backend=dns.asyncbackend.get_backend("asyncio"),
                )
        except dns.resolver.NXDOMAIN as error:
            return Timed(NoDomain(), _no(*error.kwargs.get("responses", {}).values()))
        except (dns.exception.DNSException, OSError, ValueError) as error:
            # ValueError: an entry of resolv.conf that dnspython can not use.
            return Timed(LookupFailed(_words(error)), _FAILED)
        return Timed(read(answer), _seconds(answer))


class _Source:
    """Where questions go: a dnspython resolver, made anew when resolv.conf changed (a container that joined a network)."""

    def __init__(self, server: Literal["system"] | HostPort, resolv_conf: Path, monotonic: Callable[[], float]) -> None:
        self._server, self._path, self._monotonic = server, resolv_conf, monotonic
        self._made: dns.asyncresolver.Resolver | None = None
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")

    def resolver(self) -> dns.asyncresolver.Resolver:
        """Raises dns.resolver.NoResolverConfiguration where the system names no server."""
        if isinstance(self._server, HostPort):
            if self._made is None:
                self._made = _tuned(dns.asyncresolver.Resolver(configure=False))
                self._made.nameservers = [self._server.host]
                self._made.port = self._server.port
            return self._made
        now = self._monotonic()
        if self._made is None or now - self._looked >= _NO_LOOK:
            self._looked = now
            stamp = self._look()
            if self._made is None or stamp != self._stamp:
                made = _tuned(dns.asyncresolver.Resolver(configure=False))
                made.read_resolv_conf(str(self._path))
                self._made, self._stamp = made, stamp
        return self._made

    def _look(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            status = self._path.stat()
            return status.st_mtime_ns, status.st_ino
        return None


def _tuned(resolver: dns.asyncresolver.Resolver) -> dns.asyncresolver.Resolver:
    resolver.timeout = _TRY
    resolver.use_edns(0, 0, 1232)  # no fragments (DNS flag day 2020)
    return resolver


def _literal(host: str) -> Addresses | None:
    if not host[-1:].isdigit() and ":" not in host:
        return None
    try:
        return Addresses((ipaddress.ip_address(host),))
    except ValueError:
        return None


def _seconds(answer: dns.resolver.Answer) -> float:
    if answer.rrset is None:
        return _no(answer.response)
    low, high = _TTL
    return min(max(answer.chaining_result.minimum_ttl, low), high)


def _no(*responses: dns.message.Message) -> float:
    """How long "no" is good: the lesser of the SOA's TTL and its minimum (RFC 2308 section 5).

    Hardly at all without an SOA: so answers docker's resolver about a container that is not up yet.
    """
    low, high = _NO_TTL
    times = [
        each.resolve_chaining().minimum_ttl
        for each in responses
        if isinstance(each, dns.message.QueryMessage)
        and any(rrset.rdtype == dns.rdatatype.SOA for rrset in each.authority)
    ]
    return min(max(min(times, default=low), low), high)


def _words(error: Exception) -> str:
    """dnspython's words are long and name our resolvers, which is nothing for a bounce; the kind is what helps."""
    if isinstance(error, dns.resolver.NoResolverConfiguration):
        return "this machine has no DNS resolver configured"
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "every resolver failed (SERVFAIL, REFUSED or no sound answer)"
    return type(error).__name__


def _addresses(answer: dns.resolver.Answer) -> AddressAnswer:
    found: list[IpAddress] = [ipaddress.ip_address(rdata.address) for rdata in answer][:MAX_RECORDS]
    return Addresses(tuple(found))


def _mx_records(answer: dns.resolver.Answer) -> MxAnswer:
    records: list[MxRecord] = []
    skipped: list[str] = []
    for rdata in sorted(answer, key=lambda each: each.preference):  # stable, so that the bound drops the worst
        host = _mx_host(rdata)
        if isinstance(host, _NoHost):
            skipped.append(host.reason)
        elif len(records) >= MAX_RECORDS:
            skipped.append("more MX records than anyone needs")
            break
        else:
            records.append(MxRecord(rdata.preference, host))
    if any(each.host for each in records) or skipped:
        # RFC 7505 section 3: "." beside other records is no null MX, and no host either.
        records = [each for each in records if each.host]
    return MxRecords(tuple(records), tuple(skipped))


class _NoHost:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _mx_host(rdata: MX) -> str | _NoHost:
    """The target as a normalised host name, "" for the root (null MX)."""
    if rdata.exchange == dns.name.root:
        return ""
    text = rdata.exchange.to_text(omit_final_dot=True)
    if _literal(text):
        return _NoHost(f"{text} is an IP address, not a host name")  # RFC 5321 section 5.1, RFC 2181 section 10.3
    try:
        return normalise_domain(text)
    except AddressError as error:
        return _NoHost(str(error))
