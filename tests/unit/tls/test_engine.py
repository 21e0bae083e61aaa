"""Handshakes without sockets: versions, suites, SNI, odd certificates, endings, garbage. Our ends with each other and with the ssl module's."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from relay.config.certificates import CertificateFiles
from relay.tls.connection import TlsConnection, as_ssl_error
from relay.tls.context import Context, client_context, server_context
from relay.tls.engine import client_engine
from relay.tls.evidence import MAX_CHAIN, evidence_of
from relay.tls.keyring import Keyring
from tests.unit.tls import odd
from tests.unit.tls.pki import (
    CLIENT_AUTH,
    DAY,
    EMAIL,
    NOW,
    SERVER_AUTH,
    End,
    Issued,
    Pair,
    Wish,
    clock,
    new_key,
    root,
    rsa_key,
    self_signed,
    std_client,
    std_server,
)

Contexts = Callable[[Keyring, Path], tuple[ssl.SSLContext, ssl.SSLContext]]


def ours(keyring: Keyring, _folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return server_context(keyring, ask_certificate=True), client_context()


def our_server(keyring: Keyring, _folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return server_context(keyring, ask_certificate=True), std_client()


def our_client(_keyring: Keyring, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return std_server(folder, "a"), client_context()


everybody = pytest.mark.parametrize("contexts", [ours, our_server, our_client])


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


def own(issued: Issued, chain: tuple[bytes, ...] = ()) -> CertificateFiles:
    return CertificateFiles("own", (), NOW, NOW, chain or issued.chain, issued.key)


# versions, suites and groups


@everybody
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_handshake_and_talk(contexts: Contexts, version: ssl.TLSVersion, keyring: Keyring, folder: Path) -> None:
    server, client = contexts(keyring, folder)
    for context in (server, client):
        if type(context) is ssl.SSLContext:
            only(context, version)
    pair = Pair(server, client).shake()
    pair.talk()
    expected = "TLSv1.3" if contexts is ours else version.name.replace("_", ".")
    assert pair.client.tls.version() == pair.server.tls.version() == expected
    cipher = pair.server.tls.cipher()
    assert cipher is not None
    assert cipher[1] == expected
    assert cipher[2] in (128, 256)
    assert pair.server.tls.compression() is None


def test_two_of_us_take_the_hybrid_group(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    assert evidence_of(pair.client.tls).group == evidence_of(pair.server.tls).group == "X25519MLKEM768"


@pytest.mark.parametrize("suites", ["AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384", "AES128-SHA"])
def test_without_forward_secrecy_there_is_no_handshake(suites: str, tmp_path: Path) -> None:
    self_signed(Wish(names=["a.example"]), rsa_key(2048)).write(tmp_path, "a")
    client = only(std_client(), ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(suites)
    server = server_context(Keyring(tmp_path, hostname="a.example", clock=clock), ask_certificate=False)
    with pytest.raises(ssl.SSLError, match="no shared cipher"):
        Pair(server, client).shake()


def test_every_suite_of_ours_is_forward_secret() -> None:
    for minimum in ("TLSv1", "TLSv1.2"):
        names = SSL.Connection(client_engine((), minimum=minimum), None).get_cipher_list()
        assert all(name.startswith(("ECDHE-", "TLS_")) for name in names), names
        assert "ECDHE-RSA-AES256-GCM-SHA384" in names


@pytest.mark.parametrize(
    ("theirs", "minimum", "works"),
    [
        (ssl.TLSVersion.TLSv1, "TLSv1.2", False),
        (ssl.TLSVersion.TLSv1_1, "TLSv1.2", False),
        (ssl.TLSVersion.TLSv1, "TLSv1", True),
        (ssl.TLSVersion.TLSv1_1, "TLSv1", True),
        (ssl.TLSVersion.TLSv1, "TLSv1.1", False),
        (ssl.TLSVersion.TLSv1_2, "TLSv1.3", False),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3", True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_minimum_version(theirs: ssl.TLSVersion, minimum: str, works: bool, keyring: Keyring, folder: Path) -> None:
    """Against a peer that speaks one version only, on either side."""
    old_client, old_server = only(std_client(), theirs), only(std_server(folder, "a"), theirs)
    for old in (old_client, old_server):
        old.set_ciphers("ALL:@SECLEVEL=0")
    sides = (
        (server_context(keyring, ask_certificate=False, minimum=minimum), old_client),
        (old_server, client_context(minimum=minimum)),
    )
    for server, client in sides:
        if works:
            pair = Pair(server, client).shake()
            pair.talk()
            assert pair.client.tls.version() == theirs.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
                Pair(server, client).shake()


def test_unknown_version_is_an_error() -> None:
    with pytest.raises(ValueError, match="'SSLv3' is not a TLS version: one of TLSv1, "):
        client_context(minimum="SSLv3")


# SNI


@pytest.mark.parametrize(
    ("asked", "subject"),
    [
        ("a.example", "a"),
        ("A.EXAMPLE", "a"),
        ("b.example", "b"),
        ("w.example", "w"),
        ("x.w.example", "w"),
        ("y.x.w.example", "b"),
        ("unknown.example", "b"),
        ("a.example.", "a"),
        ("192.0.2.1", "b"),
        (None, "b"),
        ("_dane.example", "b"),
        ("x" * 200, "b"),
    ],
)
def test_sni_chooses_the_certificate(asked: str | None, subject: str, keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context(), asked).shake()
    pair.talk()
    assert evidence_of(pair.client.tls).chain[0].subject == f"CN={subject}"
    sent = "" if asked is None or asked[0].isdigit() else asked.rstrip(".")
    assert evidence_of(pair.server.tls).sni == evidence_of(pair.client.tls).sni == sent
    assert pair.client.tls.server_hostname == asked


def test_chain_goes_with_the_chosen_certificate(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context(), "a.example").shake()
    assert [each.subject for each in evidence_of(pair.client.tls).chain] == ["CN=a", "CN=intermediate"]


@pytest.mark.parametrize(
    ("suites", "subject"), [("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "ec")]
)
def test_a_client_gets_the_certificate_whose_key_it_can_check(suites: str, subject: str, tmp_path: Path) -> None:
    """P-256 and RSA side by side, each with its own chain."""
    for name, key in (("ec", new_key()), ("rsa", rsa_key(2048))):
        intermediate = root(f"root of {name}").issue(Wish(f"intermediate of {name}", ca=True))
        intermediate.issue(Wish(name, names=("both.example",)), key).write(tmp_path, name)
    keyring = Keyring(tmp_path, hostname="both.example", clock=clock)
    client = only(std_client(), ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(suites)
    pair = Pair(server_context(keyring, ask_certificate=False), client, "both.example").shake()
    assert pair.client.tls.cipher()[0] == suites
    modern = Pair(server_context(keyring, ask_certificate=False), client_context(), "both.example").shake()
    shown = [each.subject for each in evidence_of(modern.client.tls).chain]
    assert shown == ["CN=ec", "CN=intermediate of ec"], "the one that costs least to prove"
    leaf = x509.load_der_x509_certificate(pair.client.tls.getpeercert(binary_form=True))
    assert leaf.subject.rfc4514_string() == f"CN={subject}"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"a\x00b"[:1], b"*.w.example", b"..", b".", b"-", b"%s%n", b"a" * 255])
def test_sni_of_odd_bytes(raw: bytes, keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context(), None)
    pair.client.tls.openssl.set_tlsext_host_name(raw)
    pair.shake().talk()
    assert evidence_of(pair.server.tls).sni == raw.decode("ascii", "backslashreplace")


@pytest.mark.parametrize("name", ["müller.example", "x" * 256, "a\0b", "."])
def test_a_name_that_cannot_be_sent(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent as a server name"):
        End(client_context(), server=False, hostname=name)


def test_server_name_as_bytes(keyring: Keyring) -> None:
    context = client_context()
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=b"a.example")
    assert connection.server_hostname == "a.example"


def test_context_serves_one_side() -> None:
    with pytest.raises(ValueError, match="a server's context is for servers"):
        End(client_context(), server=True)


def test_server_follows_the_keyring(tmp_path: Path) -> None:
    """And connections made before go on with what they had, even where the certificate is chosen after the change."""
    first = self_signed(Wish("first", names=["a.example"]))
    first.write(tmp_path, "a")
    keyring = Keyring(tmp_path, hostname="a.example", clock=clock)
    server = server_context(keyring, ask_certificate=False)
    before = Pair(server, client_context())
    self_signed(Wish("second", names=["a.example"])).write(tmp_path, "a")
    self_signed(Wish("other", names=["b.example"])).write(tmp_path, "b")
    keyring.reload()
    after = Pair(server, client_context()).shake()
    assert evidence_of(after.client.tls).chain[0].subject == "CN=second"
    assert evidence_of(before.shake().client.tls).chain[0].subject == "CN=first"


def test_without_a_certificate_the_handshake_fails_and_says_so(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path, hostname="a.example", clock=clock)
    assert not keyring.usable
    with pytest.raises(ssl.SSLError, match=r"no suitable signature algorithm|no shared cipher"):
        Pair(server_context(keyring, ask_certificate=False), client_context()).shake()


# certificates of clients


def clients() -> dict[str, CertificateFiles]:
    ca, stranger = root(), root("stranger")
    leaf = ca.issue(Wish(names=["c.example"]))
    found = {
        "good": leaf,
        "self-signed": self_signed(Wish(names=["c.example"])),
        "unknown CA": stranger.issue(Wish(names=["c.example"])),
        "expired": ca.issue(Wish(names=["c.example"], after=NOW - 5 * DAY)),
        "not yet valid": ca.issue(Wish(names=["c.example"], before=NOW + 5 * DAY)),
        "server only": ca.issue(Wish(names=["c.example"], usages=[SERVER_AUTH])),
        "client only": ca.issue(Wish(names=["c.example"], usages=[CLIENT_AUTH])),
        "for mail": ca.issue(Wish(names=["c.example"], usages=[EMAIL])),
        "no names": ca.issue(Wish()),
        "no subject": ca.issue(Wish("", names=["c.example"])),
        "a CA": ca,
        "a thousand names": ca.issue(Wish(names=[f"n{number}.example" for number in range(1500)])),
    }
    odd_ones = {f"odd: {name}": own(leaf, (odd.changed(leaf, how), ca.der)) for name, how in odd.ALL.items()}
    del odd_ones["odd: unknown key"]  # no key could sign for it
    return {name: own(issued) for name, issued in found.items()} | odd_ones


CLIENTS = clients()


def showing(files: CertificateFiles, version: int, folder: Path) -> Context:
    """A client that looks at nothing, so that it can show what no reader of certificates would take."""
    pem, key = folder / "c.pem", folder / "c.key"
    pem.write_text("".join(ssl.DER_cert_to_PEM_cert(each) for each in files.chain))
    key.write_bytes(Issued(root().certificate, files.key).key_pem)
    engine = SSL.Context(SSL.TLS_CLIENT_METHOD)
    engine.set_max_proto_version(version)
    engine.set_cipher_list(b"ECDHE+AESGCM:@SECLEVEL=0")
    engine.use_certificate_chain_file(pem)
    engine.use_privatekey_file(key)
    return Context(lambda: engine, server_side=False)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_no_client_certificate_fails_the_handshake(name: str, version: int, keyring: Keyring, tmp_path: Path) -> None:
    files = CLIENTS[name]
    pair = Pair(server_context(keyring, ask_certificate=True), showing(files, version, tmp_path)).shake()
    pair.talk()
    evidence = evidence_of(pair.server.tls)
    assert tuple(each.der for each in evidence.chain) == files.chain
    assert pair.server.tls.getpeercert(binary_form=True) == files.leaf
    assert pair.server.tls.getpeercert() == {}
    # Whoever has no anchors cannot find one, so that is nothing to note.
    assert not any("issuer" in each or "self" in each for each in evidence.errors)


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("good", ()),
        ("self-signed", ()),
        ("expired", ("leaf: cert has expired",)),
        ("not yet valid", ("leaf: cert not yet valid",)),
        ("for mail", ("leaf: invalid purpose",)),
        ("odd: SHA-1", ("leaf: signature digest too weak",)),
    ],
)
def test_openssl_s_opinion_is_noted(name: str, errors: tuple[str, ...], keyring: Keyring, tmp_path: Path) -> None:
    client = showing(CLIENTS[name], SSL.TLS1_3_VERSION, tmp_path)
    pair = Pair(server_context(keyring, ask_certificate=True), client).shake()
    assert evidence_of(pair.server.tls).errors == errors


def test_nobody_is_asked_where_no_rule_speaks_of_certificates(keyring: Keyring, folder: Path) -> None:
    client = client_context(client_certificate=keyring.by_name("a"))
    pair = Pair(server_context(keyring, ask_certificate=False), client).shake()
    assert evidence_of(pair.server.tls).chain == ()
    assert pair.server.tls.getpeercert(binary_form=True) is None


def test_our_client_shows_its_certificate_whoever_asks(keyring: Keyring) -> None:
    files = keyring.by_name("a")
    assert files is not None
    pair = Pair(server_context(keyring, ask_certificate=True), client_context(client_certificate=files)).shake()
    assert [each.subject for each in evidence_of(pair.server.tls).chain] == ["CN=a", "CN=intermediate"]


def test_long_chain_is_cut(keyring: Keyring, tmp_path: Path) -> None:
    ca = root()
    leaf = ca.issue(Wish(names=["c.example"]))
    files = own(leaf, (leaf.der, *(ca.issue(Wish(f"{number}", ca=True)).der for number in range(40))))
    pair = Pair(server_context(keyring, ask_certificate=True), showing(files, SSL.TLS1_3_VERSION, tmp_path)).shake()
    evidence = evidence_of(pair.server.tls)
    assert tuple(each.der for each in evidence.chain) == files.chain[:MAX_CHAIN]
    assert evidence.errors[-1] == "41 certificates were shown, only the first 16 are looked at"


def test_beyond_100_kib_of_certificates_the_handshake_ends(keyring: Keyring, tmp_path: Path) -> None:
    """OpenSSL's own bound; memory for what strangers show has to end somewhere."""
    huge = root().issue(Wish(names=[f"number-{number}.of-many.example" for number in range(5000)]))
    client = showing(own(huge), SSL.TLS1_3_VERSION, tmp_path)
    with pytest.raises(ssl.SSLError, match="excessive message size"):
        Pair(server_context(keyring, ask_certificate=True), client).shake()


def test_evidence_needs_one_of_our_connections() -> None:
    with pytest.raises(TypeError, match="not from NoneType"):
        evidence_of(None)


# before the handshake


def test_nothing_is_known_before_the_handshake(keyring: Keyring) -> None:
    end = End(client_context(), server=False, hostname="a.example")
    assert end.tls.version() is None
    assert end.tls.cipher() is None
    assert end.tls.pending() == 0
    assert end.tls.session is None
    assert not end.tls.session_reused
    assert end.tls.shared_ciphers() is None
    assert end.tls.selected_alpn_protocol() is None
    assert end.tls.selected_npn_protocol() is None
    assert end.tls.get_channel_binding() is None
    assert end.tls.context.server_side is False
    with pytest.raises(AttributeError, match="keeps its context"):
        end.tls.context = client_context()
    with pytest.raises(ssl.SSLWantReadError):
        end.tls.write(b"too early")
    with pytest.raises(ssl.SSLWantReadError):
        end.tls.read()


@pytest.mark.parametrize(
    "junk", [b"EHLO example\r\n" * 20, b"\0" * 600, b"\x16\x03\x01\xff\xff" * 300, b"GET / HTTP/1.0\r\n\r\n"]
)
def test_garbage_instead_of_a_hello(junk: bytes, keyring: Keyring) -> None:
    for end in (
        End(server_context(keyring, ask_certificate=True), server=True),
        End(client_context(), server=False, hostname="a.example"),
    ):
        with pytest.raises(ssl.SSLWantReadError):
            end.tls.do_handshake()
        end.outgoing.read()
        end.incoming.write(junk)
        with pytest.raises(ssl.SSLError) as caught:
            end.tls.do_handshake()
        assert not isinstance(caught.value, ssl.SSLWantReadError | ssl.SSLEOFError)
        assert caught.value.library == "SSL"
        assert caught.value.reason == str(caught.value).upper().replace(" ", "_")
        assert end.outgoing.read()[:1] in (b"", b"\x15")  # nothing, or the alert that tells the peer


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_an_ssl_error_or_a_wish_for_more(junk: bytes) -> None:
    end = End(client_context(), server=False, hostname="a.example")
    end.incoming.write(junk)
    with pytest.raises(ssl.SSLError):
        end.tls.do_handshake()


def test_end_of_file_in_the_handshake(keyring: Keyring) -> None:
    end = End(server_context(keyring, ask_certificate=True), server=True)
    end.incoming.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        end.tls.do_handshake()


# data


@everybody
@pytest.mark.parametrize("size", [1, 16384, 16385, 100_000, 3_000_000])
def test_large_writes_both_ways(contexts: Contexts, size: int, keyring: Keyring, folder: Path) -> None:
    pair = Pair(*contexts(keyring, folder)).shake()
    data = bytes(range(256)) * (size // 256 + 1)
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        assert sender.tls.write(memoryview(data)[:size]) == size
        pair.move()
        assert receiver.read_all() == data[:size]


@pytest.mark.parametrize("data", [b"", b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c")[::2]])
def test_kinds_of_buffer(data: bytes | bytearray | memoryview, keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    if isinstance(data, memoryview) and not data.contiguous:
        with pytest.raises(BufferError):
            pair.client.tls.write(data)
        return
    assert pair.client.tls.write(data) == len(data)
    pair.move()
    assert pair.server.read_all() == bytes(data)


def test_read_into_a_buffer(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.client.tls.write(b"0123456789")
    pair.move()
    buffer = bytearray(6)
    assert pair.server.tls.read(100, buffer) == 6
    assert buffer == b"012345"
    assert pair.server.tls.pending() == 4
    assert pair.server.tls.read(0) == b""
    assert pair.server.tls.read(0, buffer) == 0
    assert pair.server.tls.read(2) == b"67"
    assert pair.server.tls.read(100) == b"89"
    assert pair.server.tls.pending() == 0


@pytest.mark.parametrize("records", [1, 2, 5, 40])
def test_pending_counts_what_is_not_decrypted_yet(records: int, keyring: Keyring) -> None:
    """uvloop reads on only while `pending` of connection or BIO says so: a record left in OpenSSL's BIO would hang it."""
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.server.read_all()
    for number in range(records):
        pair.client.tls.write(b"%d;" % number * 500)
    pair.move()
    got = b""
    while pair.server.incoming.pending or pair.server.tls.pending():
        with suppress(ssl.SSLWantReadError):
            got += pair.server.tls.read(65536)
    assert got == b"".join(b"%d;" % number * 500 for number in range(records))


def test_what_has_given_all_is_not_asked_again(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event loops read until there is no more. What came of that is known without OpenSSL, until there is something new."""
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    end, asked = pair.server, list[int]()
    recv = end.tls.openssl.recv

    def counted(size: int) -> Any:
        asked.append(size)
        return recv(size)

    monkeypatch.setattr(end.tls.openssl, "recv", counted)
    for data in (b"first", b"second"):
        pair.client.tls.write(data)
        pair.move()
        assert end.tls.read(100) == data
        before = len(asked)
        for _ in range(2):
            with pytest.raises(ssl.SSLWantReadError):
                end.tls.read(100)
        assert len(asked) == before
    end.incoming.write_eof()
    with pytest.raises(ssl.SSLEOFError):  # no close_notify
        end.tls.read(100)
    with pytest.raises(ssl.SSLError, match="TLS failed"):  # an end that is known does not turn into silence
        end.tls.read(100)


def test_bytes_one_at_a_time(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.client.tls.write(b"slowly")
    pair.client.tls.write(b" but surely")
    got = b""
    for each in pair.client.outgoing.read():
        pair.server.incoming.write(bytes([each]))
        got += pair.server.read_all()
    assert got == b"slowly but surely"
    assert pair.server.tls.pending() == 0


def test_a_changed_byte_is_noticed(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.client.tls.write(b"MAIL FROM:<a@example>")
    sealed = bytearray(pair.client.outgoing.read())
    sealed[-1] ^= 1
    pair.server.incoming.write(sealed)
    with pytest.raises(ssl.SSLError, match="bad record mac") as caught:
        pair.server.tls.read()
    assert caught.value.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    pair.move()
    with pytest.raises(ssl.SSLError, match="alert bad record mac"):
        pair.client.tls.read()
    with pytest.raises(ssl.SSLError):
        pair.client.tls.write(b"more")
    with pytest.raises(ssl.SSLError):
        pair.client.tls.write(b"more" * 10_000)


# endings


@everybody
@pytest.mark.parametrize("first", ["client", "server"])
def test_close_notify(contexts: Contexts, first: str, keyring: Keyring, folder: Path) -> None:
    """One side says it, the other reads all, may still write (half-close), and says it too."""
    pair = Pair(*contexts(keyring, folder)).shake()
    pair.talk()
    leaving, staying = (pair.client, pair.server) if first == "client" else (pair.server, pair.client)
    leaving.tls.write(b"the last word")
    with pytest.raises(ssl.SSLWantReadError):
        leaving.tls.unwrap()
    pair.move()
    assert staying.tls.read(100) == b"the last word"
    assert staying.tls.read(100) == b""
    assert staying.tls.read(100) == b""
    buffer = bytearray(10)
    assert staying.tls.read(10, buffer) == 0
    if isinstance(staying.tls, TlsConnection):
        assert staying.tls.closed_by_peer
    if isinstance(leaving.tls, TlsConnection):
        assert not leaving.tls.closed_by_peer
    staying.tls.unwrap()
    pair.move()
    leaving.tls.unwrap()
    if isinstance(leaving.tls, TlsConnection):
        assert leaving.tls.closed_by_peer
        with pytest.raises(ssl.SSLZeroReturnError):
            leaving.tls.read()


def test_half_close(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.tls.unwrap()
    pair.move()
    assert pair.server.read_all() == b""
    pair.server.tls.write(b"221 bye")
    pair.move()
    assert pair.client.tls.read(100) == b"221 bye"


def test_data_after_our_close_notify_is_an_error(keyring: Keyring) -> None:
    """As in the ssl module: whoever says close_notify must have read what it wants."""
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.server.tls.write(b"unread")
    pair.move()
    with pytest.raises(ssl.SSLError, match="application data after close notify"):
        pair.client.tls.unwrap()


def test_truncation_is_not_a_close(keyring: Keyring) -> None:
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.client.tls.write(b"only the first ha")
    pair.move()
    pair.server.incoming.write_eof()
    assert pair.server.tls.read() == b"only the first ha"
    with pytest.raises(ssl.SSLEOFError, match="without close_notify"):
        pair.server.tls.read()
    assert not pair.server.tls.closed_by_peer


def test_alert_is_not_a_close(keyring: Keyring) -> None:
    """OpenSSL marks a connection as shut down for both, so that mark is not what `closed_by_peer` may go by."""
    pair = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    pair.client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        pair.client.tls.read()
    pair.move()
    with pytest.raises(ssl.SSLError):
        pair.server.tls.read()
    assert not pair.server.tls.closed_by_peer


# what must not be possible


def test_renegotiation_is_refused(keyring: Keyring, folder: Path) -> None:
    engine = SSL.Context(SSL.TLS_CLIENT_METHOD)
    engine.set_max_proto_version(SSL.TLS1_2_VERSION)
    pair = Pair(server_context(keyring, ask_certificate=True), Context(lambda: engine, server_side=False)).shake()
    pair.client.tls.openssl.renegotiate()
    with suppress(ssl.SSLWantReadError):
        pair.client.tls.do_handshake()
    pair.move()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.tls.read()
    pair.move()
    with pytest.raises(ssl.SSLError, match="no renegotiation"):
        pair.client.tls.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_never_resumed(version: ssl.TLSVersion, keyring: Keyring) -> None:
    """The client that tries gets a full handshake, with its certificate seen again."""
    server, client = server_context(keyring, ask_certificate=True), only(std_client(), version)
    first = Pair(server, client).shake()
    first.talk()
    session = first.client.tls.session
    assert session is not None
    assert not session.has_ticket or version is ssl.TLSVersion.TLSv1_3
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    again = Pair(server, client)
    again.client.incoming, again.client.outgoing = incoming, outgoing
    again.client.tls = client.wrap_bio(incoming, outgoing, server_hostname="a.example", session=session)
    again.shake().talk()
    assert not again.client.tls.session_reused


def test_errors_of_other_connections_do_not_show_here(keyring: Keyring) -> None:
    """OpenSSL has one error queue per thread."""
    healthy = Pair(server_context(keyring, ask_certificate=False), client_context()).shake()
    broken = End(client_context(), server=False, hostname="a.example")
    broken.incoming.write(b"junk" * 100)
    with pytest.raises(ssl.SSLError):
        broken.tls.do_handshake()
    healthy.talk()
    healthy.server.incoming.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        healthy.server.tls.read()


def test_a_forged_certificate_leaves_nothing_for_others(keyring: Keyring, tmp_path: Path) -> None:
    """Its signature fails in the handshake, which goes on; what OpenSSL noted of it must not end anybody's connection."""
    server = server_context(keyring, ask_certificate=True)
    healthy = Pair(server, client_context()).shake()
    ca = root()
    forged = Issued(ca.certificate, new_key()).issue(Wish(names=["c.example"]))
    mallory = Pair(server, showing(own(forged, (forged.der, ca.der)), SSL.TLS1_3_VERSION, tmp_path)).shake()
    assert evidence_of(mallory.server.tls).errors == ("leaf: cert signature failure",)
    healthy.talk()
    with pytest.raises(ssl.SSLWantReadError):
        healthy.server.tls.unwrap()
    healthy.move()
    assert healthy.client.read_all() == b""
    mallory.server.incoming.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        mallory.server.tls.read()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SSL.Error([("SSL routines", "", "wrong version number")]), ssl.SSLError, "wrong version number"),
        (
            SSL.Error([("rsa routines", "", "padding"), ("SSL routines", "", "bad signature")]),
            ssl.SSLError,
            "bad signature",
        ),
        (SSL.Error([("rsa routines", "", "padding check failed")]), ssl.SSLError, "padding check failed"),
        (SSL.Error([("SSL routines", "", "unexpected eof while reading")]), ssl.SSLEOFError, "without close_notify"),
        (SSL.SysCallError(-1, "Unexpected EOF"), ssl.SSLEOFError, "without close_notify"),
        (SSL.WantX509LookupError(), ssl.SSLError, "TLS failed"),
    ],
)
def test_errors_of_pyopenssl(error: SSL.Error, kind: type[ssl.SSLError], text: str) -> None:
    translated = as_ssl_error(error)
    assert type(translated) is kind
    assert text in str(translated)
