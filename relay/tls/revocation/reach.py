"""Can everything be had that finding out about a path needs? Every CRL and OCSP address of every certificate is fetched, by the code that
deliveries and sessions use, so that a firewall in between is found before mail stops. For `relay certs check` and `relay doctor`.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.mail.revocation import (
    By,
    CertificateStatus,
    Kind,
    NotFetchedError,
    State,
    Wanted,
    first_of,
)
from relay.tls.revocation.answers import ASK_CA, CRL_SECONDS, OCSP_SECONDS, Fetch
from relay.tls.revocation.crl import MAX_CRL, look_up, read_crl
from relay.tls.revocation.links import Link, UnusableError, link_of
from relay.tls.revocation.ocsp import MAX_ANSWER, question, read_answer, status


@dataclass(frozen=True, slots=True)
class Reached:
    """One address. `trouble`: why it is of no use, "" where it is; `remedy` what to do then. `size` in bytes, `seconds` the time it took.

    `found` is what it says of the certificate, None where that is nothing.
    """

    kind: Kind
    url: str
    seconds: float
    trouble: str = ""
    remedy: str = ""
    size: int = 0
    found: CertificateStatus | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """One certificate of the path. `left_out` says of each address that is not used why."""

    verdict: CertificateStatus
    addresses: tuple[Reached, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def is_fine(self) -> bool:
        """Known to be good, and every address can be had."""
        return self.verdict.state is State.GOOD and not any(each.trouble for each in self.addresses)


async def needed_and_reachable(
    path: Sequence[bytes], fetch: Fetch, clock: Callable[[], datetime], staple: bytes = b""
) -> tuple[Examined, ...]:
    """`path` is DER, from the leaf to the anchor, which is not looked at. Never raises for what addresses do. Takes a minute at most."""
    pairs = enumerate(itertools.pairwise(path))
    works = (_examine(own, above, fetch, clock, b"" if number else staple) for number, (own, above) in pairs)
    return tuple(await asyncio.gather(*works))


async def _examine(
    certificate: bytes, issuer: bytes, fetch: Fetch, clock: Callable[[], datetime], staple: bytes
) -> Examined:
    try:
        link = link_of(certificate, issuer)
    except UnusableError as error:
        return Examined(CertificateStatus("an unreadable certificate", "", State.UNKNOWN, why=str(error)))
    asked = (
        *(_reach(link, Kind.OCSP, url, fetch, clock) for url in link.responders),
        *(_reach(link, Kind.CRL, url, fetch, clock) for url in link.crl_urls),
    )
    reached = tuple(await asyncio.gather(*asked))
    found = [each.found for each in reached if each.found is not None]
    why = "; ".join(each.trouble for each in reached)
    if staple:
        try:
            found.insert(0, status(read_answer(staple, link, clock()), link, By.STAPLED, ""))
        except UnusableError as error:
            why = f"stapled: {error}; {why}"
    verdict = first_of(found, State.REVOKED) or next(iter(found), None)
    if verdict is None and link.exempt:
        verdict = CertificateStatus(link.subject, link.serial, State.GOOD, why=link.exempt)
    if verdict is None:
        why = why or "it names neither a CRL nor an OCSP responder that could be asked"
        verdict = CertificateStatus(link.subject, link.serial, State.UNKNOWN, why=why)
    return Examined(verdict, reached, link.left_out)


async def _reach(link: Link, kind: Kind, url: str, fetch: Fetch, clock: Callable[[], datetime]) -> Reached:
    begun, size = time.monotonic(), 0
    wanted = Wanted(url, MAX_CRL, CRL_SECONDS)
    try:
        if kind is Kind.OCSP:
            wanted = Wanted(url, MAX_ANSWER, OCSP_SECONDS, question(link), "application/ocsp-request")
        data = await fetch(wanted)
        size = len(data)
        if kind is Kind.OCSP:
            found = status(read_answer(data, link, clock()), link, By.OCSP, url)
        else:
            found = look_up(await asyncio.to_thread(read_crl, data, link.issuer), link, url, clock())
    except NotFetchedError as error:
        return Reached(kind, url, time.monotonic() - begun, str(error), error.hint or ASK_CA)
    except UnusableError as error:
        return Reached(kind, url, time.monotonic() - begun, str(error), ASK_CA, size)
    return Reached(kind, url, time.monotonic() - begun, size=size, found=found)
