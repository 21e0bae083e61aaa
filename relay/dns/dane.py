"""The look-ups that DANE for one host takes, and no others (RFC 7672 section 2.2): addresses, the alias where it matters, TLSA records.

All of them go through the resolver's caches. What is looked for, and what follows from it, is decided in `relay.policy.dane`.
"""

from collections import OrderedDict

from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Addresses, Resolver, TlsaRecords
from relay.mail.published import Use
from relay.policy.dane import HostFacts, TlsaFound, Vouched, candidates, dane_says, is_final
from relay.policy.published import Says
from relay.policy.route import LookupFailed

_KEPT = 10_000


class Dane:
    """What DANE says about hosts. As long as DNS says the same of a host, so is the answer the same object."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._kept: OrderedDict[tuple[HostPort, str, Use], tuple[HostFacts, Says]] = OrderedDict()

    async def says(self, hop: HostPort, use: Use, *, mx_secure: bool, next_hop: str, configured: bool = False) -> Says:
        """Parameters as of `dane_facts`. With `off` nobody is asked."""
        facts = HostFacts(hop, next_hop)
        if use is not Use.OFF:
            facts = await dane_facts(self._resolver, hop, mx_secure=mx_secure, next_hop=next_hop, configured=configured)
        key = (hop, next_hop, use)
        kept = self._kept.get(key)
        if kept is not None and kept[0] == facts:
            return kept[1]
        says = dane_says(facts, use)
        self._kept[key] = facts, says
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return says


async def dane_facts(
    resolver: Resolver, hop: HostPort, *, mx_secure: bool, next_hop: str, configured: bool = False
) -> HostFacts:
    """What DNS says about a host. `configured`: an admin named it (a smart host), and it is looked up as the system does.

    `mx_secure` and `next_hop` as in HostFacts. Addresses come first: a resolver that has not been put to the test yet is by that.
    """
    if not mx_secure or hop.is_address:
        return HostFacts(hop, next_hop, resolver.dane, mx_secure)
    ask = resolver.configured_addresses if configured else resolver.addresses
    addresses = await ask(hop.host)
    if resolver.dane:
        return HostFacts(hop, next_hop, resolver.dane)
    if isinstance(addresses, LookupFailed):
        return HostFacts(hop, next_hop, failed=addresses)
    vouched = await _vouched(resolver, hop.host, addresses)
    if isinstance(vouched, LookupFailed):
        return HostFacts(hop, next_hop, failed=vouched)
    canonical = addresses.canonical if isinstance(addresses, Addresses) else ""
    found: list[TlsaFound] = []
    for base in candidates(hop.host, canonical, vouched):
        found.append(await _tlsa(resolver, base, hop.port))
        if is_final(found[-1]):
            break
    return HostFacts(hop, next_hop, vouched=vouched, tlsa=tuple(found))


async def _vouched(resolver: Resolver, host: str, answer: AddressAnswer) -> Vouched | LookupFailed:
    if not isinstance(answer, Addresses) or not answer.addresses:
        return Vouched.NOWHERE
    if answer.secure:
        return Vouched.ADDRESSES
    if not answer.canonical:
        return Vouched.NOTHING
    # RFC 7672 section 2.2.2: the zone of the name may be signed though that of its target is not.
    alias = await resolver.is_secure_alias(host)
    if isinstance(alias, LookupFailed):
        return alias
    return Vouched.FIRST_ALIAS if alias else Vouched.NOTHING


async def _tlsa(resolver: Resolver, base: str, port: int) -> TlsaFound:
    answer = await resolver.tlsa(base, port)
    if isinstance(answer, TlsaRecords):
        return TlsaFound(base, answer.records, answer.secure)
    return TlsaFound(base, failed=answer)
