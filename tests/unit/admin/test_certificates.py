"""`GET /certificates` of a real relay: what is answered has the shape that the document promises, and nothing beside it."""

from pathlib import Path

import httpx
import pytest

from relay.admin.certificates import CertificateList, SheetList
from relay.app import Relay
from relay.app.relay import Times
from relay.testing import Pki, write_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Pki(tmp_path / "pki").issue(tmp_path / "certs", "relay.test")
    (tmp_path / "certs" / "broken.pem").write_bytes(b"junk")
    connector = {"name": "out", "direction": "outbound", "match": {"recipient_domains": ["c.example"]}}
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "admin": {"socket": "relay.sock"},
        "limits": {"free_space": "1MiB"},
        "connectors": [connector | {"client_certificate": "relay.test"}],
    }
    return write_config(tmp_path, values, {})


async def test_answers_have_their_shapes(file: Path) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(file.parent / "relay.sock"))
    async with (
        Relay(file, times=Times(watch=0.1, grace=5.0)),
        httpx.AsyncClient(transport=transport, base_url="http://relay", timeout=20) as client,
    ):
        listed = CertificateList.model_validate((await client.get("/certificates")).json())
        assert [(each.name, each.state, each.connectors) for each in listed.ours] == [
            ("relay.test", "in use", ["out"]),
            ("broken", "in trouble", []),
        ]
        sheets = SheetList.model_validate((await client.get("/certificates/sheet")).json()).sheets
        assert [(each.name, each.server, each.client) for each in sheets] == [("relay.test", True, True)]
        one = await client.get("/certificates/sheet", params={"name": "relay.test"})
        assert len(SheetList.model_validate(one.json()).sheets) == 1
        page = await client.get("/certificates/page", params={"name": "relay.test"})
        assert page.headers["content-type"].startswith("text/html")
        assert "<h1>TLS certificate of relay.test</h1>" in page.text
        for path in ("/certificates/sheet", "/certificates/page"):
            refused = await client.get(path, params={"name": "other"})
            assert (refused.status_code, refused.json()["error"][:31]) == (404, "there is no certificate other: ")
        assert (await client.get("/certificates/page")).status_code == 400
