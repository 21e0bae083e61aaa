"""What we tell others by HTTPS POST: one request, no redirects, a certificate that is trusted, limits on time and answer.

TLS reports go so (RFC 8460 section 5.4), and alerts to a webhook.

Threat: the URL may be a stranger's. It must not lead into our network: its host's addresses are looked up here, private ones are left out,
and the connection goes to the address that was looked at (a second look-up could answer otherwise). What the server answers is not read.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from relay.dns.answers import AddressAnswer, Addresses
from relay.mail.tls import SYSTEM_TRUST
from relay.policy.route import LookupFailed, public_addresses
from relay.policy.rua import Https
from relay.report.text import one_line

_ADDRESSES = 3  # that are tried


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: in all for one address, and until there is a connection."""

    whole: float = 60.0
    connect: float = 15.0


@dataclass(frozen=True, slots=True)
class Posted:
    """`error` is "" where the server took it, else why not, in words. Whatever it is, later tries may fare better."""

    error: str


@dataclass(frozen=True, slots=True)
class Terms:
    """By the configuration in force: `trust` is "system" or a path, `private` lets hosts be inside our network."""

    trust: str
    private: bool


LookUp = Callable[[str], Awaitable[AddressAnswer]]


class Poster:
    """`look_up` finds the hosts, `terms` is asked each time, `agent` is what we call ourselves, `kind` the Content-Type."""

    def __init__(
        self, look_up: LookUp, terms: Callable[[], Terms], agent: str, kind: str, patience: Patience = Patience()
    ) -> None:
        self._look_up, self._terms, self._patience = look_up, terms, patience
        self._fields = {"Content-Type": kind, "User-Agent": agent}

    async def __call__(self, destination: Https, content: bytes, fields: Mapping[str, str] | None = None) -> Posted:
        """`fields` are further ones for the header. Never raises for what DNS, network and server do."""
        terms = self._terms()
        answer = await self._look_up(destination.host)
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
                async with asyncio.timeout(self._patience.whole):
                    return await self._post(destination, address, content, {**self._fields, **(fields or {})}, context)
            except (httpx.HTTPError, TimeoutError, OSError) as failed:
                trouble = f"{destination.host} [{address}]: {one_line(str(failed)) or 'no answer in time'}"[:300]
        return Posted(trouble)

    async def _post(
        self, destination: Https, address: str, content: bytes, fields: Mapping[str, str], context: ssl.SSLContext
    ) -> Posted:
        """Raises httpx.HTTPError, TimeoutError, OSError."""
        host = f"[{address}]" if ":" in address else address
        port = destination.port
        name = f"[{destination.host}]" if ":" in destination.host else destination.host
        headers = {"Host": name if port == 443 else f"{name}:{port}", **fields}
        timeout = httpx.Timeout(self._patience.whole, connect=self._patience.connect)
        # trust_env: a proxy or a bundle from the environment is not what the configuration says.
        async with (
            httpx.AsyncClient(verify=context, timeout=timeout, follow_redirects=False, trust_env=False) as client,
            client.stream(
                "POST",
                f"https://{host}:{port}{destination.target}",
                content=content,
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
