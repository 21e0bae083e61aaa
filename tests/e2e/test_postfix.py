"""Postfix -> Ironpost -> Postfix -> sink, in clear and with each TLS level; Postfix is nobody's idea of a test double."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.admin.trace import TraceQuery
from relay.app import Relay
from relay.config.values import HostPort
from relay.mail.events import AttemptMade, CommandRefused, RecipientEnded
from relay.testing import Pki, Sink, submit, write_config
from tests.e2e.heard import Heard
from tests.e2e.peers import postfix
from tests.e2e.process import free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

MESSAGE = b"From: alice@example.test\r\nSubject: through Postfix\r\n\r\n.dot\r\nend\r\n"


def relay_config(
    folder: Path, pki: Pki, next_port: int, outbound: Mapping[str, Any], require: Mapping[str, Any]
) -> Path:
    pki.issue(folder / "certs", "relay.test", "127.0.0.1")
    connectors: list[dict[str, Any]] = [
        {
            "name": "out",
            "direction": "outbound",
            "match": {"recipient_domains": ["example.com"]},
            "route": {"smart_hosts": [f"127.0.0.1:{next_port}"]},
            "retry": {"initial": "300ms", "maximum": "1s"},
            **outbound,
        }
    ]
    if require:
        match = {"sender_domains": ["example.test"]}
        connectors.append({"name": "in", "direction": "inbound", "match": match, "require": dict(require)})
    config = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "connectors": connectors,
    }
    return write_config(folder, config, {})


def server_settings(pki: Pki, folder: Path, level: str) -> dict[str, str]:
    """main.cf of the Postfix behind us."""
    pem = pki.issue(folder, "out.test", "127.0.0.1")
    pem.with_suffix(".key").chmod(0o644)
    return {
        "smtpd_tls_security_level": level,
        "smtpd_tls_cert_file": str(pem),
        "smtpd_tls_key_file": str(pem.with_suffix(".key")),
        "smtpd_tls_loglevel": "1",
    }


def client_settings(pki: Pki, folder: Path, level: str, *, certificate: bool) -> dict[str, str]:
    """main.cf of the Postfix in front of us."""
    settings = {"smtp_tls_security_level": level, "smtp_tls_CAfile": str(pki.ca), "smtp_tls_loglevel": "1"}
    if level == "verify":
        settings["smtp_tls_verify_cert_match"] = "relay.test"
    if certificate:
        pem = pki.issue(folder, "in.test")
        pem.with_suffix(".key").chmod(0o644)
        settings |= {"smtp_tls_cert_file": str(pem), "smtp_tls_key_file": str(pem.with_suffix(".key"))}
    return settings


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


CASES = [
    pytest.param("none", "none", {"tls": "opportunistic"}, {}, "", id="in clear"),
    pytest.param("may", "may", {"tls": "opportunistic"}, {}, "TLSv1.3", id="opportunistic"),
    pytest.param("encrypt", "encrypt", {"tls": "encryption"}, {"tls": True}, "TLSv1.3", id="encryption"),
    pytest.param(
        "verify",
        "may",
        {"tls": "certificate", "ca": "CA"},
        {"tls": True, "tls_version": "TLSv1.3"},
        "TLSv1.3",
        id="certificate",
    ),
    pytest.param(
        "verify",
        "may",
        {"tls": "domain", "names": ["out.test"], "ca": "CA", "tls_version": "TLSv1.3"},
        {"tls": True, "certificate": {"names": ["in.test"], "ca": "CA"}},
        "TLSv1.3",
        id="domain",
    ),
]


def with_ca(values: Mapping[str, Any], pki: Pki) -> dict[str, Any]:
    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(each) for key, each in value.items()}
        return str(pki.ca) if value == "CA" else value

    return {key: put(value) for key, value in values.items()}


@pytest.mark.parametrize(("client", "server", "outbound", "require", "version"), CASES)
async def test_through_postfix_on_both_sides(
    client: str,
    server: str,
    outbound: Mapping[str, Any],
    require: Mapping[str, Any],
    version: str,
    tmp_path: Path,
    pki: Pki,
) -> None:
    heard = Heard()
    out_port, in_port = free_port(), free_port()
    file = relay_config(tmp_path / "relay", pki, out_port, with_ca(outbound, pki), with_ca(require, pki))
    async with Sink() as sink:
        settings_out = server_settings(pki, tmp_path / "keys-out", server)
        with postfix("out", out_port, sink.address, settings_out):
            async with Relay(file, observers=[heard]) as relay:
                settings_in = client_settings(pki, tmp_path / "keys-in", client, certificate="certificate" in require)
                with postfix("in", in_port, relay.address(), settings_in) as log:
                    await submit(HostPort("127.0.0.1", in_port), "alice@example.test", ["bob@example.com"], MESSAGE)
                    (message,) = await sink.wait(seconds=60)
                    await heard.wait(RecipientEnded)
                    (trace,) = await relay.operator.trace(TraceQuery(recipient="bob@example.com"))
                    said = log.read_text()
    assert message.content.endswith(MESSAGE.partition(b"\r\n\r\n")[2])
    assert b"by relay.test" in message.content
    accepted, (attempt,) = trace["accepted"], trace["attempts"]
    assert (accepted["tls"] or {}).get("version", "") == version
    assert (attempt["evidence"] or {}).get("version", "") == version
    assert accepted["protocol"] == ("ESMTPS" if version else "ESMTP")
    assert accepted["connector"] == ("in" if require else None)
    if client == "verify":
        assert "Verified TLS connection established" in said


async def test_postfix_without_the_certificate_is_refused_and_told_why(tmp_path: Path, pki: Pki) -> None:
    heard = Heard()
    require = {"tls": True, "certificate": {"names": ["in.test"], "ca": str(pki.ca)}}
    in_port = free_port()
    file = relay_config(tmp_path / "relay", pki, free_port(), {"tls": "encryption"}, require)
    async with Relay(file, observers=[heard]) as relay:
        settings = client_settings(pki, tmp_path / "keys-in", "encrypt", certificate=False)
        with postfix("in", in_port, relay.address(), settings) as log:
            await submit(HostPort("127.0.0.1", in_port), "alice@example.test", ["bob@example.com"], MESSAGE)
            (refused, *_) = await heard.wait(CommandRefused, seconds=60)
            said = log.read_text()
    assert refused.connector == "in"
    assert (refused.reply.code, refused.reply.status) == (550, "5.7.1")
    assert "none was shown" in refused.reply.text
    assert "status=deferred" not in said


async def test_postfix_that_offers_no_tls_gets_not_a_byte_of_what_must_be_encrypted(tmp_path: Path, pki: Pki) -> None:
    heard = Heard()
    out_port = free_port()
    file = relay_config(tmp_path / "relay", pki, out_port, {"tls": "encryption"}, {})
    async with Sink() as sink:
        with postfix("out", out_port, sink.address, {"smtpd_tls_security_level": "none"}) as log:
            async with Relay(file, observers=[heard]) as relay:
                await submit(relay.address(), "alice@example.test", ["bob@example.com"], MESSAGE)
                (attempt, *_) = await heard.wait(AttemptMade)
            said = log.read_text()
        assert not sink.messages
    ((_index, outcome),) = attempt.attempt.outcomes
    assert getattr(outcome, "failure", None) == "starttls-not-supported"
    assert "alice@example.test" not in said
