"""Clients that keep book: which messages had their 250, and which were refused; and what came of them at a recording sink."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiosmtplib

from relay.config.values import HostPort


class Lost(AssertionError):  # noqa: N818 - says what is
    """What was promised does not hold."""


def body(number: int) -> bytes:
    """From one line to about 6 KB; every nineteenth is just larger than a small one of the store's, some of those have 2.7 MB."""
    large = 40_000 if number % 95 == 94 else 4000
    lines = large if number % 19 == 18 else number * 7919 % 84
    return b"From: load@example.test\r\nSubject: %d\r\n\r\n" % number + (b"%010d " % number * 6 + b"\r\n") * lines


@dataclass
class Book:
    """`kept`: had their 250. `refused`: had another answer, by code, and are `unwanted`. All else was cut off: it may be there or not.

    `taken` is told of each 250 as soon as it is read.
    """

    taken: Callable[[str], object] = lambda _recipient: None
    domain: str = "example.com"
    kept: set[str] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    unwanted: set[str] = field(default_factory=set)
    sent: int = 0

    def __post_init__(self) -> None:
        self._more = asyncio.Event()

    async def beyond(self, count: int, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while len(self.kept) < count:
                self._more.clear()
                await self._more.wait()

    async def load(self, address: HostPort, *, clients: int, until: int) -> None:
        """So many clients at once, until so many messages have been sent in all, or until their connections are gone."""
        await asyncio.gather(*(self.client(address, lambda: self.sent >= until) for _ in range(clients)))

    async def once(self, address: HostPort) -> bool:
        """One message on a connection of its own; was it taken?"""
        before, asked = len(self.kept), iter((False, True))
        await self.client(address, lambda: next(asked))
        return len(self.kept) > before

    async def client(self, address: HostPort, until: Callable[[], bool] = lambda: False, seconds: float = 60) -> None:
        """Sends one message after the other over one connection, until told so or until the connection is gone."""
        client = aiosmtplib.SMTP(
            hostname=address.host, port=address.port, start_tls=False, local_hostname="load.test", timeout=seconds
        )
        try:
            await client.connect()
            while not until():
                number, self.sent = self.sent, self.sent + 1
                recipient = f"{number}@{self.domain}"
                try:
                    await client.sendmail("load@example.test", [recipient], body(number))
                except aiosmtplib.SMTPResponseException as refused:
                    self._refused(recipient, refused.code)
                    continue
                except aiosmtplib.SMTPRecipientsRefused as refused:
                    self._refused(recipient, refused.recipients[0].code)
                    continue
                self.taken(recipient)
                self.kept.add(recipient)
                self._more.set()
        except (aiosmtplib.SMTPException, OSError):
            return
        finally:
            client.close()

    def _refused(self, recipient: str, code: int) -> None:
        self.refused[code] += 1
        self.unwanted.add(recipient)

    def missing(self, arrived: Iterable[str]) -> set[str]:
        return self.kept - set(arrived)


def twice(arrived: Iterable[str]) -> dict[str, int]:
    """What came more than once, and how often."""
    return {recipient: count for recipient, count in Counter(arrived).items() if count > 1}
