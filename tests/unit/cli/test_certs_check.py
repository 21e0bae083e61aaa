"""`relay certs check`: against a mail server and a web server on loopback, what it prints, and its exit codes."""

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import ocsp
from typer.testing import CliRunner, Result

from relay.cli import build
from tests.hostile import Behaviour, HostileServer
from tests.revoking import CrlWish, Held, OcspWish, WebHost, Wish, answer, crl, http, make, root

NAME = "mx.partner.test"


@contextmanager
def in_a_thread(*servers: Any) -> Iterator[None]:
    """The command runs an event loop of its own, so the servers have another."""
    ready, loop, done = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        for each in servers:
            await each.__aenter__()
        ready.set()
        await done.wait()
        for each in servers:
            await each.__aexit__(None, None, None)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


class Bench:
    def __init__(self, folder: Path, host: WebHost) -> None:
        self.host = host
        self.root = root()
        self.ca = make("ca", self.root, Wish(ca=True, crl=[host.url("/root.crl")]))
        wish = Wish(names=[NAME], crl=[host.url("/ca.crl"), "ldap://x/y"], ocsp=[host.url("/ocsp")])
        self.leaf = make("leaf", self.ca, wish)
        (folder / "ca.pem").write_bytes(self.root.pem)
        self.file = self.leaf.write(folder, "leaf")
        for path, body in (
            ("/root.crl", crl(self.root)),
            ("/ca.crl", crl(self.ca)),
            ("/ocsp", answer(self.leaf)),
        ):
            host.replies[path] = http(body)
        self.config = folder / "connectors.yaml"

    def configure(self, port: int = 25, hosts: str = "") -> None:
        self.config.write_text(
            f"""hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{{address: "127.0.0.1:0", starttls: "off"}}]
trust: ca.pem
revocation_hosts: [{hosts or self.host.named!r}]
connectors:
  - {{name: out, direction: outbound, match: {{recipient_domains: [partner.test]}},
     route: {{smart_hosts: ["127.0.0.1:{port}"]}}, tls: certificate, ca: ca.pem}}
  - {{name: in, direction: inbound, match: {{sender_domains: [partner.test]}},
     require: {{certificate: {{names: [{NAME}], ca: ca.pem}}}}}}
""",
            encoding="utf-8",
        )

    def __call__(self, *arguments: str) -> Result:
        words = ["certs", "check", *arguments, "--config", str(self.config)]
        return CliRunner().invoke(build(words), words)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    host = WebHost()
    with in_a_thread(host):
        made = Bench(tmp_path, host)
        made.configure()
        yield made


def tls(held: Held, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(held.write(folder, "server"), folder / "server.key")
    return context


def test_a_file_of_which_all_can_be_had(bench: Bench) -> None:
    done = bench(str(bench.file), "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0, done.stdout
    assert (found["fine"], found["trouble"], found["stapled"]) == (True, None, False)
    leaf, ca = found["certificates"]
    assert [(each["kind"], each["url"], each["usable"]) for each in leaf["addresses"]] == [
        ("ocsp", bench.host.url("/ocsp"), True),
        ("crl", bench.host.url("/ca.crl"), True),
    ]
    assert leaf["left_out"] == ["ldap://x/y: ldap is not used, only http and https"]
    assert (ca["verdict"]["subject"], ca["verdict"]["status"], ca["verdict"]["by"]) == ("CN=ca", "good", "crl")
    served = bench.host.replies["/root.crl"]
    assert isinstance(served, bytes)
    assert ca["addresses"][0]["size"] == len(served.partition(b"\r\n\r\n")[2])
    assert ca["addresses"][0]["says"]["next_update"]


def test_for_people(bench: Bench) -> None:
    done = bench(str(bench.file))
    assert "good, by ocsp, counts until" in done.stdout
    assert "All can be had, and nothing is revoked." in done.stdout


def test_an_address_that_cannot_be_had_is_told_with_the_remedy(bench: Bench) -> None:
    """The CRL would do for mail to go on; but the firewall is in the way all the same."""
    bench.host.replies["/ocsp"] = http(b"", status="503 Later")
    done = bench(str(bench.file))
    assert done.exit_code == 1
    assert "the answer is 503, not 200" in done.stdout
    assert "what to do" in done.stdout
    assert "Not all is well" in done.stdout


def test_a_private_host_that_nobody_named(bench: Bench) -> None:
    bench.configure(hosts="pki.example.internal")
    done = bench(str(bench.file), "--json")
    assert done.exit_code == 1
    remedies = {each["remedy"] for one in json.loads(done.stdout)["certificates"] for each in one["addresses"]}
    assert remedies == {f"if it is yours, write `revocation_hosts: [{bench.host.named}]`"}
    assert not bench.host.requests


@pytest.mark.parametrize("who", ["leaf", "intermediate"])
def test_a_revoked_certificate(bench: Bench, who: str) -> None:
    if who == "leaf":
        bench.host.replies["/ocsp"] = http(answer(bench.leaf, OcspWish(ocsp.OCSPCertStatus.REVOKED)))
    else:
        bench.host.replies["/root.crl"] = http(crl(bench.root, CrlWish(revoked=[bench.ca.serial])))
    done = bench(str(bench.file), "--json")
    assert done.exit_code == 1
    states = [each["verdict"]["status"] for each in json.loads(done.stdout)["certificates"]]
    assert states == (["revoked", "good"] if who == "leaf" else ["good", "revoked"])


def test_a_chain_that_leads_nowhere_is_looked_at_as_it_is(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(root("else").pem)
    done = bench(str(bench.file), "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert "does not lead to" in found["trouble"]
    assert [each["verdict"]["status"] for each in found["certificates"]] == ["good"]


def test_by_a_connector(bench: Bench) -> None:
    assert bench(str(bench.file), "--connector", "in").exit_code == 0
    assert bench(str(bench.file), "--connector", "out").exit_code == 0
    done = bench(str(bench.file), "--connector", "no")
    assert done.exit_code == 2
    assert "no connector has this name" in done.stderr


def test_a_host(bench: Bench, tmp_path: Path) -> None:
    server = HostileServer(Behaviour(tls=tls(bench.leaf, tmp_path)))
    with in_a_thread(server):
        bench.configure(server.port)
        done = bench(f"127.0.0.1:{server.port}", "--json")
        inbound = bench(f"127.0.0.1:{server.port}", "--connector", "in")
    found = json.loads(done.stdout)
    assert done.exit_code == 0, done.stdout
    assert found["trust"] == str(tmp_path / "ca.pem")
    assert [each["verdict"]["subject"] for each in found["certificates"]] == ["CN=leaf", "CN=ca"]
    assert inbound.exit_code == 2


def test_a_host_that_shows_none(bench: Bench) -> None:
    server = HostileServer(Behaviour())
    with in_a_thread(server):
        bench.configure(server.port)
        done = bench(f"127.0.0.1:{server.port}")
        port = server.port
    assert done.exit_code == 1
    assert "no certificate was seen" in done.stdout
    gone = bench(f"127.0.0.1:{port}", "--json")
    assert gone.exit_code == 1
    assert "cannot connect" in json.loads(gone.stdout)["trouble"]


@pytest.mark.parametrize("target", ["no/such/file.pem", "a b", "mail.example:99999"])
def test_what_is_neither(bench: Bench, target: str) -> None:
    assert bench(target).exit_code == 2


def test_a_file_that_holds_none(bench: Bench, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"nothing")
    done = bench(str(empty))
    assert done.exit_code == 1
    assert "is not a PEM file" in done.stderr
