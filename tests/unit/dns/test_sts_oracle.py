"""postfix-mta-sts-resolver as oracle: the same names, asked of the same name server and the same web server, give the same answer.

Its resolver is the whole of discovery and fetch (aiodns and aiohttp), so both programs go all the way: TXT record, TLS, HTTP, file. It is
pointed at the test's servers by a name server's port for the one and a connector for the other. Where it differs from us is in a table of
its own, with the reason.
"""

import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiodns
import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from postfix_mta_sts_resolver import resolver as theirs

from relay.config.models import PrivateAddresses
from relay.dns.resolver import DnsResolver
from relay.dns.sts import Clocks, StsPolicies
from relay.dns.stsfetch import FetchSettings, PolicyFetcher
from relay.inbound.policies import PolicyServer
from relay.mail.published import StsFound
from relay.outbound.handshake import TlsClient
from relay.policy.publish import our_records
from relay.testing import Pki
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores
from tests.policyhost import PolicyHost, answer, policy
from tests.unit.dns.server import DnsServer, Zone
from tests.unit.dns.test_sts import Keeper, Time
from tests.unit.policy.builders import book

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:postfix_mta_sts_resolver")

DOMAIN, HOST = "b.example", "mta-sts.b.example"
ONE = ["v=STSv1; id=20261122T120000;"]
GOOD = policy("enforce", "mx.b.example", "*.mail.example")
NONE, ERROR = "nothing published", "published, and cannot be had"

Answer = str | tuple[str, str, tuple[str, ...], int]
"""One of the two above, or id, mode, mx and max_age."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oracle")


@pytest.fixture(scope="module")
def pki(folder: Path) -> Pki:
    return Pki(folder)


@pytest.fixture(scope="module")
def certificate(pki: Pki, folder: Path) -> Path:
    return pki.issue(folder / "good", HOST)


class Here(AbstractResolver):
    """Every name is at one port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        result = ResolveResult(
            hostname=host, host="127.0.0.1", port=self._port, family=socket.AF_INET, proto=0, flags=0
        )
        return [result]

    async def close(self) -> None:
        return


class Bench:
    """A name server and a policy host (`port`) for one domain, and both programs."""

    def __init__(self, names: DnsServer, port: int, pki: Pki, patch: pytest.MonkeyPatch) -> None:
        self._names, self._port, self._pki, self._patch = names, port, pki, patch

    async def ours(self) -> Answer:
        self._patch.setenv("SSL_CERT_FILE", str(self._pki.ca))
        resolver, time = DnsResolver(self._names.address), Time()
        tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
        fetch = PolicyFetcher(resolver, tls, FetchSettings(self._port, 30, PrivateAddresses.ALLOW))
        clocks = Clocks(time.now, time.monotonic)
        policies = StsPolicies(
            resolver, fetch, Keeper(), clocks=clocks, chance=random.Random(1), emit=lambda _event: None
        )
        try:
            found = await policies.get(DOMAIN)
        finally:
            await policies.close()
            await resolver.close()
        assert isinstance(found, StsFound)
        if found.fetched is not None:
            known = found.fetched.policy
            return known.id, known.mode.value, known.mx, known.max_age
        # A record that does not count is as none to mail, and to them (RFC 8461 section 3.1).
        announced = found.trouble is not None and not found.trouble.text.startswith("_mta-sts.")
        return ERROR if announced else NONE

    async def theirs(self) -> Answer:
        port, context = self._names.address.port, ssl.create_default_context(cafile=self._pki.ca)

        def session(*, timeout: aiohttp.ClientTimeout, **_: Any) -> aiohttp.ClientSession:
            return real(timeout=timeout, connector=aiohttp.TCPConnector(resolver=Here(self._port), ssl=context))

        real = aiohttp.ClientSession
        with self._patch.context() as patch:
            patch.setattr(aiohttp, "ClientSession", session)
            asker = theirs.STSResolver(loop=None, timeout=30)
            await asker._resolver.close()
            asker._resolver = aiodns.DNSResolver(["127.0.0.1"], udp_port=port, tcp_port=port, timeout=30)
            result, found = await asker.resolve(DOMAIN)
            await asker._resolver.close()
        if result is theirs.STSFetchResult.VALID:
            record_id, known = found
            return record_id, known["mode"], tuple(known["mx"]), known["max_age"]
        return {theirs.STSFetchResult.NONE: NONE, theirs.STSFetchResult.FETCH_ERROR: ERROR}[result]


@asynccontextmanager
async def bench(
    pki: Pki, certificate: Path, texts: list[str], reply: bytes, patch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    zone = Zone({f"{HOST} A": (60, ("127.0.0.1",))})
    if texts:
        strings = (" ".join(f'"{text[at : at + 7]}"' for at in range(0, len(text), 7)) for text in texts)
        zone.records["txt.elsewhere.example TXT"] = (60, tuple(strings))
        zone.cnames[f"_mta-sts.{DOMAIN}"] = "txt.elsewhere.example"
    async with DnsServer(zone) as names, PolicyHost(certificate, reply) as web:
        yield Bench(names, web.port, pki, patch)


SAME: dict[str, tuple[list[str], bytes]] = {
    "enforce": (ONE, answer(GOOD)),
    "testing": (ONE, answer(policy("testing", "mx.b.example"))),
    "none": (ONE, answer(policy("none"))),
    "lf": (ONE, answer(policy("enforce", "mx.b.example", end="\n"))),
    "unknown-keys": (ONE, answer(GOOD + b"later: something\r\nand_more: x:y\r\n")),
    "blanks": (ONE, answer(b"version:STSv1\nmode:  enforce  \nmx: mx.b.example\nmax_age:\t60")),
    "blank-line": (ONE, answer(GOOD + b"\r\n")),
    "any-order": (ONE, answer(b"max_age: 60\nmx: mx.b.example\nmode: enforce\nversion: STSv1\n")),
    "a-year": (ONE, answer(policy("enforce", "mx.b.example", max_age=31557600))),
    "more-than-a-year": (ONE, answer(policy("enforce", "mx.b.example", max_age=31557601))),
    "no-duration": (ONE, answer(policy("enforce", "mx.b.example", max_age=0))),
    "no-record": ([], answer(GOOD)),
    "other-records": (["v=spf1 -all", *ONE, "x"], answer(GOOD)),
    "two-records": ([*ONE, "v=STSv1; id=2"], answer(GOOD)),
    "another-version": (["v=STSv2; id=1"], answer(GOOD)),
    "no-id": (["v=STSv1;"], answer(GOOD)),
    "more-fields": (["v=STSv1; id=7; more=x"], answer(GOOD)),
    "version-not-first": (["id=7; v=STSv1"], answer(GOOD)),
    "404": (ONE, answer(GOOD, status="404 Not Found")),
    "204": (ONE, b"HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n\r\n"),
    "redirect": (ONE, answer(GOOD, status="301 Moved", fields=f"Location: https://{HOST}/.well-known/mta-sts.txt\r\n")),
    "html": (ONE, answer(GOOD, kind="text/html")),
    "charset": (ONE, answer(GOOD, kind="text/plain; charset=utf-8")),
    "no-type": (ONE, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)),
    "huge": (ONE, answer(GOOD + b"x: " + b"y" * 65536)),
    "cut": (ONE, answer(GOOD)[:-20]),
    "no-http": (ONE, b"220 mx.b.example ESMTP\r\n"),
    "silence": (ONE, b""),
    "empty": (ONE, answer(b"")),
    "no-version": (ONE, answer(GOOD.replace(b"version: STSv1\r\n", b""))),
    "wrong-version": (ONE, answer(GOOD.replace(b"STSv1", b"STSv2"))),
    "no-mode": (ONE, answer(GOOD.replace(b"mode: enforce\r\n", b""))),
    "wrong-mode": (ONE, answer(policy("Enforce", "mx.b.example"))),
    "no-mx": (ONE, answer(policy("enforce"))),
    "no-max-age": (ONE, answer(b"version: STSv1\nmode: none\n")),
    "max-age-no-number": (ONE, answer(b"version: STSv1\nmode: none\nmax_age: soon\n")),
    "max-age-negative": (ONE, answer(b"version: STSv1\nmode: none\nmax_age: -1\n")),
}  # fmt: skip

ID = "20261122T120000"
DIFFERENT: dict[str, tuple[list[str], bytes, Answer, Answer, str]] = {
    "id-with-hyphens": (
        ["v=STSv1; id=2026-11-22"], answer(GOOD), NONE, ("2026-11-22", "enforce", ("mx.b.example", "*.mail.example"), 86400),
        "section 3.1: an id is 1*32(ALPHA / DIGIT)",
    ),
    "field-twice": (
        ONE, answer(GOOD + b"mode: none\r\n"),
        (ID, "enforce", ("mx.b.example", "*.mail.example"), 86400), (ID, "none", ("mx.b.example", "*.mail.example"), 86400),
        "section 3.2: of a duplicate the first counts",
    ),
    "line-without-colon": (
        ONE, answer(GOOD + b"nonsense\r\n"), ERROR, (ID, "enforce", ("mx.b.example", "*.mail.example"), 86400),
        "section 3.2: a policy is lines of key and value",
    ),
    "mx-that-is-none": (
        ONE, answer(policy("enforce", ".b.example")), ERROR, (ID, "enforce", (".b.example",), 86400),
        'section 3.2: ["*."] Domain',
    ),
    "mx-in-capitals": (
        ONE, answer(policy("enforce", "MX.b.example.")), (ID, "enforce", ("mx.b.example",), 86400),
        (ID, "enforce", ("MX.b.example.",), 86400), "the same pattern: ours are normalised when they are read",
    ),
    "max-age-with-a-sign": (
        ONE, answer(b"version: STSv1\nmode: none\nmax_age: +1\n"), ERROR, (ID, "none", (), 1), "section 3.2: 1*10(DIGIT)",
    ),
    "utf-8-undeclared": (
        ONE, answer(policy("none") + "note: für später\n".encode()), (ID, "none", (), 86400), ERROR,
        "section 3.2: a policy is UTF-8, whatever the header says or does not say",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
async def test_the_same_answer(case: str, pki: Pki, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, reply = SAME[case]
    async with bench(pki, certificate, texts, reply, monkeypatch) as both:
        assert await both.ours() == await both.theirs()


@pytest.mark.parametrize("case", DIFFERENT)
async def test_another_answer_for_a_reason(
    case: str, pki: Pki, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, reply, ours, theirs_, _reason = DIFFERENT[case]
    async with bench(pki, certificate, texts, reply, monkeypatch) as both:
        assert (await both.ours(), await both.theirs()) == (ours, theirs_)


@pytest.mark.parametrize("case", ["expired", "wrong-name", "unknown-ca", "wildcard"])
async def test_the_same_certificates(case: str, pki: Pki, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Pki(folder / "other") if case == "unknown-ca" else pki
    name = {"wrong-name": "www.b.example", "wildcard": "*.b.example"}.get(case, HOST)
    certificate = issuer.issue(folder / case, name, expired=case == "expired")
    async with bench(pki, certificate, ONE, answer(GOOD), monkeypatch) as both:
        ours = await both.ours()
        assert ours == await both.theirs()
        assert (ours == ERROR) is (case != "wildcard")


@pytest.mark.parametrize("mode", ["enforce", "testing", "none"])
async def test_both_find_what_we_publish_ourselves(
    mode: str, pki: Pki, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record that `relay publish` prints leads to the file that the relay serves."""
    words = {"mode": mode, "mx": ["mx.b.example"], "other_mx": ["*.mail.example"], "https": ["127.0.0.1:0"]}
    rules = book(accept={"domains": [DOMAIN]}, publish=words)
    (domain,) = our_records(rules.config, [DOMAIN], {}, []).domains
    keyring = Keyring(certificate.parent, hostname="relay.example", clock=lambda: datetime.now(UTC))
    server = PolicyServer(lambda: rules, keyring, lambda _event: None)
    await server.take(await server.prepare())
    zone = Zone({f"{HOST} A": (60, ("127.0.0.1",)), f"{domain.sts.name} TXT": (60, (f'"{domain.sts.value}"',))})
    async with DnsServer(zone) as names:
        both = Bench(names, server.addresses[0].port, pki, monkeypatch)
        mx = () if mode == "none" else ("mx.b.example", "*.mail.example")
        assert await both.theirs() == await both.ours() == (domain.policy.id, mode, mx, 604800)
    await server.close()
