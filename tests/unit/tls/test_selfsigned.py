"""A first certificate: good enough to start with, never in anybody's way."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.tls import Trusted
from relay.tls.context import client_context, server_context
from relay.tls.evidence import evidence_of
from relay.tls.keyring import Keyring
from relay.tls.selfsigned import create_self_signed
from relay.tls.trust import Purpose, TrustStores
from tests.unit.tls.pki import NOW, Pair, clock


def test_it_serves_and_a_partner_can_trust_it(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    paths = create_self_signed(folder, "relay.example", NOW)
    assert paths.key.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in folder.iterdir()) == ["relay.example.key", "relay.example.pem"]
    keyring = Keyring(folder, hostname="relay.example", clock=clock)
    assert keyring.problems == ()
    (files,) = keyring.certificates
    assert files.names == ("relay.example",)
    assert files.not_before == NOW - timedelta(hours=1)
    client = client_context(client_certificate=files)
    pair = Pair(server_context(keyring, ask_certificate=True), client, "relay.example").shake()
    trust, stores = str(paths.certificate), TrustStores()
    for end, purpose in ((pair.client, Purpose.SERVER), (pair.server, Purpose.CLIENT)):
        evidence = stores.check(evidence_of(end.tls), [trust], purpose, NOW)
        assert evidence.paths[trust] == Trusted("CN=relay.example", files.not_after)


@pytest.mark.parametrize("there", ["relay.example.pem", "relay.example.key"])
def test_never_over_what_is_there(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{there} is there already"):
        create_self_signed(tmp_path, "relay.example", NOW)
    assert [each.name for each in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_not_even_where_it_appears_in_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "relay.example.pem").write_text("mine")
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    with pytest.raises(FileExistsError):
        create_self_signed(tmp_path, "relay.example", NOW)
    assert (tmp_path / "relay.example.pem").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_long_host_name(tmp_path: Path) -> None:
    """Longer than a common name may be; the SAN is what counts."""
    name = ".".join(["x" * 40] * 5)
    paths = create_self_signed(tmp_path, name, NOW)
    assert ssl.PEM_cert_to_DER_cert(paths.certificate.read_text())
    keyring = Keyring(tmp_path, hostname=name, clock=clock)
    assert keyring.certificates[0].names == (name,)
