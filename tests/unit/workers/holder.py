"""Another process of a relay, that holds one of its locks."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from relay.workers.locks import Byte
from relay.workers.table import Table

_HOLDER = """
import sys
from relay.workers.locks import Byte, ProcessLock
lock = ProcessLock(int(sys.argv[1]), Byte(int(sys.argv[2])))
print(lock.take(), flush=True)
sys.stdin.readline()
lock.give()
print("given", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holding(table: Table, byte: Byte) -> Iterator["subprocess.Popen[str]"]:
    """It holds the lock until it gets a line (and says "given"), or is killed, as it is at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(table.fd), str(int(byte))],
        pass_fds=[table.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
    finally:
        process.kill()
        process.communicate()
