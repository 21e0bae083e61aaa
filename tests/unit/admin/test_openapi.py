from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route

from relay.admin.openapi import document
from tests.unit.admin.fake import FakeRelay, application, topics


def described() -> dict[str, Any]:
    return dict(document(topics(FakeRelay())))


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(described()).validate()


def test_every_route_is_in_it_and_nothing_else() -> None:
    app = application(FakeRelay())
    assert isinstance(app, Starlette)
    assert all(isinstance(route, Route) for route in app.routes)
    routes = [
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    ]
    assert len(set(routes)) == len(routes)
    paths = described()["paths"]
    in_it = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    assert set(routes) == in_it | {"GET /openapi.json"}


def test_no_two_operations_have_one_id() -> None:
    ids = [each["operationId"] for operations in described()["paths"].values() for each in operations.values()]
    assert len(ids) == len(set(ids))


def test_parameters_and_bodies() -> None:
    paths = described()["paths"]
    assert [(each["name"], each["in"]) for each in paths["/queue/{id}"]["get"]["parameters"]] == [("id", "path")]
    names = [each["name"] for each in paths["/trace"]["get"]["parameters"]]
    assert names == ["id", "to", "from", "message_id", "since", "limit", "before"]
    body = paths["/queue/retry"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert (set(body["properties"]), body["additionalProperties"]) == ({"ids", "all", "to", "connector"}, False)
    assert set(paths["/reload"]["post"]["responses"]) >= {"200", "400", "401", "403", "422", "503"}


def test_a_name_in_a_path_hides_no_word() -> None:
    """Whatever the order of the topics: /connectors/{name} comes after /connectors/suggest."""
    app = application(FakeRelay())
    assert isinstance(app, Starlette)
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    assert paths == sorted(paths, key=lambda each: "{" in each)
