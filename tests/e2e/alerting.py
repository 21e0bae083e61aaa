"""A relay that tells of what it finds, by mail to a sink and by posts to a webhook, and a partner that breaks TLS: for tests of alerts."""

import email
import email.policy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from relay.app import Relay
from relay.app.relay import Times
from relay.config.values import HostPort
from relay.testing.pair import submit, write_config
from relay.testing.pki import Pki
from relay.testing.sink import Sink
from tests.e2e.heard import Heard
from tests.e2e.hook import Hook

SECRET = "a secret of the hook, long enough"
TIMES = Times(watch=0.2, grace=5, alerts=0.2)


@dataclass
class World:
    """The relay is made anew by `relay`; `partner` is at `port`: without TLS at first, which its connector does not take."""

    folder: Path
    pki: Pki
    admin: Sink
    hook: Hook
    partner_port: int
    heard: Heard

    def config(self, **more: Any) -> dict[str, Any]:
        def to(name: str, domain: str, port: int, **keys: Any) -> dict[str, Any]:
            return {
                "name": name,
                "direction": "outbound",
                "match": {"recipient_domains": [domain]},
                "route": {"smart_hosts": [f"127.0.0.1:{port}"]},
                "retry": {"initial": "200ms", "maximum": "300ms"},
                **keys,
            }

        return {
            "hostname": "relay.test",
            "postmaster": "postmaster@relay.test",
            "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
            "queue": "sqlite:queue.db",
            "trust": str(self.pki.ca),
            "workers": 1,
            "limits": {"free_space": "1MiB"},
            "accept": {"networks": ["127.0.0.0/8"]},
            "alerts": {
                "mail": ["admin@ops.test"],
                "webhook": {
                    "url": f"https://127.0.0.1:{self.hook.port}/alerts?team=mail",
                    "secret": "file:hook.secret",
                    "private": "allow",
                },
            },
            "connectors": [
                to("partner", "b.test", self.partner_port, tls="encryption"),
                to("ops", "ops.test", self.admin.address.port),
            ],
            **more,
        }

    def write(self, **more: Any) -> Path:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "hook.secret").write_text(SECRET + "\n")
        return write_config(self.folder, self.config(**more), {})

    def relay(self, given: Mapping[str, Any] | None = None, **more: Any) -> Relay:
        """`given` goes to Relay, the rest into its file."""
        return Relay(self.write(**more), observers=[self.heard], times=TIMES, **(given or {}))


@asynccontextmanager
async def alerting(folder: Path) -> AsyncIterator[World]:
    pki = Pki(folder / "pki")
    async with Sink() as admin, Hook(pki.issue(folder / "hook", "127.0.0.1")) as hook:
        async with Sink() as probe:
            port = probe.address.port
        yield World(folder / "relay", pki, admin, hook, port, Heard())


def partner(world: World, *, safe: bool) -> Sink:
    certificate = world.pki.issue(world.folder.parent / "partner", "b.test") if safe else None
    return Sink(certificate, address=HostPort("127.0.0.1", world.partner_port))


async def send(relay: Relay, to: str = "bob@b.test") -> None:
    await submit(relay.address(), "alice@a.test", [to], b"Subject: hello\r\n\r\nthe content is secret\r\n")


def parsed(content: bytes) -> EmailMessage:
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found
