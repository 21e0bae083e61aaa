"""`relay certs`: what is printed, what the exit codes say, and that a record that DNS lacks keeps the next certificate out."""

import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import CliRunner, Result

from relay.cli import build
from relay.config.certificates import PrivateKey, read_folder
from tests.fakes import FakeResolver
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, root, tlsa_record

ROOT = root("our root")
HOST = "relay.example.com"
FILE = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{address: "127.0.0.1:2525"}]
certificates: certs
trust: ca.pem
accept: {domains: [example.com]}
connectors:
  - {name: inner, direction: outbound, match: {recipient_domains: [example.com]}, route: {smart_hosts: ["inner.test:25"]},
     client_certificate: relay}
"""


def issued(*names: str, days: int = 300) -> Issued:
    return ROOT.issue(Wish(HOST, names=names or (HOST,), after=NOW + days * DAY))


PRESENT, NEXT = issued(days=90), issued()


@pytest.fixture
def certs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    PRESENT.write(folder, "relay")
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    (tmp_path / "connectors.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("RELAY_CONFIG", str(tmp_path / "connectors.yaml"))
    return folder


class Dns(FakeResolver):
    async def test(self) -> None:
        self.asked["tested"] += 1

    async def close(self) -> None:
        self.asked["closed"] += 1


@pytest.fixture(autouse=True)
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    found = Dns(dane="")
    monkeypatch.setattr("relay.dns.resolver.DnsResolver.of", lambda _dns: found)
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(["certs"]), ["certs", *arguments])


def told(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def given(certs: Path, issued: Issued, key: Issued | None = None) -> str:
    path = certs.parent / "given.pem"
    path.write_bytes(issued.pem + (key or issued).key_pem)
    return str(path)


def names(certs: Path) -> list[str]:
    return sorted(each.name for each in certs.iterdir())


def leaf_of(certs: Path, name: str = "relay") -> bytes:
    folder = read_folder(certs, NOW)
    return next(each.leaf for each in (*folder.certificates, *folder.next) if each.name == name)


def test_list_without_a_running_relay(certs: Path) -> None:
    (certs / "broken.pem").write_bytes(b"junk")
    result = run("list")
    assert result.exit_code == 0
    assert "no relay can be reached: this is what the folder" in result.stderr
    for text in (
        "relay  in use",
        "pin         sha256:",
        "names       relay.example.com",
        "root        CN=our root (in ",
        "to who asks for relay.example.com",
        "proves us   to partners of inner",
        "broken  in trouble",
        "error       is not a PEM file; write the leaf certificate",
    ):
        assert text in result.stdout
    found = told("list", "--folder")
    assert [(each["name"], each["state"]) for each in found["ours"]] == [("relay", "in use"), ("broken", "in trouble")]
    assert found["partners"] == []
    assert 89 < found["ours"][0]["days_left"] < 90.1


@pytest.mark.parametrize("named", [("--url", "https://relay.test:8443"), ("--socket", "/run/relay.sock")])
def test_the_folder_of_a_relay_far_away_is_not_read_here(certs: Path, named: tuple[str, str]) -> None:
    result = run("list", "--folder", *named)
    assert result.exit_code == 2
    assert f"leave {named[0]} away" in result.stderr


def test_sheet_as_text_json_and_page(certs: Path) -> None:
    assert run("next", "relay", given(certs, NEXT)).exit_code == 0
    text = run("sheet", "relay", "--on", "2027-01-15")
    assert text.exit_code == 0
    assert "The present certificate will be replaced by the coming one on 2027-01-15." in text.stdout
    assert f"CN={HOST}" in text.stdout
    assert "inner" not in text.stdout
    assert [each["name"] for each in told("sheet")] == ["relay"]
    assert told("sheet", "relay")["coming"]["pin"] != told("sheet", "relay")["present"]["pin"]
    page = run("sheet", "relay", "--html")
    assert page.stdout.startswith("<!DOCTYPE html>")
    assert page.stdout.endswith("</html>\n")
    PRESENT.write(certs, "second")
    assert run("sheet", "--html").exit_code == 2
    assert len(told("sheet")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["sheet", "other"], 1, "there is no certificate other in the folder; there: relay"),
        (["sheet", "--html", "--json"], 2, "either --html or --json"),
        (["request", "other"], 1, "for a new one, say its names"),
        (["request", "relay", "--key", "dsa"], 2, "none of ec-p256"),
        (["request", "relay", "--for", "not..one"], 2, "is not a domain name"),
        (["next", "../x", "a.pem"], 2, "is not the name of a certificate"),
        (["next", "relay", "nowhere.pem"], 1, "cannot be read"),
        (["next", "relay"], 1, "nothing waits for relay"),
        (["next", "relay", "--commit"], 1, "nothing waits for relay"),
        (["next", "relay", "--cancel"], 1, "nothing waits for relay"),
        (["next", "relay", "--commit", "--cancel"], 2, "one of CERT.pem, --commit and --cancel"),
        (["next", "relay", "--now"], 2, "--now goes with --commit"),
    ],
)
def test_what_cannot_be_done(arguments: list[str], code: int, text: str, certs: Path) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.output.split())
    assert names(certs) == ["relay.key", "relay.pem"]


def test_staged_and_cancelled(certs: Path) -> None:
    result = run("next", "relay", given(certs, NEXT))
    assert result.exit_code == 0
    assert "relay certs sheet relay" in result.stdout
    assert names(certs) == ["relay.key", "relay.next.key", "relay.next.pem", "relay.pem"]
    assert told("next", "relay")["ready"] is True
    assert run("next", "relay", "--cancel").exit_code == 0
    assert names(certs) == ["relay.key", "relay.pem"]


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        (issued(days=-1), None, "it ended on"),
        (NEXT, PRESENT, "the key does not match"),
    ],
)
def test_what_is_not_staged(certificate: Issued, key: Issued | None, text: str, certs: Path) -> None:
    result = run("next", "relay", given(certs, certificate, key))
    assert result.exit_code == 1
    assert text in result.stderr
    assert "it is not staged" in result.stderr
    assert names(certs) == ["relay.key", "relay.pem"]
    answer = run("next", "relay", given(certs, certificate, key), "--json")
    found = json.loads(answer.stdout)
    assert (answer.exit_code, found["done"], found["remarks"][0]["severity"]) == (1, None, "error")


def test_a_name_that_is_lost_is_said(certs: Path) -> None:
    result = run("next", "relay", given(certs, issued("mail.example.com")))
    assert result.exit_code == 0
    assert "warning: it lacks relay.example.com, which relay has" in result.stderr


NAME = f"{HOST}:25"
OLD_RECORD, NEW_RECORD = (str(tlsa_record(3, 1, 1, each)) for each in (PRESENT, NEXT))


@pytest.mark.parametrize(
    ("records", "broken", "text"),
    [
        ([], False, ""),  # nobody is held to DANE
        ([OLD_RECORD, NEW_RECORD], False, ""),
        ([OLD_RECORD], False, f"DNS has no TLSA record {NEW_RECORD} at _25._tcp.{HOST}"),
        ([OLD_RECORD, NEW_RECORD], True, "cannot be told"),
    ],
)
def test_commit_waits_for_dns(records: list[str], broken: bool, text: str, certs: Path, dns: Dns) -> None:
    dns.tlsa_records[NAME] = records
    if broken:
        dns.failing.add(NAME)
    assert run("next", "relay", given(certs, NEXT)).exit_code == 0
    shown = run("next", "relay")
    assert (shown.exit_code, "ready: relay certs next relay --commit" in shown.stdout) == (bool(text), not text)
    result = run("next", "relay", "--commit")
    if text:
        assert result.exit_code == 1
        assert text in result.stderr
        assert leaf_of(certs) == PRESENT.der
        assert "relay.next.key" in names(certs)
        result = run("next", "relay", "--commit", "--now")
    assert result.exit_code == 0, result.output
    assert leaf_of(certs) == NEXT.der
    assert names(certs) == ["old", "relay.key", "relay.pem"]


def test_one_that_has_ended_is_not_used_even_now(certs: Path) -> None:
    issued(days=-1).write(certs, "relay.next")
    result = run("next", "relay", "--commit", "--now")
    assert result.exit_code == 1
    assert "it ended on" in result.stderr
    assert leaf_of(certs) == PRESENT.der


def test_request_for_the_same_names_and_kind_of_key(certs: Path) -> None:
    found = told("request", "relay")
    assert (found["names"], found["kind"]) == ([HOST], "ec-p256")
    assert found["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert found["pin"].startswith("sha256:")
    waiting = run("next", "relay")
    assert waiting.exit_code == 1
    assert "a request is out for relay" in waiting.stderr
    assert "is there already" in run("request", "relay").stderr


def test_request_for_a_new_one(certs: Path) -> None:
    found = told(
        "request",
        "mx2",
        "--for",
        "MX2.example.com",
        "--for",
        "*.example.com",
        "--for",
        "192.0.2.1",
        "--key",
        "rsa-2048",
    )
    assert found["names"] == ["mx2.example.com", "*.example.com", "192.0.2.1"]
    assert found["kind"] == "rsa-2048"


def test_check_says_what_partners_will_stumble_over(certs: Path) -> None:
    middle = ROOT.issue(Wish("middle", ca=True))
    lone = middle.issue(Wish(HOST, names=[HOST]))
    (certs / "relay.pem").write_bytes(lone.pem)
    (certs / "relay.key").write_bytes(lone.key_pem)
    (certs / "relay.key").chmod(0o644)
    result = CliRunner().invoke(build(["check"]), ["check"])
    text = " ".join(result.output.split())
    assert (
        "no trusted CA has signed the end of the chain, and CN=middle is not in it; add the missing intermediate"
        in text
    )
    assert f"everybody on this machine can read the key; chmod 600 {certs / 'relay.key'}" in text
    listed = run("list", "--folder").stdout
    assert "warning     no trusted CA has signed" in listed
    assert "warning     everybody on this machine can read the key" in listed


def test_links_are_not_replaced_unless_one_says_so(certs: Path) -> None:
    """certbot would go on renewing what nobody looks at any more."""
    live = certs.parent / "live"
    live.mkdir()
    for suffix in ("pem", "key"):
        (certs / f"relay.{suffix}").rename(live / f"relay.{suffix}")
        (certs / f"relay.{suffix}").symlink_to(live / f"relay.{suffix}")
    assert run("next", "relay", given(certs, NEXT)).exit_code == 0
    for arguments in (["next", "relay"], ["next", "relay", "--commit"]):
        refused = run(*arguments)
        assert refused.exit_code == 1
        assert f"relay.pem is a link to {live}/relay.pem" in refused.stderr
        assert leaf_of(certs) == PRESENT.der
    assert run("next", "relay", "--commit", "--now").exit_code == 0
    assert leaf_of(certs) == NEXT.der
    assert not (certs / "relay.pem").is_symlink()
    assert (live / "relay.pem").read_bytes().startswith(PRESENT.pem), "what others renew stays as it is"


def killed_after(steps: int, *arguments: str) -> bool:
    """Runs a command in a process that is killed (SIGKILL) at its n-th change of the folder. True where it ended before that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child will not have: it needs none
        child = os.fork()
    if child:
        _child, status = os.waitpid(child, 0)
        return os.WIFEXITED(status)
    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            nonlocal made
            if made == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            return real(*given, **options)

        return call

    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync, os.fchmod = counted(os.fsync), counted(os.fchmod)  # between them a draft is written, in part or whole
    run(*arguments)
    os._exit(0)


def test_kill_9_in_the_middle_of_a_commit(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever moment: a relay that starts then has a pair that matches, doing it again finishes it, and no key lies about."""
    monkeypatch.setattr("relay.tls.staging._STALE", 0.0)
    original = {each.name: each.read_bytes() for each in certs.iterdir()}
    assert run("request", "relay").exit_code == 0
    key = load_pem_private_key((certs / "relay.next.key").read_bytes(), None)
    coming = ROOT.issue(Wish(HOST, names=[HOST], after=NOW + 300 * DAY), cast(PrivateKey, key))
    requested = {each.name: each.read_bytes() for each in certs.iterdir()}
    for steps in range(60):
        for each in (*certs.glob("*"), *certs.glob(".*"), *certs.glob("old/*"), *certs.glob("old/.*")):
            if each.is_file():
                each.unlink()
        for name, content in requested.items():
            (certs / name).touch(mode=0o600 if name.endswith(".key") else 0o644)
            (certs / name).write_bytes(content)
        (certs.parent / "given.pem").write_bytes(coming.pem)
        assert run("next", "relay", str(certs.parent / "given.pem")).exit_code == 0
        ended = killed_after(steps, "next", "relay", "--commit")
        assert leaf_of(certs) in (PRESENT.der, coming.der)
        for each in certs.rglob("*"):
            if each.is_file() and b"PRIVATE KEY" in each.read_bytes():
                assert each.stat().st_mode & 0o077 == 0, each
        if not ended:
            done = not list(certs.glob("relay.next.*"))
            again = run("next", "relay", "--commit")
            assert again.exit_code == (1 if done else 0), again.stderr
        assert leaf_of(certs) == coming.der
        assert sorted(each.name for each in certs.iterdir()) == ["old", *sorted(original)]
        assert sorted(each.name for each in (certs / "old").iterdir()) == ["relay.old.key", "relay.old.pem"]
        if ended:
            assert steps > 10
            return
    raise AssertionError("it never ended")
