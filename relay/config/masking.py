"""The text of connectors.yaml as it may be shown: with a mask where a secret is written.

Where a secret stands is what the YAML parser says, and what is one is what the models say: no way of writing a value can show a part of it.
References (`${NAME}`, `file:PATH`) are no secrets. Comments are masked as a whole: an old password may stand in them.

Threat: a diff in an audit log or on a page that shows a password. So a text in which not every secret can be found is not shown at all.
A mask tells whether two secrets are one, and nothing else: it is made with a key that only this process has.
"""

import difflib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import urlsplit

from relay.config.alerts import Webhook
from relay.config.connectors import Model
from relay.config.document import Node, UnreadableError, read_spans
from relay.config.files import Secret
from relay.config.models import Config

_KEY = secrets.token_bytes(16)
_REFERENCE = re.compile(r"\$\{\w+\}|file:.*")
_HOST = re.compile(r"(?:[\w.:\[\]-]|\$\{\w+\})+")
_COMMENT = re.compile(r"#[ \t]*([^\r\n]*)")
_BETWEEN = re.compile(r"[\s\ufeff?:,\[\]{}-]*")
_LONGEST_DIFF = 64 * 1024


class NotMaskedError(Exception):
    """It cannot be told where all secrets are."""


class _Address:
    """Stands for the type of a URL whose path and query may be secret."""


def masked(text: str) -> str:
    """`text` is of a file that loads. Raises NotMaskedError."""
    try:
        root, faults, spans = read_spans(text)
    except UnreadableError:
        raise NotMaskedError from None
    if faults or not isinstance(root.content, dict):
        raise NotMaskedError
    pieces: dict[tuple[int, int], str] = {}
    for kind, node in _hidden((Config,), root):
        if node.span is None or not 0 <= node.span[0] < node.span[1] <= len(text):
            raise NotMaskedError
        shown = text[slice(*node.span)]
        if kind is Secret or node.span not in pieces:  # an alias may make one text both
            pieces[node.span] = _secret(node, shown) if kind is Secret else _address(node, shown)
    pieces.update(_comments(text, spans))
    return _replaced(text, pieces)


def difference(before: str, after: str) -> str:
    """Two texts of files that load as a unified diff, masked; "" where they are one, or cannot be masked. At most 64 KiB."""
    try:
        old, new = (masked(each).splitlines(keepends=True) for each in (before, after))
    except NotMaskedError:
        return ""
    lines = difflib.unified_diff(old, new, "in force", "on disk", n=3)
    found = "".join(each if each.endswith("\n") else each + "\n" for each in lines)
    return found if len(found) <= _LONGEST_DIFF else found[:_LONGEST_DIFF] + "\n[and more]\n"


def _mask(value: str) -> str:
    return f"********({hmac.digest(_KEY, value.encode(), 'sha256').hex()[:6]})"


def _secret(node: Node, shown: str) -> str:
    value = _value(node)
    return shown if _is_reference(value, shown) else _mask(value) + _end(shown)


def _address(node: Node, shown: str) -> str:
    """The host is shown: it tells whom the alerts go to."""
    value = _value(node)
    if _is_reference(value, shown):
        return shown
    try:
        parts = urlsplit(value)
    except ValueError:
        return _mask(value) + _end(shown)
    head = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme != "https" or not _HOST.fullmatch(parts.netloc) or not value.lower().startswith(head.lower()):
        return _mask(value) + _end(shown)
    rest = value[len(head) :]
    return head + (f"/{_mask(rest)}" if rest else "") + _end(shown)


def _value(node: Node) -> str:
    return node.reference or str(node.content)


def _is_reference(value: str, shown: str) -> bool:
    """True where the text is nothing else: no anchor, no comment behind a `|`."""
    return _REFERENCE.fullmatch(value) is not None and shown in (value, f'"{value}"', f"'{value}'")


def _end(shown: str) -> str:
    """The end of the line where a block scalar takes it in, and what it takes of the next one."""
    blank = shown[len(shown.rstrip()) :]
    return "\n" + blank.rpartition("\n")[2] if "\n" in blank else ""


def _hidden(kinds: Iterable[Any], node: Node) -> Iterator[tuple[type, Node]]:
    """Every scalar that is a secret or such a URL, by what may stand here. Raises NotMaskedError where something may not."""
    plain = tuple(_plain(kinds))
    if any(isinstance(each, type) and issubclass(each, Secret) for each in plain):
        yield Secret, node
    elif _Address in plain:
        yield _Address, node
    elif isinstance(node.content, dict):
        for key, value in node.content.items():
            yield from _hidden(_known(plain, key), value)
    elif isinstance(node.content, list):
        entries = [inner for each in plain if get_origin(each) is not dict for inner in get_args(each)]
        for value in node.content:
            yield from _hidden(entries, value)


def _plain(kinds: Iterable[Any]) -> Iterator[Any]:
    """Each type by itself, without what pydantic makes of it."""
    for kind in kinds:
        if get_origin(kind) is Annotated:
            yield from _plain(get_args(kind)[:1])
        elif get_origin(kind) in (Union, UnionType):
            yield from _plain(get_args(kind))
        else:
            yield kind


def _known(kinds: Sequence[Any], key: str) -> list[Any]:
    """What may stand behind a key."""
    found: list[Any] = []
    for kind in kinds:
        if get_origin(kind) is dict:
            found.append(get_args(kind)[1])
        elif isinstance(kind, type) and issubclass(kind, Model):
            fields = kind.model_fields.items()
            for name, each in ((name, each) for name, each in fields if (each.alias or name) == key):
                found.append(_Address if (kind, name) == (Webhook, "url") else each.annotation)
    if not found:
        raise NotMaskedError
    return found


def _comments(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], str]]:
    """Raises NotMaskedError where something else than comments is left between `spans`: they are not where they seem, then."""
    at = 0
    for start, end in (*spans, (len(text), len(text))):
        if start > at:
            gap = text[at:start]
            if not _BETWEEN.fullmatch(_COMMENT.sub("", gap)):
                raise NotMaskedError
            for found in _COMMENT.finditer(gap):
                if found[1]:
                    yield (at + found.start(1), at + found.end(1)), _mask(found[1])
        at = max(at, end)


def _replaced(text: str, pieces: dict[tuple[int, int], str]) -> str:
    parts: list[str] = []
    at = 0
    for (start, end), piece in sorted(pieces.items()):
        if start < at:
            raise NotMaskedError
        parts += (text[at:start], piece)
        at = end
    return "".join((*parts, text[at:]))
