"""The certificates folder of a running relay: changed under open sessions, spoilt in every way, rotated by the commands.

And what partners show.
"""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from relay.app import Relay
from relay.app.relay import Times
from relay.config.values import HostPort
from relay.mail.events import (
    AttemptMade,
    CertificateEnding,
    CertificatesLoaded,
    CertificateTrouble,
    MessageAccepted,
    PartnerCertificateEnding,
)
from relay.testing import Pki, relay_pair, write_config
from tests.e2e.heard import Heard
from tests.unit.tls.pki import Issued, Wish, root, rsa_key

QUICK = Times(watch=0.05, grace=5.0)
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
CA = root("test CA")
HOST = "relay.test"


def issued(*names: str, days: float = 100, since: float = -10, bits: int = 0) -> Issued:
    wish = Wish(names[0], names=names, before=NOW + since * DAY, after=NOW + days * DAY)
    return CA.issue(wish, rsa_key(bits) if bits else None)


def write(certificate: Issued, folder: Path, name: str = HOST) -> None:
    """As `certs/` should be: the root too, so that the chain ends somewhere."""
    certificate.write(folder, name)
    with (folder / f"{name}.pem").open("ab") as file:
        file.write(CA.pem)


def config(folder: Path, **more: Any) -> Path:
    values = {
        "hostname": HOST,
        "postmaster": f"postmaster@{HOST}",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
    }
    return write_config(folder, values | more, {})


class Client:
    """A client's session, command by command, over TLS that looks at nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def secured(cls, address: HostPort) -> AsyncIterator["Client"]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(address.host, address.port)
        client = cls(reader, writer)
        try:
            await client.reply()
            await client.say("EHLO client.test")
            await client.say("STARTTLS")
            await writer.start_tls(context, server_hostname=HOST)
            await client.say("EHLO client.test")
            yield client
        finally:
            writer.close()

    @property
    def shown(self) -> bytes:
        """The relay's certificate, DER."""
        found = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(found, bytes)
        return found

    async def say(self, line: str) -> str:
        self._writer.write(f"{line}\r\n".encode())
        return await self.reply()

    async def reply(self) -> str:
        async with asyncio.timeout(20):
            while True:
                line = (await self._reader.readline()).decode()
                if line[3:4] != "-":
                    return line


async def shown(relay: Relay) -> bytes:
    async with Client.secured(relay.address()) as client:
        return client.shown


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    return folder


async def test_a_session_goes_on_over_a_change_and_the_next_one_sees_the_new_certificate(
    tmp_path: Path, certs: Path
) -> None:
    old, new, heard = issued(HOST), issued(HOST), Heard()
    write(old, certs)
    async with Relay(config(tmp_path), observers=[heard], times=QUICK) as relay:
        async with Client.secured(relay.address()) as client:
            assert client.shown == old.der
            assert (await client.say("MAIL FROM:<alice@relay.test>")).startswith("250")
            write(new, certs)
            await heard.wait(CertificatesLoaded, 2)
            assert await shown(relay) == new.der
            # In the middle of its transaction, on the old certificate's connection.
            assert (await client.say("RCPT TO:<bob@nowhere.test>")).startswith("250")
            assert (await client.say("DATA")).startswith("354")
            assert (await client.say("Subject: hello\r\n\r\nhello\r\n.")).startswith("250")
        await heard.wait(MessageAccepted)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "another one's key": (lambda certs: write_key(certs, issued(HOST).key_pem), "the key does not match"),
    "half a certificate": (lambda certs: halve(certs / f"{HOST}.pem"), "is cut off"),
    "half a key": (lambda certs: halve(certs / f"{HOST}.key"), "is cut off"),
    "nothing yet": (lambda certs: empty_file(certs / f"{HOST}.pem"), "is empty"),
    "ended": (lambda certs: write(issued(HOST, days=-1), certs), "the new certificate ended on"),
    "not begun": (lambda certs: write(issued(HOST, since=5), certs), "the new certificate begins on"),
    "weak key": (lambda certs: write(issued(HOST, bits=1024), certs), "the RSA key has 1024 bits"),
    "emptied": (lambda certs: empty(certs), "no certificate is left"),
}


def write_key(certs: Path, pem: bytes) -> None:
    (certs / f"{HOST}.key").write_bytes(pem)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def empty(folder: Path) -> None:
    for each in folder.iterdir():
        each.unlink()


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("case", BAD)
async def test_what_is_wrong_is_said_once_and_the_old_pair_stays(case: str, tmp_path: Path, certs: Path) -> None:
    spoil, text = BAD[case]
    old, new, heard = issued(HOST), issued(HOST), Heard()
    write(old, certs)
    async with Relay(config(tmp_path), observers=[heard], times=QUICK) as relay:
        spoil(certs)
        troubles = await heard.wait(CertificateTrouble)
        assert text in troubles[0].trouble
        assert await shown(relay) == old.der
        listed = await relay.operator.certificates()
        if case != "emptied":
            (ours,) = [each for each in listed["ours"] if each["name"] == HOST]
            assert ours["state"] == "in use"
            assert any(text in each["text"] and each["remedy"] for each in ours["problems"])
        write(new, certs)
        await heard.wait(CertificatesLoaded, 2)
        assert await shown(relay) == new.der
        said = [each for each in heard.of(CertificateTrouble) if text in each.trouble]
        assert len(said) == 1
        assert said[0].trouble.startswith(str(certs)), "which file it is"


async def test_a_key_whose_rights_change_is_told_though_nothing_else_of_it_did(tmp_path: Path, certs: Path) -> None:
    heard = Heard()
    write(issued(HOST), certs)
    async with Relay(config(tmp_path), observers=[heard], times=QUICK):
        (certs / f"{HOST}.key").chmod(0o644)
        (trouble,) = await heard.wait(CertificateTrouble)
    assert "everybody on this machine can read the key" in trouble.trouble


async def test_a_renewal_that_lost_a_name_and_its_intermediate_is_used_and_told(tmp_path: Path, certs: Path) -> None:
    heard = Heard()
    write(issued(HOST, "mail.test"), certs)
    middle = CA.issue(Wish("middle", ca=True))
    new = middle.issue(Wish(HOST, names=[HOST]))
    async with Relay(config(tmp_path), observers=[heard], times=QUICK) as relay:
        new.write(certs, HOST)
        (certs / f"{HOST}.pem").write_bytes(new.pem)
        troubles = [each.trouble for each in await heard.wait(CertificateTrouble, 2)]
        assert await shown(relay) == new.der
    assert any("it lacks mail.test, which the one before had" in each for each in troubles)
    assert any("CN=middle is not in it; add the missing intermediate" in each for each in troubles)


def link(target: Path, at: Path) -> None:
    """In one step, as certbot and the kubelet do it."""
    draft = at.with_name(f"{at.name}.tmp")
    draft.symlink_to(target)
    draft.replace(at)


async def test_renewed_as_certbot_does_it(tmp_path: Path, certs: Path) -> None:
    """NAME.pem and NAME.key are links into `live`, whose links lead to numbered files in `archive`, exchanged one after the other."""
    old, new, heard = issued(HOST), issued(HOST), Heard()
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir()

    def renew(pair: Issued, number: int) -> None:
        write(pair, archive, str(number))
        for ours, theirs in (("pem", "fullchain.pem"), ("key", "privkey.pem")):
            link(archive / f"{number}.{ours}", live / theirs)

    archive.mkdir()
    renew(old, 1)
    (certs / f"{HOST}.pem").symlink_to(live / "fullchain.pem")
    (certs / f"{HOST}.key").symlink_to(live / "privkey.pem")
    async with Relay(config(tmp_path), observers=[heard], times=QUICK) as relay:
        assert await shown(relay) == old.der
        renew(new, 2)
        await heard.wait(CertificatesLoaded, 2)
        assert await shown(relay) == new.der


async def test_renewed_as_kubernetes_does_it(tmp_path: Path, certs: Path) -> None:
    """A volume of a secret: links to `..data/NAME`, and that is a link to a folder with a time in its name, which goes away."""
    old, new, heard = issued(HOST), issued(HOST), Heard()

    def mount(pair: Issued, stamp: str) -> None:
        (certs / stamp).mkdir()
        write(pair, certs / stamp)
        link(Path(stamp), certs / "..data")

    mount(old, "..2026_11_27_1")
    for suffix in ("pem", "key"):
        (certs / f"{HOST}.{suffix}").symlink_to(f"..data/{HOST}.{suffix}")
    async with Relay(config(tmp_path), observers=[heard], times=QUICK) as relay:
        assert await shown(relay) == old.der
        mount(new, "..2026_11_27_2")
        for each in (certs / "..2026_11_27_1").iterdir():
            each.unlink()
        (certs / "..2026_11_27_1").rmdir()
        await heard.wait(CertificatesLoaded, 2)
        assert await shown(relay) == new.der
        assert not heard.of(CertificateTrouble)


async def test_a_pair_that_begins_later_is_taken_when_it_begins(tmp_path: Path, certs: Path) -> None:
    old, heard = issued(HOST), Heard()
    write(old, certs)
    async with Relay(config(tmp_path), observers=[heard], times=QUICK) as relay:
        begins = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
        new = CA.issue(Wish(HOST, names=[HOST], before=begins, after=NOW + 100 * DAY))
        write(new, certs)
        await heard.wait(CertificateTrouble)
        assert await shown(relay) == old.der
        await heard.wait(CertificatesLoaded, 2)
        assert datetime.now(UTC) >= begins
        assert await shown(relay) == new.der


async def test_an_end_is_announced_once_for_each_threshold_also_over_a_restart(tmp_path: Path, certs: Path) -> None:
    write(issued(HOST, days=6.5), certs)
    file = config(tmp_path)
    heard = Heard()
    async with Relay(file, observers=[heard], times=QUICK):
        (ending,) = await heard.wait(CertificateEnding)
    assert (ending.name, ending.threshold, ending.days) == (HOST, 7, 6)
    again = Heard()
    async with Relay(file, observers=[again], times=QUICK):
        # Another certificate, which is due too: when that is announced, the first one would have been.
        write(issued("other.test", days=0.5), certs, "other.test")
        (other,) = await again.wait(CertificateEnding)
    assert (other.name, other.threshold) == ("other.test", 1)


async def test_partners_certificates_are_seen_both_ways_and_warned_of(tmp_path: Path) -> None:
    heard = Heard()
    async with relay_pair(observers=[heard], folder=tmp_path) as pair:
        await pair.send("bob@b.test")
        await pair.received()
        await heard.wait(AttemptMade, 2)
        at_a, at_b = await pair.a.operator.certificates(), await pair.b.operator.certificates()
        readings = await pair.a.operator.readings()
    (seen,) = at_a["partners"]
    assert (seen["connector"], seen["direction"], seen["verified"]) == ("to-b", "outbound", True)
    assert seen["names"] == ["b.test", "127.0.0.1"]
    assert (seen["domain"], seen["failure"], seen["hop"].split(":")[0]) == ("b.test", None, "127.0.0.1")
    (client,) = [each for each in at_b["partners"] if each["direction"] == "inbound"]
    assert (client["connector"], client["verified"], client["names"]) == ("from-a", True, ["a.test"])
    assert client["domain"] == "a.test"
    (ours,) = at_a["ours"]
    assert ours["connectors"] == ["to-b"]
    assert not heard.of(PartnerCertificateEnding)
    assert readings is not None


async def test_a_partners_certificate_that_ends_soon_is_announced(tmp_path: Path) -> None:
    heard = Heard()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CA.pem)
    a, b = tmp_path / "a", tmp_path / "b"
    for side in (a, b):
        (side / "certs").mkdir(parents=True)
    write(issued("b.test", days=2.5), b / "certs", "b.test")
    file_b = config(b, hostname="b.test", accept={"domains": ["b.test"]}, connectors=[inner()])
    async with Relay(file_b, times=QUICK) as relay_b:
        write(issued("a.test"), a / "certs", "a.test")
        connector = {
            "name": "to-b",
            "direction": "outbound",
            "match": {"recipient_domains": ["b.test"]},
            "tls": "domain",
            "names": ["b.test"],
            "ca": str(ca),
            "route": {"smart_hosts": [str(relay_b.address())]},
        }
        file_a = config(a, hostname="a.test", connectors=[connector])
        async with Relay(file_a, observers=[heard], times=QUICK) as relay_a:
            async with Client.secured(relay_a.address()) as client:
                await client.say("MAIL FROM:<alice@a.test>")
                await client.say("RCPT TO:<bob@b.test>")
                await client.say("DATA")
                await client.say("Subject: hello\r\n\r\nhello\r\n.")
            await heard.wait(AttemptMade)
            await relay_a.operator.certificates()  # what was noticed is written then
        again = Heard()
        async with Relay(file_a, observers=[again], times=QUICK) as relay_a:
            (ending,) = await again.wait(PartnerCertificateEnding)
            assert (ending.connector, ending.threshold, ending.days) == ("to-b", 3, 2)
            assert ending.hop == str(relay_b.address())
            readings = await relay_a.operator.readings()
        assert 2.4 < readings.partner_certificates["to-b"] <= 2.5
        third = Heard()
        async with Relay(file_a, observers=[third], times=QUICK):
            write(issued("other.test", days=0.5), a / "certs", "other.test")
            await third.wait(CertificateEnding)
        assert not third.of(PartnerCertificateEnding)


def inner() -> dict[str, Any]:
    return {
        "name": "inner",
        "direction": "outbound",
        "match": {"recipient_domains": ["b.test"]},
        "route": {"smart_hosts": ["127.0.0.1:1"]},
    }


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def command(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_rotation_by_the_commands_from_request_to_the_first_handshake(tmp_path: Path, certs: Path) -> None:
    old, heard = issued(HOST, "mail.relay.test"), Heard()
    write(old, certs)
    file = config(tmp_path, admin={"socket": "relay.sock"})
    options = ("--config", str(file))
    async with Relay(file, observers=[heard], times=QUICK) as relay:
        code, out, err = await command("certs", "request", HOST, *options)
        assert code == 0, err
        csr = x509.load_pem_x509_csr(out.encode())
        key = certs / f"{HOST}.next.key"
        assert key.stat().st_mode & 0o777 == 0o600
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.DNSName) == [HOST, "mail.relay.test"]
        # What a CA does.
        leaf = (
            x509.CertificateBuilder(CA.certificate.subject, csr.subject, csr.public_key(), x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + 365 * DAY)
            .add_extension(san, critical=False)
            .sign(CA.key, hashes.SHA256())
        )
        answer = tmp_path / "answer.pem"
        answer.write_bytes(leaf.public_bytes(Encoding.PEM) + CA.pem)
        code, out, err = await command("certs", "next", HOST, str(answer), *options)
        assert code == 0, err
        code, out, err = await command("certs", "sheet", HOST, "--json", *options)
        sheet = json.loads(out)
        assert [each["act"] for each in sheet["tasks"] if each["who"] == "You pin our key"] == [True]
        assert await shown(relay) == old.der
        code, out, err = await command("certs", "next", HOST, "--commit", *options)
        assert code == 0, err
        await heard.wait(CertificatesLoaded, 2)
        assert await shown(relay) == leaf.public_bytes(Encoding.DER)
        code, out, err = await command("certs", "list", "--json", *options)
        assert (code, err) == (0, ""), "the relay answered, not the folder"
        assert [(each["name"], each["state"]) for each in json.loads(out)["ours"]] == [(HOST, "in use")]
        assert not heard.of(CertificateTrouble), "at no moment is the folder in disorder"
    assert names_in(certs) == ["old", f"{HOST}.key", f"{HOST}.pem"]
    assert (certs / "old" / f"{HOST}.old.key").read_bytes() == old.key_pem
    assert (certs / f"{HOST}.key").stat().st_mode & 0o777 == 0o600


def test_the_throw_away_pki_is_what_the_relay_takes(tmp_path: Path) -> None:
    """What the other tests stand on: their certificates are good ones."""
    from relay.tls.keyring import Keyring

    Pki(tmp_path / "pki").issue(tmp_path / "certs", HOST)
    assert not Keyring(tmp_path / "certs", hostname=HOST, clock=lambda: NOW + DAY).problems
