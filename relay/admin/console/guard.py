"""What holds for each request and each answer of the console, whatever page it is: which Host is ours, who may send a form, and headers.

Threats: DNS rebinding (a stranger's name that points at us: the Host is not ours, 421), cross-site forms (`Sec-Fetch-Site`, else `Origin`; the
token in each form is checked on top), framing, sniffing, script and style from anywhere but our own two files, caches that keep addresses.
"""

import ipaddress
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.config.certificates import covers

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """ASGI middleware. `hosts` are the names that this console is reached by, without port; `*.x` stands for one label under x.

    A reverse proxy on this machine (`admin.tls: off`) says by X-Forwarded-Proto that people reach it by HTTPS.
    """

    def __init__(self, app: ASGIApp, hosts: Callable[[], Collection[str]]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if scope["scheme"] == "http" and headers.get("x-forwarded-proto") == "https":
            scope = {**scope, "scheme": "https"}
        if not is_ours(headers.get("host", ""), self._hosts()):
            answer = PlainTextResponse("This console is not known by that name.\n", 421)
            await answer(scope, receive, dressed)
        elif scope["method"] not in _SAFE and not same_origin(headers, scope["scheme"]):
            answer = PlainTextResponse("A form is taken only from a page of this console.\n", 403)
            await answer(scope, receive, dressed)
        else:
            await self._app(scope, receive, dressed)


def is_ours(host: str, ours: Collection[str]) -> bool:
    """Whether a Host header names us, whatever the port. An IP address is always ours: only a name can be pointed elsewhere by its owner."""
    name = bare_host(host)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and covers((each.lower() for each in ours), name)
    return True


def bare_host(host: str) -> str:
    """Without port and brackets, lower-case: "[::1]:8443" is "::1"."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0] if name.count(":") < 2 else name


def same_origin(headers: Headers, scheme: str) -> bool:
    """Whether a page of ours sent this.

    `Sec-Fetch-Site` is the browser's own word, no page can forge it. Where it is missing (an older browser, or HTTP to another machine)
    `Origin` must be ours; with neither, nobody says where it comes from. With our `no-referrer`, browsers send `Origin: null` for our forms too.
    """
    origin, site = headers.get("origin", ""), headers.get("sec-fetch-site", "")
    own = f"{scheme}://{headers.get('host', '')}".lower()
    if site:
        return site == "same-origin" and origin.lower() in ("", "null", own)
    return origin.lower() == own
