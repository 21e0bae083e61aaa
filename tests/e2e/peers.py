"""Real programs as peers: private Postfix instances, and the mark that says which tests need what.

In CI nothing marked is left out: a missing program fails the test there.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.config.values import HostPort

_SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def program(name: str) -> str:
    """The program's path. Where it is not installed the test is left out, but in CI it fails."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + _SBIN)
    if found is None:
        message = f"{name} is not installed (tests/install-peers installs it as root)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def postfix(folder: Path, port: int, next_hop: HostPort, settings: Mapping[str, str]) -> Iterator[Path]:
    """A Postfix on 127.0.0.1:`port` that relays everything to `next_hop`, while the block runs. Gives its log file.

    `settings` are lines of main.cf over the usual ones. Needs root, since Postfix does.
    """
    command = program("postfix")
    if os.geteuid() != 0:
        message = "Postfix starts as root only"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    for name in ("etc", "spool", "data"):
        (folder / name).mkdir(parents=True)
    shutil.chown(folder / "data", "postfix")
    for parent in (folder, *folder.parents):  # Postfix's own user must get through
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    log = folder / "log"
    main = {
        "compatibility_level": "3.6",
        "queue_directory": str(folder / "spool"),
        "data_directory": str(folder / "data"),
        "command_directory": "/usr/sbin",
        "daemon_directory": "/usr/lib/postfix/sbin",
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "myhostname": f"{folder.name}.test",
        "mydestination": "",
        "local_transport": "error:none",
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "mynetworks": "127.0.0.0/8",
        "relayhost": f"[{next_hop.host}]:{next_hop.port}",
        "smtpd_recipient_restrictions": "permit_mynetworks,reject",
        "smtpd_peername_lookup": "no",
        "maillog_file": str(log),
        "maillog_file_prefixes": str(folder),
        "disable_dns_lookups": "yes",
        "smtp_dns_support_level": "disabled",
        "alias_maps": "",
        "alias_database": "",
        "minimal_backoff_time": "1s",
        "queue_run_delay": "1s",
        **settings,
    }
    (folder / "etc" / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
    (folder / "etc" / "master.cf").write_text(_MASTER.format(port=port))
    run = [command, "-c", str(folder / "etc")]
    started = subprocess.run([*run, "start"], capture_output=True, text=True, timeout=30, check=False)
    assert started.returncode == 0, started.stderr + (log.read_text() if log.exists() else "")
    try:
        yield log
    finally:
        subprocess.run([*run, "stop"], capture_output=True, timeout=30, check=False)
