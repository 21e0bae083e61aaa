"""The OpenAPI 3.1 document of the admin API, made from the same values as its routes: `GET /openapi.json`."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.json_schema import models_json_schema

import relay
from relay.admin.endpoint import JSON, Answer, Asked, Endpoint, Json, Nothing, Problem, Scope, Shape

_MODE: Literal["serialization"] = "serialization"
_REF = "#/components/schemas/{model}"
_COMMON = {
    400: "The question cannot be understood; the error names the parameter.",
    401: "The caller is not known here.",
    403: "The caller's scope does not cover this.",
    429: "Too many failed sign-ins came from this address.",
    500: "A bug of the relay; its log says more.",
    503: "The relay cannot do it now.",
}
_ABOUT = """\
Operate an Ironpost relay. On its unix socket whoever may open the file has the scope `admin`; by HTTPS a caller shows a bearer token or a
client certificate, whose scope is `read`, `operate` or `admin`; each holds the ones before it. Times are RFC 3339 in UTC, sizes bytes,
durations seconds. Every refusal is a Problem. What changes something is written to the audit log."""


class OpenApi(Shape):
    """This document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


def endpoint(others: Sequence[Endpoint[Any]]) -> Endpoint[Nothing]:
    """The endpoint that serves the document about the others, and about itself."""

    @cache
    def text() -> Json:
        return document((*others, itself))

    async def show(_asked: Asked[Nothing]) -> Answer:
        return Answer(text())

    itself = Endpoint(
        "GET", "/openapi.json", Scope.READ, "What can be asked, as an OpenAPI document.", Nothing, OpenApi, show
    )
    return itself


def document(endpoints: Sequence[Endpoint[Any]]) -> Json:
    """The whole document."""
    answers: list[type[Shape]] = [each.answers for each in endpoints if not isinstance(each.answers, str)]
    shapes: list[type[Shape]] = list(dict.fromkeys([Problem, *answers]))
    refs, schemas = models_json_schema([(shape, _MODE) for shape in shapes], ref_template=_REF)
    components = dict(schemas.get("$defs", {}))
    known = {shape: refs[(shape, _MODE)] for shape in shapes}
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ironpost admin API", "version": relay.__version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`relay token NAME` makes one."},
                "certificate": {"type": "mutualTLS", "description": "One that `admin.clients` names."},
            },
        },
    }


def _operation(endpoint: Endpoint[Any], known: Mapping[type[Shape], Any]) -> dict[str, Any]:
    question = endpoint.asks.model_json_schema(ref_template=_REF)
    properties = {name: _without_null(schema) for name, schema in question.get("properties", {}).items()}
    in_path = [name for name in properties if f"{{{name}}}" in endpoint.path]
    rest = {name: schema for name, schema in properties.items() if name not in in_path}
    required = set(question.get("required", []))
    has_body = endpoint.method != "GET" and endpoint.takes == JSON
    parameters = [_parameter(name, "path", properties[name], required=True) for name in in_path]
    if not has_body:
        parameters += [_parameter(name, "query", rest[name], required=name in required) for name in rest]
    found: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[1].partition(".")[0]],
        "security": [{"token": [endpoint.scope.value]}, {"certificate": [endpoint.scope.value]}],
        "x-scope": endpoint.scope.value,
        "responses": _responses(endpoint, known),
    }
    if parameters:
        found["parameters"] = parameters
    if endpoint.takes != JSON:
        found["requestBody"] = {"required": True, "content": {endpoint.takes: {}}}
    elif has_body:
        schema = {"type": "object", "properties": rest, "additionalProperties": False}
        if needed := sorted(required & set(rest)):
            schema["required"] = needed
        if described := question.get("description"):
            schema["description"] = described
        found["requestBody"] = {"content": {JSON: {"schema": schema}}}
    return found


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A default of null stands for "not given", which is no value of its type."""
    return {key: value for key, value in schema.items() if key != "default" or value is not None}


def _operation_id(endpoint: Endpoint[Any]) -> str:
    words = endpoint.path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return "-".join([endpoint.method.lower(), *filter(None, words)])


def _parameter(name: str, place: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    rest = {key: value for key, value in schema.items() if key not in ("title", "description")}
    found: dict[str, Any] = {"name": name, "in": place, "schema": rest}
    if required:
        found["required"] = True
    if "description" in schema:
        found["description"] = schema["description"]
    return found


def _responses(endpoint: Endpoint[Any], known: Mapping[type[Shape], Any]) -> dict[str, Any]:
    answers = endpoint.answers
    text = {"schema": {"type": "string"}}
    content = {answers: text} if isinstance(answers, str) else {JSON: {"schema": known[answers]}}
    found: dict[str, Any] = {"200": {"description": endpoint.summary, "content": content}}
    for status, when in endpoint.also.items():
        found[str(status)] = {"description": when, "content": content}
    problem = {JSON: {"schema": known[Problem]}}
    for status, when in sorted({**_COMMON, **endpoint.refusals}.items()):
        found[str(status)] = {"description": when, "content": problem}
    return found
