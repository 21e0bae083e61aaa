"""Templates into answers: jinja2 with everything escaped, and nothing else than what is given to a template in reach of it.

Threat: what strangers said (addresses, HELO names, replies, certificates' names) stands on every page. Autoescape is on for all, `finalize`
takes control characters and direction overrides out of each value, an unknown variable is an error, and no value goes into a script, a style,
an attribute without quotes, or a URL other than as a query.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from relay.admin.console import words
from relay.admin.console.forms import ROOT

STATIC = {
    "console.css": "text/css; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "htmx.LICENSE.txt": "text/plain; charset=utf-8",
}


class Pages:
    """`clock` gives the time that ages are told by; `about` what stands on each page: {"hostname", "version"}."""

    def __init__(self, clock: Callable[[], datetime], about: Callable[[], dict[str, Any]]) -> None:
        self._clock, self._about = clock, about
        self._environment = _environment()

    def render(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        now = self._clock()
        text = self._environment.get_template(template).render(now=now, **self._about(), **values)
        return HTMLResponse(text, status_code=status)


def static_file(name: str) -> Response | None:
    """One of ours by its name; kept by browsers, since its address changes with it."""
    if name not in STATIC:
        return None
    return Response(
        _static(name)[0], media_type=STATIC[name], headers={"cache-control": "private, max-age=31536000, immutable"}
    )


def static_url(name: str) -> str:
    return f"{ROOT}/static/{name}?v={_static(name)[1]}"


def url(path: str, **query: Any) -> str:
    """An address of the console; empty values are left out of the query."""
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{ROOT}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")


@lru_cache(maxsize=8)
def _static(name: str) -> tuple[bytes, str]:
    content = files(__package__).joinpath("static", name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("relay.admin.console"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(url=url, static_url=static_url)
    environment.filters.update(
        moment=words.moment,
        rfc3339=words.rfc3339,
        clock=words.clock,
        ago=words.ago,
        span=words.span,
        took=words.took,
        size=words.size,
        count=words.count,
        plural=words.plural,
        path_part=lambda text: quote(str(text), safe=""),
    )
    return environment


def _finalize(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    return words.clean(value) if isinstance(value, str) else value
