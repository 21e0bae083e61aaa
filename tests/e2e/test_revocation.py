"""Two relays that look whether each other's certificates are revoked: A -> B -> sink, with a CA, its CRLs and its OCSP responder on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import aiosmtplib
import pytest
import pytest_asyncio
from cryptography.x509 import ocsp
from OpenSSL import SSL
from ruamel.yaml import YAML

from relay.admin.trace import TraceQuery
from relay.mail.events import AttemptMade, CommandRefused, RecipientEnded, RevocationUnavailable
from relay.mail.outcome import Bounced, Deferred
from relay.testing import RelayPair, relay_pair
from relay.tls import engine
from relay.tls.revocation.answers import RevocationSettings
from tests.e2e.heard import Heard
from tests.revoking import CrlWish, OcspWish, WebHost, Wish, answer, crl, http, make, root

QUICK = RevocationSettings(wait=5.0, again=timedelta(milliseconds=100))
REVOKED = ocsp.OCSPCertStatus.REVOKED


class Bench:
    """A root, an intermediate, B's certificate (CRL) and A's (OCSP), all under what `host` serves."""

    def __init__(self, host: WebHost, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.root = root()
        self.ca = make("ca", self.root, Wish(ca=True, crl=[host.url("/root.crl")]))
        self.b = make("b", self.ca, Wish(names=["b.test"], crl=[host.url("/ca.crl")]))
        self.a = make("a", self.ca, Wish(names=["a.test"], ocsp=[host.url("/ocsp")]))
        self.anchor = folder / "root.pem"
        self.anchor.write_bytes(self.root.pem)
        self.a.write(folder / "certs-a", "a.test")
        self.b.write(folder / "certs-b", "b.test")
        self.all_good()

    def serve(self, path: str, body: bytes) -> None:
        self.host.replies[path] = http(body)

    def all_good(self) -> None:
        self.serve("/root.crl", crl(self.root))
        self.serve("/ca.crl", crl(self.ca))
        self.serve("/ocsp", answer(self.a))

    @asynccontextmanager
    async def pair(
        self,
        outbound: str = "off",
        inbound: str = "off",
        *,
        heard: Heard | None = None,
        b: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[RelayPair]:
        hosts = {"revocation_hosts": [self.host.named]}
        async with relay_pair(
            outbound={"ca": str(self.anchor), "revocation": outbound},
            require={"certificate": {"names": ["a.test"], "ca": str(self.anchor), "revocation": inbound}},
            a={"certificates": str(self.folder / "certs-a"), **hosts},
            b={"certificates": str(self.folder / "certs-b"), **hosts, **(b or {})},
            folder=self.folder,
            observers=[heard] if heard else [],
            revocation=QUICK,
        ) as pair:
            yield pair


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with WebHost() as host:
        yield Bench(host, tmp_path)


async def evidence(pair: RelayPair, relay: str = "a") -> Any:
    (found, *_) = await (pair.a if relay == "a" else pair.b).operator.trace(TraceQuery(recipient="bob@b.test"))
    return found["attempts"][-1]["evidence"] if relay == "a" else found["accepted"]["tls"]


async def test_good_certificates_and_the_proof(bench: Bench) -> None:
    heard = Heard()
    async with bench.pair("require", "require", heard=heard) as pair:
        await pair.send()
        await pair.received()
        await heard.wait(RecipientEnded, 2)
        out, into = await evidence(pair), await evidence(pair, "b")
    (statuses,) = out["revocation"].values()
    assert [(each["subject"], each["status"], each["by"]) for each in statuses] == [
        ("CN=b", "good", "crl"),
        ("CN=ca", "good", "crl"),
    ]
    assert statuses[0]["next_update"]
    (statuses,) = into["revocation"].values()
    assert [(each["subject"], each["status"], each["by"]) for each in statuses] == [
        ("CN=a", "good", "ocsp"),
        ("CN=ca", "good", "crl"),
    ]


async def test_off_asks_nobody(bench: Bench) -> None:
    async with bench.pair() as pair:
        await pair.send()
        await pair.received()
        found = await evidence(pair, "b")
    assert "revocation" not in found
    assert not bench.host.requests


@pytest.mark.parametrize("mode", ["prefer", "require"])
@pytest.mark.parametrize("who", ["leaf", "intermediate"])
async def test_a_revoked_certificate_gets_no_mail(bench: Bench, mode: str, who: str) -> None:
    if who == "leaf":
        bench.serve("/ca.crl", crl(bench.ca, CrlWish(revoked=[bench.b.serial])))
    else:
        bench.serve("/root.crl", crl(bench.root, CrlWish(revoked=[bench.ca.serial])))
    heard = Heard()
    async with bench.pair(mode, heard=heard) as pair:
        await pair.send()
        (made, *_) = await heard.wait(AttemptMade)
        assert not pair.sink.messages
    outcome = made.attempt.outcomes[0][1]
    assert isinstance(outcome, Deferred)
    assert (outcome.status, str(outcome.failure)) == ("4.7.5", "certificate-revoked")
    assert "keyCompromise" in outcome.text


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_who_shows_a_revoked_certificate_is_refused(bench: Bench, mode: str) -> None:
    bench.serve("/ocsp", answer(bench.a, OcspWish(REVOKED)))
    heard = Heard()
    async with bench.pair(inbound=mode, heard=heard) as pair:
        await pair.send()
        (made, *_) = await heard.wait(AttemptMade)
        assert not pair.sink.messages
    outcome = made.attempt.outcomes[0][1]
    assert isinstance(outcome, Bounced)
    assert (outcome.code, outcome.status) == (550, "5.7.1")
    assert "CN=a is revoked on" in outcome.text


async def test_what_cannot_be_found_out_keeps_mail_waiting_until_it_can(bench: Bench) -> None:
    await bench.host.close()
    heard = Heard()
    async with bench.pair("require", heard=heard) as pair:
        await pair.send()
        (made, *_) = await heard.wait(AttemptMade, 2)
        outcome = made.attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred)
        assert (outcome.status, str(outcome.failure)) == ("4.7.5", "revocation-unavailable")
        assert not pair.sink.messages
        await bench.host.open()
        await pair.received()


async def test_a_client_of_which_it_cannot_be_found_out_hears_451_until_it_can(bench: Bench) -> None:
    await bench.host.close()
    heard = Heard()
    async with bench.pair(inbound="require", heard=heard) as pair:
        await pair.send()
        (refused, *_) = await heard.wait(CommandRefused, 2)
        assert (refused.command, refused.reply.code, refused.reply.status) == ("MAIL", 451, "4.7.1")
        assert not pair.sink.messages
        await bench.host.open()
        await pair.received()


async def test_prefer_lets_it_pass_and_says_so(bench: Bench) -> None:
    await bench.host.close()
    heard = Heard()
    async with bench.pair("prefer", "prefer", heard=heard) as pair:
        await pair.send()
        await pair.received()
        await heard.wait(RecipientEnded, 2)
        out, into = await evidence(pair), await evidence(pair, "b")
        assert pair.a.metrics.registry.get_sample_value("ironpost_revocation_unavailable_total") == 2.0
    for found in (out, into):
        (statuses,) = found["revocation"].values()
        assert [each["status"] for each in statuses] == ["unknown", "unknown"]
        assert "no connection" in statuses[0]["why"]
    assert len(heard.of(RevocationUnavailable)) == 4


async def test_a_restart_forgets_nothing(bench: Bench) -> None:
    heard = Heard()
    async with bench.pair("require", "require", heard=heard) as pair:
        await pair.send()
        await pair.received()
        await heard.wait(RecipientEnded, 2)
    await bench.host.close()
    asked = len(bench.host.requests)
    async with bench.pair("require", "require") as pair:
        await pair.send()
        await pair.received()
    assert len(bench.host.requests) == asked


async def test_the_header_from_is_judged_so_too(bench: Bench) -> None:
    """The envelope sender's domain asks for nothing; the From: header's does, at the end of the data."""
    inbound = {
        "name": "from-c",
        "direction": "inbound",
        "match": {"sender_domains": ["c.test"], "header_from": True},
        "require": {"certificate": {"names": ["a.test"], "ca": str(bench.anchor), "revocation": "require"}},
    }
    content = b"From: x@c.test\r\nSubject: x\r\n\r\nx\r\n"
    heard = Heard()
    bench.serve("/ocsp", answer(bench.a, OcspWish(REVOKED)))
    async with bench.pair(heard=heard) as pair:
        pass
    config = bench.folder / "b" / "connectors.yaml"
    values = YAML(typ="safe").load(config)
    async with bench.pair(heard=heard, b={"connectors": [*values["connectors"], inbound]}) as pair:
        await pair.send(content=content)
        (refused, *_) = await heard.wait(CommandRefused)
        assert (refused.command, refused.reply.code, refused.connector) == ("DATA", 550, "from-c")
        assert not pair.sink.messages


async def test_a_client_that_leaves_while_it_is_looked_at_leaves_nothing_behind(bench: Bench) -> None:
    bench.host.gate.clear()
    heard = Heard()
    async with bench.pair(inbound="require", heard=heard) as pair:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1",
            port=pair.b.address().port,
            start_tls=False,
            use_tls=False,
            local_hostname="a.test",
            validate_certs=False,
            client_cert=str(bench.folder / "certs-a" / "a.test.pem"),
            client_key=str(bench.folder / "certs-a" / "a.test.key"),
        )
        await client.connect()
        await client.starttls()
        await client.ehlo()
        cast(asyncio.Transport, client.transport).write(b"MAIL FROM:<alice@a.test>\r\n")
        await bench.host.arrived.wait()
        client.close()
        bench.host.gate.set()
        await pair.send()
        await pair.received()
    assert not [each for each in heard.events if type(each).__name__ == "Unexpected"]


def _stapling(staple: Callable[[], bytes]) -> Callable[..., SSL.Context]:
    def made(*args: Any, **more: Any) -> SSL.Context:
        found = engine.server_engine(*args, **more)
        found.set_ocsp_server_callback(lambda _connection, _data: staple())
        return found

    return made


@pytest.mark.parametrize("status", ["GOOD", "REVOKED"])
async def test_a_staple_counts_and_asks_nobody_about_the_leaf(
    bench: Bench, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.host.replies.pop("/ca.crl")
    staple = answer(bench.b, OcspWish(ocsp.OCSPCertStatus[status]))
    monkeypatch.setattr("relay.tls.context.server_engine", _stapling(lambda: staple))
    heard = Heard()
    async with bench.pair("require", heard=heard) as pair:
        await pair.send()
        if status == "GOOD":
            await pair.received()
        found = await heard.wait(AttemptMade, 2 if status == "GOOD" else 1)
    made = next(each for each in found if each.attempt.connector == "to-b")
    assert made.attempt.evidence is not None
    (statuses,) = made.attempt.evidence.revocation.values()
    assert [each.by.value for each in statuses] == ["stapled", "crl"]
    assert isinstance(made.attempt.outcomes[0][1], Deferred) == (status == "REVOKED")
    assert bench.host.asked("/ca.crl") == 0
    assert made.attempt.evidence.staple == b""
