"""Fetches a policy file: https://mta-sts.DOMAIN/.well-known/mta-sts.txt, from the hosts that our own resolver names (RFC 8461 section 3.3).

What the file says is `relay.policy.stsfile`'s, when to fetch it `relay.dns.sts`'s. TLS is the relay's own engine, and the certificate is
judged by the same rule as a mail server's (`relay.policy.verdict`): a chain to the system's CAs and the policy host's name in the SAN.
The request says nothing that is not public, so it may go out before that; nothing of the answer is looked at before.

Threats: a policy host that is a machine of ours (private and loopback addresses are not used); one that answers slowly, without end, or packed
small (one time limit for everything from the look-up on, a size limit on what comes over the wire, no content codings); one that sends us
elsewhere (redirects are not followed); proxies and credentials from our environment (not read).
"""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import httpx

from relay.config.models import PrivateAddresses
from relay.dns.answers import Addresses, IpAddress, Resolver
from relay.mail.plan import Encryption, Level, Pkix, Plaintext, TlsPlan, TlsVersion
from relay.mail.published import StsTrouble
from relay.mail.tls import SYSTEM_TRUST, TlsEvidence, TlsFailure
from relay.policy.mtasts import MINIMUM, SOURCE
from relay.policy.route import LookupFailed, public_addresses
from relay.policy.stsfile import HOST, MAX_FILE, PATH
from relay.policy.verdict import Failed, judge

_ADDRESSES = 4  # tried at most
_STEP = 10.0  # seconds for one connection or one read


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """`seconds` for all of a fetch, RFC 8461 section 3.3. `private` lets policy hosts have private addresses: closed networks, tests."""

    port: int = 443
    seconds: float = 60.0
    private: PrivateAddresses = PrivateAddresses.REFUSE


class WebTls(Protocol):
    """Our side of TLS. The one of deliveries will do (`relay.outbound.handshake.TlsClient`)."""

    def context(self, plan: TlsPlan) -> ssl.SSLContext:
        """One that fails no handshake for what a certificate says."""
        ...

    def evidence(self, ssl_object: object, plan: TlsPlan) -> TlsEvidence:
        """What the connection is, its chain checked against the plan's trust stores."""
        ...


class _NotThis(Exception):  # noqa: N818 - says what is
    """What was answered is no policy."""

    def __init__(self, failure: TlsFailure, text: str) -> None:
        super().__init__(text)
        self.failure = failure


class PolicyFetcher:
    """Call it with a domain. Never raises for what DNS, the network or the server do."""

    def __init__(self, resolver: Resolver, tls: WebTls, settings: FetchSettings = FetchSettings()) -> None:
        self._resolver, self._tls, self._settings = resolver, tls, settings

    async def __call__(self, domain: str) -> bytes | StsTrouble:
        """The file as it is, of at most MAX_FILE bytes, or why there is none."""
        host = f"{HOST}{domain}"
        try:
            async with asyncio.timeout(self._settings.seconds):
                return await self._fetch(host)
        except _NotThis as error:
            return StsTrouble(error.failure, str(error))
        except TimeoutError:
            return _trouble(f"{host} did not give its policy in {self._settings.seconds:g} seconds")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # ValueError: a name that can not be sent as SNI.
            return _trouble(f"{host} could not be asked for its policy: {_words(error)}")

    async def _fetch(self, host: str) -> bytes:
        """From the first address that takes a connection."""
        *others, last = await self._addresses(host)
        for address in others:
            try:
                return await self._get(host, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._get(host, last)

    async def _addresses(self, host: str) -> tuple[IpAddress, ...]:
        answer = await self._resolver.addresses(host)
        if isinstance(answer, LookupFailed):
            raise _NotThis(TlsFailure.STS_POLICY_FETCH_ERROR, f"the look-up of {host} failed: {answer.text}")
        found = answer.addresses if isinstance(answer, Addresses) else ()
        if not found:
            raise _NotThis(TlsFailure.STS_POLICY_FETCH_ERROR, f"{host} has no address")
        usable = found if self._settings.private is PrivateAddresses.ALLOW else public_addresses(found)
        if not usable:
            raise _NotThis(TlsFailure.STS_POLICY_FETCH_ERROR, f"every address of {host} is private or reserved")
        return _in_turns(usable)[:_ADDRESSES]

    async def _get(self, host: str, address: IpAddress) -> bytes:
        plan = _plan(host)
        authority = f"[{address}]" if address.version == 6 else str(address)
        headers = {"Host": host, "User-Agent": "ironpost", "Accept": "text/plain", "Accept-Encoding": "identity"}
        async with (
            httpx.AsyncClient(
                verify=self._tls.context(plan), trust_env=False, follow_redirects=False, timeout=_STEP, headers=headers
            ) as client,
            client.stream(
                "GET", f"https://{authority}:{self._settings.port}{PATH}", extensions={"sni_hostname": host}
            ) as response,
        ):
            stream = response.extensions["network_stream"]
            verdict = judge(plan, self._tls.evidence(stream.get_extra_info("ssl_object"), plan))
            if isinstance(verdict, Failed):
                raise _NotThis(TlsFailure.STS_WEBPKI_INVALID, f"{host}: {verdict.text}")
            _look_at_head(host, response)
            return await _body(host, response)


def _plan(host: str) -> TlsPlan:
    """RFC 8461 section 3.3: a valid certificate for exactly this name."""
    demands = {Encryption(SOURCE), TlsVersion(SOURCE, MINIMUM), Pkix(SOURCE, SYSTEM_TRUST, (host,))}
    return TlsPlan(Level.DOMAIN, Plaintext.NEVER, frozenset(demands))


def _in_turns(addresses: Iterable[IpAddress]) -> tuple[IpAddress, ...]:
    """Both families in turns, so that the bound on tries leaves none out."""
    listed = list(addresses)
    v4, v6 = ([each for each in listed if each.version == version] for version in (4, 6))
    return tuple(sorted(listed, key=lambda each: (v4 if each.version == 4 else v6).index(each)))


def _look_at_head(host: str, response: httpx.Response) -> None:
    if response.status_code != 200:  # RFC 8461 section 3.3: 200 only, "HTTP 3xx redirects MUST NOT be followed"
        where = " (redirects are not followed)" if response.has_redirect_location else ""
        raise _NotThis(TlsFailure.STS_POLICY_FETCH_ERROR, f"{host} answers {response.status_code}{where}, not 200")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "text/plain":  # RFC 8461 section 3.2: else it may be a page that anybody put there
        shown = ascii(kind[:60]) if kind else "nothing"
        raise _NotThis(TlsFailure.STS_POLICY_INVALID, f"{host} says that its policy is {shown}, not text/plain")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _NotThis(TlsFailure.STS_POLICY_INVALID, f"{host} packs its policy though it was not asked to")


async def _body(host: str, response: httpx.Response) -> bytes:
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > MAX_FILE:
            raise _NotThis(TlsFailure.STS_POLICY_FETCH_ERROR, f"the policy of {host} is longer than {MAX_FILE} bytes")
    return bytes(data)


def _trouble(text: str) -> StsTrouble:
    return StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, text)


def _words(error: Exception) -> str:
    """httpx says little where the network failed; what is behind it says more."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or str(error.__cause__ or "") or type(error).__name__
