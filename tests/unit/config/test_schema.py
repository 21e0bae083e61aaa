"""The JSON Schema: it takes the sample and refuses what editors should underline."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from relay.config.keys import fields
from relay.config.models import Config
from relay.config.schema import DIALECT, schema

SAMPLE = Path(__file__).parents[3] / "connectors.yaml"
SCHEMA = schema()
KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}
SAYS_NOTHING = {"description", "title", "default", "examples", "format", "discriminator", "$defs", "$schema"}


def errors(value: Any, rule: dict[str, Any], at: str = "") -> list[str]:  # noqa: C901 - one case a keyword
    """What a validator of the keywords used here finds. A keyword that it does not know is an error of the test."""
    found: list[str] = []
    for keyword, wanted in rule.items():
        match keyword:
            case "$ref":
                found += errors(value, SCHEMA["$defs"][wanted.removeprefix("#/$defs/")], at)
            case "type":
                kinds = tuple(
                    kind for name in ([wanted] if isinstance(wanted, str) else wanted) for kind in KINDS[name]
                )
                if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                    found.append(f"{at}: is not {wanted}")
            case "const" | "enum":
                if value not in ([wanted] if keyword == "const" else wanted):
                    found.append(f"{at}: is none of {wanted}")
            case "anyOf" | "oneOf":
                fitting = sum(not errors(value, each, at) for each in wanted)
                if not fitting or (keyword == "oneOf" and fitting > 1):
                    found.append(f"{at}: fits {fitting}")
            case "properties":
                for key in value if isinstance(value, dict) else ():
                    if key in wanted:
                        found += errors(value[key], wanted[key], f"{at}.{key}")
            case "additionalProperties":
                for key in value if isinstance(value, dict) else ():
                    if wanted is False and key not in rule["properties"]:
                        found.append(f"{at}: unknown key {key}")
                    elif wanted is not False:
                        found += errors(value[key], wanted, f"{at}.{key}")
            case "required":
                found += [f"{at}: lacks {key}" for key in wanted if isinstance(value, dict) and key not in value]
            case "items":
                for index, each in enumerate(value if isinstance(value, list) else ()):
                    found += errors(each, wanted, f"{at}[{index}]")
            case "minItems" | "minLength":
                found += [f"{at}: is too short"] if isinstance(value, list | str) and len(value) < wanted else []
            case "minimum":
                found += [f"{at}: is too small"] if isinstance(value, int) and value < wanted else []
            case "pattern":
                found += [f"{at}: does not match"] if isinstance(value, str) and not re.search(wanted, value) else []
            case "propertyNames":
                pass
            case _:
                assert keyword in SAYS_NOTHING, keyword
    return found


def sample() -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.constructor.yaml_constructors = {**yaml.constructor.yaml_constructors}
    yaml.constructor.yaml_constructors["tag:yaml.org,2002:timestamp"] = lambda constructor, node: node.value
    return yaml.load(SAMPLE.read_text(encoding="utf-8"))


def test_the_sample_fits() -> None:
    assert errors(sample(), SCHEMA) == []
    assert SCHEMA["$schema"] == DIALECT


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hostnme": "x"}, ": unknown key hostnme"),
        ({"listeners": []}, ".listeners: is too short"),
        ({"limits": {"recipients": 5}}, ".limits.recipients: is too small"),
        ({"connectors": [{"name": "a", "direction": "outbound"}]}, ".connectors[0]: fits 0"),
        ({"exceptions": [{"recipient_domain": "a.example", "allow": "clear", "until": "2027-01-01", "reason": "x"}]},
         ".exceptions[0].allow: is none of ['plaintext', 'encryption']"),
        ({"defaults": {"outbound": {"route": "somewhere"}}}, ".defaults.outbound.route: fits 0"),
        ({"trust": None}, ".trust: is not string"),
    ],
)  # fmt: skip
def test_what_does_not_fit(change: dict[str, Any], expected: str) -> None:
    assert expected in errors(copy.deepcopy(sample()) | change, SCHEMA)


def test_route_is_mx_or_a_mapping() -> None:
    for route in ("mx", {"smart_hosts": ["mail.contoso.com:25"]}, {}):
        assert errors(sample() | {"defaults": {"outbound": {"route": route}}}, SCHEMA) == []


def test_every_key_says_what_it_is_for() -> None:
    silent = [
        f"{name}.{key}"
        for name, each in {"Config": SCHEMA, **SCHEMA["$defs"]}.items()
        for one in each.get("anyOf", [each])
        for key, value in one.get("properties", {}).items()
        if "description" not in value and key not in ("direction",)
    ]
    assert silent == []
    assert SCHEMA["properties"].keys() == fields(Config).keys()


def test_defaults_are_written_as_in_the_file() -> None:
    assert SCHEMA["$defs"]["Retry"]["properties"]["expire"]["default"] == "5d"
    assert SCHEMA["$defs"]["Limits"]["properties"]["command_timeout"]["default"] == "5m"
    assert "'null'" not in str(SCHEMA)
    assert "None" not in str(SCHEMA)
