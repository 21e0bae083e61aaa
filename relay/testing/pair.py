"""Two relays and a sink, in the running event loop: A -> B -> sink, with a PKI of their own, on free ports.

A shows B its certificate and demands B's; B takes mail from A's domain only with A's certificate. So a message that arrives in the
sink went over enforced, mutually verified TLS. What they demand can be changed for one test.
"""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosmtplib
from ruamel.yaml import YAML

from relay.app import Relay
from relay.app.relay import Times
from relay.config.values import HostPort
from relay.mail.events import Emit
from relay.testing.pki import Pki
from relay.testing.sink import Received, Sink
from relay.tls.revocation.answers import RevocationSettings

A, B = "a.test", "b.test"
_FOREVER = Times(watch=0.1, grace=5.0)


@dataclass(frozen=True, slots=True)
class RelayPair:
    """`a` takes mail from anybody on this machine, sends what is for b.test to `b`, which hands it to `sink`. `folder` holds all files."""

    a: Relay
    b: Relay
    sink: Sink
    pki: Pki
    folder: Path

    async def send(
        self,
        recipient: str | Sequence[str] = f"bob@{B}",
        *,
        sender: str = f"alice@{A}",
        content: bytes | str = "hello",
        via: str = "a",
    ) -> str:
        """Hands a message to relay A (or B) as a client in clear would, and gives its reply. aiosmtplib's errors where it is refused.

        `content` without a header gets one.
        """
        body = content.encode() if isinstance(content, str) else content
        if b":" not in body.split(b"\r\n", 1)[0]:
            body = f"From: {sender}\r\nSubject: test\r\n\r\n".encode() + body
        address = (self.a if via == "a" else self.b).address()
        return await submit(address, sender, [recipient] if isinstance(recipient, str) else list(recipient), body)

    async def received(self, count: int = 1) -> list[Received]:
        """What the sink has, once there are at least `count` messages."""
        return await self.sink.wait(count)


async def submit(address: HostPort, sender: str, recipients: Sequence[str], content: bytes) -> str:
    """One message by aiosmtplib, in clear. The final reply's text; aiosmtplib's exceptions where the relay refuses."""
    client = aiosmtplib.SMTP(
        hostname=address.host, port=address.port, start_tls=False, local_hostname="client.test", timeout=20
    )
    async with client:
        _errors, reply = await client.sendmail(sender, list(recipients), content)
    return reply


@asynccontextmanager
async def relay_pair(
    *,
    outbound: Mapping[str, Any] | None = None,
    require: Mapping[str, Any] | None = None,
    a: Mapping[str, Any] | None = None,
    b: Mapping[str, Any] | None = None,
    more: Sequence[Mapping[str, Any]] = (),
    folder: Path | None = None,
    observers: Sequence[Emit] = (),
    revocation: RevocationSettings = RevocationSettings(),  # noqa: B008 - frozen
) -> AsyncIterator[RelayPair]:
    """Two relays that hold each other to TLS, while the block runs.

    `outbound` changes keys of A's connector to B ({"tls": "encryption", "names": None}; None takes a key away), `require` those of what B
    requires of A. `a` and `b` change top-level keys of either configuration; `more` are further connectors of A.
    `observers` hear every event of both. `revocation`: how long they wait for CRLs and OCSP answers.
    Files go to `folder`, or to a temporary one that is gone afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="relay-pair-") as temporary:
        root = folder or Path(temporary)
        pki = Pki(root / "pki")
        async with Sink() as sink:
            pki.issue(root / "b" / "certs", B, "127.0.0.1")
            file_b = write_config(root / "b", _config_b(pki, sink.address, require or {}), b or {})
            async with Relay(file_b, observers=observers, times=_FOREVER, revocation=revocation) as relay_b:
                pki.issue(root / "a" / "certs", A)
                file_a = write_config(root / "a", _config_a(pki, relay_b.address(), outbound or {}, more), a or {})
                async with Relay(file_a, observers=observers, times=_FOREVER, revocation=revocation) as relay_a:
                    yield RelayPair(relay_a, relay_b, sink, pki, root)


def write_config(folder: Path, config: Mapping[str, Any], changes: Mapping[str, Any]) -> Path:
    """`connectors.yaml` in `folder`, with `changes` over `config`, top-level key by key; None takes one away."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "connectors.yaml"
    with file.open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(_merged(config, changes), stream)
    return file


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def _base(hostname: str) -> dict[str, Any]:
    return {
        "hostname": hostname,
        "postmaster": f"postmaster@{hostname}",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
    }


def _config_a(
    pki: Pki, relay_b: HostPort, outbound: Mapping[str, Any], more: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    connector = {
        "name": "to-b",
        "direction": "outbound",
        "match": {"recipient_domains": [B]},
        "tls": "domain",
        "names": [B],
        "ca": str(pki.ca),
        "tls_version": "TLSv1.3",
        "client_certificate": A,
        "route": {"smart_hosts": [str(relay_b)]},
        "retry": {"initial": "200ms", "maximum": "1s"},
    }
    return {
        **_base(A),
        "accept": {"networks": ["127.0.0.0/8"]},
        "connectors": [_merged(connector, outbound), *more],
    }


def _config_b(pki: Pki, sink: HostPort, require: Mapping[str, Any]) -> dict[str, Any]:
    required = {"tls": True, "tls_version": "TLSv1.3", "certificate": {"names": [A], "ca": str(pki.ca)}}
    return {
        **_base(B),
        "accept": {"domains": [B]},
        "connectors": [
            {
                "name": "from-a",
                "direction": "inbound",
                "match": {"sender_domains": [A], "header_from": False},
                "require": _merged(required, require),
            },
            {
                "name": "inner",
                "direction": "outbound",
                "match": {"recipient_domains": [B]},
                "route": {"smart_hosts": [str(sink)]},
                "retry": {"initial": "200ms", "maximum": "1s"},
            },
        ],
    }
