"""A running relay, as the commands speak with it: HTTP over its admin socket, or by network. Turns every failure into words and an exit code.

The socket's path is read from the text of the configuration file, not from the loaded configuration: the queue must be seen, and a
reload be asked for, while the file has errors.
"""

import contextlib
import errno
import io
import os
import socket as socketlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from relay.cli.common import ExitCode, stop

if TYPE_CHECKING:
    import ssl

    import httpx
    from rich.console import RenderableType

_PATIENCE = 600.0  # seconds: an order about a million messages takes its time
_CONNECT = 20.0  # until there is a connection, and TLS: a host that is gone is not waited for like a large order
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Network:
    """A relay's admin API by network, and how we say who we are: a token, or a client certificate. `ca` None: the system's."""

    url: str
    token_file: Path | None = None
    cert: Path | None = None
    ca: Path | None = None


class Relay:
    """A context manager. What the relay refuses, and a relay that cannot be reached, end the program with the right exit code."""

    def __init__(self, client: "httpx.Client", place: str, socket: Path | None = None) -> None:
        self._client, self._place, self._socket = client, place, socket

    @classmethod
    def by_network(cls, network: "Network") -> Self:
        """Ends the program where the URL, the token or a file cannot be used."""
        return cls(_by_network(network), network.url)

    @classmethod
    def at(cls, path: Path) -> Self:
        """The one on this socket."""
        import httpx

        transport = httpx.HTTPTransport(uds=str(path))
        return cls(httpx.Client(transport=transport, base_url="http://relay", timeout=_PATIENCE), str(path), path)

    def __enter__(self) -> Self:
        why = _connects(self._socket) if self._socket is not None else 0
        if why and self._socket is not None:
            stop(unreachable(self._socket, why), ExitCode.UNREACHABLE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A GET's JSON. `query` may hold lists."""
        return self._answer("GET", path, params=query or {})

    def post(self, path: str, body: Mapping[str, Any], *, expected: tuple[int, ...] = (200,)) -> dict[str, Any]:
        """A POST's JSON. Statuses beside `expected` are refusals."""
        return self._answer("POST", path, expected, json=body)

    def find(self, path: str) -> dict[str, Any] | None:
        """A GET's JSON, None where there is no such thing."""
        found = self._answer("GET", path, (200, 404))
        return None if set(found) == {"error"} else found

    def download(self, path: str, write: Callable[[bytes], None]) -> bool:
        """Has `write` take the bytes of a POST's answer, piece by piece; False where there is no such thing. One that broke off ends the
        program."""
        import httpx

        written = False
        try:
            with self._client.stream("POST", path, json={}) as answer:
                if answer.status_code == 404:
                    return False
                if answer.status_code != 200:
                    answer.read()
                    stop(str(_json(answer).get("error", f"the relay answered {answer.status_code}")))
                for piece in answer.iter_raw():
                    write(piece)
                    written = True
        except httpx.RequestError as error:
            if not written and isinstance(error, httpx.RemoteProtocolError):
                return False  # it was delivered meanwhile, and its bytes are gone
            stop(f"the relay at {self._place} broke off: {error}", ExitCode.UNREACHABLE)
        return True

    def upload(self, path: str, query: Mapping[str, Any], content: Iterable[bytes]) -> dict[str, Any]:
        """A POST of bytes, sent as they come. Its JSON, or `{"error": ...}` where it was refused."""
        headers = {"content-type": "application/octet-stream"}
        return self._answer("POST", path, (200, 400, 409, 503), params=query, content=content, headers=headers)

    def pages(self, query: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """GET /queue, page by page: no more than one is in memory."""
        after: str | None = ""
        while after is not None:
            page = self.get("/queue", {**query, "after": after} if after else query)
            yield page["messages"]
            after = page["next"]

    def _answer(self, method: str, path: str, expected: tuple[int, ...] = (200,), **options: Any) -> dict[str, Any]:
        import httpx

        try:
            answer = self._client.request(method, path, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            stop(f"the relay cannot be reached at {self._place}: {error}", ExitCode.UNREACHABLE)
        except httpx.RequestError as error:
            stop(f"the relay at {self._place} broke off: {error}", ExitCode.UNREACHABLE)
        found = _json(answer)
        if answer.status_code not in expected:
            code = ExitCode.USAGE if answer.status_code == 400 else ExitCode.NO
            stop(str(found.get("error", f"the relay answered {answer.status_code}")), code)
        return found


def _by_network(network: Network) -> "httpx.Client":
    import httpx

    if "@" in network.url:  # it is not repeated: it would stand in the logs of whoever calls us
        stop(
            "--url: write https://HOST:PORT, without a name or a password; the token comes from --token-file",
            ExitCode.USAGE,
        )
    try:
        parts = httpx.URL(network.url)
        parts.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        stop(f"{network.url[:200]}: {error}", ExitCode.USAGE)
    if not parts.host or (parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.host))):
        stop(f"{network.url[:200]}: write https://HOST:PORT; a token does not travel in clear", ExitCode.USAGE)
    if parts.query or parts.fragment or not 0 < (parts.port or 443) < 2**16:
        stop(
            f"{network.url[:200]}: write https://HOST:PORT, with a port up to 65535 and nothing behind it",
            ExitCode.USAGE,
        )
    if network.token_file is None and network.cert is not None and parts.scheme == "http":
        stop(f"{network.url[:200]}: a certificate is shown by https only; give --token-file", ExitCode.USAGE)
    if network.token_file is None and network.cert is None:
        stop(
            "--url needs --token-file FILE (or $RELAY_TOKEN_FILE; `relay token NAME` makes one), or --cert FILE",
            ExitCode.USAGE,
        )
    headers = {} if network.token_file is None else {"authorization": f"Bearer {_token(network.token_file)}"}
    context = _context(network) if parts.scheme == "https" else False
    patience = httpx.Timeout(_PATIENCE, connect=_CONNECT)
    return httpx.Client(verify=context, base_url=parts, headers=headers, timeout=patience, trust_env=False)


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        stop(f"--token-file {file}: {getattr(error, 'strerror', None) or 'it holds no token'}", ExitCode.USAGE)
    if not token or not token.isprintable() or " " in token:
        stop(f"--token-file {file}: it holds no token; `relay token NAME > FILE` writes one", ExitCode.USAGE)
    return token


def _context(network: Network) -> "ssl.SSLContext":
    """Our own certificate is shown to whoever has proved to be the relay, and to nobody else."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=None if network.ca is None else str(network.ca))
    except OSError as error:  # ssl.SSLError too
        stop(f"--ca {network.ca}: {_why(error)}", ExitCode.USAGE)
    if network.cert is not None:
        key = network.cert.parent / f"{network.cert.stem}.key"
        try:
            context.load_cert_chain(network.cert, key if key.is_file() else None, password=lambda: b"")
        except OSError as error:
            stop(f"--cert {network.cert}: {_why(error)}", ExitCode.USAGE)
    return context


def _why(error: OSError) -> str:
    import ssl

    if isinstance(error, ssl.SSLError):
        return f"it is not PEM that can be used ({error.reason or error})"
    return error.strerror or str(error)


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(answer: "httpx.Response") -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        stop("what listens there is not a relay: its answer is not JSON", ExitCode.UNREACHABLE)
    return found


def _connects(path: Path) -> int:
    """0 where somebody takes a connection, else the error number."""
    with socketlib.socket(socketlib.AF_UNIX, socketlib.SOCK_STREAM) as probe:
        probe.settimeout(10.0)
        try:
            return probe.connect_ex(str(path))
        except OSError:  # longer than a socket's path can be: no relay has it
            return errno.ENOENT


def reachable(config: Path) -> bool:
    """True where a relay takes connections on the socket of a configuration, for commands that can do without."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            path = socket_path(config)
    except typer.Exit:
        return False
    return listens(path)


def listens(path: Path) -> bool:
    """Somebody listens on an admin socket."""
    return _connects(path) == 0


def unreachable(path: Path, why: int) -> str:
    """Why nobody answers, by error number, and what to do."""
    head = f"the relay cannot be reached at {path}: "
    if why == errno.ENOENT:
        return head + "there is no such socket. Is it running? `admin.socket` in its configuration names the socket."
    if why in (errno.EACCES, errno.EPERM):
        return head + f"it is not for user {os.getuid()}. Run this as the relay's user, or as root."
    if why == errno.ECONNREFUSED:
        return head + "nobody listens there. Is the relay running?"
    return head + os.strerror(why)


def socket_path(config: Path) -> Path:
    """`admin.socket` of a configuration file that may have any other errors. Ends the program where it cannot be found."""
    from relay.config.document import UnreadableError, read

    hint = "; or name the socket with --socket PATH"
    try:
        text = config.read_text(encoding="utf-8")
        root, _faults = read(text, os.environ)
    except OSError as error:
        stop(f"{config}: {error.strerror}: name the configuration with --config FILE{hint}")
    except UnicodeError:
        stop(f"{config} is not UTF-8 text{hint}")
    except UnreadableError as error:
        stop(f"{config}:{error.fault.line}:{error.fault.column}: {error.fault.message}{hint}")
    admin = root.child("admin")
    socket = admin.child("socket") if admin is not None else None
    if socket is None or not isinstance(socket.content, str) or not socket.content:
        stop(f"{config} names no admin socket: write `admin: {{socket: relay.sock}}`, restart the relay{hint}")
    return (config.parent / socket.content).absolute()


def show(renderable: "RenderableType") -> None:
    """Print for people: as wide as the terminal; 100 columns and no blanks at the ends of lines into a file or a pipe."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False, markup=False, emoji=False).print(renderable)
        return
    console = Console(width=_WIDTH, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(renderable)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
