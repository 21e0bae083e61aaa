"""Fetches a file over HTTP from a host that a certificate names: a CRL, an OCSP answer (RFC 5280 section 4.2.1.13, RFC 6960 appendix A).

What comes is judged by `relay.tls.revocation`: it is signed by whoever issued the certificate, so plain HTTP is what everybody uses, and over
HTTPS any certificate will do.

Threats: addresses are a stranger's word, put into a certificate. So: hosts that our own resolver finds, no private or loopback addresses,
ports 80 and 443 only, unless an admin has named the host (`revocation_hosts`); no redirects, no content codings, no proxies and credentials
from our environment; one time limit for everything from the look-up on and a size limit on what comes over the wire.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Iterable
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from relay.config.values import HostPort
from relay.dns.answers import Addresses, IpAddress, Resolver
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan, TlsVersion
from relay.mail.revocation import NotFetchedError, Wanted
from relay.policy.route import LookupFailed, public_addresses

_ADDRESSES = 4  # tried at most
_STEP = 10.0  # seconds for one connection or one read
_TOO_LARGE = "ask the CA for OCSP, or for its CRL in parts"
_PORTS = {"http": 80, "https": 443}
_PLAN = TlsPlan(
    Level.ENCRYPTION, Plaintext.NEVER, frozenset({Encryption("revocation"), TlsVersion("revocation", "TLSv1.2")})
)

ANY_PORT = 0
"""In `revocation_hosts`, the port of a host that was written without one: 80 and 443."""


class ClientContext(Protocol):
    """Our side of TLS (`relay.outbound.handshake.TlsClient`)."""

    def context(self, plan: TlsPlan) -> ssl.SSLContext:
        """One that fails no handshake for what a certificate says."""
        ...


class Downloader:
    """`named` gives the hosts that an admin vouches for (`revocation_hosts`), as the configuration in force has them."""

    def __init__(self, resolver: Resolver, tls: ClientContext, named: Callable[[], Iterable[HostPort]]) -> None:
        self._resolver, self._tls, self._named = resolver, tls, named

    async def __call__(self, wanted: Wanted) -> bytes:
        """Raises NotFetchedError, and nothing else for what DNS, the network or the server do."""
        target = HostPort("", 0)
        try:
            target = host_of(wanted.url)
            async with asyncio.timeout(wanted.seconds):
                return await self._fetch(wanted, target)
        except TimeoutError:
            raise NotFetchedError(f"no whole answer in {wanted.seconds:g} seconds", _open(target)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotFetchedError(f"no connection to {target}: {_words(error)}", _open(target)) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NotFetchedError(f"{target} could not be asked: {_words(error)}") from None

    async def _fetch(self, wanted: Wanted, target: HostPort) -> bytes:
        """From the first address that takes a connection."""
        *others, last = await self._addresses(wanted.url, target)
        for address in others:
            try:
                return await self._get(wanted, target, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._get(wanted, target, last)

    async def _addresses(self, url: str, target: HostPort) -> tuple[IpAddress, ...]:
        usual = target.port == _PORTS[urlsplit(url).scheme]
        is_named = any(
            each.host == target.host and (each.port == target.port or (each.port == ANY_PORT and usual))
            for each in self._named()
        )
        if not usual and not is_named:
            raise NotFetchedError(
                f"port {target.port} is not used, only 80 and 443",
                f"if it is yours, write `revocation_hosts: [{target}]`",
            )
        found = await self._look_up(target.host, is_named=is_named)
        usable = found if is_named else public_addresses(found)
        if not usable:
            hint = f"if it is yours, write `revocation_hosts: [{target.host}]`"
            raise NotFetchedError(f"every address of {target.host} is private or reserved", hint)
        return tuple(usable)[:_ADDRESSES]

    async def _look_up(self, host: str, *, is_named: bool) -> tuple[IpAddress, ...]:
        try:
            return (ipaddress.ip_address(host),)
        except ValueError:
            pass
        answer = await (self._resolver.configured_addresses(host) if is_named else self._resolver.addresses(host))
        if isinstance(answer, LookupFailed):
            raise NotFetchedError(
                f"the look-up of {host} failed: {answer.text}", "check the resolver named under `dns`"
            )
        found = answer.addresses if isinstance(answer, Addresses) else ()
        if not found:
            raise NotFetchedError(f"{host} has no address", "check that this machine's DNS knows the host")
        return found

    async def _get(self, wanted: Wanted, target: HostPort, address: IpAddress) -> bytes:
        parts = urlsplit(wanted.url)
        authority = f"[{address}]" if address.version == 6 else str(address)
        usual = target.port == _PORTS[parts.scheme]
        host = str(target).rpartition(":")[0] if usual else str(target)  # an IPv6 address keeps its brackets
        headers = {"Host": host, "User-Agent": "ironpost", "Accept-Encoding": "identity"}
        if wanted.kind:
            headers["Content-Type"] = wanted.kind
        verify = self._tls.context(_PLAN) if parts.scheme == "https" else False
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        async with (
            httpx.AsyncClient(
                verify=verify, trust_env=False, follow_redirects=False, timeout=_STEP, headers=headers
            ) as client,
            client.stream(
                "POST" if wanted.body else "GET",
                f"{parts.scheme}://{authority}:{target.port}{path}",
                content=wanted.body or None,
                extensions={"sni_hostname": target.host},
            ) as response,
        ):
            return await _body(response, wanted.limit)


def host_of(url: str) -> HostPort:
    """Host and port of an http or https address. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an address that can be fetched")
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return HostPort.parse(f"{host}:{port}")


async def _body(response: httpx.Response, limit: int) -> bytes:
    if response.has_redirect_location:
        text = f"the answer is {response.status_code}, a redirect, which is not followed"
        raise NotFetchedError(text, "ask the CA to name the address it leads to in its certificates")
    if response.status_code != 200:
        raise NotFetchedError(f"the answer is {response.status_code}, not 200")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise NotFetchedError("the answer is packed though that was not asked for")
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise NotFetchedError(f"the answer is larger than {limit} bytes", _TOO_LARGE)
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > limit:
            raise NotFetchedError(f"the answer is larger than {limit} bytes", _TOO_LARGE)
    return bytes(data)


def _open(target: HostPort) -> str:
    return f"let this machine connect to {target} (TCP) in the firewall" if target.host else ""


def _words(error: Exception) -> str:
    """httpx says little where the network failed; what is behind it says more."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or str(error.__cause__ or "") or type(error).__name__
