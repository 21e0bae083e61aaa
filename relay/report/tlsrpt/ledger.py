"""What TLS reports need of the store. `relay.queue.ledger` is it on SQLite; `relay.app` hands it in."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol

from relay.mail.tlsreport import Counts, Line, Posting, Received, Summary, Wanted


class Ledger(Protocol):
    """Every method may raise the store's exception for "not now"; nothing is changed then. Each change is one transaction."""

    async def add(self, group: Mapping[Line, int]) -> None:
        """Adds numbers of sessions."""
        ...

    async def lines(self, day: date) -> Sequence[Line]:
        """All that is counted of a day."""
        ...

    async def counts(self, day: date, domain: str) -> Sequence[Counts]:
        """What a report to a domain has to say; () where there was no session."""
        ...

    async def summaries(self, wanted: Wanted) -> Sequence[Summary]: ...

    async def unposted(self, day: date, ends: datetime) -> Sequence[str]:
        """The domains with sessions on that day of which no report up to `ends` has been begun."""
        ...

    async def post(self, day: date, domain: str, postings: Sequence[Posting]) -> None:
        """Puts these in the place of all postings about that day and domain."""
        ...

    async def note(self, posting: Posting) -> None:
        """Changes one posting; none where it is not there any more."""
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[Posting]:
        """Postings that are to be tried or looked after, longest due first."""
        ...

    async def postings(self, day: date, domain: str) -> Sequence[Posting]: ...

    async def take(self, received: Received) -> bool:
        """Keeps a report that came in. False where it is there already (RFC 8460 section 5.3: the report-id tells)."""
        ...

    async def received(self, since: datetime | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """Newest first, in the shape of `relay.mail.codec.received_json`."""
        ...

    async def forget(self, *, days: date, received: datetime, most: int) -> None:
        """Drops counts and postings of days before `days`, and received reports from before `received` or beyond the newest `most`."""
        ...
