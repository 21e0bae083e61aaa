"""Stand-ins for what a test does not want to have for real: plain records, and lists of names that fail."""

import ipaddress
from collections import Counter
from dataclasses import dataclass, field

from relay.dns.answers import AddressAnswer, Addresses
from relay.policy.route import LookupFailed, MxAnswer, MxRecord, MxRecords, NoDomain


@dataclass
class FakeResolver:
    """A `relay.dns` Resolver. `mx_records`: domain to (preference, host)...; `hosts`: host to addresses; `failing`: names that SERVFAIL.

    A name in none of them does not exist. `asked` counts the questions, as "mx NAME", "host NAME" and "configured NAME".
    """

    mx_records: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    hosts: dict[str, list[str]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    async def mx(self, domain: str) -> MxAnswer:
        self.asked[f"mx {domain}"] += 1
        if domain in self.failing:
            return LookupFailed("SERVFAIL")
        if domain in self.mx_records or domain in self.hosts or domain in self.skipped:
            records = tuple(MxRecord(*each) for each in self.mx_records.get(domain, ()))
            return MxRecords(records, (self.skipped[domain],) if domain in self.skipped else ())
        return NoDomain()

    async def addresses(self, host: str) -> AddressAnswer:
        return self._find("host", host)

    async def configured_addresses(self, host: str) -> AddressAnswer:
        return self._find("configured", host)

    def _find(self, how: str, host: str) -> AddressAnswer:
        self.asked[f"{how} {host}"] += 1
        if host in self.failing:
            return LookupFailed("SERVFAIL")
        try:
            return Addresses((ipaddress.ip_address(host),))
        except ValueError:
            pass
        if host in self.hosts:
            return Addresses(tuple(ipaddress.ip_address(each) for each in self.hosts[host]))
        return NoDomain()
