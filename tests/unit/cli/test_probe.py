"""`relay probe` from the command line: what it takes, which connector it goes by, what it prints, and its exit codes."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli import build
from relay.config.values import HostPort
from relay.outbound.asking import connector_for
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, HostileServer, Pki
from tests.unit.policy.builders import book


@contextmanager
def in_a_thread(behaviour: Behaviour) -> Iterator[HostileServer]:
    """The command runs an event loop of its own, so the server has another."""
    server, ready, loop, done = HostileServer(behaviour), threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


class Dns(FakeResolver):
    async def test(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki", "mx.partner.test")


@pytest.fixture
def server(pki: Pki) -> Iterator[HostileServer]:
    with in_a_thread(Behaviour(tls=pki.good)) as server:
        yield server


@pytest.fixture
def file(tmp_path: Path, pki: Pki, server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    pki.client(tmp_path / "certs")
    path = tmp_path / "connectors.yaml"
    path.write_text(
        f"""\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{{address: "127.0.0.1:2525"}}]
certificates: certs
trust: pki/ca.pem
connectors:
  - name: partner
    direction: outbound
    match: {{recipient_domains: [partner.test]}}
    tls: domain
    client_certificate: ours
    route: {{smart_hosts: ["mx.partner.test:{server.port}"]}}
  - {{name: strict, direction: outbound, match: {{recipient_domains: [strict.test]}}, tls: domain, names: [other.test]}}
""",
        encoding="utf-8",
    )
    dns = Dns(hosts={"mx.partner.test": ["127.0.0.1"]})
    monkeypatch.setattr("relay.dns.resolver.DnsResolver.of", lambda _dns: dns)
    monkeypatch.setenv("RELAY_CONFIG", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(["probe"]), ["probe", *arguments])


def test_a_domain(file: Path, server: HostileServer) -> None:
    result = run("Partner.test")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "governed by   connector partner" in lines
    assert f"mx.partner.test:{server.port}" in lines
    assert "    our policy    satisfied" in lines
    assert "    would pass    encryption, certificate, domain" in lines
    assert lines[-1] == "our policy is satisfied: mail would be sent"
    assert b"MAIL" not in server.inside
    assert b"QUIT" in server.inside


def test_one_host_goes_by_the_connector_that_has_it(file: Path, server: HostileServer) -> None:
    found = json.loads(run(f"mx.partner.test:{server.port}", "--json").stdout)
    assert (found["connector"], found["domain"], found["passes"]) == ("partner", "mx.partner.test", True)
    assert found["hops"][0]["addresses"][0]["evidence"]["version"] == "TLSv1.3"


def test_one_host_under_another_domain_s_policy(file: Path, server: HostileServer) -> None:
    result = run(f"mx.partner.test:{server.port}", "--for", "strict.test", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["connector"], found["domain"], found["passes"]) == ("strict", "strict.test", False)
    verdicts = {each["level"]: each["standing"] for each in found["hops"][0]["addresses"][0]["verdicts"]}
    assert verdicts["in force"] == verdicts["domain"] == "fails"
    assert verdicts["certificate"] == "passes"


def test_a_domain_that_does_not_exist(file: Path) -> None:
    result = run("nowhere.test")
    assert result.exit_code == 1
    assert "answer        bounced: 550 5.1.2 the domain nowhere.test does not exist" in result.output
    assert "our policy is satisfied nowhere: mail would wait" in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("not..one",), "'not..one' is not a domain name"),
        (("192.0.2.1",), "is an IP address"),
        (("mx.partner.test:smtp",), "write host:port"),
        (("partner.test", "--for", "strict.test"), "it goes with HOST:PORT only"),
        (("mx.partner.test:25", "--for", "x@y"), "Invalid value for --for"),
    ],
)
def test_what_it_does_not_take(arguments: tuple[str, ...], text: str, file: Path) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in " ".join(result.output.replace("│", " ").split())


def test_which_connector_one_host_is_held_against() -> None:
    outbound = {"direction": "outbound", "route": {"smart_hosts": ["a.test:25", "b.test:26"]}}
    rules = book(
        connectors=[
            outbound | {"name": "one", "match": {"recipient_domains": ["one.test"]}},
            {"name": "two", "direction": "outbound", "match": {"recipient_domains": ["c.test"]}},
        ]
    )
    found = {
        (domain, str(hop)): connector_for(rules, domain, hop).name
        for domain, hop in (
            ("", HostPort("b.test", 26)),
            ("", HostPort("b.test", 25)),
            ("", HostPort("c.test", 25)),
            ("", HostPort("192.0.2.1", 25)),
            ("c.test", HostPort("b.test", 26)),
        )
    }
    assert list(found.values()) == ["one", "default", "two", "default", "two"]
