"""The name of a client's address, as a mail server finds it by itself: reverse DNS, confirmed by a look-up that leads back (RFC 8601 iprev)."""

import asyncio

from relay.dns.answers import Addresses, IpAddress, Resolver
from relay.policy.forward import TEMPUNAVAIL, UNAVAILABLE, ReverseName
from relay.policy.route import LookupFailed

_NAMES = 5  # of one address that are looked up: whoever owns it says how many there are
_SECONDS = 5.0
_UNKNOWN = ReverseName(TEMPUNAVAIL, TEMPUNAVAIL)


async def reverse_name(resolver: Resolver, address: IpAddress, seconds: float = _SECONDS) -> ReverseName:
    """Never raises for what DNS says, and takes no longer than `seconds`; the resolver keeps answers."""
    try:
        async with asyncio.timeout(seconds):
            return await _find(resolver, address)
    except TimeoutError:
        return _UNKNOWN


async def _find(resolver: Resolver, address: IpAddress) -> ReverseName:
    answer = await resolver.names(address)
    if isinstance(answer, LookupFailed):
        return _UNKNOWN
    name = UNAVAILABLE
    for each in answer.names[:_NAMES]:
        forward = await resolver.addresses(each)
        if isinstance(forward, Addresses) and address in forward.addresses:
            return ReverseName(each, answer.names[0])
        if isinstance(forward, LookupFailed):
            name = TEMPUNAVAIL
    return ReverseName(name, answer.names[0] if answer.names else UNAVAILABLE)
