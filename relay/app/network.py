"""What the relay knows of the network around it and may change while it runs: its resolver, and who it is itself."""

import time
from collections.abc import Callable, Iterable

from relay.config.models import Config
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Resolver, TlsaAnswer, TxtAnswer
from relay.dns.resolver import DnsResolver
from relay.outbound.ourselves import Ourselves, interface_addresses
from relay.policy.route import LookupFailed, MxAnswer

_REFRESH = 60.0  # seconds: an address that this machine gets is known to be ours after that


class ResolverSwitch:
    """A resolver that can be changed for another. The old one is closed once the new one is in use; look-ups under way get their answer."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

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

    @property
    def dane(self) -> str:
        return self._resolver.dane

    async def to(self, resolver: DnsResolver) -> None:
        before, self._resolver = self._resolver, resolver
        await _close(before)

    async def close(self) -> None:
        await _close(self._resolver)


async def _close(resolver: Resolver) -> None:
    if isinstance(resolver, DnsResolver):
        await resolver.close()


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
