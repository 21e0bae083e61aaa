"""What a service manager is told, on a socket like systemd's."""

import socket
from pathlib import Path

import pytest

from relay.workers.service import Service


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Service()),
        ({"NOTIFY_SOCKET": ""}, Service()),
        ({"NOTIFY_SOCKET": "relative"}, Service()),
        ({"NOTIFY_SOCKET": "/run/notify"}, Service("/run/notify")),
        ({"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": "30000000"}, Service("@abstract", 15.0)),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "7"}, Service("/s", 0.5)),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"}, Service("/s")),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "soon"}, Service("/s")),
        ({"WATCHDOG_USEC": "1000000"}, Service()),
    ],
)
def test_what_the_environment_says(environment: dict[str, str], expected: Service) -> None:
    assert Service.of(environment, 7) == expected


@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_said(tmp_path: Path, abstract: bool) -> None:
    name = f"\0ironpost-{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        service = Service(name.replace("\0", "@"))
        service.ready("mail is taken")
        service.alive()
        service.stopping()
        manager.settimeout(5)
        said = [manager.recv(1000).decode() for _ in range(3)]
    assert said[:2] == ["READY=1\nSTATUS=mail is taken", "WATCHDOG=1"]
    assert said[2].startswith("STOPPING=1\n")


def test_nobody_there_is_no_trouble(tmp_path: Path) -> None:
    Service(str(tmp_path / "nobody")).ready("mail is taken")
    Service().alive()
