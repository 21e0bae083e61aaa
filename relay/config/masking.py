"""The text of connectors.yaml as it may be shown: with a mask where a secret is written.

Secrets that the file writes itself are known once it loads; before that, and beside it, whatever stands behind a key that is named like one is
masked, and what looks like a private key. References (`${NAME}`, `file:PATH`) are no secrets.

Threat: a diff in an audit log or on a page that shows a password. A mask tells whether two secrets are one, and nothing else: it is
made with a key that only this process has.
"""

import difflib
import hmac
import re
import secrets
from collections.abc import Iterator

from pydantic import BaseModel

from relay.config.files import Secret, SecretOrigin
from relay.config.models import Config

_KEY = secrets.token_bytes(16)
_NAMED = re.compile(
    r"""(?P<head>\b(?:\w*(?:password|passphrase|secret|token)|key)["']?\s*:\s*)(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s,}\]\#"'|>&*][^,}\n]*)""",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"""["']?(file:.*|\$\{\w+\}|\*{8}.*)\Z""")
_PEM = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(.*?)(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_LONGEST_DIFF = 64 * 1024


def masked(text: str, config: Config | None) -> str:
    """`config` is what the text says, None where it does not load."""
    for value in sorted(_written(config) if config is not None else (), key=len, reverse=True):
        for line in (each.strip() for each in value.splitlines()):
            if len(line) >= 4:  # a shorter one stands everywhere; behind its key it is masked below
                text = text.replace(line, _mask(line))
    text = _PEM.sub(lambda found: f"{found[1]} {_mask(found[2])} {found[3]}", text)
    return _NAMED.sub(_named, text)


def difference(before: str, after: str) -> str:
    """Two masked texts as a unified diff; "" where they are one. At most 64 KiB."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), "in force", "on disk", n=3
    )
    found = "".join(each if each.endswith("\n") else each + "\n" for each in lines)
    return found if len(found) <= _LONGEST_DIFF else found[:_LONGEST_DIFF] + "\n[and more]\n"


def _mask(value: str) -> str:
    return f"********({hmac.digest(_KEY, value.encode(), 'sha256').hex()[:6]})"


def _named(found: re.Match[str]) -> str:
    value = found["value"].rstrip()
    return found[0] if _REFERENCE.match(value.rstrip("\"'")) else found["head"] + _mask(value)


def _written(value: object) -> Iterator[str]:
    """Every secret that stands in the file itself."""
    if isinstance(value, Secret):
        if value.origin is SecretOrigin.WRITTEN:
            yield value.reveal()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _written(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from _written(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _written(each)
