"""TLS reports between two relays: A counts its sessions to b.test, mails the report, and B, which asked for it, shows it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.admin.reports import ReportsQuery
from relay.app import Relay
from relay.app.relay import Times
from relay.mail.events import (
    AttemptMade,
    RecipientEnded,
    ReportQueued,
    TlsReportIgnored,
    TlsReportReceived,
    TlsSessionTried,
)
from relay.outbound.deliver import OutboundSettings
from relay.testing.pair import submit, write_config
from relay.testing.pki import Pki
from relay.testing.sink import Sink
from tests.dkim import dkim_key
from tests.e2e.heard import Heard
from tests.fakes import FakeResolver

RUA = "tlsrpt@b.test"


@dataclass
class Two:
    a: Relay
    b: Relay
    sink: Sink
    resolver: FakeResolver
    heard: Heard

    async def send(self, recipient: str = "bob@b.test") -> None:
        await submit(self.a.address(), "alice@a.test", [recipient], b"Subject: hello\r\n\r\nhello\r\n")


def config(hostname: str, **more: Any) -> dict[str, Any]:
    return {
        "hostname": hostname,
        "postmaster": f"postmaster@{hostname}",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        **more,
    }


@asynccontextmanager
async def two(
    folder: Path, *, tlsrpt: dict[str, Any] | None = None, mailbox: dict[str, Any] | None = None
) -> AsyncIterator[Two]:
    """A delivers by MX to B's port; B hands what is for b.test to a sink, and takes reports in. DNS is a fake's."""
    pki, heard, times = Pki(folder / "pki"), Heard(), Times(watch=5, grace=5)
    resolver = FakeResolver(
        mx_records={"b.test": [(10, "mx.b.test")]},
        hosts={"mx.b.test": ["127.0.0.1"]},
        texts={
            "_smtp._tls.b.test": [f"v=TLSRPTv1; rua=mailto:{RUA}"],
            "r._domainkey.a.test": [dkim_key().record()],
        },
    )
    async with Sink() as sink:
        pki.issue(folder / "b" / "certs", "mx.b.test")
        inner = {
            "name": "inner",
            "direction": "outbound",
            "match": {"recipient_domains": ["b.test"]},
            "route": {"smart_hosts": [str(sink.address)]},
        }
        b = config(
            "b.test",
            accept={"domains": ["b.test"]},
            connectors=[inner],
            tlsrpt=mailbox or {"mailbox": [RUA], "send": "off"},
        )
        async with Relay(
            write_config(folder / "b", b, {}), observers=[heard], resolver=resolver, times=times
        ) as relay_b:
            pki.issue(folder / "a" / "certs", "a.test")
            (folder / "a" / "dkim.pem").write_text(dkim_key().pem)
            a = config(
                "a.test",
                accept={"networks": ["127.0.0.0/8"]},
                defaults={"outbound": {"route": {"private": "allow"}, "retry": {"initial": "200ms", "maximum": "1s"}}},
                tlsrpt=tlsrpt or {"dkim": {"domain": "a.test", "selector": "r", "key": "file:dkim.pem"}},
            )
            file = write_config(folder / "a", a, {})
            settings = OutboundSettings(port=relay_b.address().port)
            async with Relay(file, observers=[heard], resolver=resolver, times=times, delivery=settings) as relay_a:
                yield Two(relay_a, relay_b, sink, resolver, heard)


async def test_a_report_goes_from_one_relay_to_the_other(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    async with two(tmp_path) as both:
        await both.send()
        await both.sink.wait()
        (session, *_) = await both.heard.wait(TlsSessionTried)
        assert (session.domain, session.hop.partition(":")[0]) == ("b.test", "mx.b.test")
        sent = await both.a.operator.send_reports(ReportsQuery("b.test", today))
        assert sent["states"] == {"queued": 1}
        (received,) = await both.heard.wait(TlsReportReceived)
        shown = await both.b.operator.received_reports(None, 10)
        assert len(both.sink.messages) == 1  # the report went no further than the mailbox
        # The mail with the report was a session of its own, and is not counted (RFC 8460 section 3).
        assert len(both.heard.of(TlsSessionTried)) == 1
        report = await both.a.operator.report(ReportsQuery("b.test"))
    assert received.report.signer == "a.test"
    assert report is not None
    assert report["policies"] == [
        {
            "policy": {"policy-type": "no-policy-found", "policy-domain": "b.test"},
            "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
        }
    ]
    (about,) = shown["received"]
    assert (about["organization"], about["contact"]) == ("a.test", "postmaster@a.test")
    assert (about["submitter"], about["signed_by"]) == ("a.test", "a.test")
    assert (about["successes"], about["failures"]) == (1, 0)
    assert about["policies"][0]["domain"] == "b.test"


async def test_what_is_no_report_is_taken_and_never_answered(tmp_path: Path) -> None:
    mailbox = {"mailbox": ["tls@reports.test"], "send": "off"}
    async with two(tmp_path, mailbox=mailbox) as both:
        # The mailbox needs no domain that we are the front door of; its neighbours get the usual answer.
        await submit(both.b.address(), "eve@evil.test", ["TLS@reports.test"], b"Subject: hello\r\n\r\nno report\r\n")
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused, match="relaying denied"):
            await submit(both.b.address(), "eve@evil.test", ["other@reports.test"], b"Subject: hello\r\n\r\n")
        (ignored,) = await both.heard.wait(TlsReportIgnored)
        (ended,) = await both.heard.wait(RecipientEnded)
        queue = await both.b.operator.status()
    assert (ignored.sender, ignored.reason) == ("eve@evil.test", "its From field names no sender")
    assert (ended.recipient, ended.state) == ("TLS@reports.test", "delivered")
    assert not both.heard.of(ReportQueued)
    assert queue["queue"]["messages"] == 0


async def test_a_report_to_nobody_is_given_up_in_silence(tmp_path: Path) -> None:
    """A refuses nobody's mail and sends no DSN about its own: NOTIFY=NEVER, and the envelope sender hears nothing."""
    today = datetime.now(UTC).date()
    async with two(tmp_path) as both:
        both.resolver.texts["_smtp._tls.b.test"] = ["v=TLSRPTv1; rua=mailto:nobody@nowhere.test"]
        await both.send()
        await both.sink.wait()
        await both.a.operator.send_reports(ReportsQuery("b.test", today))
        ended = await both.heard.wait(RecipientEnded, 3)
    assert ("nobody@nowhere.test", "bounced") in [(each.recipient, each.state) for each in ended]
    assert not both.heard.of(ReportQueued)


def spki(pem: Path) -> str:
    """The association data of a TLSA record 3 1 1."""
    key = x509.load_pem_x509_certificate(pem.read_bytes()).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@pytest.mark.parametrize("right", [True, False], ids=["the right key", "another key"])
async def test_what_the_report_says_of_dane(right: bool, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    async with two(tmp_path) as both:
        data = spki(tmp_path / "b" / "certs" / "mx.b.test.pem") if right else "ab" * 32
        both.resolver.dane = ""
        both.resolver.secure = {"b.test", "mx.b.test"}
        both.resolver.tlsa_records[f"mx.b.test:{both.b.address().port}"] = [f"3 1 1 {data}"]
        await both.send()
        await both.heard.wait(AttemptMade, 2 if right else 1)
        report = await both.a.operator.report(ReportsQuery("b.test"))
        at_base = await both.a.operator.report(ReportsQuery("mx.b.test"))
        # The report goes through all the same: it may be about just that (RFC 8460 section 5.3).
        sent = await both.a.operator.send_reports(ReportsQuery("b.test", today))
        (received,) = await both.heard.wait(TlsReportReceived)
    assert report is not None
    assert at_base is not None
    assert report["policies"] == at_base["policies"]
    (policy,) = report["policies"]
    assert policy["policy"]["policy-type"] == "tlsa"
    assert policy["policy"]["policy-domain"] == "mx.b.test"
    assert policy["policy"]["policy-string"] == [f"3 1 1 {data}"]
    if right:
        assert policy["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 0}
    else:
        (failing,) = policy["failure-details"]
        assert policy["summary"]["total-successful-session-count"] == 0
        assert failing["receiving-mx-hostname"] == "mx.b.test"
        assert (failing["sending-mta-ip"], failing["receiving-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert sent["states"] == {"queued": 1}
    assert received.report.failures == policy["summary"]["total-failure-session-count"]
    assert len(both.sink.messages) == (1 if right else 0)
