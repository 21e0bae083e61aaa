"""When an answer about a certificate is fetched anew, and when a failed fetch is tried again. Pure: `relay.tls.revocation` does it.

Threat: a CRL that ends because its refresh was blocked until then, or that all relays of the world fetch in the same second.
"""

from datetime import datetime, timedelta

SOONEST = timedelta(minutes=5)
_LONGEST = timedelta(minutes=10)


def refresh_at(this_update: datetime, ends: datetime, fetched: datetime, chance: float) -> datetime:
    """At three quarters of its life, or a tenth of that earlier: `chance` in [0, 1). Where that is over, of what is left of it."""
    share = 0.75 * (1 - chance / 10)
    due = this_update + (ends - this_update) * share
    if due <= fetched:
        due = fetched + (ends - fetched) * share
    return max(due, fetched + SOONEST)


def again_at(failures: int, first: timedelta, now: datetime, chance: float) -> datetime:
    """After that many `failures` in a row, `first` and then twice as long each time, ten minutes at most, and a little more."""
    doubled: timedelta = first * 2.0 ** min(failures - 1, 10)
    return now + min(doubled, max(first, _LONGEST)) * (1 + chance / 4)
