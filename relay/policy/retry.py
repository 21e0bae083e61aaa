"""When a deferred recipient is tried again, when its sender is told of the delay, and when we give up (RFC 5321 section 4.5.4.1)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.config.models import Retry as RetrySettings

_SPREAD = 0.2  # of the wait, so that a thousand messages deferred together do not come back together


@dataclass(frozen=True, slots=True)
class Again:
    at: datetime


@dataclass(frozen=True, slots=True)
class Expired:
    """Too old: bounce it."""


def next_attempt(
    settings: RetrySettings, *, accepted_at: datetime, attempts: int, now: datetime, spread: float
) -> Again | Expired:
    """After `attempts` failed ones (1 or more). `spread` from 0 up to 1 moves the wait by up to a fifth; the caller draws it.

    The last attempt falls on the moment of expiry, so that no message is given up long after its last try.
    """
    expires = accepted_at + settings.expire
    if now >= expires:
        return Expired()
    doubled = 2 ** min(attempts - 1, 64)
    # Divided rather than multiplied: a time span has its largest value too.
    wait = settings.maximum if settings.maximum / doubled <= settings.initial else settings.initial * doubled
    wait = max(wait * (1 - _SPREAD * spread), timedelta(milliseconds=1))
    return Again(min(now + wait, expires))


def delay_warning_is_due(settings: RetrySettings, *, accepted_at: datetime, now: datetime) -> bool:
    """True once the message is older than `delay_warning` (0: never). Saying it once is the caller's business."""
    return bool(settings.delay_warning) and now - accepted_at >= settings.delay_warning
