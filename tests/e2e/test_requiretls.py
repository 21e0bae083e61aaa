"""REQUIRETLS through two relays (RFC 8689): kept on every hop, else back to the sender at once, and no report of it lost or unprotected."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest

from relay.admin.trace import TraceQuery
from relay.mail.events import AttemptMade, MessageAccepted, RecipientEnded, ReportHeld
from relay.testing import RelayPair, Sink, relay_pair
from tests.e2e.heard import Heard
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Pki

TEXT = b"From: alice@a.test\r\nSubject: secret plans\r\n\r\nthe content\r\n"


@pytest.fixture
def hops(tmp_path: Path) -> Pki:
    """For the servers behind the relays."""
    return Pki(tmp_path / "hops")


def behaves(hops: Pki, *, offers: bool) -> Behaviour:
    return Behaviour(tls=hops.good, extensions_tls=(*EXTENSIONS, "REQUIRETLS") if offers else EXTENSIONS)


def to(name: str, domain: str, port: int, hops: Pki) -> dict[str, Any]:
    return {
        "name": name,
        "direction": "outbound",
        "match": {"recipient_domains": [domain]},
        "tls": "domain",
        "names": [hops.name],
        "ca": str(hops.ca),
        "route": {"smart_hosts": [f"127.0.0.1:{port}"]},
        "retry": {"initial": "200ms", "maximum": "1s"},
    }


@asynccontextmanager
async def between(folder: Path, hops: Pki, last: int, back: int, heard: Heard) -> AsyncIterator[RelayPair]:
    """A -> B -> `last`. What B has to say to a.test, it says to `back`."""
    inbound = {
        "name": "from-a",
        "direction": "inbound",
        "match": {"sender_domains": ["a.test"]},
        "require": {"certificate": {"names": ["a.test"], "ca": str(folder / "pki" / "ca.pem")}},
    }
    connectors = [inbound, to("inner", "b.test", last, hops), to("back", "a.test", back, hops)]
    async with relay_pair(folder=folder, b={"connectors": connectors}, observers=[heard]) as pair:
        yield pair


async def submit(pair: RelayPair, recipient: str, *, options: tuple[str, ...] = ("REQUIRETLS",)) -> None:
    """One message to A, inside TLS."""
    address, context = pair.a.address(), ssl.create_default_context(cafile=pair.pki.ca)
    context.check_hostname = False  # it is for a.test, and we know the address only
    client = aiosmtplib.SMTP(
        hostname=address.host, port=address.port, start_tls=True, tls_context=context, local_hostname="client.test"
    )
    async with client:
        await client.sendmail("alice@a.test", [recipient], TEXT, mail_options=list(options))


async def test_it_is_kept_from_the_first_hop_to_the_last(tmp_path: Path, hops: Pki) -> None:
    heard = Heard()
    async with (
        HostileServer(behaves(hops, offers=True)) as last,
        between(tmp_path / "pair", hops, last.port, last.port, heard) as pair,
    ):
        await submit(pair, "bob@b.test")
        await heard.wait(RecipientEnded, 2)
        await submit(pair, "bob@b.test", options=())
        await heard.wait(RecipientEnded, 4)
        asked, other = last.taken
        assert asked.mail.endswith(b" REQUIRETLS")
        assert b"REQUIRETLS" not in other.mail
        assert asked.content.endswith(TEXT)
        for relay in (pair.a, pair.b):
            second, first = await relay.operator.trace(TraceQuery(recipient="bob@b.test"))
            assert (first["requiretls"], second["requiretls"]) == (True, False)
            assert all(attempt["evidence"] is not None for attempt in first["attempts"])
    assert [each.message.envelope.requiretls for each in heard.of(MessageAccepted)] == [True, True, False, False]


async def test_a_last_hop_without_it_gets_nothing_and_the_sender_hears_at_once(tmp_path: Path, hops: Pki) -> None:
    heard = Heard()
    async with (
        HostileServer(behaves(hops, offers=False)) as last,
        HostileServer(behaves(hops, offers=True)) as back,
        between(tmp_path / "pair", hops, last.port, back.port, heard) as pair,
    ):
        await submit(pair, "bob@b.test")
        ended = await heard.wait(RecipientEnded, 3)
        assert sorted((each.state, each.status) for each in ended) == [
            ("bounced", "5.7.30"),  # at B
            ("delivered", "2.0.0"),  # A to B
            ("delivered", "2.0.0"),  # the report
        ]
        assert not last.taken
        assert b"MAIL" not in last.inside
        (report,) = back.taken
        assert report.mail.startswith(b"MAIL FROM:<> ")
        assert report.mail.endswith(b" REQUIRETLS")
        assert b"Status: 5.7.30" in report.content
        assert b"Subject: secret plans" in report.content
        assert b"the content" not in report.content


async def test_a_report_that_cannot_go_with_requiretls_is_held(tmp_path: Path, hops: Pki) -> None:
    heard = Heard()
    async with (
        HostileServer(behaves(hops, offers=False)) as last,
        HostileServer(behaves(hops, offers=False)) as back,
        between(tmp_path / "pair", hops, last.port, back.port, heard) as pair,
    ):
        await submit(pair, "bob@b.test")
        (held,) = await heard.wait(ReportHeld)
        assert held.status == "5.7.30"
        assert not back.taken
        found = await pair.b.operator.message(held.message)
        assert found is not None
        assert [each["state"] for each in found["recipients"]] == ["held"]
        assert found["requiretls"]


async def test_a_hop_in_clear_gets_nothing(tmp_path: Path) -> None:
    """Not even by an exception that lets everything else go there in clear. Nor does what tells of it go home in clear."""
    heard = Heard()
    async with Sink() as clear, Sink() as senders:
        more = [_loose("clear", "clear.test", clear), _loose("home", "a.test", senders)]
        allowed = {"recipient_domain": "clear.test", "allow": "plaintext", "until": "2036-01-01", "reason": "old"}
        async with relay_pair(more=more, a={"exceptions": [allowed]}, observers=[heard]) as pair:
            await submit(pair, "bob@clear.test", options=())
            await clear.wait()
            await submit(pair, "bob@clear.test")
            ended = await heard.wait(RecipientEnded, 2)
            await heard.wait(ReportHeld)
    assert [(each.state, each.status) for each in ended] == [("delivered", "2.0.0"), ("bounced", "5.7.30")]
    assert (len(clear.messages), senders.messages) == (1, [])
    assert [each.attempt.evidence for each in heard.of(AttemptMade) if each.message.envelope.requiretls] == [None] * 2


def _loose(name: str, domain: str, sink: Sink) -> dict[str, Any]:
    match = {"recipient_domains": [domain]}
    return {"name": name, "direction": "outbound", "match": match, "route": {"smart_hosts": [str(sink.address)]}}
