"""Look-ups on dnspython's asyncio resolver: no thread, no getaddrinfo. Every failure becomes an answer that says so.

Leaves to others what to do with the answers (`relay.policy.route`, `relay.policy.dane`) and what one says (`relay.dns.reading`).
RFC 5321 section 5.1 (MX), RFC 6698 (TLSA), RFC 4035 section 3.2.3 (the AD bit), RFC 2308 section 7.1.
Threat: the AD bit can be set by anyone on the way. It is believed only of a resolver that is declared to validate, which the
configuration allows on this machine only, and only where that resolver has shown that it does (`relay.dns.validation`).
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import dns.asyncbackend
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.resolver

from relay.config.models import Dns, SelfTest
from relay.config.values import HostPort
from relay.dns import reading
from relay.dns.answers import (
    AddressAnswer,
    Addresses,
    IpAddress,
    NameAnswer,
    Names,
    TlsaAnswer,
    TlsaRecords,
    TxtAnswer,
    TxtRecords,
)
from relay.dns.cache import Cache, Timed
from relay.dns.hosts import HostsFile
from relay.dns.source import RESOLV_CONF, Source
from relay.dns.validation import Validation
from relay.mail.events import DaneUnusable, DaneUsable, Emit
from relay.policy.route import LookupFailed, MxAnswer, NoDomain

_FAILED = 5.0  # RFC 2308 section 7.1: at most five minutes. Enough to spare a resolver in trouble
_ENTRIES = 10_000
_AT_ONCE = 200  # sockets
_LIFETIME = 10.0  # seconds for all of a question

_NOT_DECLARED = "no resolver is declared to validate DNSSEC (`dns.validating`)"
_NOT_SHOWN = "the resolver has not shown yet that it validates DNSSEC"

T = TypeVar("T")


class DnsResolver:
    """The system's resolvers (resolv.conf) or the one named. Makes no use of a running loop until asked.

    `self_test`: the one named is declared to validate DNSSEC, and is to show it with these names. `told` hears what keeps DANE from being
    used ("" for nothing) when that is first known, and when it changes.
    """

    def __init__(
        self,
        server: Literal["system"] | HostPort = "system",
        *,
        self_test: SelfTest | None = None,
        told: Callable[[str], None] = lambda _trouble: None,
        hosts: HostsFile | None = None,
        resolv_conf: Path = RESOLV_CONF,
        monotonic: Callable[[], float] = time.monotonic,
        lifetime: float = _LIFETIME,
    ) -> None:
        self._trouble, self._told = _NOT_DECLARED, told
        self._validation: Validation | None = None
        if self_test is not None and isinstance(server, HostPort):
            self._trouble = _NOT_SHOWN
            self._validation = Validation(str(server), self_test, self._resolve, self._believe, monotonic)
        self._source = Source(server, resolv_conf, monotonic, wants_ad=self._validation is not None)
        self._hosts = hosts or HostsFile(monotonic=monotonic)
        self._lifetime = lifetime
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._mx = Cache(self._ask_mx, size=_ENTRIES, monotonic=monotonic)
        self._addresses = Cache(self._ask_addresses, size=_ENTRIES, monotonic=monotonic)
        self._tlsa = Cache(self._ask_tlsa, size=_ENTRIES, monotonic=monotonic)
        self._aliases = Cache(self._ask_alias, size=_ENTRIES, monotonic=monotonic)
        self._txt = Cache(self._ask_txt, size=_ENTRIES, monotonic=monotonic)
        self._names = Cache(self._ask_names, size=_ENTRIES, monotonic=monotonic)

    @classmethod
    def of(cls, config: Dns, emit: Emit = lambda _event: None) -> Self:
        """The resolver that the configuration names."""

        def told(trouble: str) -> None:
            emit(DaneUnusable(trouble) if trouble else DaneUsable(str(config.resolver)))

        return cls(config.resolver, self_test=config.self_test if config.validating else None, told=told)

    @property
    def dane(self) -> str:
        return self._trouble

    async def test(self, *, afresh: bool = False) -> None:
        """Puts a resolver that is declared to validate to the test. `afresh`: tells what it finds even where that is nothing new."""
        if self._validation is not None:
            await self._validation.test(afresh=afresh)

    @property
    def is_idle(self) -> bool:
        """True where nobody waits for an answer."""
        return all(cache.is_idle for cache in self._caches)

    def retire(self) -> None:
        """Another takes its place: what is under way gets its answer, and nothing is told any more."""
        self._told = lambda _trouble: None
        self.forget()

    def forget(self) -> None:
        """Empties the caches."""
        for cache in self._caches:
            cache.clear()

    def _believe(self, trouble: str) -> None:
        """From now on the AD bit is believed (`trouble` is ""), or is not, for this reason.

        What was learnt under the other belief is forgotten, so that no answer is ever taken for more, or less, than it is.
        """
        if bool(trouble) is not bool(self._trouble):
            self.forget()
        self._trouble = trouble
        self._told(trouble)

    @property
    def _caches(self) -> tuple[Cache[Any, Any], ...]:
        return self._mx, self._addresses, self._tlsa, self._aliases, self._txt, self._names

    async def mx(self, domain: str) -> MxAnswer:
        return await self._mx.get(domain)

    async def addresses(self, host: str) -> AddressAnswer:
        literal = reading.literal(host)
        return literal or await self._find(f"{host}.")

    async def configured_addresses(self, host: str) -> AddressAnswer:
        literal = reading.literal(host)
        if literal:
            return literal
        named = self._hosts.find(host)
        return Addresses(named) if named else await self._find(host)

    async def tlsa(self, host: str, port: int) -> TlsaAnswer:
        return await self._tlsa.get((host, port))

    async def is_secure_alias(self, host: str) -> bool | LookupFailed:
        return await self._aliases.get(host)

    async def txt(self, name: str) -> TxtAnswer:
        return await self._txt.get(name)

    async def names(self, address: IpAddress) -> NameAnswer:
        return await self._names.get(address)

    async def close(self) -> None:
        if self._validation is not None:
            await self._validation.close()
        for cache in self._caches:
            await cache.close()

    async def _find(self, name: str) -> AddressAnswer:
        """Both families at the same time; the failure of one does not hide what the other found."""
        v4, v6 = self._addresses.held((name, "A")), self._addresses.held((name, "AAAA"))
        if v4 is None or v6 is None:
            return _together(
                *await asyncio.gather(self._addresses.get((name, "A")), self._addresses.get((name, "AAAA")))
            )
        if isinstance(v6, Addresses) and not v6.addresses:
            return v4  # the usual case, without a new object
        return _together(v4, v6)

    async def _ask_mx(self, domain: str) -> Timed[MxAnswer]:
        return await self._ask(f"{domain}.", "MX", reading.mx_records)

    async def _ask_addresses(self, key: tuple[str, str]) -> Timed[AddressAnswer]:
        return await self._ask(key[0], key[1], reading.addresses)

    async def _ask_tlsa(self, key: tuple[str, int]) -> Timed[TlsaAnswer]:
        host, port = key
        timed = await self._ask(f"_{port}._tcp.{host}.", "TLSA", reading.tlsa_records)
        answer = timed.value
        return Timed(TlsaRecords((), answer.secure) if isinstance(answer, NoDomain) else answer, timed.seconds)

    async def _ask_alias(self, host: str) -> Timed[bool | LookupFailed]:
        timed = await self._ask(f"{host}.", "CNAME", reading.alias)
        return Timed(False if isinstance(timed.value, NoDomain) else timed.value, timed.seconds)

    async def _ask_txt(self, name: str) -> Timed[TxtAnswer]:
        timed = await self._ask(f"{name}.", "TXT", reading.txt_records)
        return Timed(TxtRecords(()) if isinstance(timed.value, NoDomain) else timed.value, timed.seconds)

    async def _ask_names(self, address: IpAddress) -> Timed[NameAnswer]:
        timed = await self._ask(f"{address.reverse_pointer}.", "PTR", reading.host_names)
        return Timed(Names(()) if isinstance(timed.value, NoDomain) else timed.value, timed.seconds)

    async def _ask(
        self, name: str, kind: str, read: Callable[[dns.resolver.Answer, bool], T]
    ) -> Timed[T | NoDomain | LookupFailed]:
        """One question to the resolver, and what it says. `name` with a trailing dot is absolute, else the search list applies.

        Belief is looked up when the answer is here, and no other task runs from there until the answer is kept.
        """
        try:
            answer = await self._resolved(name, kind)
        except dns.resolver.NXDOMAIN as error:
            responses = tuple(error.kwargs.get("responses", {}).values())
            secure = self._vouches(*responses)
            return Timed(NoDomain(secure), reading.seconds_of_no(*responses, secure=secure))
        except dns.name.NameTooLong:
            return Timed(NoDomain(), _FAILED)  # such as _25._tcp. before a host name of 250 octets: no such name can be
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Timed(LookupFailed(reading.words(error), reading.is_bogus(error)), _FAILED)
        # What the search list made of a name is not the name that was asked about.
        secure = answer.qname == dns.name.from_text(name) and self._vouches(answer.response)
        return Timed(read(answer, secure), reading.seconds(answer, secure=secure))

    async def _resolved(self, name: str, kind: str) -> dns.resolver.Answer:
        """As `_resolve`, and it is settled what to believe of the answer: a test that is due goes on at the same time."""
        if self._validation is None or self._validation.is_settled:
            return await self._resolve(name, kind)
        answer, settled = await asyncio.gather(
            self._resolve(name, kind), self._validation.settle(), return_exceptions=True
        )
        if isinstance(settled, BaseException):
            raise settled
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer:
        """Raises what dnspython raises, OSError, and ValueError for an entry of resolv.conf that dnspython can not use."""
        resolver = self._source.resolver()
        async with self._slots:
            return await resolver.resolve(
                name,
                kind,
                raise_on_no_answer=False,
                lifetime=self._lifetime,
                search=True,
                backend=dns.asyncbackend.get_backend("asyncio"),
            )

    def _vouches(self, *responses: dns.message.Message) -> bool:
        """All of an answer, aliases and denials included, is DNSSEC-secure (RFC 4035 section 3.2.3)."""
        return not self._trouble and bool(responses) and all(each.flags & dns.flags.AD for each in responses)


def _together(v4: AddressAnswer, v6: AddressAnswer) -> AddressAnswer:
    """One answer from those of both families."""
    found = [each for each in (v4, v6) if isinstance(each, Addresses) and each.addresses]
    if found:
        everything = tuple(address for each in found for address in each.addresses)
        return Addresses(everything, all(each.secure for each in found), found[0].canonical)
    failed = [each for each in (v4, v6) if isinstance(each, LookupFailed)]
    if failed:
        return failed[0]
    secure = all(each.secure for each in (v4, v6) if not isinstance(each, LookupFailed))
    if isinstance(v4, NoDomain) or isinstance(v6, NoDomain):
        return NoDomain(secure)
    return Addresses((), secure, v4.canonical if isinstance(v4, Addresses) else "")
