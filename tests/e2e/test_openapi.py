"""The OpenAPI document against a running relay: each endpoint is called, and every answer is held against the document's schema for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from relay.admin.accounts import add_token
from relay.admin.endpoint import Scope
from relay.mail.events import RecipientEnded
from relay.testing import RelayPair, relay_pair
from relay.testing.sink import Sink
from tests.e2e.heard import Heard
from tests.e2e.process import free_port

MAIL = (
    b'{"sender": "alice@a.test", "recipients": [{"address": "carol@later.test"}]}\n'
    b"From: alice@a.test\r\nSubject: taken\r\n\r\ntaken\r\n"
)

# What a call of each endpoint asks for, good and bad, and which status it gets. {id} is a delivered message's, {waits} one's
# that waits. An endpoint that is not here
# fails the test: whoever adds one says how it is called.
CALLS: dict[str, list[tuple[dict[str, Any], int]]] = {
    "GET /status": [({}, 200), ({"x": "1"}, 400)],
    "GET /queue": [({}, 200), ({"state": ["held", "delivered"]}, 200), ({"limit": "0"}, 400)],
    "GET /queue/{id}": [({"id": "{id}"}, 200), ({"id": "0000"}, 404), ({"id": "lower"}, 400)],
    "POST /queue/retry": [({"ids": ["{id}"]}, 200), ({}, 400)],
    "POST /queue/hold": [({"all": True}, 200), ({"to": 5}, 400)],
    "POST /queue/release": [({"all": True}, 200), ({"all": True, "ids": ["A"]}, 400)],
    "POST /queue/bounce": [({"to": "nowhere.test"}, 200), ({"ids": [1]}, 400)],
    "POST /queue/delete": [({"connector": "to-b"}, 200), ({"connector": "a b"}, 400)],
    "GET /trace": [({"id": "{id}"}, 200), ({"from": "@a.test"}, 200), ({}, 400)],
    "GET /reports": [({}, 200), ({"day": "x"}, 400)],
    "GET /reports/show": [({"domain": "other.test"}, 404), ({"domain": "localhost"}, 200), ({}, 400)],
    "GET /reports/received": [({}, 200), ({"limit": "x"}, 400)],
    "POST /reports/send": [({}, 200), ({"day": "2999-01-01"}, 400)],
    "GET /change": [({}, 200)],
    "POST /reload": [({"dry_run": True}, 200), ({}, 200), ({"dry_run": 1}, 400)],
    "GET /connectors": [({}, 200)],
    "GET /connectors/{name}": [({"name": "to-b"}, 200), ({"name": "default"}, 200), ({"name": "none"}, 404)],
    "POST /explain": [
        ({"to": "bob@b.test"}, 200),
        ({"to": "bob@b.test", "from": "x@a.test", "client_ip": "192.0.2.1"}, 200),
        ({"to": "bob@b.test", "from": "x@b.test", "tls_version": "none"}, 200),
        ({"to": "bob@named.test"}, 200),
        ({"to": "bob@nowhere.invalid"}, 200),
        ({"to": "bob@b.test", "client_certificate": "x"}, 400),
        ({"from": "bob@b.test"}, 400),
    ],
    "POST /probe": [({"target": "b.test"}, 200), ({"target": "nowhere.invalid"}, 200), ({"target": "a b"}, 400)],
    "GET /check": [({}, 200)],
    "GET /metrics": [({}, 200)],
    "GET /audit": [({}, 200), ({"since": "yesterday"}, 400)],
    "GET /alerts": [({}, 200)],
    "POST /alerts/test": [({}, 200), ({"ways": ["webhook"]}, 503), ({"ways": ["pigeon"]}, 400)],
    "POST /connectors/validate": [
        ({"connector": "to-b"}, 200),
        ({"connector": "from-b"}, 200),
        ({"connector": "none"}, 404),
        ({"connector": "to-b", "domain": "other.test"}, 400),
    ],
    "POST /connectors/test": [
        ({"connector": "to-b", "to": "bob@b.test"}, 200),
        ({"connector": "to-b", "to": "<>"}, 400),
    ],
    "GET /suspensions": [({}, 200)],
    "POST /suspensions": [({"to": "later.test"}, 200), ({}, 400)],
    "POST /suspensions/resume": [({"to": "later.test"}, 200), ({"id": 1, "all": True}, 400)],
    "POST /queue/reroute": [({"all": True, "via": "127.0.0.1:26"}, 200), ({"all": True}, 400)],
    "POST /queue/flush": [({"all": True}, 200), ({}, 400)],
    "POST /trace/purge": [({"to": "@gone.test"}, 200), ({}, 400)],
    "GET /queue/{id}/envelope": [({"id": "{id}"}, 404), ({"id": "{waits}"}, 200), ({"id": "lower"}, 400)],
    "POST /queue/{id}/export": [({"id": "0000"}, 404), ({"id": "{waits}"}, 200), ({"id": "lower"}, 400)],
    "POST /queue/import": [({}, 409), ({"body": MAIL}, 200)],
    "GET /connectors/suggest": [({}, 200), ({"x": "1"}, 400)],
    "GET /security/overview": [({}, 200)],
    "GET /security/partners": [({}, 200)],
    "GET /security/report": [({}, 200)],
    "GET /security/shares": [({}, 200)],
    "GET /security/troubled": [({}, 200)],
    "GET /queue/destinations": [({}, 200)],
    "GET /certificates": [({}, 200)],
    "GET /certificates/sheet": [({}, 200), ({"name": "a.test"}, 200), ({"name": "none"}, 404)],
    "GET /certificates/page": [({"name": "a.test"}, 200), ({"name": "none"}, 404), ({}, 400)],
    "GET /openapi.json": [({}, 200)],
}


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[RelayPair, dict[Scope, str]]]:
    """Relay A of a pair, with network door, TLS reports, alerts by mail, two delivered messages, and one that waits."""
    heard = Heard()
    (folder / "a").mkdir()
    tokens = {scope: add_token(folder / "a" / "accounts", scope.value, scope) for scope in Scope}
    admin = {"socket": "relay.sock", "listen": f"127.0.0.1:{free_port()}", "accounts": "accounts", "tls": "off"}
    changes = {"admin": admin, "tlsrpt": {"contact": "tls@a.test"}, "alerts": {"mail": ["ops@b.test"]}}
    later = {"name": "later", "direction": "outbound", "match": {"recipient_domains": ["later.test"]}}
    later["route"] = {"smart_hosts": [f"127.0.0.1:{free_port()}"]}
    sender = {
        "name": "from-b",
        "direction": "inbound",
        "match": {"sender_domains": ["b.test"]},
        "require": {"tls": True},
    }
    async with (
        Sink() as sink,
        relay_pair(a=changes, folder=folder, observers=[heard], more=[later, sender, named_hop(sink)]) as pair,
    ):
        await pair.send()
        await pair.send("dave@named.test")
        await heard.wait(RecipientEnded, 3)
        await pair.send("carol@later.test")
        yield pair, tokens


def named_hop(sink: Sink) -> dict[str, Any]:
    """A smart host that has a name, so that its sessions are counted for a TLS report."""
    route = {"smart_hosts": [f"localhost:{sink.address.port}"]}
    match = {"recipient_domains": ["named.test"]}
    return {"name": "named", "direction": "outbound", "match": match, "route": route}


def client(pair: RelayPair, token: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"http://{pair.a.admin}", headers=headers, trust_env=False, timeout=60)


async def call(client: httpx.AsyncClient, name: str, given: dict[str, Any]) -> httpx.Response:
    method, path = name.split()
    rest = dict(given)
    for key in list(rest):
        if f"{{{key}}}" in path:
            path = path.replace(f"{{{key}}}", rest.pop(key))
    if method == "GET":
        return await client.get(path, params=rest)
    if path == "/queue/import":  # its body is no JSON
        content = rest.pop("body", b"no message")
        return await client.post(path, params=rest, content=content)
    return await client.request(method, path, json=rest)


def schema_of(document: dict[str, Any], name: str, answer: httpx.Response) -> dict[str, Any] | None:
    """None where the answer is no JSON. A status or a media type that the document does not tell is a KeyError."""
    method, path = name.split()
    responses = document["paths"][path][method.lower()]["responses"]
    content = responses[str(answer.status_code)]["content"]
    media_type = answer.headers["content-type"]
    if media_type != "application/json":
        shown = media_type if media_type in content else media_type.partition(";")[0]
        assert content[shown] == {"schema": {"type": "string"}}
        return None
    return {"$ref": content["application/json"]["schema"]["$ref"], "components": document["components"]}


async def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    async with site(tmp_path) as (pair, tokens), client(pair, tokens[Scope.ADMIN]) as api:
        document = (await api.get("/openapi.json")).json()
        OpenAPIV31SpecValidator(document).validate()
        described = {
            f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations
        }
        assert described == CALLS.keys()
        (trace,) = (await api.get("/trace?to=@b.test")).json()["traces"]
        (waits,) = (await api.get("/queue")).json()["messages"]
        names = {"{id}": trace["id"], "{waits}": waits["id"]}
        for name, calls in CALLS.items():
            for given, status in calls:
                asked = {key: named(value, names) for key, value in given.items()}
                answer = await call(api, name, asked)
                assert answer.status_code == status, (name, given, answer.text)
                schema = schema_of(document, name, answer)
                if schema is not None:
                    Draft202012Validator(schema).validate(answer.json())
        change = await changed(pair, api)
    assert change["weaker"], change
    assert "10.0.0.0/8" in change["diff"]
    assert change["last"]["who"] == "admin"


def named(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [named(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


async def changed(pair: RelayPair, api: httpx.AsyncClient) -> dict[str, Any]:
    """A change that weakens something waits; one with an error is told with 422."""
    file = pair.folder / "a" / "connectors.yaml"
    before = file.read_text()
    file.write_text(before.replace("tls: domain", "tls: encryption").replace("names:", "pins: []\n  # names:"))
    answer = await api.post("/reload", json={"dry_run": True})
    assert answer.status_code == 422
    file.write_text(before.replace("127.0.0.0/8]", "127.0.0.0/8, 10.0.0.0/8]"))
    found: dict[str, Any] = (await api.get("/change")).json()
    file.write_text(before)
    return found


async def test_what_each_scope_may_do(tmp_path: Path) -> None:
    """The whole table, each pair called: golden/scopes.txt. Nobody without a token may do anything."""
    lines = []
    async with site(tmp_path) as (pair, tokens):
        for name, calls in CALLS.items():
            given, _status = calls[0]
            allowed = []
            for scope in Scope:
                async with client(pair, tokens[scope]) as api:
                    answer = await call(api, name, {"x" * 9: "1", **given})  # a wrong word: nothing is done
                    assert answer.status_code in (400, 403), (name, scope, answer.text)
                    if answer.status_code == 400:
                        allowed.append(scope.value)
            async with httpx.AsyncClient(base_url=f"http://{pair.a.admin}", trust_env=False) as nobody:
                assert (await call(nobody, name, given)).status_code == 401
            lines.append(f"{name:24} {' '.join(allowed)}\n")
    golden = Path(__file__).parent.parent / "golden" / "scopes.txt"
    assert "".join(lines) == golden.read_text()


def test_no_scope_is_left_out() -> None:
    assert list(Scope) == ["read", "operate", "admin"]
