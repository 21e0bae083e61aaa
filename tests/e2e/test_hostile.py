"""The whole relay against servers that misbehave: what waits, what comes back to the sender, and what the wire saw.

The full table of behaviours x levels is in tests/unit/outbound/test_levels.py; here a message goes all the way, to its bounce.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.app import Relay
from relay.app.relay import Times
from relay.mail.events import AttemptMade, RecipientEnded
from relay.testing import Sink, submit, write_config
from tests.e2e.heard import Heard
from tests.hostile import Behaviour, Handshake, HostileServer, Pki, Step, Then

SECRET = b"nobody else may read this"
MESSAGE = b"From: alice@home.test\r\nSubject: private\r\n\r\n" + SECRET + b"\r\n"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("hostile"))


def config(folder: Path, port: int, sink: Sink, **outbound: Any) -> Path:
    def to(name: str, domain: str, host: str, **keys: Any) -> dict[str, Any]:
        match = {"recipient_domains": [domain]}
        return {"name": name, "direction": "outbound", "match": match, "route": {"smart_hosts": [host]}} | keys

    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "connectors": [
            to("partner-out", "partner.test", f"127.0.0.1:{port}", **outbound),
            to("home", "home.test", str(sink.address)),
        ],
    }
    return write_config(folder, values, {})


SHORT = {"initial": "100ms", "maximum": "200ms", "expire": "600ms", "delay_warning": "0s"}
CASES: dict[str, tuple[Callable[[Pki], Behaviour], str, str]] = {
    "no STARTTLS": (lambda _pki: Behaviour(), "encryption", "5.7.4"),
    "STARTTLS refused": (
        lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: b"454 no\r\n"}),
        "encryption",
        "5.7.5",
    ),
    "garbage": (lambda pki: Behaviour(tls=pki.good, handshake=Handshake.GARBAGE), "encryption", "5.7.5"),
    "broken, opportunistic": (lambda pki: Behaviour(tls=pki.good, handshake=Handshake.CLOSE), "opportunistic", "5.7.5"),
    "expired": (lambda pki: Behaviour(tls=pki.expired), "certificate", "5.7.5"),
    "self-signed": (lambda pki: Behaviour(tls=pki.self_signed), "certificate", "5.7.5"),
    "wrong CA": (lambda pki: Behaviour(tls=pki.wrong_ca), "certificate", "5.7.5"),
    "wrong name": (lambda pki: Behaviour(tls=pki.wrong_name), "domain", "5.7.5"),
    "TLS 1.0": (lambda pki: Behaviour(tls=pki.old), "encryption", "5.7.5"),
    "refuses the recipient": (
        lambda pki: Behaviour(tls=pki.good, reactions={Step.RCPT: b"550 5.1.1 nobody\r\n"}),
        "encryption",
        "5.1.1",
    ),
    "never takes it": (
        lambda pki: Behaviour(tls=pki.good, reactions={Step.FINAL: b"451 4.3.0 later\r\n"}),
        "encryption",
        "5.4.7",
    ),
    "hangs up at MAIL": (lambda pki: Behaviour(tls=pki.good, reactions={Step.MAIL: Then.CLOSE}), "encryption", "5.4.7"),
}


@pytest.mark.parametrize("case", CASES)
async def test_it_waits_then_comes_back_and_the_wire_saw_nothing(case: str, pki: Pki, tmp_path: Path) -> None:
    behaviour, level, status = CASES[case]
    outbound: dict[str, Any] = {"tls": level, "retry": SHORT}
    if level in ("certificate", "domain"):
        outbound["ca"] = str(pki.ca)
    if level == "domain":
        outbound["names"] = ["mx.hostile.test"]
    heard = Heard()
    async with Sink() as sink, HostileServer(behaviour(pki)) as server:
        file = config(tmp_path, server.port, sink, **outbound)
        async with Relay(file, observers=[heard], times=Times(watch=60, grace=5)) as relay:
            await submit(relay.address(), "alice@home.test", ["bob@partner.test"], MESSAGE)
            (report,) = await sink.wait()
            ended = [each for each in await heard.wait(RecipientEnded) if each.recipient == "bob@partner.test"]
        assert SECRET not in server.clear
        assert b"MAIL" not in server.clear
    assert [each.state for each in ended] == ["bounced"]
    assert len(heard.of(AttemptMade)) >= (2 if status != "5.1.1" else 1)
    fields = report.content.decode().splitlines()
    assert "Action: failed" in fields
    assert f"Status: {status}" in fields
    assert SECRET not in report.content  # headers only: the way home is in clear
