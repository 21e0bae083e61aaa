"""What `relay doctor` finds out about this machine: ports, disk, kernel, clock, permissions, container. Facts only, no judgement.

Everything is read, but for a small file that is written and removed beside the queue, and ports that are bound for a moment.
"""

import contextlib
import ctypes
import errno
import ipaddress
import os
import pwd
import resource
import socket
import stat
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from relay.config.models import Config
from relay.config.values import HostPort
from relay.policy.surroundings import Barred, Bound, Disk, IpAddress, Kernel, Owner

_SYNCS = 15
_TIMEX = 208  # bytes of struct timex on 64-bit Linux
_TIMEX_STATUS = 40  # offset of its `status`
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def bound(address: HostPort, ours: Iterable[HostPort]) -> Bound:
    """Can `address` be listened on? `ours` are the addresses that the running relay has open."""
    if address in frozenset(ours):
        return Bound.OURS
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address.host, address.port))
            trial.listen(1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return Bound.DENIED
            return Bound.ABSENT if error.errno == errno.EADDRNOTAVAIL else Bound.TAKEN
    return Bound.FREE


def disk(queue: Path) -> Disk:
    """Of the folder that holds the queue's file."""
    folder = queue.parent
    try:
        status = os.statvfs(folder)
    except OSError:
        return Disk(str(folder), "", 0, None, None)
    free = status.f_bavail * status.f_frsize
    return Disk(str(folder), file_system(folder), free, status.f_favail if status.f_files else None, _sync(folder))


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `folder`, "" where it cannot be told. Format: proc_pid_mountinfo(5)."""
    real, found, length = folder.resolve(), "", -1
    with contextlib.suppress(OSError):
        for line in mounts.read_text().splitlines():
            fields, _dash, rest = line.partition(" - ")
            point = Path(fields.split(" ")[4].encode().decode("unicode_escape"))
            if (real == point or point in real.parents) and len(str(point)) >= length:
                found, length = rest.split(" ")[0], len(str(point))
    return found


def _sync(folder: Path) -> float | None:
    """Median seconds until 4 KiB are on the disk; None where nothing can be written there."""
    took = []
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            for _ in range(_SYNCS):
                begun = time.monotonic()
                file.write(b"\0" * 4096)
                file.flush()
                os.fdatasync(file.fileno())
                took.append(time.monotonic() - begun)
    except OSError:
        return None
    return statistics.median(took)


def kernel(root: Path = Path("/"), pid: int | None = None) -> Kernel:
    """`pid` is the running relay's, whose own limits count: a service has others than somebody's shell."""
    limit = _open_files(root, pid) if pid is not None else None
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the relay takes what it may
    low_high = _text(root / "proc/sys/net/ipv4/ip_local_port_range").split()
    migrates = _text(root / "proc/sys/net/ipv4/tcp_migrate_req")
    return Kernel(
        files=limit if limit != resource.RLIM_INFINITY else 2**31,
        memory=_number(_text(root / "sys/fs/cgroup/memory.max")),
        backlog=_number(_text(root / "proc/sys/net/core/somaxconn")),
        migrates=migrates == "1" if migrates else None,
        ephemeral=int(low_high[1]) - int(low_high[0]) + 1 if len(low_high) == 2 else None,
    )


def _open_files(root: Path, pid: int) -> int | None:
    """The hard limit, from proc_pid_limits(5): "Max open files  1024  65536  files". None where it is not told."""
    for line in _text(root / f"proc/{pid}/limits").splitlines():
        if line.startswith("Max open files"):
            return _number(line.split()[4])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def clock() -> bool | None:
    """Does something keep it right? What adjtimex(2) says without changing anything; None where the kernel does not answer."""
    state = ctypes.create_string_buffer(_TIMEX)
    try:
        found = ctypes.CDLL(None, use_errno=True).adjtimex(state)
    except (OSError, AttributeError):
        return None
    if found < 0:
        return None
    status = int.from_bytes(state.raw[_TIMEX_STATUS : _TIMEX_STATUS + 4], "little")
    return found != _TIME_ERROR and not status & _STA_UNSYNC


def become_the_relay(queue: Path) -> Owner | None:
    """Where root asks, from here on this process is the user to whom the queue's folder belongs: what root may read and write says nothing
    about the relay. None where the folder is root's or not there, or we are not root."""
    try:
        owner = queue.parent.stat()
    except OSError:
        return None
    if os.geteuid() != 0 or owner.st_uid == 0:
        return None
    name, group = user_name(owner.st_uid), owner.st_gid
    with contextlib.suppress(KeyError):
        group = pwd.getpwuid(owner.st_uid).pw_gid
    try:
        os.setgroups(os.getgrouplist(name, group))
        os.setresgid(group, group, group)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    except OSError:
        return None  # in a container without the capabilities for it
    return Owner(name, str(queue.parent))


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def barred(config: Config) -> Iterator[Barred]:
    """Files that we, the relay's user, may not read, or of the queue, not write."""
    if config.certificates is not None and _is_barred(config.certificates, os.R_OK | os.X_OK):
        yield Barred(str(config.certificates), "read")
    for path in _secrets(config):
        if _is_barred(path, os.R_OK):
            yield Barred(str(path), "read")
    for path in _queue_files(config):
        if _is_barred(path, os.R_OK | os.W_OK):
            yield Barred(str(path), "written")


def _is_barred(path: Path, how: int) -> bool:
    """False where there is no such file; True where we may not even look whether there is."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, how)


def readable(config: Config) -> Iterator[str]:
    """Secrets that users other than their owner may read or write: keys, passwords, the queue. A group may have them on purpose."""
    for path in (*_secrets(config), *_queue_files(config)):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if mode & stat.S_IRWXO:
            yield str(path)


def _secrets(config: Config) -> Iterator[Path]:
    yield from _keys(config.certificates) if config.certificates is not None else ()
    if config.submission is not None:
        yield config.submission.passwords
    for each in config.outbound:
        if each.route.auth is not None and each.route.auth.password.path is not None:
            yield each.route.auth.password.path
    if config.admin is not None and config.admin.accounts is not None:
        yield config.admin.accounts


def _keys(certificates: Path) -> Iterator[Path]:
    """And what may be one, since we may not read it."""
    try:
        files = sorted(certificates.iterdir())
    except OSError:
        return
    for file in files:
        try:
            if file.is_file() and b"PRIVATE KEY-----" in file.read_bytes()[: 2**18]:
                yield file
        except PermissionError:
            yield file
        except OSError:
            continue


def _queue_files(config: Config) -> Iterator[Path]:
    queue = config.queue_file
    yield from (queue.with_name(queue.name + suffix) for suffix in ("", "-wal", "-shm", ".lock", "-bodies"))


def contained(root: Path = Path("/")) -> bool:
    """Do we run in a container?"""
    marks = (root / ".dockerenv", root / "run/.containerenv")
    return any(each.exists() for each in marks) or bool(os.environ.get("container"))  # noqa: SIM112 - systemd's, lower case


def gateways(root: Path = Path("/")) -> tuple[IpAddress, ...]:
    """The default gateways, IPv4 then IPv6, from /proc/net."""
    found: list[IpAddress] = []
    for line in _text(root / "proc/net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000" and int(fields[2], 16):
            found.append(ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[2]), "little")))
    for line in _text(root / "proc/net/ipv6_route").splitlines():
        fields = line.split()
        if len(fields) > 4 and int(fields[0], 16) == 0 and fields[1] == "00" and int(fields[4], 16):
            found.append(ipaddress.IPv6Address(bytes.fromhex(fields[4])))
    return tuple(dict.fromkeys(found))
