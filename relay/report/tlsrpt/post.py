"""A report by HTTPS POST (RFC 8460 section 5.4): one request, no redirects, a certificate that is trusted, limits on time and answer.

Threat: the URL is a stranger's. It must not lead into our network: its host's addresses are looked up here, private ones are left out, and
the connection goes to the address that was looked at (a second look-up could answer otherwise). What the server answers is not read.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from relay.dns.answers import Addresses, Resolver
from relay.mail.tls import SYSTEM_TRUST
from relay.policy.route import LookupFailed, public_addresses
from relay.policy.rua import Https
from relay.report.text import one_line
from relay.report.tlsrpt.document import GZIP

_SECONDS = 60.0
_CONNECT = 15.0
_ADDRESSES = 3  # that are tried


@dataclass(frozen=True, slots=True)
class Posted:
    """`error` is "" where the server took the report, else why not, in words. Whatever it is, later tries may fare better."""

    error: str


@dataclass(frozen=True, slots=True)
class Terms:
    """By the configuration in force: `trust` is "system" or a path, `private` lets hosts be inside our network."""

    trust: str
    private: bool


class Poster:
    """`resolver` finds the hosts, `terms` is asked each time, `agent` is what we call ourselves."""

    def __init__(self, resolver: Resolver, terms: Callable[[], Terms], agent: str) -> None:
        self._resolver, self._terms, self._agent = resolver, terms, agent

    async def __call__(self, destination: Https, packed: bytes) -> Posted:
        """Never raises for what DNS, network and server do."""
        terms = self._terms()
        answer = await self._resolver.addresses(destination.host)
        if isinstance(answer, LookupFailed):
            return Posted(f"the look-up of {destination.host} failed: {answer.text}")
        found = answer.addresses if isinstance(answer, Addresses) else ()
        usable = [str(each) for each in (found if terms.private else public_addresses(found))]
        if not usable:
            return Posted(f"{destination.host} has no {'public ' if found else ''}address")
        try:
            context = await asyncio.to_thread(_context, terms.trust)
        except (OSError, ssl.SSLError) as error:
            return Posted(f"{terms.trust} cannot be read: {one_line(str(error))}")
        trouble = ""
        for address in usable[:_ADDRESSES]:
            try:
                async with asyncio.timeout(_SECONDS):
                    return await self._post(destination, address, packed, context)
            except (httpx.HTTPError, TimeoutError, OSError) as failed:
                trouble = f"{destination.host} [{address}]: {one_line(str(failed)) or 'no answer in time'}"[:300]
        return Posted(trouble)

    async def _post(self, destination: Https, address: str, packed: bytes, context: ssl.SSLContext) -> Posted:
        """Raises httpx.HTTPError, TimeoutError, OSError."""
        host = f"[{address}]" if ":" in address else address
        port = destination.port
        headers = {
            "Host": destination.host if port == 443 else f"{destination.host}:{port}",
            "Content-Type": GZIP,
            "User-Agent": self._agent,
        }
        timeout = httpx.Timeout(_SECONDS, connect=_CONNECT)
        # trust_env: a proxy or a bundle from the environment is not what the configuration says.
        async with (
            httpx.AsyncClient(verify=context, timeout=timeout, follow_redirects=False, trust_env=False) as client,
            client.stream(
                "POST",
                f"https://{host}:{port}{destination.target}",
                content=packed,
                headers=headers,
                extensions={"sni_hostname": destination.host},  # whom the certificate must name, too
            ) as answer,
        ):
            status = answer.status_code
        if 200 <= status < 300:  # RFC 8460 section 5.4
            return Posted("")
        return Posted(
            f"{destination.host} answered {status}" + (" (a redirect is not followed)" if 300 <= status < 400 else "")
        )


def _context(trust: str) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError."""
    if trust != SYSTEM_TRUST:
        is_folder = Path(trust).is_dir()
        return ssl.create_default_context(cafile=None if is_folder else trust, capath=trust if is_folder else None)
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):  # a slim container without the system's bundle
        import certifi

        context.load_verify_locations(certifi.where())
    return context
