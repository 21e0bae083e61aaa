"""A name server on a free port (UDP and TCP) of 127.0.0.1 that says what a test tells it to say, and counts the questions."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from relay.config.values import HostPort

SOA = "ns.test. admin.test. 1 3600 600 86400 120"


@dataclass
class Zone:
    """`records` maps "name TYPE" to (TTL, rdata...); `cnames` name to name; `codes` "name TYPE" or name to an rcode; `silent` never answers.

    Whoever asks with AD is told of names in `secure` that they are DNSSEC-secure. `errors`: "name TYPE" or name to the extended error
    (RFC 8914) that goes with its rcode.
    """

    records: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    cnames: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dns.rcode.Rcode] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    soa: tuple[int, str] | None = (300, SOA)
    secure: set[str] = field(default_factory=set)
    errors: dict[str, int] = field(default_factory=dict)

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower() if question.name != dns.name.root else "."
        kind = question.rdtype.name
        if name in self.silent or f"{name} {kind}" in self.silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        secure = {name} <= self.secure
        while name in self.cnames:
            target = self.cnames[name]
            response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{target}."))
            if kind == "CNAME":
                break
            name = target
            secure = secure and name in self.secure
        if secure and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        code = self.codes.get(f"{name} {kind}", self.codes.get(name))
        error = self.errors.get(f"{name} {kind}", self.errors.get(name))
        if error is not None:
            response.use_edns(0, options=[dns.edns.EDEOption(error)])  # type: ignore[arg-type]  # any number will do
        known = name in self.cnames or any(each.split()[0] == name for each in self.records)
        response.set_rcode(code if code is not None else dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN)
        if f"{name} {kind}" in self.records and code is None:
            ttl, rdatas = self.records[f"{name} {kind}"]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *rdatas))
        elif self.soa is not None and not (kind == "CNAME" and name in self.cnames):
            response.authority.append(dns.rrset.from_text("test.", self.soa[0], "IN", "SOA", self.soa[1]))
        return response


_TRIES = 20


class DnsServer(asyncio.DatagramProtocol):
    """`async with DnsServer(zone) as server:`; `server.address` is its HostPort, `server.asked` counts "name TYPE"."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: Counter[str] = Counter()
        self.arrived = asyncio.Event()
        self.held: asyncio.Event | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(_TRIES):
            self._server = await asyncio.start_server(self._stream, "127.0.0.1", 0)
            self.address = HostPort("127.0.0.1", self._server.sockets[0].getsockname()[1])
            try:
                local = ("127.0.0.1", self.address.port)
                self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=local)
            except OSError:  # a port that is free for TCP need not be so for UDP
                self._server.close()
            else:
                return self
        raise OSError(f"no port is free for TCP and UDP alike, in {_TRIES} tries")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked[f"{question.name.to_text(omit_final_dot=True).lower()} {question.rdtype.name}"] += 1
        self.arrived.set()
        task = asyncio.get_running_loop().create_task(self._reply(query, address, self.held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, query: dns.message.Message, address: tuple[str, int], held: asyncio.Event | None) -> None:
        if held is not None:
            await held.wait()
        response = self.zone.answer(query)
        if response is None or self._transport is None:
            return
        try:
            wire = response.to_wire(max_size=1232)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            wire = short.to_wire()
        self._transport.sendto(wire, address)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        response = self.zone.answer(dns.message.from_wire(await reader.readexactly(size)))
        if response is not None:
            wire = response.to_wire(max_size=65535)
            writer.write(len(wire).to_bytes(2) + wire)
        writer.close()
        await writer.wait_closed()
