"""How others reach us, and we them, with the real relays: a probe that sends nothing, and policies served while mail goes on."""

import asyncio
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest

from relay.app import Relay, StartError
from relay.app.relay import Times
from relay.cli.outside import outside
from relay.cli.publish import fetcher, gather, look_up
from relay.cli.publish_text import records_json
from relay.dns.resolver import DnsResolver
from relay.mail.events import CertificatesLoaded, ConfigurationTaken, ConfigurationWaiting, SessionClosed
from relay.policy.publish import OurRecords
from relay.policy.publish_check import State, compare
from relay.testing import Pki, RelayPair, relay_pair, write_config
from tests.e2e.heard import Heard
from tests.e2e.process import free_port
from tests.unit.dns.server import DnsServer, Zone

POLICY = b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.%b\r\n\r\n"


async def run(*arguments: str) -> tuple[int, str]:
    """`relay ARGUMENTS`: exit code, and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _none = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def probe(pair: RelayPair, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out = await run("probe", *arguments, "--json", "--config", str(pair.folder / "a" / "connectors.yaml"))
    return code, json.loads(out)


async def test_a_probe_of_our_partner_sends_nothing(tmp_path: Path) -> None:
    heard = Heard()
    async with relay_pair(folder=tmp_path, observers=[heard]) as pair:
        code, found = await probe(pair, "b.test")
        await heard.wait(SessionClosed)
        assert pair.sink.messages == []
        assert (code, found["connector"], found["passes"]) == (0, "to-b", True)
        (address,) = found["hops"][0]["addresses"]
        assert (address["evidence"]["version"], address["evidence"]["group"]) == ("TLSv1.3", "X25519MLKEM768")
        assert {each["level"]: each["standing"] for each in address["verdicts"][:4]} == {
            "in force": "passes",
            "encryption": "passes",
            "certificate": "passes",
            "domain": "passes",
        }
        assert [each.reason for each in heard.of(SessionClosed)] == ["quit"]
        await pair.send()  # what the probe says of the way is true
        await pair.received()


async def test_a_probe_says_why_mail_waits(tmp_path: Path) -> None:
    async with relay_pair(folder=tmp_path, outbound={"names": ["somebody.else"]}) as pair:
        code, found = await probe(pair, str(pair.b.address()), "--for", "b.test")
    assert code == 1
    (address,) = found["hops"][0]["addresses"]
    assert [each["level"] for each in address["verdicts"] if each["standing"] == "passes"] == [
        "encryption",
        "certificate",
    ]


def config(folder: Path, **more: Any) -> Path:
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"domains": ["one.test", "two.test"]},
        "connectors": [
            {
                "name": "inner",
                "direction": "outbound",
                "match": {"recipient_domains": ["one.test", "two.test"]},
                "route": {"smart_hosts": ["127.0.0.1:1"]},
            }
        ],
    }
    return write_config(folder, values | more, {})


async def policy(relay: Relay, pki: Pki, domain: str) -> list[str]:
    """A domain's policy file, fetched with its certificate checked."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    reader, writer = await asyncio.open_connection(
        relay.policies[0].host, relay.policies[0].port, ssl=context, server_hostname=f"mta-sts.{domain}"
    )
    writer.write(POLICY % domain.encode())
    head, _gap, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return body.decode().split("\r\n")


async def test_policies_are_served_beside_mail_and_follow_the_file(tmp_path: Path) -> None:
    pki, heard, taken = Pki(tmp_path / "pki"), Heard(), free_port()
    for name in ("relay.test", "mta-sts.one.test", "mta-sts.two.test"):
        pki.issue(tmp_path / "certs", name)
    own = {"two.test": {"mode": "enforce"}}
    file = config(tmp_path, publish={"https": ["127.0.0.1:0"], "domains": own})
    async with Relay(file, observers=[heard], times=Times(watch=60, grace=5)) as relay:
        assert (await policy(relay, pki, "one.test"))[1] == "mode: testing"
        assert (await policy(relay, pki, "two.test"))[1] == "mode: enforce"
        port = relay.policies[0].port

        config(tmp_path, publish={"https": ["127.0.0.1:0"], "max_age": "4w", "domains": own})
        assert (await relay.operator.reload(dry_run=False)).weaker == ()
        assert relay.policies[0].port == port
        assert (await policy(relay, pki, "one.test"))[3] == "max_age: 2419200"

        config(tmp_path, publish={"https": [f"127.0.0.1:{taken}"]})
        result = await relay.operator.reload(dry_run=False)
        assert result.taken
        assert "publish, two.test: mode goes from enforce to testing" in result.weaker
        assert relay.policies[0].port == taken
        assert (await policy(relay, pki, "two.test"))[1] == "mode: testing"

        config(tmp_path)
        assert (await relay.operator.reload(dry_run=False)).taken
        assert relay.policies == ()
    assert len(heard.of(ConfigurationTaken)) == 3
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", taken)


class World:
    """A relay that takes mail and serves policies, the name server that the world asks, and what `relay publish --verify` says of both."""

    def __init__(self, pki: Pki, relay: Relay, names: DnsServer) -> None:
        self.pki, self.relay, self.names = pki, relay, names

    def ours(self) -> OurRecords:
        return gather(self.relay.config, self.relay.config.published_domains, datetime.now(UTC))

    def publish(self) -> None:
        """Puts into DNS what `relay publish --json` prints."""
        printed, records = records_json(self.ours()), self.names.zone.records
        for record in (each for part in ("domains", "hosts") for some in printed[part] for each in some["records"]):
            key = f"{record['name']} {record['type']}"
            if record["type"] == "TLSA":
                records[key] = (1, tuple(dict.fromkeys((*records.get(key, (0, ()))[1], record["value"]))))
            elif record["type"] == "TXT":
                records[key] = (1, (record["line"].partition(" TXT ")[2],))

    async def verify(self) -> dict[str, list[str]]:
        """What is not as it should be: the names of records by state."""
        ours, resolver = self.ours(), DnsResolver(self.names.address)
        try:
            async with outside(self.relay.config, resolver) as world:
                view = await look_up(ours, resolver, fetcher(world, self.relay.policies[0].port), world.now())
        finally:
            await resolver.close()
        found: dict[str, list[str]] = {}
        for each in compare(ours, view):
            if each.state is not State.PUBLISHED:
                found.setdefault(each.state.value, []).append(each.name)
        return found

    async def shown(self) -> bytes:
        """The certificate that a sender is shown, as DER."""
        address = self.relay.address()
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        async with aiosmtplib.SMTP(hostname=address.host, port=address.port, start_tls=False) as client:
            await client.starttls(tls_context=context, server_hostname="relay.test")
            assert client.transport is not None
            leaf: bytes = client.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return leaf


@asynccontextmanager
async def world(folder: Path, heard: Heard) -> AsyncIterator[World]:
    pki = Pki(folder / "pki")
    pki.issue(folder / "certs", "relay.test")
    pki.issue(folder / "certs", "mta-sts.one.test", "mta-sts.two.test")
    file = config(folder, publish={"https": ["127.0.0.1:0"], "reports": ["mailto:r@one.test"]})
    zone = Zone({f"mta-sts.{domain} A": (1, ("127.0.0.1",)) for domain in ("one.test", "two.test")})
    zone.records |= {f"{domain} MX": (1, ("10 relay.test.",)) for domain in ("one.test", "two.test")}
    async with DnsServer(zone) as names, Relay(file, observers=[heard], times=Times(watch=0.05, grace=5)) as relay:
        yield World(pki, relay, names)


async def test_a_rollover_as_the_guide_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real DNS and HTTPS: at no moment is a certificate shown whose TLSA record is not out there."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pki" / "ca.pem"))
    heard = Heard()
    async with world(tmp_path, heard) as here:
        assert sorted(await here.verify()) == ["missing"]
        here.publish()
        assert await here.verify() == {}
        first, name = await here.shown(), "_25._tcp.relay.test"

        # 1. The next one is there, and nobody is shown it.
        certs = tmp_path / "certs"
        here.pki.issue(tmp_path / "staged", "relay.test")
        for kind in ("key", "pem"):
            (tmp_path / "staged" / f"relay.test.{kind}").rename(certs / f"relay.test.next.{kind}")
        assert await here.verify() == {"missing": [name]}
        assert await here.shown() == first

        # 2. and 3. Published beside the old one.
        here.publish()
        assert await here.verify() == {}
        assert await here.shown() == first

        # 4. In use, key first.
        loaded = len(heard.of(CertificatesLoaded))
        for kind in ("key", "pem"):
            (certs / f"relay.test.next.{kind}").rename(certs / f"relay.test.{kind}")
        await heard.wait(CertificatesLoaded, loaded + 1)
        assert await here.shown() != first
        assert await here.verify() == {"extra": [name]}

        # 5. The old record goes.
        key = f"{name} TLSA"
        here.names.zone.records[key] = (1, here.names.zone.records[key][1][1:])
        assert await here.verify() == {}

        # Another policy is served at once; the record in DNS is its owner's to change.
        config(tmp_path, publish={"https": ["127.0.0.1:0"], "reports": ["mailto:r@one.test"], "max_age": "4w"})
        await heard.wait(ConfigurationTaken)
        assert await here.verify() == {"differs": ["_mta-sts.one.test", "_mta-sts.two.test"]}
        here.publish()
        assert await here.verify() == {}


async def test_a_port_that_is_taken_leaves_all_as_it_was(tmp_path: Path) -> None:
    pki, heard = Pki(tmp_path / "pki"), Heard()
    pki.issue(tmp_path / "certs", "relay.test", "mta-sts.one.test")
    file = config(tmp_path, publish={"https": ["127.0.0.1:0"]})
    async with Relay(file, observers=[heard], times=Times(watch=60, grace=5)) as relay:
        taken = relay.address().port
        mail = {"listeners": [{"address": "127.0.0.1:0"}, {"address": "127.0.0.2:0"}]}
        config(tmp_path, **mail, publish={"https": [f"127.0.0.1:{taken}"]})
        result = await relay.operator.reload(dry_run=False)
        assert not result.taken
        assert f"cannot listen on 127.0.0.1:{taken}" in result.errors[0]
        assert len(relay.listening) == 1
        # The other way round: what was opened for policies is closed again where the mail listener cannot be had.
        config(
            tmp_path, listeners=[{"address": f"127.0.0.1:{relay.policies[0].port}"}], publish={"https": ["127.0.0.2:0"]}
        )
        assert not (await relay.operator.reload(dry_run=False)).taken
        assert relay.policies[0].host == "127.0.0.1"
        assert (await policy(relay, pki, "one.test"))[0] == "version: STSv1"
    assert len(heard.of(ConfigurationWaiting)) == 2


async def test_a_relay_that_cannot_serve_its_policies_does_not_start(tmp_path: Path) -> None:
    Pki(tmp_path / "pki").issue(tmp_path / "certs", "relay.test")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"cannot listen on 127\.0\.0\.1:{port}: "):
            async with Relay(config(tmp_path, publish={"https": [f"127.0.0.1:{port}"]})):
                pass
