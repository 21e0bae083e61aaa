"""Any bytes after the handshake give one HTTP answer, or none yet: never an exception, never more than one small header is kept."""

import asyncio
from pathlib import Path
from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st

from relay.inbound.policies import PolicyServer, _Session
from relay.policy.book import RuleBook
from relay.tls.context import server_context
from relay.tls.keyring import Keyring
from tests.unit.policy.builders import config
from tests.unit.tls.pki import clock

BOOK = RuleBook.of(config(accept={"domains": ["a.example"]}))
CONTEXT = server_context(Keyring(Path("/nonexistent"), hostname="a.example", clock=clock), ask_certificate=False)
WORDS = [
    b"GET ",
    b"HEAD ",
    b"CONNECT ",
    b"/.well-known/mta-sts.txt",
    b"https://mta-sts.a.example/.well-known/mta-sts.txt",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: mta-sts.a.example\r\n",
    b"Host: \xff\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
    b"\r\n",
    b"\n",
    b"\0",
]


class Clear:
    """In the place of TLS and of the transport: what goes in comes out."""

    def __init__(self) -> None:
        self.said, self.is_closed, self.closed = b"", False, False

    def decrypt(self, data: bytes) -> bytes:
        return data

    def encrypt(self, data: bytes) -> bytes:
        return data

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.said += data

    def close(self) -> bytes:
        self.is_closed = True
        return b""


class Tls(Clear):
    def close(self) -> bytes:
        return b""


def session() -> tuple[_Session, Clear]:
    def unexpected(event: object) -> None:
        raise AssertionError(event)

    made: Any = _Session(PolicyServer(lambda: BOOK, None, unexpected), CONTEXT)
    made._tls, made._transport, made._secured = Tls(), Clear(), True
    return made, made._transport


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=40)), max_size=20))
def test_any_bytes_get_at_most_one_answer(pieces: list[bytes]) -> None:
    async def feed() -> Clear:
        made, peer = session()
        for piece in pieces:
            if not peer.is_closed and piece:
                made.data_received(piece)
        return peer

    peer = asyncio.run(feed())
    if peer.said:
        assert peer.is_closed
        client = h11.Connection(h11.CLIENT)
        client.send(
            h11.Request(method="HEAD" if b"HEAD " in b"".join(pieces) else "GET", target="/", headers=[("host", "x")])
        )
        client.send(h11.EndOfMessage())
        client.receive_data(peer.said)
        answer = client.next_event()
        assert isinstance(answer, h11.Response)
        assert answer.status_code in (200, 400, 404, 405, 431, 501)


async def test_what_never_ends_is_not_kept() -> None:
    made, peer = session()
    made.data_received(b"GET / HTTP/1.1\r\n")
    for _ in range(100):
        if not peer.is_closed:
            made.data_received(b"x: y\r\n" * 40)
    assert peer.said.startswith(b"HTTP/1.1 4")
