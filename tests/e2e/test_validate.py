"""`relay connectors validate` as an admin runs it, against two running relays that hold each other to TLS."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.app import Relay
from relay.testing.pair import RelayPair, relay_pair, write_config
from tests.e2e.process import free_port
from tests.hostile import Behaviour, HostileServer, Pki, Step, Then


async def relay(*arguments: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def validated(*arguments: object) -> tuple[int, dict[str, Any]]:
    code, out, err = await relay("connectors", "validate", *arguments, "--json")
    assert code in (0, 1), err
    return code, json.loads(out)


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[RelayPair]:
    dns = {"resolver": f"127.0.0.1:{free_port()}"}  # nobody there: nothing of this asks the world
    a = {"admin": {"socket": "relay.sock"}, "dns": dns, **options.pop("a", {})}
    async with relay_pair(a=a, b={"admin": {"socket": "relay.sock"}, "dns": dns}, **options) as made:
        yield made


def results(found: dict[str, Any]) -> dict[str, str]:
    return {each["step"]: each["result"] for each in found["steps"]}


async def test_a_test_message_takes_the_real_way() -> None:
    async with pair() as both:
        file = both.folder / "a" / "connectors.yaml"
        code, found = await validated("to-b", "--send-test", "bob@b.test", "--config", file)
        (message,) = await both.received()
    assert code == 0, found
    assert found["passes"]
    assert results(found)["send-test"] == "ok"
    trace = found["trace"]
    assert trace["recipients"][0]["state"] == "delivered"
    assert trace["attempts"][0]["connector"] == "to-b"
    assert trace["attempts"][0]["evidence"]["version"] == "TLSv1.3"
    assert trace["accepted"]["listener"] == "trial"
    assert (message.sender, message.recipients) == ("postmaster@a.test", ("bob@b.test",))
    assert message.subject == "Test message from a.test"
    assert b"Auto-Submitted: auto-generated" in message.content


async def test_a_test_message_that_cannot_go() -> None:
    async with pair(outbound={"names": ["other.test"]}) as both:
        file = both.folder / "a" / "connectors.yaml"
        code, found = await validated("to-b", "--send-test", "bob@b.test", "--config", file)
        assert not both.sink.messages
    assert code == 1
    assert {name for name, result in results(found).items() if result == "failed"} == {
        "certificate",
        "policy",
        "send-test",
    }
    last = found["steps"][-1]
    assert "certificate-host-mismatch" in last["text"]
    assert "relay queue show" in last["remedy"]


AUTH = ("PIPELINING", "AUTH PLAIN LOGIN")


@pytest.mark.parametrize(
    ("reactions", "says", "todo"),
    [
        ({Step.AUTH: b"535 5.7.8 wrong\r\n"}, "refuses our user name or password", "`route.auth` of connector partner"),
        ({Step.RCPT: b"550 5.1.1 no such user\r\n"}, "is bounced: 550 5.1.1", "try an address that exists there"),
        ({Step.RCPT: b"450 4.2.0 greylisted\r\n"}, "is waiting: 450 4.2.0", "tried again by itself"),
        ({Step.FINAL: b"554 5.7.1 spam\r\n"}, "is bounced: 554 5.7.1", "ask its operators"),
        ({Step.FINAL: Then.SILENCE}, "no answer within the time", "relay queue show"),
    ],
    ids=["AUTH", "recipient", "later", "content", "silence"],
)
async def test_a_test_message_that_the_partner_refuses(
    reactions: dict[Step, Any], says: str, todo: str, tmp_path: Path
) -> None:
    pki = Pki(tmp_path / "pki", "127.0.0.1")
    behaviour = Behaviour(reactions, tls=pki.good, extensions_tls=AUTH)
    async with HostileServer(behaviour) as server:
        route = {"smart_hosts": [f"127.0.0.1:{server.port}"], "auth": {"user": "us", "password": "tr0ub4dor"}}
        partner = {"name": "partner", "direction": "outbound", "match": {"recipient_domains": ["b.test"]}}
        config = {
            "hostname": "relay.test",
            "postmaster": "postmaster@relay.test",
            "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
            "queue": "sqlite:queue.db",
            "trust": str(pki.ca),
            "workers": 1,
            "admin": {"socket": "relay.sock"},
            "dns": {"resolver": f"127.0.0.1:{free_port()}"},
            "connectors": [{**partner, "tls": "certificate", "route": route}],
        }
        file = write_config(tmp_path, config, {})
        async with Relay(file):
            code, found = await validated("partner", "--send-test", "bob@b.test", "--wait", "3", "--config", file)
    assert code == 1
    assert {name for name, result in results(found).items() if result == "failed"} == {"send-test"}
    last = found["steps"][-1]
    assert says in last["text"]
    assert todo in last["remedy"]
    assert "tr0ub4dor" not in json.dumps(found)


async def test_the_partner_is_played() -> None:
    async with pair() as both:
        certs, file = both.folder / "a" / "certs", both.folder / "b" / "connectors.yaml"
        right = await validated("from-a", "--as", certs / "a.test.pem", certs / "a.test.key", "--config", file)
        wrong = both.pki.issue(both.folder / "wrong", "c.test")
        refused = await validated("from-a", "--as", wrong, wrong.with_suffix(".key"), "--config", file)
        assert results(right[1])["last-seen"] == "skipped"
        await both.send()
        await both.received()
        _code, seen = await validated("from-a", "--config", file)
    assert right[0] == 0
    assert results(right[1])["as-mail"] == "ok"
    assert refused[0] == 1
    assert [each["step"] for each in refused[1]["steps"] if each["result"] == "failed"] == ["as-mail"]
    assert "found c.test" in refused[1]["steps"][-1]["text"]
    last = next(each for each in seen["steps"] if each["step"] == "last-seen")
    assert last["result"] == "ok"
    assert "TLSv1.3" in last["text"]
    assert "certificate for a.test" in last["text"]


async def test_mail_that_another_connector_governs_in_the_running_relay() -> None:
    """The file on disk and the configuration in force may differ: the relay has the last word."""
    async with pair() as both:
        file = both.folder / "a" / "connectors.yaml"
        file.write_text(file.read_text().replace("to-b", "renamed"))
        code, _out, err = await relay(
            "connectors", "validate", "renamed", "--send-test", "bob@b.test", "--config", file
        )
    assert code == 1
    assert "is governed by connector to-b, not by connector renamed" in err
