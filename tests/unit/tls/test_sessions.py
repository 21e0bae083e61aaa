"""Sessions of deliveries: resumed with servers that want to, once, by the context that made them, and with the chain that was shown then."""

import ssl
from pathlib import Path

import pytest

from relay.tls.connection import TlsConnection
from relay.tls.context import client_context, server_context
from relay.tls.evidence import evidence_of
from relay.tls.keyring import Keyring
from relay.tls.sessions import Sessions
from tests.unit.tls.pki import Pair, Wish, clock, root, std_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    intermediate = root().issue(Wish("intermediate", ca=True))
    intermediate.issue(Wish("a", names=("a.example",))).write(tmp_path, "a")
    return tmp_path


def ours(pair: Pair) -> TlsConnection:
    tls = pair.client.tls
    assert isinstance(tls, TlsConnection)
    return tls


def test_a_resumed_session_has_the_evidence_of_the_first(folder: Path) -> None:
    server, client = std_server(folder, "a"), client_context()
    first = Pair(server, client).shake()
    first.talk()
    session = ours(first).resumable
    assert session is not None
    second = Pair(server, client.resuming(session)).shake()
    second.talk()
    assert second.server.tls.session_reused
    before, after = evidence_of(first.client.tls), evidence_of(second.client.tls)
    assert (before.resumed, after.resumed) == (False, True)
    assert after.chain == before.chain
    assert [each.subject for each in after.chain] == ["CN=a", "CN=intermediate"]
    assert after.group == before.group, "fresh keys, as in any handshake"


def test_a_session_that_the_server_does_not_know_makes_a_whole_handshake(folder: Path) -> None:
    client = client_context()
    first = Pair(std_server(folder, "a"), client).shake()
    first.talk()
    session = ours(first).resumable
    assert session is not None
    second = Pair(std_server(folder, "a"), client.resuming(session)).shake()
    second.talk()
    assert not evidence_of(second.client.tls).resumed


def test_our_own_server_resumes_nothing(folder: Path) -> None:
    keyring = Keyring(folder, hostname="a.example", clock=clock)
    server, client = server_context(keyring, ask_certificate=True), client_context()
    first = Pair(server, client).shake()
    first.talk()
    session = ours(first).resumable
    assert session is not None
    second = Pair(server, client.resuming(session)).shake()
    second.talk()
    assert not evidence_of(second.client.tls).resumed
    assert not evidence_of(second.server.tls).resumed


def test_below_tls_1_3_nothing_is_kept(folder: Path) -> None:
    server = std_server(folder, "a")
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = Pair(server, client_context()).shake()
    pair.talk()
    assert ours(pair).resumable is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_once_by_its_own_context_and_not_for_ever(folder: Path) -> None:
    client, ticks = client_context(), Clock()
    pair = Pair(std_server(folder, "a"), client).shake()
    pair.talk()
    session = ours(pair).resumable
    assert session is not None
    sessions = Sessions(ticks, size=2, lifetime=10)

    sessions.put("a", client, session)
    assert sessions.take("b", client) is None
    assert sessions.take("a", client) is session
    assert sessions.take("a", client) is None

    sessions.put("a", client, session)
    assert sessions.take("a", client_context()) is None, "the certificate that we show is another one now"
    assert len(sessions) == 0

    sessions.put("a", client, session)
    ticks.now = 10
    assert sessions.take("a", client) is None

    for key in "abc":
        sessions.put(key, client, session)
    assert len(sessions) == 2
    assert sessions.take("a", client) is None


def test_a_host_that_refused_is_left_alone_for_ten_minutes(folder: Path) -> None:
    client, ticks = client_context(), Clock()
    pair = Pair(std_server(folder, "a"), client).shake()
    pair.talk()
    session = ours(pair).resumable
    assert session is not None
    sessions = Sessions(ticks)
    assert sessions.wants("a", client)

    sessions.refused("a", client)
    assert not sessions.wants("a", client)
    assert sessions.wants("b", client)
    assert sessions.take("a", client) is None
    assert not sessions.wants("a", client), "nor does taking end the pause"
    assert sessions.wants("a", client_context()), "with another certificate of ours it may be otherwise"

    ticks.now = 600
    assert sessions.wants("a", client)
    sessions.put("a", client, session)
    assert sessions.take("a", client) is session


def test_a_context_that_resumed_serves_the_next_connection_and_offers_a_session_once(folder: Path) -> None:
    server, client = std_server(folder, "a"), client_context()
    first = Pair(server, client).shake()
    first.talk()
    session = ours(first).resumable
    assert session is not None
    resuming = client.resuming(session)
    assert resuming is not client
    second = Pair(server, resuming).shake()
    second.talk()
    assert (ours(first).offered_session, ours(second).offered_session) == (False, True)
    newer = ours(second).resumable
    assert newer is not None
    assert client.resuming(newer) is resuming
    third = Pair(server, resuming).shake()
    assert third.server.tls.session_reused
    fourth = Pair(server, resuming).shake()
    assert not ours(fourth).offered_session
    assert not fourth.server.tls.session_reused
