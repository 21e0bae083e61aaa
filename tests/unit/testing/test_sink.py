"""The sink keeps what it gets, over TLS where it has a certificate, and can say no."""

import ssl
from pathlib import Path

import aiosmtplib
import pytest

from relay.testing.pki import Pki
from relay.testing.sink import Sink

MESSAGE = b"Subject: hello\r\n\r\n.a dot\r\nend\r\n"


async def test_it_keeps_a_message_in_clear() -> None:
    async with Sink() as sink:
        smtp = aiosmtplib.SMTP(hostname=sink.address.host, port=sink.address.port, start_tls=False, local_hostname="t")
        async with smtp:
            await smtp.sendmail("a@a.test", ["b@b.test", "c@b.test"], MESSAGE)
        (message,) = await sink.wait()
    assert (message.sender, message.recipients, message.tls) == ("a@a.test", ("b@b.test", "c@b.test"), "")
    assert message.content == MESSAGE
    assert (message.subject, message.peer) == ("hello", "127.0.0.1")


async def test_it_offers_tls_with_a_certificate_that_our_ca_vouches_for(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    async with Sink(pki.issue(tmp_path, "localhost", "127.0.0.1")) as sink:
        context = ssl.create_default_context(cafile=str(pki.ca))
        smtp = aiosmtplib.SMTP(
            hostname=sink.address.host, port=sink.address.port, start_tls=True, tls_context=context, local_hostname="t"
        )
        async with smtp:
            await smtp.sendmail("a@a.test", ["b@b.test"], MESSAGE)
        (message,) = await sink.wait()
    assert message.tls == "TLSv1.3"


async def test_it_refuses_whom_it_is_told_to_refuse() -> None:
    async with Sink(judge=lambda address: "550 5.1.1 no" if address.startswith("b") else "250 OK") as sink:
        smtp = aiosmtplib.SMTP(hostname=sink.address.host, port=sink.address.port, start_tls=False, local_hostname="t")
        async with smtp:
            errors, _reply = await smtp.sendmail("a@a.test", ["b@b.test", "c@b.test"], MESSAGE)
        (message,) = await sink.wait()
    assert errors["b@b.test"].code == 550
    assert message.recipients == ("c@b.test",)


async def test_waiting_in_vain_says_how_many_came() -> None:
    async with Sink() as sink:
        with pytest.raises(TimeoutError, match="0 of 2 messages"):
            await sink.wait(2, seconds=0.01)
