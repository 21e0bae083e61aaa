"""What the relay knows of the network around it and may change while it runs: its resolver, and who it is itself."""

import asyncio
import secrets
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

from relay.config.models import Config
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, IpAddress, NameAnswer, Resolver, TlsaAnswer, TxtAnswer
from relay.dns.resolver import DnsResolver
from relay.mail.events import Emit, Unexpected
from relay.outbound.ourselves import Ourselves, interface_addresses
from relay.policy.route import LookupFailed, MxAnswer

_REFRESH = 60.0  # seconds: an address that this machine gets is known to be ours after that


class ResolverSwitch:
    """A resolver that can be changed for another. Look-ups under way get their answer from the old one."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._leaving: list[DnsResolver] = []

    async def mx(self, domain: str) -> MxAnswer:
        return await self._resolver.mx(domain)

    async def addresses(self, host: str) -> AddressAnswer:
        return await self._resolver.addresses(host)

    async def configured_addresses(self, host: str) -> AddressAnswer:
        return await self._resolver.configured_addresses(host)

    async def tlsa(self, host: str, port: int) -> TlsaAnswer:
        return await self._resolver.tlsa(host, port)

    async def is_secure_alias(self, host: str) -> bool | LookupFailed:
        return await self._resolver.is_secure_alias(host)

    async def txt(self, name: str) -> TxtAnswer:
        return await self._resolver.txt(name)

    async def names(self, address: IpAddress) -> NameAnswer:
        return await self._resolver.names(address)

    @property
    def dane(self) -> str:
        return self._resolver.dane

    async def test(self, *, afresh: bool = False) -> None:
        """Has the resolver in use show that it validates DNSSEC, where it is declared to."""
        if isinstance(self._resolver, DnsResolver):
            await self._resolver.test(afresh=afresh)

    def to(self, resolver: Resolver) -> None:
        before, self._resolver = self._resolver, resolver
        self._leaving = [each for each in self._leaving if not each.is_idle]
        if isinstance(before, DnsResolver):
            before.retire()
            self._leaving.append(before)

    async def close(self) -> None:
        for each in (*self._leaving, self._resolver):
            if isinstance(each, DnsResolver):
                await each.close()


class DaneWatch:
    """Puts the resolver to the test for as long as the relay runs: often while it fails, seldom while it passes, and after a reload.

    The first question that the resolver gets does not wait for this: it is a test by itself (`relay.dns.validation`).
    """

    def __init__(self, resolver: ResolverSwitch, emit: Emit, *, failing: float = 60.0, passing: float = 3600.0) -> None:
        self._resolver, self._emit, self._failing, self._passing = resolver, emit, failing, passing
        self._due = asyncio.Event()

    def reconfigured(self) -> None:
        """Test at once, and say what comes of it."""
        self._due.set()

    async def run(self) -> None:
        afresh = False
        while True:
            try:
                await self._resolver.test(afresh=afresh)
            except Exception:  # noqa: BLE001 - watching must go on; what was proved stays proved
                self._emit(Unexpected(secrets.token_hex(6), "dane", traceback.format_exc()))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._failing if self._resolver.dane else self._passing):
                    await self._due.wait()
            afresh = self._due.is_set()
            self._due.clear()


class SelfPortrait:
    """Who we are, for loop detection: looked at again when the configuration or a listener changes, and once a minute."""

    def __init__(self, config: Callable[[], Config], listening: Callable[[], Iterable[HostPort]]) -> None:
        self._config, self._listening = config, listening
        self._seen: Ourselves | None = None
        self._of: tuple[object, ...] = ()
        self._at = 0.0

    def look(self) -> Ourselves:
        config, listening, now = self._config(), tuple(self._listening()), time.monotonic()
        if self._seen is None or self._of != (id(config), listening) or now - self._at > _REFRESH:
            helo = {each.helo for each in (*config.outbound, config.default) if each.helo is not None}
            self._seen = Ourselves(frozenset({config.hostname, *helo}), interface_addresses(), frozenset(listening))
            self._of, self._at = (id(config), listening), now
        return self._seen
