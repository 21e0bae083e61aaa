"""TLSA records on a connection: what is asked of the server, weak keys, and a connection that outlives its certificate."""

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from relay.mail.outcome import Deferred, Delivered
from relay.mail.plan import Encryption, Tlsa
from relay.mail.tls import TlsFailure
from relay.outbound.publications import Way
from relay.policy.published import Published, Says, Uses
from tests.hostile import Behaviour, HostileServer
from tests.unit.outbound.builders import world
from tests.unit.tls import odd
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, root, rsa_key, tlsa_record

CA = root("dane CA")
BASE = "end.hostile.test"
LEAF = CA.issue(Wish("mx", names=[BASE]))


@dataclass(frozen=True)
class Fixed:
    """One TLSA record, whatever the host."""

    demand: Tlsa

    async def find(self, _way: Way, _uses: Uses) -> Published:
        return Published(Says(frozenset({Encryption("dane"), self.demand})), mx_secure=True)

    async def recheck(self, _way: Way, _published: Published) -> bool:
        return False


def published(usage: int, issued: Issued) -> Fixed:
    return Fixed(Tlsa("dane", BASE, (tlsa_record(usage, 1, 1, issued),), (BASE,)))


def server(folder: Path, leaf: bytes, key: bytes, *, tls12: bool = False) -> Behaviour:
    """Shows the leaf with CA behind it, however weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    pem = folder / "server.pem"
    pem.write_bytes(ssl.DER_cert_to_PEM_cert(leaf).encode() + CA.pem + key)
    context.load_cert_chain(pem)
    return Behaviour(tls=context)


WEAK = CA.issue(Wish("mx", names=[BASE]), rsa_key(1024))
SHA1 = odd.changed(LEAF, odd.signed_with_sha1)


@pytest.mark.parametrize("tls12", [False, True])
@pytest.mark.parametrize(("leaf", "issued"), [(WEAK.der, WEAK), (SHA1, LEAF)], ids=["rsa-1024", "sha-1"])
async def test_dane_ee_takes_a_weak_certificate_and_dane_ta_does_not(
    tmp_path: Path, leaf: bytes, issued: Issued, tls12: bool
) -> None:
    """RFC 7671 section 5.1: the key is what the domain published, whoever signed it and however."""
    async with HostileServer(server(tmp_path, leaf, issued.key_pem, tls12=tls12)) as hop:
        async with world(hop.port, publications=published(3, issued)) as mail:
            assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        async with world(hop.port, publications=published(2, CA)) as mail:
            outcome = await mail.outcome("bob@b.example")
    assert isinstance(outcome, Deferred)
    assert outcome.failure is TlsFailure.TLSA_INVALID
    assert "too weak" in outcome.text


async def test_the_base_domain_is_the_server_name(tmp_path: Path) -> None:
    async with (
        HostileServer(server(tmp_path, LEAF.der, LEAF.key_pem)) as hop,
        world(hop.port, publications=published(2, CA)) as mail,
    ):
        (attempt,) = await mail.deliver("bob@b.example")
    assert attempt.evidence is not None
    assert attempt.evidence.sni == BASE, "RFC 7672 section 8.1"


@pytest.mark.parametrize(("usage", "issued"), [(2, CA), (3, LEAF)], ids=["dane-ta", "dane-ee"])
async def test_a_kept_connection_ends_with_a_path_and_not_with_a_key(
    tmp_path: Path, usage: int, issued: Issued
) -> None:
    now = [NOW]

    def clock() -> datetime:
        return now[0]

    end = LEAF.certificate.not_valid_after_utc
    async with (
        HostileServer(server(tmp_path, LEAF.der, LEAF.key_pem)) as hop,
        world(hop.port, publications=published(usage, issued), clock=clock) as mail,
    ):
        for now[0] in (NOW, end - timedelta(seconds=1)):
            assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        assert len(hop.sessions) == 1
        now[0] = end + DAY
        outcome = await mail.outcome("bob@b.example")
        if usage == 3:
            assert isinstance(outcome, Delivered)
            assert len(hop.sessions) == 1
        else:
            assert isinstance(outcome, Deferred)
            assert outcome.failure is TlsFailure.CERTIFICATE_EXPIRED
            assert len(hop.sessions) == 3, "a resumed one, and a whole handshake: there might have been another"


@pytest.mark.parametrize(("usage", "issued"), [(2, CA), (3, LEAF)], ids=["dane-ta", "dane-ee"])
async def test_a_resumed_session_is_compared_anew(tmp_path: Path, usage: int, issued: Issued) -> None:
    now = [NOW]
    end = LEAF.certificate.not_valid_after_utc
    limits = {"messages_per_connection": 1}
    async with (
        HostileServer(server(tmp_path, LEAF.der, LEAF.key_pem)) as hop,
        world(hop.port, publications=published(usage, issued), clock=lambda: now[0], limits=limits) as mail,
    ):
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        now[0] = end + DAY
        (attempt,) = await mail.deliver("bob@b.example")
    assert attempt.evidence is not None
    assert attempt.evidence.resumed == (usage == 3)
    outcome = attempt.outcomes[0][1]
    if usage == 3:
        assert isinstance(outcome, Delivered)
    else:
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.CERTIFICATE_EXPIRED
