"""Forms into values: a bounded body, the token of the session, paths to come back to."""

import hmac
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request

ROOT = "/console"
_LARGEST = 2**18
_MOST_FIELDS = 2000


class FormError(Exception):
    """What came is not a form of ours; str() says why, for the person who sent it."""


class Form(ImmutableMultiDict[str, str]):
    """Fields by name; one may come several times."""

    def text(self, name: str, most: int = 1000) -> str:
        """One field without blanks around it, "" where it is missing."""
        return self.get(name, "").strip()[:most]


async def read_form(request: Request) -> Form:
    """The fields of a form. FormError where it is not one, or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise FormError("That was not a form.")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LARGEST:
            raise FormError("The form is too large: mark fewer messages, or act on a filter.")
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:  # bad UTF-8 and too many fields alike
        raise FormError("The form cannot be read.") from None
    return Form(pairs)


def token_fits(form: Form, token: str) -> bool:
    return hmac.compare_digest(form.get("csrf", "").encode(), token.encode())


def local_path(text: str) -> str:
    """A path of the console to go to, the overview where `text` is anything else (no open redirect)."""
    fits = text.startswith(f"{ROOT}/") and text.isprintable() and "\\" not in text and "//" not in text
    parts = urlsplit(text) if fits else None
    if parts is None or parts.scheme or parts.netloc or ".." in parts.path:
        return f"{ROOT}/"
    return text
