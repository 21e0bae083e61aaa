"""A message of exactly `limits.message_size`, and one octet more: by DATA and BDAT, announced and not, through the whole relay.

The size is that of the content between DATA and the final dot, stuffed dots not counted (RFC 1870 section 3); our trace header comes on top.
"""

import asyncio
from pathlib import Path

import pytest

from bench.served import outbound
from relay.app import Relay
from relay.testing import Sink, write_config
from tests.e2e.heard import Heard

LIMIT = 600_000  # more than the store keeps in its database


def content(size: int) -> bytes:
    """Every line begins with a dot."""
    head = b"From: <a@example.test>\r\nSubject: size\r\n\r\n"
    line = b"." + b"x" * 70 + b"\r\n"
    lines = line * ((size - len(head)) // len(line) - 1)
    return head + lines + b"y" * (size - len(head) - len(lines) - 2) + b"\r\n"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def code(self) -> int:
        while (line := await self.reader.readuntil(b"\r\n"))[3:4] == b"-":
            pass
        return int(line[:3])

    async def ask(self, data: bytes) -> int:
        self.writer.write(data)
        return await self.code()

    async def send(self, body: bytes, way: str, *, announced: bool) -> int:
        """The first answer that is not a success, or the last one."""
        size = b" SIZE=%d" % len(body) if announced else b""
        last = b"BDAT %d LAST\r\n" % len(body) + body
        data = [b"DATA\r\n", body.replace(b"\r\n.", b"\r\n..") + b".\r\n"] if way == "DATA" else [last]
        for line in (b"MAIL FROM:<a@example.test>" + size + b"\r\n", b"RCPT TO:<b@example.com>\r\n", *data):
            code = await self.ask(line)
            if code >= 400:
                return code
        return code


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
async def test_the_limit_is_taken_and_one_octet_more_is_not(way: str, announced: bool, tmp_path: Path) -> None:
    async with Sink() as sink:
        values = {
            "hostname": "relay.test",
            "postmaster": "postmaster@relay.test",
            "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
            "queue": "sqlite:queue.db",
            "limits": {"free_space": "1MiB", "message_size": LIMIT},
            "accept": {"networks": ["127.0.0.0/8"]},
            "connectors": [outbound("out", "*", sink.address)],
        }
        async with Relay(write_config(tmp_path, values, {}), observers=[Heard()]) as relay:
            address = relay.address()
            client = Client(*await asyncio.open_connection(address.host, address.port))
            await client.code()
            assert await client.ask(b"EHLO client.test\r\n") == 250
            assert len(content(LIMIT)) == LIMIT
            assert await client.send(content(LIMIT + 1), way, announced=announced) == 552
            # The connection goes on, and nothing of the refused one is left.
            assert await client.ask(b"RSET\r\n") == 250
            assert await client.send(content(LIMIT), way, announced=announced) == 250
            (message,) = await sink.wait()
            client.writer.close()
    assert message.content.endswith(content(LIMIT))
