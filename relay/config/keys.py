"""Which keys belong where: the models of connectors.yaml walked along a path of keys, and unknown keys explained."""

from difflib import get_close_matches
from typing import Any, get_args, get_origin

from relay.config.connectors import InboundConnector, Model, OutboundConnector
from relay.config.document import Node
from relay.config.models import Config
from relay.config.rules import Place

_BY_DIRECTION: dict[Any, type[Model]] = {"inbound": InboundConnector, "outbound": OutboundConnector}


def fields(model: type[Model]) -> dict[str, type[Model] | None]:
    """Each key of a mapping, as it is written, and the model of its value where that is a mapping or a list of mappings."""
    found = {info.alias or name: _inner(info.annotation) for name, info in model.model_fields.items()}
    first = ("name", "direction", "match")
    return {key: found[key] for key in sorted(found, key=lambda key: key not in first)}


def _inner(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for each in get_args(annotation) if (found := _inner(each)) is not None), None)


def model_at(root: Node, place: Place) -> type[Model] | None:
    """The model of the mapping at `place`; None where there is none, or where a connector does not say its direction."""
    model: type[Model] | None = Config
    node, by_name = (
        root,
        False,
    )  # by_name: a mapping of names that the admin chose (domains), each to a mapping of this model
    for depth, part in enumerate(place):
        child = node.child(part)
        if child is None or model is None:
            return None
        node = child
        if by_name:
            by_name = False
        elif isinstance(part, str):
            by_name = _is_by_name(model, part)
            model = fields(model).get(part)
        elif depth == 1 and place[0] == "connectors":
            model = _BY_DIRECTION.get(_direction(node))
    return model if isinstance(node.content, dict) and not by_name else None


def _is_by_name(model: type[Model], key: str) -> bool:
    info = model.model_fields.get(key)
    return info is not None and get_origin(info.annotation) is dict


def _direction(node: Node) -> object:
    found = node.child("direction")
    return found.content if found is not None and isinstance(found.content, str) else None


def likely_key(key: str, allowed: tuple[str, ...]) -> str:
    """The allowed key that this one was likely meant to be, "" where none comes near."""
    plain = {each.lower().replace("_", ""): each for each in allowed}
    close = get_close_matches(key.lower().replace("_", "").replace("-", ""), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else ""


def elsewhere(root: Node, parent: Place, key: str) -> str:
    """Where an unknown key would belong: one level down or up, or in a connector of the other direction. "" where nowhere."""
    model = model_at(root, parent)
    if model is None or get_close_matches(key, fields(model), n=1, cutoff=0.9):
        return ""  # a slip of one letter is likelier than a wrong place
    for name, inner in fields(model).items():
        if (
            inner is not None
            and key in fields(inner)
            and name not in ("connectors", "listeners", "exceptions", "domains")
        ):
            return f"it belongs under `{name}`"
    above = model_at(root, parent[:-1]) if parent and isinstance(parent[-1], str) else None
    if above is not None and key in fields(above):
        return "it belongs one level up"
    for direction, other in _BY_DIRECTION.items():
        if model in _BY_DIRECTION.values() and other is not model and key in fields(other):
            return f"it is a key of {direction} connectors"
    return ""
