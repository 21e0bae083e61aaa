"""The fuzz invariant: any bytes, cut anywhere, give a valid reply or a close, never another exception, never unbounded memory."""

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.inbound.port import Floor, Port
from relay.inbound.proxy import SIGNATURE
from relay.inbound.services import Services, TimeLimits
from relay.inbound.session import Session
from relay.mail.events import Event, Unexpected
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores
from tests.unit.inbound.world import HOSTNAME, FakeIntake, Pki, rule_book

REPLIES = re.compile(rb"(?:[2-5][0-9][0-9][ -][ -~]*\r\n)*\Z")

WORDS = [
    b"EHLO x.example\r\n",
    b"HELO x\r\n",
    b"MAIL FROM:<a@b.example>\r\n",
    b"MAIL FROM:<> SMTPUTF8 BODY=8BITMIME\r\n",
    b"RCPT TO:<bob@example.com>\r\n",
    b"RCPT TO:<x@elsewhere.example>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\nFrom: a@b.example\r\n\r\n",
    b"hello\r\n",
    b".\r\n",
    b"\n.\r\n",
    b"BDAT 5\r\n",
    b"BDAT 7 LAST\r\n",
    b"BDAT 99999999999999999999\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN AGJvYgBnZWhlaW0=\r\n",
    b"AUTH LOGIN\r\n",
    b"QUIT\r\n",
    b"\x16\x03\x01\x00\x05hello",
    b"x" * 3000,
    b"\r\n" * 50,
    "é\u202e\0".encode(),
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY UNKNOWN\r\n",
    SIGNATURE + b"\x20\0\0\0",
]

STREAMS = st.lists(st.sampled_from(WORDS) | st.binary(max_size=60), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=8)


class FakeTransport:
    """Keeps what is written, and calls back as an event loop would."""

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self.session, self.loop = session, loop
        self.written = bytearray()
        self.closing = False

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 4711) if name == "peername" else None

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self.session.connection_lost, None)

    abort = close

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


LISTENERS: dict[str, dict[str, Any]] = {
    "mx": {},
    "proxied": {"proxy_protocol": {"from": ["127.0.0.0/8"]}},
    "submission": {"kind": "submission"},
    "submissions": {"kind": "submissions"},
}


@pytest.mark.parametrize("kind", LISTENERS)
@given(data=STREAMS, cuts=CUTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(
    loop: asyncio.AbstractEventLoop, pki: Pki, tmp_path: Path, kind: str, data: bytes, cuts: list[int]
) -> None:
    loop.run_until_complete(converse(pki, tmp_path, LISTENERS[kind], data, cuts))


async def converse(pki: Pki, base: Path, listener: dict[str, Any], data: bytes, cuts: list[int]) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    events: list[Event] = []
    config = {"listeners": [{"address": "127.0.0.1:0"} | listener], "submission": {"passwords": "passwords"}}
    book = rule_book(base, config)
    intake = FakeIntake()
    intake.go.set()
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)  # noqa: E731 - a clock is a function
    keyring = Keyring(pki.certificates, hostname=HOSTNAME, clock=clock)
    floor = Floor(Services(lambda: book, intake, TrustStores(), keyring, events.append, clock), TimeLimits())
    session = Session(Port(floor, book.config.listeners[0]))
    transport = FakeTransport(session, loop)
    session.connection_made(transport)  # type: ignore[arg-type]  # has what a session uses of one
    start = 0
    for end in [*sorted(cuts), len(data)]:
        if not transport.closing:
            session.data_received(data[start:end])
        start = max(start, end)
        while floor.tasks:
            await asyncio.wait(floor.tasks)
    clear = bytes(transport.written)
    if b"220 2.0.0 ready to start TLS\r\n" in clear:
        clear = clear[: clear.index(b"220 2.0.0 ready to start TLS\r\n")]  # records, from there on
    if "submissions" not in listener.values():
        assert REPLIES.match(clear), clear
    transport.close()
    await asyncio.sleep(0)
    floor.deadlines.close()
    assert [event for event in events if isinstance(event, Unexpected)] == []
    assert complaints == []
    assert (floor.connections.total, len(floor.sessions), len(floor.deadlines)) == (0, 0, 0)
    assert all(each.aborted or each.ended.is_set() for each in intake.begun)
    loop.set_exception_handler(None)
