"""Errors of the models in plain words: what is wrong at which key, what is allowed there, and the word that was likely meant.

Pydantic finds the errors; its English and the values it quotes never get out. A value that came from the environment is never
repeated, whatever was wrong with it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from relay.config.document import Node
from relay.config.keys import elsewhere, fields, likely_key, model_at
from relay.config.rules import Place
from relay.config.values import duration_text

_QUOTED = re.compile(r"'([^']*)'")

# Words of other mail servers and of plain speech that difflib would not find.
_MEANT = {
    "in": "inbound",
    "incoming": "inbound",
    "receive": "inbound",
    "out": "outbound",
    "outgoing": "outbound",
    "send": "outbound",
    "may": "opportunistic",
    "optional": "opportunistic",
    "required": "encryption",
    "mandatory": "encryption",
    "verify": "domain",
    "secure": "domain",
    "full": "domain",
    "cleartext": "plaintext",
    "clear": "plaintext",
    "smtp": "mx",
    "smtps": "submissions",
}


@dataclass(frozen=True, slots=True)
class ShapeError:
    """`place` is where it stands; for a key that is missing, the mapping that lacks it."""

    place: Place
    message: str
    allowed: str = ""
    meant: str = ""


def shape_errors(errors: Sequence[ErrorDetails], root: Node) -> Iterator[ShapeError]:
    """Pydantic's errors, each placed in the tree that it was made from."""
    placed = tuple((error, *_place(error["loc"], root)) for error in errors)
    found = tuple(_error(error, root, place, node) for error, place, node in placed)
    # "unknown key `hostnme`; did you mean `hostname`?" says already that `hostname` is missing.
    misspelt = {(*each.place[:-1], each.meant) for each in found if each.meant}
    for (error, place, _), each in zip(placed, found, strict=True):
        if error["type"] != "missing" or (*place, error["loc"][-1]) not in misspelt:
            yield each


def _place(loc: Sequence[int | str], root: Node) -> tuple[Place, Node]:
    """The part of pydantic's path that is in the file: it also names union members, and keys that are missing."""
    place: Place = ()
    node = root
    for depth, part in enumerate(loc):
        if depth == 2 and loc[0] == "connectors":
            continue  # which kind of connector it was taken for
        if depth == 3 and tuple(loc[:2]) == ("accept", "recipients"):
            continue  # which kind of value
        child = node.child(part)
        if child is None:
            break
        node = child
        place = (*place, part)
    return place, node


def _error(error: ErrorDetails, root: Node, place: Place, node: Node) -> ShapeError:
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(root, place)
        case "missing":
            return ShapeError(place, f"`{error['loc'][-1]}` is missing")
        case "union_tag_not_found":
            return ShapeError(place, "`direction` is missing", "inbound, outbound")
        case "union_tag_invalid":
            direction = node.content["direction"] if isinstance(node.content, dict) else node
            return _word((*place, "direction"), direction, ("inbound", "outbound"))
        case "enum" | "literal_error":
            return _word(place, node, tuple(_QUOTED.findall(str(context.get("expected", "")))))
        case "greater_than_equal":
            return ShapeError(place, f"must be at least {context['ge']}")
        case "less_than_equal":
            most = context["le"]
            return ShapeError(place, f"must be at most {duration_text(most) if isinstance(most, timedelta) else most}")
        case "greater_than":
            return ShapeError(place, "must be above zero")
        case "tuple_type":
            return ShapeError(place, f"this must be a list: {_as_list(node)}")
        case "model_type" | "model_attributes_type" | "dict_type":
            return ShapeError(place, "this must be a mapping of `key: value` lines")
        case "value_error":
            return _value_error(place, node, str(context.get("error", "")))
    return ShapeError(place, "this value is not of the kind that belongs here")


def _value_error(place: Place, node: Node, message: str) -> ShapeError:
    if node.reference and not message.startswith("cannot read "):
        return ShapeError(place, f"what {node.reference} stands for is not of the kind that belongs here")
    return ShapeError(place, message)


def _as_list(node: Node) -> str:
    """How to write one value as a list of one."""
    if isinstance(node.content, str) and not node.reference and '"' not in node.content:
        return f'write ["{node.content}"]'
    return "write it between [ and ], or one line with a dash for each entry"


def _word(place: Place, node: Node, allowed: tuple[str, ...]) -> ShapeError:
    value, listed = node.content, ", ".join(allowed)
    if isinstance(value, str) and not node.reference:
        return ShapeError(
            place, f"`{value[:40]}` is none of the words that belong here", listed, _meant(value, allowed)
        )
    # A YAML boolean or number, where the file has words.
    word = {True: "on", False: "off"}[value] if isinstance(value, bool) else f"TLSv{value}"
    return ShapeError(place, "none of the words that belong here", listed, word if word in allowed else "")


def _meant(value: str, allowed: Sequence[str]) -> str:
    word = _MEANT.get(value.lower(), "")
    if word in allowed:
        return word
    lower = {each.lower(): each for each in allowed}
    close = get_close_matches(value.lower().replace("_", "-"), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else ""


def _unknown_key(root: Node, place: Place) -> ShapeError:
    parent, key = place[:-1], str(place[-1])
    model = model_at(root, parent)
    allowed = tuple(fields(model)) if model is not None else ()
    hint = elsewhere(root, parent, key)
    message = f"unknown key `{key[:60]}`" + (f": {hint}" if hint else "")
    return ShapeError(place, message, ", ".join(allowed), "" if hint else likely_key(key, allowed))
