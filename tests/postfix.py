"""A private Postfix that relays everything to one next hop: the real peer of tests and the measure of benchmarks."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from relay.config.values import HostPort

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
tlsproxy unix - - n - 0 tlsproxy
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


def find(program: str) -> str | None:
    """The program's path, None where it is not installed."""
    return shutil.which(program) or shutil.which(program, path=PATH)


@contextmanager
def postfix_running(folder: Path, port: int, next_hop: HostPort, settings: Mapping[str, str]) -> Iterator[Path]:
    """A Postfix on 127.0.0.1:`port` that hands everything to `next_hop`, while the block runs. Gives its log file.

    `settings` are lines of main.cf over the usual ones. Needs Postfix, and root, since Postfix starts as root only. RuntimeError with
    what it said where it does not start.
    """
    for name in ("etc", "spool", "data"):
        (folder / name).mkdir(parents=True)
    shutil.chown(folder / "data", "postfix")
    for each in (folder, folder.parent):  # Postfix's own user must get through
        each.chmod(0o755)
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
        "smtpd_client_connection_count_limit": "0",
        "maillog_file": str(log),
        "maillog_file_prefixes": str(folder),
        "default_process_limit": "100",
        "disable_dns_lookups": "yes",
        "smtp_dns_support_level": "disabled",
        "alias_maps": "",
        "alias_database": "",
        **settings,
    }
    (folder / "etc" / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
    (folder / "etc" / "master.cf").write_text(_MASTER.format(port=port))
    run = [find("postfix") or "postfix", "-c", str(folder / "etc")]
    started = subprocess.run([*run, "start"], capture_output=True, text=True, timeout=60, check=False)
    if started.returncode != 0:
        raise RuntimeError(f"Postfix did not start: {started.stderr}{log.read_text() if log.exists() else ''}")
    try:
        yield log
    finally:
        subprocess.run([*run, "stop"], capture_output=True, timeout=60, check=False)
