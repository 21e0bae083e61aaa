"""`relay publish`: what it prints, what it finds out there, and its exit codes; DNS and HTTPS are fakes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner, Result

from relay.cli import build, publish
from relay.cli.outside import outside
from relay.config.load import load
from relay.policy.publish_check import FetchFailed, FileFound, TlsaFound
from tests.fakes import FakeResolver
from tests.unit.tls.pki import Issued, Wish, root, tlsa_record

FILE = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{address: "127.0.0.1:2525"}]
certificates: certs
accept: {domains: [example.com, example.org, "*.example.net"]}
connectors:
  - {name: inner, direction: outbound, match: {recipient_domains: ["*"]}, route: {smart_hosts: ["inner.test:25"]}}
publish:
  other_mx: [backup.example.net]
  reports: ["mailto:tls@example.com"]
  https: ["0.0.0.0:8443"]
  domains: {example.org: {mode: enforce, mx: [mx.example.org]}, sub.example.net: {}}
"""


class Dns(FakeResolver):
    async def test(self) -> None:
        self.asked["tested"] += 1

    async def close(self) -> None:
        self.asked["closed"] += 1


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    found = Dns(dane="")
    monkeypatch.setattr("relay.dns.resolver.DnsResolver.of", lambda _dns: found)
    return found


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    certs = tmp_path / "certs"
    certs.mkdir()
    ca = trustme.CA()
    for name, host in (
        ("relay", "relay.example.com"),
        ("relay.next", "relay.example.com"),
        ("other", "mx.example.org"),
    ):
        pem = certs / f"{name}.pem"
        ca.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(str(pem))
        pem.chmod(0o600)
    path = tmp_path / "connectors.yaml"
    path.write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("RELAY_CONFIG", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(["publish"]), ["publish", *arguments])


def records() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("--json").stdout)
    return found


def publish_all(dns: Dns, files: dict[str, str]) -> None:
    """Puts everything out there as `relay publish` says."""
    found = records()
    for domain in found["domains"]:
        name = domain["domain"]
        for record in domain["records"]:
            if record["type"] == "TXT":
                dns.texts[record["name"]] = [record["value"]]
        dns.mx_records[name] = [(10, domain["policy"]["mx"][0])]
        files[name] = domain["policy"]["text"]
    for host in found["hosts"]:
        dns.tlsa_records[f"{host['host']}:25"] = [each["value"] for each in host["records"]]
        dns.secure.add(host["host"])


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Policy files by domain."""
    found: dict[str, str] = {}

    async def fetch(domain: str) -> FileFound | FetchFailed:
        return FileFound(tuple(found[domain].splitlines())) if domain in found else FetchFailed("no answer")

    monkeypatch.setattr(publish, "fetcher", lambda *_arguments: fetch)
    return found


def test_every_record_is_a_line_to_paste(file: Path) -> None:
    result = run()
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for domain in records()["domains"]:
        for record in domain["records"]:
            assert f"  {record['line']}" in lines
        assert f"  {domain['policy']['url']}  (served by this relay on 0.0.0.0:8443)" in lines
    for host in records()["hosts"]:
        for record in host["records"]:
            assert f"  {record['line']}  ; {record['note']}" in lines
    assert "  mta-sts.example.com. IN CNAME relay.example.com." in lines
    assert "    mode: enforce" in lines
    assert "  The TLSA records of backup.example.net depend on the certificates there: they are not made here." in lines
    assert sum(line.startswith("  sha256:") for line in lines) == 3
    assert any("relay.next: not in use yet, for relay.example.com" in line for line in lines)


def test_as_json(file: Path) -> None:
    found = records()
    assert [each["domain"] for each in found["domains"]] == ["example.com", "example.org", "sub.example.net"]
    assert found["domains"][1]["policy"] == {
        "url": "https://mta-sts.example.org/.well-known/mta-sts.txt",
        "id": found["domains"][1]["policy"]["id"],
        "mode": "enforce",
        "mx": ["mx.example.org", "backup.example.net"],
        "max_age": 604800,
        "text": "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmx: backup.example.net\r\nmax_age: 604800\r\n",
    }
    hosts = {each["host"]: [record["note"] for record in each["records"]] for each in found["hosts"]}
    assert list(hosts) == ["relay.example.com", "mx.example.org"]
    assert [note.split(":")[0] for note in hosts["relay.example.com"]] == ["relay", "relay.next"]
    assert [(each["name"], each["next"]) for each in found["keys"]] == [
        ("other", False),
        ("relay", False),
        ("relay.next", True),
    ]


def test_one_domain(file: Path) -> None:
    result = run("Example.ORG")
    assert result.exit_code == 0
    assert "_mta-sts.example.org." in result.output
    assert "example.com. IN TXT" not in result.output
    assert "_25._tcp.relay.example.com" not in result.output


@pytest.mark.parametrize(
    ("argument", "code", "text"),
    [
        ("elsewhere.example", 1, "elsewhere.example is no domain of ours"),
        ("other.example.net", 1, "under `publish.domains` beside a wildcard"),
        ("not..one", 2, "'not..one' is not a domain name"),
    ],
)
def test_domains_that_are_not_ours(argument: str, code: int, text: str, file: Path) -> None:
    result = run(argument)
    assert result.exit_code == code
    assert text in result.output


def test_nothing_to_publish(file: Path) -> None:
    file.write_text(FILE.split("accept")[0], encoding="utf-8")
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is nothing to publish" in result.stderr


def test_without_certificates_and_reports(file: Path) -> None:
    text = FILE.replace("certificates: certs\n", "").replace('2525"}', '2525", starttls: off}').split("publish:")[0]
    file.write_text(text, encoding="utf-8")
    result = run("example.com")
    assert result.exit_code == 0
    assert "relay.example.com: there is no certificate, so there is nothing to publish" in result.output
    assert "No record says where reports about us go" in result.output
    assert "(to be served there)" in result.output
    assert "sha256:" not in result.output
    file.write_text(text + "publish: {tlsa: false}\n", encoding="utf-8")
    assert "DANE" not in run("example.com").output


def test_a_certificate_in_trouble_is_told_beside_the_records(file: Path) -> None:
    (file.parent / "certs" / "relay.next.pem").write_text("junk")
    result = run("--json")
    assert result.exit_code == 0
    assert "relay.next.pem: is not a PEM file" in result.stderr
    assert [each["name"] for each in json.loads(result.stdout)["keys"]] == ["other", "relay"]


def test_all_is_published(file: Path, dns: Dns, files: dict[str, str]) -> None:
    publish_all(dns, files)
    result = run("--verify")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    # TXT twice, file and MX for each domain; three TLSA.
    assert lines[-1] == "all 15 are as they should be"
    assert {line.split()[0] for line in lines[:-1]} == {"published"}
    assert dns.asked["tested"] == dns.asked["closed"] == 1


def test_what_differs_is_said(file: Path, dns: Dns, files: dict[str, str]) -> None:
    publish_all(dns, files)
    dns.texts["_mta-sts.example.com"] = ["v=STSv1; id=1;"]
    del dns.texts["_smtp._tls.example.com"]
    dns.tlsa_records["mx.example.org:25"].append("3 1 1 " + "ab" * 32)
    dns.mx_records["example.org"] = [(10, "stranger.example")]
    dns.failing.add("_mta-sts.example.org")
    del files["sub.example.net"]
    result = run("--verify")
    assert result.exit_code == 1
    states = [line.split() for line in result.output.splitlines() if line and not line.startswith(" ")][:-1]
    wrong = [(words[0], words[1], words[2]) for words in states if words[0] != "published"]
    assert wrong == [
        ("differs", "TXT", "_mta-sts.example.com"),
        ("missing", "TXT", "_smtp._tls.example.com"),
        ("unknown", "TXT", "_mta-sts.example.org"),
        ("differs", "MX", "example.org"),
        ("missing", "file", "https://mta-sts.sub.example.net/.well-known/mta-sts.txt"),
        ("extra", "TLSA", "_25._tcp.mx.example.org"),
    ]
    assert "          found     v=STSv1; id=1;" in result.output
    assert "          no answer" in result.output
    assert "6 of 16 are not as they should be" in result.output
    found = json.loads(run("--verify", "--json").stdout)
    assert found["published"] is False
    assert [each["state"] for each in found["records"] if each["state"] != "published"] == [words[0] for words in wrong]


def test_one_domain_is_verified(file: Path, dns: Dns, files: dict[str, str]) -> None:
    publish_all(dns, files)
    del files["example.com"]
    assert run("--verify", "example.org").exit_code == 0
    assert run("--verify", "example.com").exit_code == 1
    found = json.loads(run("--verify", "--json", "example.org").stdout)
    assert found["published"] is True


async def test_few_questions_at_a_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "AT_ONCE", 1)
    under_way = 0

    async def fetch(_domain: str) -> FileFound | FetchFailed:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        under_way -= 1
        return FetchFailed("no")

    config = load(file)
    ours = publish.gather(config, config.published_domains, datetime.now(UTC))
    view = await publish.look_up(ours, FakeResolver(), fetch, datetime.now(UTC))
    assert list(view.files) == list(config.published_domains)
    assert not view.validates


async def test_a_policy_that_cannot_be_fetched(file: Path) -> None:
    async with outside(load(file), FakeResolver()) as world:
        found = await publish.fetcher(world)("example.com")
    assert found == FetchFailed("mta-sts.example.com has no address")


async def test_records_of_other_kinds_are_held_against_our_certificates(file: Path) -> None:
    """The CA's key in a record (DANE-TA) is right as long as it is in the chain that we show."""
    config = load(file)
    ca, leaf = issued_by_a_ca(file.parent / "certs")
    ours = publish.gather(config, ["example.com"], datetime.now(UTC))
    good, wrong = str(tlsa_record(2, 0, 1, ca)), str(tlsa_record(2, 1, 1, leaf))
    dns = FakeResolver(tlsa_records={"relay.example.com:25": [good, wrong, str(tlsa_record(3, 0, 2, leaf))]})
    async with outside(config, dns) as world:
        view = await publish.look_up(ours, dns, publish.fetcher(world), world.now())
    found = view.tlsa["relay.example.com"]
    assert isinstance(found, TlsaFound)
    assert sorted(map(str, found.matching)) == sorted([good, str(tlsa_record(3, 0, 2, leaf))])
    assert found.in_use == found.matching


def issued_by_a_ca(certs: Path) -> tuple[Issued, Issued]:
    """A CA, and a certificate of it in the place of the one in use, with the CA's in its chain; no next one."""
    ca = root("our CA")
    leaf = ca.issue(Wish("relay", names=["relay.example.com"]))
    leaf.write(certs, "relay")
    (certs / "relay.pem").write_bytes(leaf.pem + ca.pem)
    (certs / "relay.next.pem").unlink()
    return ca, leaf
