"""Real programs as peers. Where one is not installed its tests are left out, but never in CI: there they fail."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.config.values import HostPort
from tests.postfix import find, postfix_running


def program(name: str) -> str:
    """The program's path."""
    found = find(name)
    if found is None:
        _leave_out(f"{name} is not installed (as root, tests/install-peers installs it)")
        raise AssertionError("unreachable")
    return found


def _leave_out(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def postfix(name: str, port: int, next_hop: HostPort, settings: Mapping[str, str]) -> Iterator[Path]:
    """`tests.postfix.postfix_running`, quick to try again, where this machine can run it. Gives its log file, gone with the block.

    Not below pytest's folder: that is closed to Postfix's own user, and every test run closes it anew.
    """
    program("postfix")
    if os.geteuid() != 0:
        _leave_out("Postfix starts as root only")
    quick = {"minimal_backoff_time": "1s", "queue_run_delay": "1s", "smtpd_peername_lookup": "no"}
    with (
        tempfile.TemporaryDirectory(prefix="postfix-", ignore_cleanup_errors=True) as folder,
        postfix_running(Path(folder) / name, port, next_hop, {**quick, **settings}) as log,
    ):
        yield log
