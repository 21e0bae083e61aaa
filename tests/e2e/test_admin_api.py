"""The admin API by network: who gets in with what, over which TLS, and what becomes of those who do not."""

import asyncio
import json
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.admin.accounts import add_token, set_password
from relay.admin.endpoint import Scope
from relay.app import Relay
from relay.app.relay import StartError, Times
from relay.mail.audit import AuditQuery
from relay.mail.events import AdminActed, CertificatesLoaded, ConfigurationWaiting
from relay.testing import Pki, write_config
from tests.e2e.heard import Heard

TIMES = Times(watch=0.05, grace=5)


@dataclass
class Site:
    folder: Path
    pki: Pki
    relay: Relay
    heard: Heard
    tokens: Mapping[Scope, str]

    def client(self, *, token: str = "", certificate: Path | None = None) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        if certificate is not None:
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            verify=context, base_url=f"https://{self.relay.admin}", headers=headers, trust_env=False
        )


@asynccontextmanager
async def site(folder: Path, **admin: Any) -> AsyncIterator[Site]:
    pki, heard = Pki(folder / "pki"), Heard()
    pki.issue(folder / "certs", "relay.test", "127.0.0.1")
    accounts = folder / "accounts"
    tokens = {scope: add_token(accounts, scope.value, scope) for scope in Scope}
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "admin": {"socket": "relay.sock", "listen": "127.0.0.1:0", "accounts": "accounts", **admin},
    }
    async with Relay(write_config(folder, values, {}), observers=[heard], times=TIMES) as relay:
        yield Site(folder, pki, relay, heard, tokens)


async def test_a_token_gets_what_its_scope_covers(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        async with here.client(token=here.tokens[Scope.READ]) as client:
            assert (await client.get("/status")).json()["hostname"] == "relay.test"
            refused = await client.post("/queue/retry", json={"all": True})
            assert (refused.status_code, refused.json()["error"]) == (
                403,
                "this needs the scope operate; read has read",
            )
        async with here.client(token=here.tokens[Scope.OPERATE]) as client:
            assert (await client.post("/queue/retry", json={"all": True})).status_code == 200
            assert (await client.post("/reload", json={"dry_run": True})).status_code == 403
        async with here.client(token=here.tokens[Scope.ADMIN]) as client:
            assert (await client.post("/reload", json={"dry_run": True})).status_code == 200
            entries = (await client.get("/audit?action=retry")).json()["entries"]
    assert [(each["who"], each["via"], each["address"], each["what"]) for each in entries] == [
        ("operate", "token", "127.0.0.1", "all")
    ]


async def test_without_a_token_or_with_a_wrong_one(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.client() as client:
        nobody = await client.get("/status")
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
        assert "say who you are" in nobody.json()["error"]
        wrong = {"authorization": "Bearer ironpost_wrong"}
        statuses = [(await client.get("/status", headers=wrong)).status_code for _number in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        # A right one is no guess, whoever guesses from the same address.
        right = {"authorization": f"Bearer {here.tokens[Scope.READ]}"}
        assert (await client.get("/status", headers=right)).status_code == 200
        failed = await here.relay.audit.audit(AuditQuery(action="sign-in-failed"))
    assert [(each["via"], each["address"]) for each in failed] == [("token", "127.0.0.1")] * 5
    assert "ironpost_wrong" not in str(failed)


async def test_a_removed_token_is_out_and_a_new_one_in_without_a_restart(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.client(token=here.tokens[Scope.READ]) as client:
        assert (await client.get("/status")).status_code == 200
        new = add_token(tmp_path / "accounts", "read", Scope.ADMIN)
        acted = await here.heard.until(AdminActed, lambda each: each.action == "accounts")
        assert acted.selection == "read"
        assert (await client.get("/status")).status_code == 401
        answer = await client.get("/audit?action=accounts", headers={"authorization": f"Bearer {new}"})
    (entry,) = answer.json()["entries"]
    assert (entry["before"], entry["after"]) == ({"read": "token, read"}, {"read": "token, admin"})


async def test_client_certificates(tmp_path: Path) -> None:
    ours = Pki(tmp_path / "ops", "ops")
    good = ours.issue(tmp_path / "ops", "ops.example.com")
    other = ours.issue(tmp_path / "ops", "other.example.com")
    expired = ours.issue(tmp_path / "old", "ops.example.com", expired=True)
    stranger = Pki(tmp_path / "bad", "bad").issue(tmp_path / "bad", "ops.example.com")
    clients = {"ca": str(ours.ca), "names": {"ops.example.com": "operate"}}
    async with site(tmp_path, clients=clients) as here:
        async with here.client(certificate=good) as client:
            assert (await client.post("/queue/hold", json={"all": True})).status_code == 200
            assert (await client.get("/audit")).status_code == 403
        for certificate, why in ((other, "its names"), (expired, "expired"), (stranger, "")):
            async with here.client(certificate=certificate) as client:
                answer = await client.get("/status")
                assert answer.status_code == 401
                assert answer.json()["error"].startswith("the client certificate does not count here")
                assert why in answer.json()["error"]
        async with here.client(certificate=stranger, token=here.tokens[Scope.READ]) as client:
            assert (await client.get("/status")).status_code == 200
        found = await here.relay.audit.audit(AuditQuery(action="hold"))
    assert [(each["who"], each["via"]) for each in found] == [("ops.example.com", "certificate")]


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        before = await presented(here)
        here.pki.issue(tmp_path / "certs", "relay.test", "127.0.0.1", "new.test")
        await here.heard.wait(CertificatesLoaded, 2)
        after = await presented(here)
    assert after != before
    assert b"new.test" in after


async def presented(here: Site) -> bytes:
    context = ssl.create_default_context(cafile=str(here.pki.ca))
    _reader, writer = await asyncio.open_connection("127.0.0.1", here.relay.admin.port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_clear_http_is_not_answered_and_old_tls_fails(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.get(f"http://{here.relay.admin}/status")
        async with here.client(token=here.tokens[Scope.READ]) as client:
            assert (await client.get("/status")).status_code == 200


async def test_in_clear_on_loopback_where_it_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, tls="off") as here, httpx.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {here.tokens[Scope.READ]}"}
        assert (await client.get(f"http://{here.relay.admin}/status", headers=headers)).status_code == 200


async def test_an_accounts_file_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert here.relay.admin.port
    (tmp_path / "accounts").chmod(0o644)
    with pytest.raises(StartError, match="chmod g-w,o-rwx"):
        async with Relay(tmp_path / "connectors.yaml", times=TIMES):
            pass


async def test_a_password_is_no_token(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        set_password(tmp_path / "accounts", "alice", "correct horse", Scope.ADMIN)
        await here.heard.until(AdminActed, lambda each: each.action == "accounts")
        async with here.client(token="correct horse") as client:
            assert (await client.get("/status")).status_code == 401


async def test_large_headers_and_bodies(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.client(token=here.tokens[Scope.ADMIN]) as client:
        with_much = await client.get("/status", headers={"x-much": "x" * 100_000})
        assert with_much.status_code == 400
        answer = await client.post("/queue/delete", content=b" " * 300_000)
        assert (answer.status_code, answer.json()["error"]) == (400, "the body is too large")


async def command(*words: str) -> tuple[int, str, str]:
    """`relay WORDS` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_by_network(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        token = tmp_path / "token"
        token.write_text(here.tokens[Scope.ADMIN] + "\n")
        ways = ("--url", f"https://{here.relay.admin}", "--token-file", str(token))
        code, out, err = await command("queue", "list", "--json", *ways, "--ca", str(here.pki.ca))
        assert (code, out, err) == (0, "[]\n", "")
        assert (await command("queue", "hold", "--all", *ways, "--ca", str(here.pki.ca)))[0] == 1  # there is nothing
        code, out, _err = await command("audit", "--action", "hold", *ways, "--ca", str(here.pki.ca))
        assert (code, "hold: all [0]  admin (token from 127.0.0.1)" in out) == (0, True)
        code, _out, err = await command("queue", "list", *ways)
        assert (code, "certificate verify failed" in err) == (3, True)
        token.write_text("ironpost_wrong\n")
        code, _out, err = await command("queue", "list", *ways, "--ca", str(here.pki.ca))
        assert (code, "there is no such token" in err) == (1, True)
        code, _out, err = await command("queue", "list", "--url", "http://192.0.2.1", "--token-file", str(token))
        assert (code, "does not travel in clear" in err) == (2, True)


async def test_curl(tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not here")
    async with site(tmp_path) as here:
        process = await asyncio.create_subprocess_exec(
            *(curl, "-sS", "--cacert", str(here.pki.ca), "-H", f"Authorization: Bearer {here.tokens[Scope.READ]}"),
            *(f"https://{here.relay.admin}/status",),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _err = await process.communicate()
    assert json.loads(out)["hostname"] == "relay.test"


async def test_a_change_on_disk_is_told_masked_and_who_took_it_is_kept(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.client(token=here.tokens[Scope.ADMIN]) as client:
        file = tmp_path / "connectors.yaml"
        text = file.read_text()
        connector = (
            "connectors:\n- {name: out, direction: outbound, match: {recipient_domains: [x.test]}, tls: encryption,\n"
            '   route: {smart_hosts: ["127.0.0.1:26"], auth: {user: us, password: hunter2-secret}}}\n'
        )
        file.write_text(text + connector)
        assert (await client.post("/reload", json={})).status_code == 200
        file.write_text(text + connector.replace("hunter2", "hunter3"))  # it weakens nothing: taken by itself
        await here.heard.until(AdminActed, lambda each: each.who == "relay" and each.action == "reload")
        file.write_text(text)
        await here.heard.until(ConfigurationWaiting, lambda each: "say `relay reload`" in each.reasons[-1])
        waits = (await client.get("/change")).json()
        assert waits["differs"]
        assert waits["weaker"]
        assert waits["last"]["who"] == "relay"
        assert (await client.post("/reload", json={})).status_code == 200
        after = (await client.get("/change")).json()
        assert (after["differs"], after["diff"], after["last"]["who"]) == (False, "", "admin")
        entries = (await client.get("/audit?action=reload")).json()["entries"]
    assert [each["who"] for each in entries] == ["admin", "relay", "admin"]
    assert all("password: ********" in each["after"]["diff"] for each in entries)
    assert "hunter" not in str(entries) + str(waits)


async def test_who_has_hosts_connected_to_is_noted(tmp_path: Path) -> None:
    """A probe changes nothing, and makes the relay speak to whom the caller names: that is worth an entry."""
    async with site(tmp_path) as here, here.client(token=here.tokens[Scope.OPERATE]) as client:
        hop = str(here.relay.address())
        assert (await client.post("/probe", json={"target": hop, "for": "x.test"})).status_code == 200
        assert (await client.post("/probe", json={"target": "a b"})).status_code == 400  # nobody was spoken to
        answer = await client.post("/connectors/validate", json={"connector": "nobody"})
        assert (answer.status_code, answer.json()["error"]) == (404, "there is no connector 'nobody'; there are: none")
        assert (await client.post("/explain", json={"to": "bob@x.test"})).status_code == 200
        entries = await here.relay.audit.audit(AuditQuery())
    assert [(each["who"], each["action"], each["what"]) for each in entries if each["action"] != "sign-in"] == [
        ("operate", "probe", f"{hop} for x.test")
    ]


async def test_the_command_line_with_a_client_certificate(tmp_path: Path) -> None:
    ours = Pki(tmp_path / "ops", "ops")
    good = ours.issue(tmp_path / "ops", "ops.example.com")
    other = ours.issue(tmp_path / "ops", "other.example.com")
    clients = {"ca": str(ours.ca), "names": {"ops.example.com": "operate"}}
    async with site(tmp_path, clients=clients) as here:
        ways = ("--url", f"https://{here.relay.admin}", "--ca", str(here.pki.ca))
        code, out, err = await command("status", *ways, "--cert", str(good))
        assert (code, "is taken" in out, err) == (0, True, "")
        code, _out, err = await command("reload", *ways, "--cert", str(good))
        assert (code, err) == (1, "this needs the scope admin; ops.example.com has operate\n")
        code, _out, err = await command("status", *ways, "--cert", str(other))
        assert (code, "does not count here" in err) == (1, True)
        probed = await command("probe", str(here.relay.address()), *ways, "--cert", str(good), "--json")
        assert json.loads(probed[1])["hops"][0]["addresses"][0]["address"] == "127.0.0.1"
