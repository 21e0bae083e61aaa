"""Stand-ins for what a test does not want to have for real: plain records, and lists of names that fail."""

import ipaddress
from collections import Counter
from dataclasses import dataclass, field

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
from relay.mail.published import TlsaRecord
from relay.policy.route import LookupFailed, MxAnswer, MxRecord, MxRecords, NoDomain


@dataclass
class FakeResolver:
    """A `relay.dns` Resolver. `mx_records`: domain to (preference, host)...; `hosts`: host to addresses; `failing`: names that SERVFAIL.

    A name in none of them does not exist. `asked` counts the questions, as "mx NAME", "host NAME", "configured NAME", "tlsa NAME:PORT",
    "alias NAME", "txt NAME" and "names ADDRESS". Every answer about a name in `secure` is DNSSEC-secure; `aliases`: name to the name it
    stands for; `tlsa_records`: "HOST:PORT" to lines such as "3 1 1 ab"; `texts`: name to TXT records; `reverse`: address to names; `dane`:
    why DANE cannot be used.
    """

    mx_records: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    hosts: dict[str, list[str]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    secure: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    tlsa_records: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    reverse: dict[str, list[str]] = field(default_factory=dict)
    dane: str = "the resolver of this test does not validate"

    async def mx(self, domain: str) -> MxAnswer:
        self.asked[f"mx {domain}"] += 1
        if domain in self.failing:
            return LookupFailed("SERVFAIL")
        if domain in self.mx_records or domain in self.hosts or domain in self.skipped:
            records = tuple(MxRecord(*each) for each in self.mx_records.get(domain, ()))
            skipped = (self.skipped[domain],) if domain in self.skipped else ()
            return MxRecords(records, skipped, secure=domain in self.secure)
        return NoDomain(secure=domain in self.secure)

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
        canonical = self.aliases.get(host, "")
        name = canonical or host
        secure = {host, name} <= self.secure
        if name in self.hosts:
            return Addresses(tuple(ipaddress.ip_address(each) for each in self.hosts[name]), secure, canonical)
        return NoDomain(secure)

    async def tlsa(self, host: str, port: int) -> TlsaAnswer:
        key = f"{host}:{port}"
        self.asked[f"tlsa {key}"] += 1
        if key in self.failing:
            return LookupFailed("SERVFAIL", bogus=True)
        lines = (line.split() for line in self.tlsa_records.get(key, ()))
        records = tuple(TlsaRecord(int(usage), int(selector), int(kind), data) for usage, selector, kind, data in lines)
        return TlsaRecords(records, secure=host in self.secure)

    async def is_secure_alias(self, host: str) -> bool | LookupFailed:
        self.asked[f"alias {host}"] += 1
        return host in self.aliases and host in self.secure

    async def txt(self, name: str) -> TxtAnswer:
        self.asked[f"txt {name}"] += 1
        return LookupFailed("SERVFAIL") if name in self.failing else TxtRecords(tuple(self.texts.get(name, ())))

    async def names(self, address: IpAddress) -> NameAnswer:
        self.asked[f"names {address}"] += 1
        if str(address) in self.failing:
            return LookupFailed("SERVFAIL")
        return Names(tuple(self.reverse.get(str(address), ())))
