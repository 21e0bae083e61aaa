"""What the models say of one mapping, beyond what tests/golden/config has."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from relay.config.connectors import (
    InboundConnector,
    OutboundConnector,
    OutboundSettings,
    Retry,
    Route,
    with_defaults,
)
from relay.config.models import Dns, Listener
from relay.config.references import reference_errors
from relay.config.shape import shape_errors
from relay.config.values import HostPort
from relay.mail.published import Use
from relay.tls.selfsigned import create_self_signed
from tests.unit.config.builders import loaded, problems
from tests.unit.config.test_advice import NOW, ROOT


def test_listeners_have_a_name_for_people() -> None:
    assert Listener.model_validate({"address": "[::1]:25"}).name == "mx [::1]:25"
    assert Listener.model_validate({"address": HostPort("::1", 25)}).address == HostPort("::1", 25)


def test_resolvers() -> None:
    assert Dns.model_validate({"resolver": "127.0.0.1:53"}).resolver == HostPort("127.0.0.1", 53)
    assert Dns.model_validate({"resolver": HostPort("::1", 53)}).resolver == HostPort("::1", 53)


def test_routes() -> None:
    assert Route.model_validate({"smart_hosts": [HostPort("a.example", 26)]}).hosts == (HostPort("a.example", 26),)
    assert Route().by_mx


@pytest.mark.parametrize("values", [{"expire": "0s"}, {"initial": "0s"}, {"initial": "2h"}])
def test_retry_must_make_sense(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="above zero"):
        Retry.model_validate(values)


def test_which_connectors_speak_of_certificates() -> None:
    def speaks(match: dict[str, object], require: dict[str, object]) -> bool:
        values = {"name": "a", "direction": "inbound", "match": match, "require": require}
        return InboundConnector.model_validate(values).speaks_of_certificates

    assert speaks({"certificate_names": ["a.example"]}, {"tls": True})
    assert speaks({"networks": ["::1"]}, {"certificate": {"names": ["a.example"]}})
    assert not speaks({"networks": ["::1"]}, {"tls": True})


def test_times_must_be_above_zero(tmp_path: Path) -> None:
    assert problems("limits: {command_timeout: 0s}\n", tmp_path) == ["limits.command_timeout: must be above zero"]


def test_an_error_of_an_unknown_kind_still_says_where(tmp_path: Path) -> None:
    from relay.config.document import read

    root, _ = read("trust: x\n", {})
    (found,) = shape_errors([{"type": "brand_new", "loc": ("trust",), "msg": "secret", "input": "secret"}], root)
    assert (found.place, found.message) == (("trust",), "this value is not of the kind that belongs here")


def test_trust_stores_of_the_defaults_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing", encoding="utf-8")
    text = "defaults: {outbound: {tls: certificate, ca: ca.pem}}\n"
    assert problems(text, tmp_path) == [
        f"defaults.outbound.ca: {tmp_path}/ca.pem is not a PEM file: put the CA's certificate there, in PEM"
    ]


def test_trust_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cas"
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing", encoding="utf-8")
    assert "is a folder without any certificate" in problems("trust: cas\n", tmp_path)[0]
    (folder / "a.pem").write_bytes((ROOT / "tests/golden/config/files/ca.pem").read_bytes())
    config = loaded("trust: cas\n", tmp_path).config

    def unreadable(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", unreadable)
    assert [each.text for each in reference_errors(config, NOW)] == [
        f"{folder} cannot be read: Permission denied: put the CA's certificate there, in PEM"
    ]


def test_certificates_is_a_folder_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "certs").touch()
    assert problems("certificates: certs\n", tmp_path) == [
        f"certificates: {tmp_path}/certs is not a folder: `relay init` makes one"
    ]


def test_client_certificates_are_found_by_file_and_by_name(tmp_path: Path) -> None:
    create_self_signed(tmp_path / "certs", "relay.example.com", NOW)
    text = "certificates: certs\ndefaults: {outbound: {client_certificate: NAME}}\n"
    assert problems(text.replace("NAME", "relay.example.com"), tmp_path) == []
    assert problems(text.replace("NAME", "other"), tmp_path) == [
        "defaults.outbound.client_certificate: no certificate `other` with its key is in the folder: "
        "write a file's name without .pem, or a name in one; there: relay.example.com"
    ]


def test_a_default_that_leaves_policy_out_is_not_inherited_by_a_connector_that_fixes_nothing() -> None:
    fixed = {"tls": "domain", "names": ["a.example"], "ca": "system", "dane": "off", "mta_sts": "off"}
    defaults = OutboundSettings.model_validate(fixed)

    def acting(**keys: object) -> tuple[Use, Use]:
        values = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["c.example"]}, **keys}
        made = with_defaults(OutboundConnector.model_validate(values), defaults)
        return made.dane, made.mta_sts

    assert acting() == (Use.OFF, Use.OFF)
    assert acting(tls="encryption") == (Use.AUTO, Use.AUTO)
    assert acting(tls="encryption", mta_sts="require") == (Use.AUTO, Use.REQUIRE)
