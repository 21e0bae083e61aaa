"""The unix socket of the admin API: made so that nobody else can connect at any moment, cleaned up, and never taken from a running relay.

Who may connect is decided by the file's mode (0600: the relay's own user, and root). Who did is noted from SO_PEERCRED for the audit trail.
"""

import errno
import os
import socket
import stat
import struct
from asyncio import Transport
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from relay.admin.endpoint import Caller, Scope
from relay.asgi import serving

_PEER = struct.Struct("iII")  # pid, uid, gid: unix(7)
_NOBODY = 2**32 - 1  # (uid_t) -1: a socket without a peer
_LONGEST = 107  # bytes of a path in sockaddr_un, its NUL apart


class SocketUnusableError(Exception):
    """The socket cannot be had; str() names it, why, and what to do."""


class PeerProtocol(H11Protocol):
    """HTTP over a unix socket. `scope["client"]` is ("uid", UID of the process at the other end)."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self.client = ("uid", peer_uid(transport.get_extra_info("socket")))


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end, -1 where the kernel does not say."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except OSError:
        return -1
    _pid, uid, _gid = _PEER.unpack(found)
    return -1 if uid == _NOBODY else int(uid)


async def at_socket(request: Request) -> Caller:
    """Whoever may open the socket may do everything."""
    uid = request.client.port if request.client is not None else -1
    return Caller(f"uid {uid}" if uid >= 0 else "unknown", Scope.ADMIN, "socket")


@asynccontextmanager
async def admin_socket(path: Path, app: ASGIApp) -> AsyncIterator[None]:
    """Serve the admin API, whose callers `at_socket` recognises, on `path` while the block runs.

    SocketUnusableError where another relay listens there, or it cannot be made.
    """
    sock = bind_unix(path)
    inode = _inode(path)
    try:
        async with serving(app, sock, PeerProtocol):
            yield
    finally:
        _remove(path, inode)


def bind_unix(path: Path) -> socket.socket:
    """A listening unix socket with mode 0600. One that a dead relay left behind is replaced; a living one, or another file, never."""
    if len(os.fsencode(path)) + 4 > _LONGEST:
        raise SocketUnusableError(
            f"{path} is too long for a unix socket: give `admin.socket` a path of less than {_LONGEST - 4} bytes"
        )
    _refuse_if_in_use(path)
    made = path.with_name(f"{path.name}.new")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            made.unlink()
        # Under its name only once its mode is right: nobody can connect in between.
        sock.bind(str(made))
        made.chmod(stat.S_IRUSR | stat.S_IWUSR)
        sock.listen(64)
        made.rename(path)
    except OSError as error:
        sock.close()
        raise SocketUnusableError(f"the admin socket {path} cannot be made: {error.strerror}") from error
    return sock


def _inode(path: Path) -> int:
    return path.lstat().st_ino


def _remove(path: Path, inode: int) -> None:
    """Take our socket away; a relay that was started meanwhile keeps its own."""
    with suppress(OSError):
        if _inode(path) == inode:
            path.unlink()


def _refuse_if_in_use(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # not there; if the folder is the trouble, bind says so
    if not stat.S_ISSOCK(mode):
        raise SocketUnusableError(f"{path} is there and is not a socket: name another file as `admin.socket`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        found = probe.connect_ex(str(path))
    if found not in (errno.ECONNREFUSED, errno.ENOENT):
        raise SocketUnusableError(
            f"another relay listens on {path}: stop it first, or name another file as `admin.socket`"
        )
