"""The JSON Schema (draft 2020-12) of connectors.yaml, for editors: completion, descriptions, and wrong keys underlined while typing.

Made from the models. It says less than `relay check`: what contradicts something elsewhere in the file no schema can tell.
"""

import re
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from relay.config.models import Config
from relay.config.values import duration_text

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ISO_DURATION = re.compile(r"P(?:\d|T\d)")
_DURATION = TypeAdapter(timedelta)


def schema() -> dict[str, Any]:
    """The schema as JSON values."""
    made = Config.model_json_schema(mode="validation")
    _for_editors(made)
    route = made["$defs"]["Route"]
    made["$defs"]["Route"] = {"anyOf": [{"const": "mx"}, {key: route.pop(key) for key in tuple(route)}]}
    return {"$schema": DIALECT, "title": "connectors.yaml of Ironpost", **_without(made, "title")}


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {each: value for each, value in mapping.items() if each != key}


def _for_editors(node: Any) -> None:
    """Takes out what would mislead: titles made up from key names, and `null`, which the file does not take."""
    if isinstance(node, list):
        for each in node:
            _for_editors(each)
    if not isinstance(node, dict):
        return
    if "properties" in node:
        node.pop("title", None)
        for name, value in node["properties"].items():
            node["properties"][name] = _plain(value)
    for value in node.values():
        _for_editors(value)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """One key's schema: without title and null, and with a default only where it can be written in the file as it stands."""
    value = _without(value, "title")
    default = value.get("default")
    if "default" in value and (default is None or isinstance(default, dict | list)):
        value = _without(value, "default")
    if isinstance(default, str) and _ISO_DURATION.match(default):
        value["default"] = duration_text(_DURATION.validate_python(default))
    choices = [each for each in value.get("anyOf", ()) if each != {"type": "null"}]
    if "anyOf" not in value or len(choices) == len(value["anyOf"]):
        return value
    rest = _without(value, "anyOf")
    return {**choices[0], **rest} if len(choices) == 1 else {"anyOf": choices, **rest}
