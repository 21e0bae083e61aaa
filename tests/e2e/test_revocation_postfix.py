"""Postfix on both sides of a relay that requires to know that no certificate is revoked: a CRL for the one, an OCSP responder for the other."""

from pathlib import Path

import pytest
from cryptography.x509 import ocsp

from relay.app import Relay
from relay.config.values import HostPort
from relay.mail.events import AttemptMade, CommandRefused, RecipientEnded
from relay.mail.outcome import Deferred
from relay.mail.revocation import By, State
from relay.mail.tls import TlsFailure
from relay.testing import Sink, submit, write_config
from tests.e2e.heard import Heard
from tests.e2e.peers import postfix
from tests.e2e.process import free_port
from tests.revoking import CrlWish, Held, OcspWish, WebHost, Wish, answer, crl, http, make, root

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

MESSAGE = b"From: alice@example.test\r\nSubject: through Postfix\r\n\r\nhello\r\n"


class Bench:
    """A root, an intermediate, the certificate of the Postfix behind us (CRL), and of the one in front of us (OCSP)."""

    def __init__(self, host: WebHost, folder: Path, revoked: str) -> None:
        self.host, self.folder = host, folder
        anchor = root()
        ca = make("ca", anchor, Wish(ca=True, crl=[host.url("/root.crl")]))
        self.behind = make("behind", ca, Wish(names=["out.test"], crl=[host.url("/ca.crl")]))
        self.front = make("front", ca, Wish(names=["in.test"], ocsp=[host.url("/ocsp")]))
        self.own = make("relay", ca, Wish(names=["relay.test"]))
        self.anchor = folder / "root.pem"
        self.anchor.write_bytes(anchor.pem)
        gone = [self.behind.serial] if revoked == "behind" else []
        status = ocsp.OCSPCertStatus.REVOKED if revoked == "front" else ocsp.OCSPCertStatus.GOOD
        host.replies = {
            "/root.crl": http(crl(anchor)),
            "/ca.crl": http(crl(ca, CrlWish(revoked=gone))),
            "/ocsp": http(answer(self.front, OcspWish(status))),
        }

    def relay(self, port: int) -> Path:
        """Its configuration; `port` is of the Postfix behind."""
        self.own.write(self.folder / "relay" / "certs", "relay.test")
        common = {"ca": str(self.anchor), "revocation": "require"}
        out = {
            "name": "out",
            "direction": "outbound",
            "match": {"recipient_domains": ["example.com"]},
            "tls": "domain",
            "names": ["out.test"],
            **common,
            "route": {"smart_hosts": [f"127.0.0.1:{port}"]},
        }
        certificate = {"names": ["in.test"], **common}
        into = {
            "name": "in",
            "direction": "inbound",
            "match": {"sender_domains": ["example.test"]},
            "require": {"tls": True, "certificate": certificate},
        }
        values = {
            "hostname": "relay.test",
            "postmaster": "postmaster@relay.test",
            "listeners": [{"address": "127.0.0.1:0"}],
            "certificates": "certs",
            "queue": "sqlite:queue.db",
            "limits": {"free_space": "1MiB"},
            "accept": {"networks": ["127.0.0.0/8"]},
            "revocation_hosts": [self.host.named],
            "connectors": [out, into],
        }
        return write_config(self.folder / "relay", values, {})

    def settings(self, kind: str, held: Held) -> dict[str, str]:
        pem = held.write(self.folder / kind, kind)
        pem.with_suffix(".key").chmod(0o644)
        return {
            f"{kind}_tls_security_level": "encrypt",
            f"{kind}_tls_cert_file": str(pem),
            f"{kind}_tls_key_file": str(pem.with_suffix(".key")),
        }


@pytest.mark.parametrize("revoked", ["", "behind", "front"])
async def test_postfix_whose_certificate_is_revoked(tmp_path: Path, revoked: str) -> None:
    heard, out_port, in_port = Heard(), free_port(), free_port()
    async with WebHost() as host, Sink() as sink:
        bench = Bench(host, tmp_path, revoked)
        with postfix("out", out_port, sink.address, bench.settings("smtpd", bench.behind)):
            async with Relay(bench.relay(out_port), observers=[heard]) as relay:
                with postfix("in", in_port, relay.address(), bench.settings("smtp", bench.front)):
                    await submit(HostPort("127.0.0.1", in_port), "alice@example.test", ["bob@example.com"], MESSAGE)
                    if revoked == "front":
                        (refused, *_) = await heard.wait(CommandRefused, seconds=60)
                        assert (refused.connector, refused.reply.code, refused.reply.status) == ("in", 550, "5.7.1")
                        assert "revoked" in refused.reply.text
                        return
                    (made,) = await heard.wait(AttemptMade, seconds=60)
                    if not revoked:
                        await sink.wait(seconds=60)
                        await heard.wait(RecipientEnded)
    assert made.attempt.evidence is not None
    (statuses,) = made.attempt.evidence.revocation.values()
    assert [(each.state, each.by) for each in statuses] == [
        (State.REVOKED if revoked else State.GOOD, By.CRL),
        (State.GOOD, By.CRL),
    ]
    if revoked:
        outcome = made.attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.CERTIFICATE_REVOKED
        assert not sink.messages
