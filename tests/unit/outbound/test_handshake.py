"""Our own side of TLS: contexts and client certificates."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.config.certificates import CertificateFiles, read_folder
from relay.mail.outcome import Delivered
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan, TlsVersion
from relay.outbound.connection import NoCertificateError
from relay.outbound.handshake import TlsClient
from relay.tls.selfsigned import create_self_signed
from relay.tls.trust import TrustStores
from tests.hostile import Behaviour, HostileServer, Pki
from tests.unit.outbound.builders import utc, world


def plan(*, minimum: str = "TLSv1.2", certificate: str = "") -> TlsPlan:
    demands = frozenset({Encryption("default"), TlsVersion("default", minimum)})
    return TlsPlan(Level.ENCRYPTION, Plaintext.NEVER, demands, certificate)


def only(pem: Path) -> CertificateFiles:
    return read_folder(pem.parent, datetime.now(UTC)).certificates[0]


def test_one_context_for_equal_needs() -> None:
    tls = TlsClient(lambda _name: None, TrustStores(), utc)
    assert tls.context(plan()) is tls.context(plan())
    # A stricter version is for the verdict to judge; a weaker one has to be let through the handshake.
    assert tls.context(plan(minimum="TLSv1.3")) is tls.context(plan())
    assert tls.context(plan(minimum="TLSv1")) is not tls.context(plan())


def test_a_certificate_that_is_replaced_or_gone(tmp_path: Path) -> None:
    found: dict[str, CertificateFiles] = {}
    tls = TlsClient(found.get, TrustStores(), utc)
    with pytest.raises(NoCertificateError, match="ours"):
        tls.context(plan(certificate="ours"))
    for number in (1, 2):
        folder = tmp_path / str(number)
        create_self_signed(folder, "ours", datetime.now(UTC))
        found["ours"] = only(folder / "ours.pem")
        if number == 1:
            first = tls.context(plan(certificate="ours"))
            assert tls.context(plan(certificate="ours")) is first
    assert tls.context(plan(certificate="ours")) is not first


async def test_we_prove_who_we_are(pki: Pki, tmp_path: Path) -> None:
    """A hop that demands a certificate gets ours; a renewed one means a new connection."""
    found = {"ours": only(pki.client(tmp_path / "one"))}
    async with (
        HostileServer(Behaviour(tls=pki.asks_certificate)) as server,
        world(server.port, client_certificate="ours") as mail,
    ):
        mail.tls._certificate = found.get
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        assert len(server.sessions) == 1
        found["ours"] = only(pki.client(tmp_path / "two"))
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        assert len(server.sessions) == 2
