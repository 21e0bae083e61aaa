"""The admission table through the wire: what each kind of client hears at MAIL or at the end of its message.

The table itself is `relay.policy`'s and stands in tests/golden; here it is shown that the evidence of real connections reaches it, and
its replies the client.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.mail.events import CertificateTrouble, CommandRefused
from tests.unit.inbound.world import Pki, Wire, World, on_both_loops, relay

BOB = "bob@example.com"
ELSEWHERE = "eve@elsewhere.example"


def contoso(pki: Pki, **changes: Any) -> dict[str, Any]:
    certificate = {"names": ["mail.contoso.com"], "ca": str(pki.partner_ca)}
    require = {"certificate": certificate} | changes.pop("require", {})
    match = {"sender_domains": ["contoso.com", "*.contoso.com"]} | changes.pop("match", {})
    return {"name": "contoso-in", "direction": "inbound", "match": match, "require": require} | changes


async def secured(world: World, pki: Pki, certificate: str = "", local: str = "127.0.0.1") -> Wire:
    wire = await world.connect(local_addr=(local, 0))
    await wire.ehlo()
    await wire.starttls(pki.client_context(certificate))
    await wire.ehlo()
    return wire


@dataclass(frozen=True)
class Case:
    """`certificate` "clear": no TLS at all."""

    certificate: str
    sender: str
    code: int
    words: tuple[str, ...]


TABLE = {
    "in clear": Case("clear", "ann@contoso.com", 530, ("5.7.10", "connector contoso-in", "requires TLS")),
    "in clear, a subdomain": Case("clear", "ann@mail.contoso.com", 530, ("5.7.10", "contoso-in")),
    "no certificate": Case("", "ann@contoso.com", 550, ("5.7.1", "contoso-in", "none was shown")),
    "the partner": Case("partner", "ann@contoso.com", 250, ("2.1.0",)),
    "the partner, other spelling": Case("partner", "Ann@CONTOSO.com.", 250, ("2.1.0",)),
    "wrong name, its common name right": Case(
        "other name", "ann@contoso.com", 550, ("5.7.1", "certificate names", "mail.fabrikam.com")
    ),
    "wrong CA": Case("other ca", "ann@contoso.com", 550, ("5.7.1", "certificate ca", "certificate-not-trusted")),
    "expired": Case("expired", "ann@contoso.com", 550, ("5.7.1", "certificate ca", "certificate-expired")),
    "another domain in clear": Case("clear", "ann@fabrikam.com", 250, ("2.1.0",)),
    "another domain with any certificate": Case("other ca", "ann@fabrikam.com", 250, ("2.1.0",)),
    "the null sender": Case("clear", "", 250, ("2.1.0",)),
}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
async def test_at_mail(tmp_path: Path, pki: Pki, case: Case) -> None:
    data = {"connectors": [contoso(pki)]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        if case.certificate == "clear":
            wire = await world.connect()
            await wire.ehlo()
        else:
            wire = await secured(world, pki, case.certificate)
        async with wire:
            text = await wire.say(f"MAIL FROM:<{case.sender}>", case.code)
            assert all(word in text for word in case.words), text
            assert str(pki.folder) not in text  # where our files are is nobody's business
        refused = world.of(CommandRefused)
        assert len(refused) == (case.code != 250)
        assert all((event.command, event.connector) == ("MAIL", "contoso-in") for event in refused)


@on_both_loops
async def test_the_partners_message(tmp_path: Path, pki: Pki) -> None:
    data = {"connectors": [contoso(pki)]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        async with await secured(world, pki, "partner") as wire:
            for _ in range(2):
                await wire.message()
        one, two = world.intake.taken
        assert one.accepted.connector == "contoso-in"
        assert one.accepted.tls is not None
        assert one.accepted.tls is two.accepted.tls  # one connection, one piece of evidence
        assert one.accepted.tls.chain[0].dns_names == ("mail.contoso.com",)
        header = one.header.decode().replace("\r\n\t", " ")
        assert 'client certificate "CN=mail.contoso.com' in header
        assert '" satisfies connector contoso-in)' in header


async def test_tls_is_asked_for_again_after_a_refusal(tmp_path: Path, pki: Pki) -> None:
    data = {"connectors": [contoso(pki)]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 530)
        await wire.say(f"RCPT TO:<{BOB}>", 503)
        await wire.starttls(pki.client_context("partner"))
        await wire.ehlo()
        await wire.message()
        assert len(world.intake.taken) == 1


async def test_wrong_network(tmp_path: Path, pki: Pki) -> None:
    data = {"connectors": [contoso(pki, require={"networks": ["127.0.0.2/32"]})]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        async with await secured(world, pki, "partner") as wire:
            text = await wire.say("MAIL FROM:<ann@contoso.com>", 550)
            assert "network: 127.0.0.1 is not accepted" in text
            assert "127.0.0.2" not in text
        async with await secured(world, pki, "partner", local="127.0.0.2") as wire:
            await wire.message()


async def test_accept_networks_are_no_way_around_a_connector(tmp_path: Path, pki: Pki) -> None:
    accept = {"domains": ["example.com"], "networks": ["127.0.0.0/8"]}
    data = {"connectors": [contoso(pki)], "accept": accept}
    async with relay(tmp_path, data, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 530)
        await wire.message(sender="ann@fabrikam.com", recipient=ELSEWHERE)


def gone(path: Path) -> None:
    path.unlink()


async def test_a_ca_that_cannot_be_read_is_not_for_good(tmp_path: Path, pki: Pki) -> None:
    ca = tmp_path / "ca.pem"
    pki.partner.cert_pem.write_to_path(ca)
    data = {"connectors": [contoso(pki, require={"certificate": {"names": ["mail.contoso.com"], "ca": str(ca)}})]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        gone(ca)
        async with await secured(world, pki, "partner") as wire:
            text = await wire.say("MAIL FROM:<ann@contoso.com>", 451)
            assert text.startswith("4.7.1 connector contoso-in cannot be judged now")
            assert str(tmp_path) not in text
        [event] = world.of(CommandRefused)
        assert (event.connector, event.reply.code) == ("contoso-in", 451)
        [trouble] = world.of(CertificateTrouble)
        assert trouble.name == "contoso-in"
        assert str(ca) in trouble.trouble


async def test_tls_version(tmp_path: Path, pki: Pki) -> None:
    connector = {
        "name": "modern",
        "direction": "inbound",
        "match": {"sender_domains": ["contoso.com"]},
        "require": {"tls_version": "TLSv1.3"},
    }
    async with relay(tmp_path, {"connectors": [connector]}, certificates=pki.certificates) as world:
        context = pki.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.starttls(context)
            await wire.ehlo()
            text = await wire.say("MAIL FROM:<ann@contoso.com>", 550)
            assert "tls_version: required TLSv1.3 or newer, found TLSv1.2" in text
            await wire.message(sender="ann@fabrikam.com")
        assert b"(TLSv1.2, ECDHE-" in world.intake.taken[0].header
        async with await secured(world, pki) as wire:
            await wire.message()


# A peer with a grant -------------------------------------------------------------------------------------------------


async def test_grant_relay_goes_with_the_peer_whatever_the_sender(tmp_path: Path, pki: Pki) -> None:
    connector = contoso(pki, name="on-premises", grant={"relay": True})
    connector["match"] = {"certificate_names": ["mail.contoso.com"]}
    async with relay(tmp_path, {"connectors": [connector]}, certificates=pki.certificates) as world:
        async with await secured(world, pki, "partner") as wire:
            await wire.message(sender="ann@anything.example", recipient=ELSEWHERE)
            await wire.message(sender="", recipient=ELSEWHERE)
        assert [taken.accepted.may_relay for taken in world.intake.taken] == [True, True]
        assert world.intake.taken[1].accepted.connector == "on-premises"
        async with await secured(world, pki, "other name") as wire:
            await wire.say("MAIL FROM:<ann@anything.example>", 250)
            await wire.say(f"RCPT TO:<{ELSEWHERE}>", 550)
        async with await secured(world, pki, "other ca") as wire:  # claims the name, and is not who it claims to be
            await wire.say("MAIL FROM:<ann@anything.example>", 550)
        async with await secured(world, pki) as wire:
            await wire.say("MAIL FROM:<>", 250)
            await wire.say(f"RCPT TO:<{ELSEWHERE}>", 550)


# The From: header ----------------------------------------------------------------------------------------------------

HEADERS = {
    "the partner in clear": (b"From: Ann <ann@contoso.com>\r\n", "ann@fabrikam.com", 530, ("5.7.10", "contoso-in")),
    "the partner with the null sender": (b"From: ann@contoso.com\r\n", "", 530, ("5.7.10", "contoso-in")),
    "somebody else": (b"From: ann@fabrikam.com\r\n", "ann@fabrikam.com", 250, ("queued",)),
    "no From": (b"Subject: x\r\n", "ann@fabrikam.com", 550, ("5.7.1", "From:")),
    "two of them": (b"From: a@x.example\r\nFrom: b@x.example\r\n", "a@x.example", 550, ("5.7.1", "From:")),
    "unreadable": (b"From: nobody\r\n", "ann@fabrikam.com", 550, ("5.7.1", "From:")),
}


@pytest.mark.parametrize(("header", "sender", "code", "words"), HEADERS.values(), ids=HEADERS.keys())
async def test_header_from(
    tmp_path: Path, pki: Pki, header: bytes, sender: str, code: int, words: tuple[str, ...]
) -> None:
    data = {"connectors": [contoso(pki, match={"header_from": True})]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail(sender=sender)
        text = await wire.say(header + b"\r\nhello\r\n.\r\n", code)
        assert all(word in text for word in words), text
        assert len(world.intake.taken) == (code == 250)
        if code != 250:
            assert world.intake.begun[0].aborted
            [event] = world.of(CommandRefused)
            assert (event.command, event.sender) == ("DATA", sender)
            assert event.connector == ("contoso-in" if code == 530 else "")


async def test_header_from_of_the_partner_itself(tmp_path: Path, pki: Pki) -> None:
    """A list or a bounce: the envelope says something else, the From: header is the partner's, and so is the certificate."""
    data = {"connectors": [contoso(pki, match={"header_from": True})]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        async with await secured(world, pki, "partner") as wire:
            await wire.message(b"From: ann@contoso.com\r\n\r\nhello\r\n", sender="")
        [taken] = world.intake.taken
        assert taken.accepted.connector == "contoso-in"
        assert "satisfies connector contoso-in" in taken.header.decode().replace("\r\n\t", " ")
        async with await secured(world, pki, "other name") as wire:
            await wire.mail(sender="")
            await wire.say(b"From: ann@contoso.com\r\n\r\nhello\r\n.\r\n", 550)
