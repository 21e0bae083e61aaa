"""One line of the audit log: who changed what. It never holds a secret."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`who`, `via` and `address` as in AdminActed; `what` in words; `before` and `after` are JSON, None where there is nothing to tell."""

    at: datetime
    who: str
    via: str
    address: str
    action: str
    what: str
    count: int
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries, newest first. "" and None are not given; `below` is the number of the last entry of the page before."""

    since: datetime | None = None
    who: str = ""
    action: str = ""
    below: int | None = None
    limit: int = 100
