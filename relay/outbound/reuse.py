"""A kept connection whose certificates may have been revoked meanwhile: looked at again before it carries another message, by what is at hand.

Nobody is asked and nothing waited for: what is at hand is fetched anew in time (`relay.policy.revocation`).
"""

from collections.abc import Callable
from datetime import datetime

from relay.outbound.connection import ClientTls, Connection
from relay.outbound.pool import Kept, Pool


async def looked_at_again(
    kept: Kept[Connection], pool: Pool[Connection], tls: ClientTls, clock: Callable[[], datetime]
) -> Kept[Connection] | None:
    """One that was taken from the pool and `asks_revocation`. None where it is good for nothing any more; a new one may show another
    certificate."""
    try:
        if await kept.connection.still_holds(tls, clock):
            return kept
    except BaseException:
        kept.connection.cut()
        raise
    pool.leave(kept.connection)
    return None
