"""`relay explain`: the look-ups (from a fake resolver), a certificate file, text at 80 columns, JSON and exit codes."""

import io
import ipaddress
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from rich.console import Console
from typer.testing import CliRunner, Result

from relay.cli import build
from relay.cli.explain_text import print_explanation
from relay.config.models import Config
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Addresses, TlsaAnswer, TlsaRecords, TxtAnswer, TxtRecords
from relay.mail.address import Address
from relay.mail.plan import Level, Plaintext, TlsPlan
from relay.mail.published import StsFetched, StsKept, StsMode, StsPolicy, TlsaRecord
from relay.mail.reply import Reply
from relay.policy.explain import Explanation, HopPlan, Inbound, Outbound
from relay.policy.explain_json import explanation_json
from relay.policy.route import LookupFailed, MxAnswer, MxRecord, MxRecords, NoDomain
from relay.queue.policies import save
from relay.queue.schema import prepare

FILE = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners:
  - {address: "127.0.0.1:2525", starttls: off}
accept: {domains: [example.com], networks: [127.0.0.0/8]}
defaults: {outbound: {tls_version: TLSv1.2}}
connectors:
  - {name: inner, direction: outbound, match: {recipient_domains: [example.com]}, route: {smart_hosts: ["inner.test:2525"]}}
  - name: contoso-out
    direction: outbound
    match: {recipient_domains: ["*.contoso.com"]}
    tls: domain
    pins: ["sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
    client_certificate: us
    route: {smart_hosts: [a.test, b.test], auth: {user: me, password: hunter2}}
  - name: contoso-in
    direction: inbound
    match: {sender_domains: [contoso.com]}
    require: {certificate: {names: [mail.contoso.com], ca: ca.pem}}
  - name: header
    direction: inbound
    match: {sender_domains: [headers.example], header_from: true}
    require: {tls: true}
exceptions:
  - {recipient_domain: legacy.example, allow: plaintext, until: 2099-12-31, reason: their gateway is being replaced}
"""


class FakeDns:
    """Records and nothing else; knows which names were asked for."""

    def __init__(self, mx: Mapping[str, MxAnswer], addresses: Mapping[str, AddressAnswer]) -> None:
        self._mx, self._addresses = mx, addresses
        self.closed = self.tested = False
        self.dane = "the resolver does not validate"
        self.tlsa_records: dict[str, TlsaAnswer] = {}

    async def mx(self, domain: str) -> MxAnswer:
        return self._mx.get(domain, NoDomain())

    async def addresses(self, host: str) -> AddressAnswer:
        return self._addresses.get(host, NoDomain())

    async def configured_addresses(self, host: str) -> AddressAnswer:
        return self._addresses.get(host, NoDomain())

    async def tlsa(self, host: str, port: int) -> TlsaAnswer:
        return self.tlsa_records.get(f"{host}:{port}", TlsaRecords((), secure=True))

    async def is_secure_alias(self, host: str) -> bool | LookupFailed:
        return False

    async def txt(self, name: str) -> TxtAnswer:
        return TxtRecords(())

    async def test(self) -> None:
        """It is put to the test before anything is asked."""
        self.tested = True

    async def close(self) -> None:
        self.closed = True


def found(*texts: str) -> Addresses:
    return Addresses(tuple(ipaddress.ip_address(each) for each in texts))


DNS = FakeDns(
    {
        "other.example": MxRecords((MxRecord(10, "mx.other.example"), MxRecord(20, "relay.example.com"))),
        "legacy.example": MxRecords((MxRecord(10, "mx.legacy.example"),)),
        "null.example": MxRecords((MxRecord(0, ""),)),
        "loop.example": MxRecords((MxRecord(0, "relay.example.com"),)),
        "broken.example": LookupFailed("SERVFAIL"),
        "private.example": MxRecords((MxRecord(0, "mx.private.example"),)),
        "signed.example": MxRecords((MxRecord(0, "mx.signed.example"), MxRecord(5, "mx2.signed.example")), secure=True),
    },
    {
        "mx.other.example": found("1.1.1.1"),
        "mx.legacy.example": found("1.1.1.1", "10.0.0.1"),
        "mx.private.example": found("10.0.0.1"),
        "mx.signed.example": replace(found("1.1.1.1"), secure=True),
        "mx2.signed.example": replace(found("1.1.1.1"), secure=True),
        "a.test": found("10.1.1.1"),
        "b.test": LookupFailed("timeout"),
        "inner.test": found("127.0.0.1"),
    },
)


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().issue_cert("us").private_key_and_cert_chain_pem.write_to_path(tmp_path / "us.pem")
    return authority


@pytest.fixture(autouse=True)
def file(tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "connectors.yaml"
    path.write_text(FILE + "certificates: .\n", encoding="utf-8")
    (tmp_path / "us.pem").chmod(0o600)
    monkeypatch.setattr("relay.dns.resolver.DnsResolver.of", lambda _: DNS)
    monkeypatch.setenv("RELAY_CONFIG", str(path))
    monkeypatch.setenv("COLUMNS", "80")
    return path


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(build(["explain"]), ["explain", *arguments])


def test_the_defaults_by_mx() -> None:
    result = explain("--to", "bob@other.example")
    assert result.exit_code == 0
    assert "no connector names the domain: the defaults act" in result.output
    assert "1. mx.other.example:25" in result.output
    assert "relay.example.com" not in result.output  # our own MX and worse ones are not used
    assert "the mail goes in clear" in result.output
    assert "Coming in" not in result.output


def test_a_connector_with_all_its_reasons_and_no_secret() -> None:
    result = explain("--to", "<bob@eu.contoso.com>")
    assert result.exit_code == 0
    assert "connector contoso-out, by its pattern *.contoso.com" in result.output
    assert "the look-up of b.test failed: timeout" in result.output
    assert "TLSv1.2 or newer  (default)" in result.output
    assert "the certificate us" in result.output
    assert "as me, after TLS" in result.output
    assert "47DEQpj8HBSa" in result.output
    assert "for a.test" in result.output
    assert "hunter2" not in result.output + explain("--to", "bob@eu.contoso.com", "--json").output
    assert max(len(line) for line in result.output.splitlines()) <= 80


def test_an_exception_is_shown() -> None:
    result = explain("--to", "bob@legacy.example")
    assert "plaintext until 2099-12-31: their gateway is being replaced" in result.output
    assert "opportunistic, by an exception" in result.output
    assert "10.0.0.1: not a public address" in result.output


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("null.example", "bounced: 556 5.1.10"),
        ("loop.example", "bounced: 554 5.4.6"),
        ("broken.example", "deferred: 451 4.4.3"),
        ("none.example", "bounced: 550 5.1.2"),
        ("private.example", "none of its addresses may be used"),
        ("[192.0.2.1]", "192.0.2.1: not a public address"),
    ],
)
def test_where_mail_can_go_nowhere_the_answer_is_no(domain: str, expected: str) -> None:
    result = explain("--to", f"bob@{domain}")
    assert result.exit_code == 1
    assert expected in " ".join(result.output.split()) or domain.startswith("[")


def test_a_smart_host_that_is_ourselves_is_a_loop(file: Path) -> None:
    result = explain("--to", "bob@example.com", "--json")
    hop = json.loads(result.output)["outbound"][0]["hops"][0]
    assert (hop["host"], hop["port"], hop["addresses"]) == ("inner.test", 2525, [])
    assert hop["unused"] == [{"address": "127.0.0.1", "reason": "mail sent there would come back to this relay"}]
    assert result.exit_code == 1


def test_who_may_come_in(tmp_path: Path, ca: trustme.CA) -> None:
    ca.issue_cert("mail.contoso.com").cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    good = explain(
        "--to", "bob@example.com", "--from", "a@contoso.com", "--client-certificate", str(tmp_path / "client.pem"), "--json"
    )  # fmt: skip
    inbound = json.loads(good.output)["inbound"]
    assert (inbound["accepted"], inbound["connector"]) == (True, "contoso-in")
    assert [each["met"] for each in inbound["requirements"]] == [True, True, True]
    bad = explain("--to", "bob@example.com", "--from", "a@contoso.com", "--tls-version", "TLSv1.2")
    assert bad.exit_code == 1
    assert "refused at MAIL: 550 5.7.1 connector contoso-in" in bad.output
    assert "not met: a client certificate; found none was shown" in " ".join(bad.output.split())
    clear = explain("--to", "bob@example.com", "--from", "a@contoso.com", "--tls-version", "none", "--json")
    assert json.loads(clear.output)["inbound"]["reply"].startswith("530 5.7.10 connector contoso-in requires TLS")


def test_a_strangers_certificate_is_not_trusted(tmp_path: Path) -> None:
    trustme.CA().issue_cert("mail.contoso.com").cert_chain_pems[0].write_to_path(tmp_path / "eve.pem")
    result = explain(
        "--to",
        "bob@example.com",
        "--from",
        "a@contoso.com",
        "--client-certificate",
        str(tmp_path / "eve.pem"),
        "--json",
    )
    requirements = json.loads(result.output)["inbound"]["requirements"]
    assert {each["name"]: each["met"] for each in requirements} == {
        "tls": True,
        "certificate names": True,
        "certificate ca": False,
    }


def test_who_may_relay() -> None:
    near = explain("--to", "bob@other.example", "--client-ip", "127.0.0.1")
    assert near.exit_code == 0
    assert "127.0.0.1 is in accept.networks" in near.output
    assert "Coming in: <>, from 127.0.0.1, TLSv1.3" in near.output
    far = explain("--to", "bob@other.example", "--from", "a@stranger.example", "--tls-version", "none")
    assert far.exit_code == 1
    assert "refused at RCPT: 550 5.7.1 relaying denied" in far.output
    assert "from an unknown address, in clear" in far.output
    assert "the From: header is judged like the sender" in " ".join(far.output.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--to", "bob"), "is not local-part@domain"),
        (("--to", "a@example.com", "--from", "b c"), "is not local-part@domain"),
        (("--to", "a@example.com", "--client-ip", "here"), "is not an IP address"),
        (("--to", "a@example.com", "--tls-version", "SSLv3"), "is none of none, TLSv1"),
        (("--to", "a@example.com", "--client-certificate", "/none.pem"), "cannot be read"),
        (("--to", "a@example.com", "--tls-version", "none", "--client-certificate", "x"), "shown in TLS only"),
        ((), "Missing option"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], expected: str) -> None:
    result = explain(*arguments)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())


def test_a_key_is_no_certificate(tmp_path: Path, ca: trustme.CA) -> None:
    ca.issue_cert("x").private_key_pem.write_to_path(tmp_path / "x.key")
    result = explain("--to", "a@example.com", "--client-certificate", str(tmp_path / "x.key"))
    assert result.exit_code == 2
    assert "holds no certificate" in " ".join(result.stderr.split())


def test_the_resolver_is_closed() -> None:
    DNS.closed = False
    explain("--to", "bob@other.example")
    assert DNS.closed


def test_a_demand_that_is_new_is_shown_by_its_name() -> None:
    """A newer relay's published policy still shows, rather than being left out."""
    plan = TlsPlan(Level.DOMAIN, Plaintext.NEVER, frozenset(), until=None)
    hop = HopPlan(HostPort("a.test", 25), plan, (ipaddress.ip_address("1.1.1.1"),))
    config = Config.model_validate(
        {"hostname": "a.example", "postmaster": "p@a.example", "listeners": [{"address": "127.0.0.1:0"}]}
    )
    sender = Address("a", "b.example")
    inbound = Inbound(sender, "RCPT", Reply(250, "2.1.5", "ok"), "", "", (), needs_header_from=False)
    outbound = Outbound(config.default, "", None, plan, (hop,), None)
    found: Any = explanation_json(Explanation(Address("c", "d.example"), inbound, outbound))
    found["outbound"][0]["hops"][0]["plan"]["demands"].append({"demand": "dnsx", "source": "dane"})
    text = io.StringIO()
    print_explanation(found, Console(file=text))
    assert "dnsx  (dane)" in text.getvalue()
    assert "From: header" not in text.getvalue()
    assert "a@b.example, from an unknown address, in clear" in text.getvalue()


SIGNED = TlsaRecords((TlsaRecord(3, 1, 1, "ab" * 32), TlsaRecord(0, 0, 1, "cd" * 32)), secure=True)


@pytest.fixture
def validating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DNS, "dane", "")
    answers: dict[str, TlsaAnswer] = {"mx.signed.example:25": SIGNED}
    answers["mx2.signed.example:25"] = LookupFailed("SERVFAIL", bogus=True)
    monkeypatch.setattr(DNS, "tlsa_records", answers)


def test_why_dane_is_not_used() -> None:
    text = explain("--to", "bob@signed.example").output
    assert "the resolver does not validate" in text
    assert DNS.tested
    assert DNS.closed


@pytest.mark.usefixtures("validating")
def test_dane_host_by_host_in_words_and_in_json() -> None:
    result = explain("--to", "bob@signed.example")
    assert result.exit_code == 0
    for words in ("the MX records are secure", "1 of 2 TLSA records", "not used: ", "one of 1 TLSA records", "(dane)"):
        assert words in " ".join(result.output.split()), words
    (outbound,) = json.loads(explain("--to", "bob@signed.example", "--json").output)["outbound"]
    first, second = outbound["hops"]
    assert first["mx_secure"]
    assert {each["demand"] for each in first["plan"]["demands"]} == {"encryption", "tls-version", "tlsa"}
    assert second["dane"]["withheld"]["failure"] == "dnssec-invalid"
    assert second["trouble"] == second["dane"]["withheld"]["text"]


def test_an_mta_sts_policy_that_the_relay_keeps_counts_here_too(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    policy = StsPolicy(StsMode.ENFORCE, ("mx.other.example",), 86400, "20261126", ("version: STSv1",))
    with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
        prepare(db, "queue.db")
        save(db, StsKept("other.example", StsFetched(policy, now), now, now))
    result = explain("--to", "bob@other.example")
    words = " ".join(result.output.split())
    assert "mode enforce, id 20261126" in words
    assert "mx.other.example is one of mx.other.example (mta-sts)" in words
    (outbound,) = json.loads(explain("--to", "bob@other.example", "--json").output)["outbound"]
    assert {each["source"] for each in outbound["hops"][0]["plan"]["demands"]} == {"default", "mta-sts"}


def test_a_queue_that_cannot_be_read_is_no_reason_to_send(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"not a database, whatever else it may be" * 100)
    result = explain("--to", "bob@other.example")
    assert "cannot be read" in " ".join(result.output.split())


def test_a_queue_of_an_older_version_keeps_no_policies(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "queue.db").close()
    assert explain("--to", "bob@other.example").exit_code == 0


def test_what_is_done_for_a_mail_server_inside(file: Path) -> None:
    text = file.read_text().replace(
        "domains: [example.com],", "domains: [example.com], recipients: {example.com: callout},"
    )
    text = text.replace(
        '{smart_hosts: ["inner.test:2525"]}', '{smart_hosts: ["inner.test:2525"]}, forward_client: proxy, on_5xx: hold'
    )
    file.write_text(text)
    said = " ".join(
        explain("--to", "bob@example.com", "--from", "a@b.example", "--client-ip", "192.0.2.1").output.split()
    )
    assert "if the mail server inside says at RCPT that it exists; where that cannot be asked: 450" in said
    assert "of the client's address and HELO, by a PROXY header; mail waits where it will not" in said
    assert "mail from strangers is held for the postmaster; other mail bounces" in said
