"""What is suggested is pasted as it stands, and the same mail is sent again: nothing of it waits that did not wait before."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from relay.admin.security import SuggestQuery
from relay.app import Relay
from relay.mail.events import AttemptMade, RecipientEnded
from relay.mail.outcome import Delivered
from relay.outbound.deliver import OutboundSettings
from relay.testing.pair import submit
from tests.e2e.heard import Heard
from tests.e2e.process import free_port
from tests.e2e.test_serve import run
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, Handshake, HostileServer, Pki

pytestmark = pytest.mark.timeout(120)

MESSAGES = 5
CLEAR, BROKEN = "clear.test", "broken.test"
HOSTS = {
    "good.test": "127.0.0.2",
    "self.test": "127.0.0.3",
    "strange.test": "127.0.0.4",
    CLEAR: "127.0.0.5",
    BROKEN: "127.0.0.6",
}
WANTED = {"good.test": "domain", "self.test": "encryption", "strange.test": "certificate", CLEAR: None, BROKEN: None}


@dataclass
class World:
    """A relay that sends by MX to partners, each at an address of its own. `written` are connectors as they are in its file."""

    folder: Path
    port: int
    trust: Path
    servers: dict[str, HostileServer]
    written: str = ""

    def file(self) -> Path:
        path = self.folder / "connectors.yaml"
        path.write_text(
            "hostname: relay.example.com\n"
            "postmaster: postmaster@example.com\n"
            'listeners: [{address: "127.0.0.1:0", starttls: off}]\n'
            "queue: sqlite:queue.db\n"
            f"trust: {self.trust}\n"
            "workers: 1\n"
            "accept: {networks: [127.0.0.0/8]}\n"
            "defaults: {outbound: {route: {private: allow}, retry: {initial: 200ms, maximum: 300ms}}}\n" + self.written
        )
        return path

    def relay(self, heard: Heard) -> Relay:
        dns = FakeResolver(
            mx_records={each: [(10, f"mx.{each}")] for each in HOSTS},
            hosts={f"mx.{each}": [address] for each, address in HOSTS.items()},
        )
        settings = OutboundSettings(port=self.port)
        return Relay(self.file(), observers=[heard], resolver=dns, delivery=settings)

    def taken(self) -> dict[str, int]:
        return {domain: len(each.taken) for domain, each in self.servers.items()}


async def send_all(relay: Relay, heard: Heard) -> None:
    """To each partner, until each message has ended, one after the other so that each has a connection of its own or not, as it comes."""
    for number in range(MESSAGES):
        for domain in HOSTS:
            before = len(heard.of(RecipientEnded))
            await submit(relay.address(), "alice@a.test", [f"bob{number}@{domain}"], b"Subject: x\r\n\r\nx\r\n")
            await heard.wait(RecipientEnded, before + 1)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    port = free_port()
    pkis = {domain: Pki(folder / domain, f"mx.{domain}") for domain in HOSTS}
    trust = folder / "trust.pem"
    trust.write_bytes(b"".join(each.ca.read_bytes() for each in pkis.values()))
    behaviours = {
        "good.test": [Behaviour(tls=pkis["good.test"].tls12)],
        "self.test": [Behaviour(tls=pkis["self.test"].self_signed)],
        "strange.test": [Behaviour(tls=pkis["strange.test"].wrong_name)],
        CLEAR: [Behaviour()],
        # Once the handshake breaks: the message waits, and goes with the next attempt.
        BROKEN: [
            Behaviour(tls=pkis[BROKEN].tls12, handshake=Handshake.GARBAGE),
            Behaviour(tls=pkis[BROKEN].tls12),
        ],
    }
    async with AsyncExitStack() as stack:
        servers = {
            domain: await stack.enter_async_context(HostileServer(*behaviours[domain], host=address, port=port))
            for domain, address in HOSTS.items()
        }
        yield World(folder, port, trust, servers)


async def suggestions(relay: Relay, least: int = MESSAGES) -> dict[str, Any]:
    return dict(await relay.operator.evidence.suggest(SuggestQuery(30, least)))


async def test_raised_as_suggested_the_same_mail_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as partners:
        heard = Heard()
        async with partners.relay(heard) as relay:
            nothing = await suggestions(relay)
            assert nothing["suggestions"] == []
            await send_all(relay, heard)
            assert partners.taken() == dict.fromkeys(HOSTS, MESSAGES)
            found = await suggestions(relay)
            made = {each["domain"]: each for each in found["suggestions"] if each["direction"] == "out"}
            assert {domain: each["suggested"] for domain, each in made.items()} == WANTED
            assert made[CLEAR]["why"] == f"{MESSAGES} of {MESSAGES} messages went in clear"
            assert "TLS failed in 1 attempt" in made[BROKEN]["why"]
            assert made["good.test"]["names"] == ["mx.good.test"]
            one_more = await suggestions(relay, MESSAGES + 1)
            assert all(each["how"] == "none" for each in one_more["suggestions"] if each["direction"] == "out")

        # Pasted as it stands, under `connectors:`.
        partners.written = "connectors:\n" + found["yaml"]
        written = YAML(typ="safe").load(partners.written)["connectors"]
        assert {each["match"]["recipient_domains"][0] for each in written} == {each for each in WANTED if WANTED[each]}
        code, out, err = await run("check", "--config", str(partners.file()))
        assert code == 0, out + err

        again = Heard()
        async with partners.relay(again) as relay:
            await send_all(relay, again)
            assert partners.taken() == dict.fromkeys(HOSTS, 2 * MESSAGES)
            plans = {
                made.attempt.connector: made.attempt.plan.level.value
                for made in again.of(AttemptMade)
                if made.attempt.plan is not None
            }
            assert plans == {
                "good.test-out": "domain",
                "self.test-out": "encryption",
                "strange.test-out": "certificate",
                "default": "opportunistic",
            }
            outcomes = [outcome for made in again.of(AttemptMade) for _index, outcome in made.attempt.outcomes]
            assert all(isinstance(each, Delivered) for each in outcomes), "not one waited"

            # What is in force is not suggested again; what was clear still is not.
            later = await suggestions(relay)
            assert {each["domain"]: each["how"] for each in later["suggestions"] if each["direction"] == "out"} == (
                dict.fromkeys(HOSTS, "none")
            )
