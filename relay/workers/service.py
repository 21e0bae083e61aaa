"""Tells the service manager how the relay is: systemd's sd_notify protocol, where it set NOTIFY_SOCKET.

Datagrams that nobody need read: none of them ever waits, fails or stops the relay.
Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """`address` "" where no service manager listens; `watchdog` is how often, in seconds, it wants to hear that we live, 0.0 for never."""

    address: str = ""
    watchdog: float = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> "Service":
        """From what systemd gave to the process `pid`. Half the time that it allows, as its manual advises."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        wanted = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(address, int(wanted) / 2e6 if ours and wanted.isascii() and wanted.isdigit() else 0.0)

    def ready(self, status: str) -> None:
        """Mail is taken: units that wait for us may start."""
        self._say(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._say("STOPPING=1\nSTATUS=deliveries and sessions under way may end")

    def alive(self) -> None:
        self._say("WATCHDOG=1")

    def _say(self, text: str) -> None:
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
            line.sendto(text.encode(), name)


def of_this_process() -> Service:
    return Service.of(os.environ, os.getpid())
