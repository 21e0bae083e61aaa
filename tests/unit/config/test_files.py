"""Paths, secrets, trust stores and recipient lists: what leads out of the file."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import TypeAdapter, ValidationError, ValidationInfo

from relay.config.files import (
    Expanded,
    FilePath,
    QueueUrl,
    RecipientList,
    Secret,
    SecretOrigin,
    SocketPath,
    Trust,
    locate,
    read_text,
    trouble,
)
from relay.config.models import Accept


def parsed(kind: Any, value: object, base: Path) -> Any:
    return TypeAdapter(kind).validate_python(value, context={"base": base})


def refused(kind: Any, value: object, base: Path) -> str:
    with pytest.raises(ValidationError) as caught:
        parsed(kind, value, base)
    return str(caught.value.errors()[0]["ctx"]["error"])


def info(base: Path) -> ValidationInfo:
    return cast(ValidationInfo, SimpleNamespace(context={"base": base}))


def test_a_secret_never_shows() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret:}" + str({"password": secret})
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2", SecretOrigin.FILE)
    assert len({secret, Secret("hunter2"), Secret("other")}) == 2
    assert secret != "hunter2"


def test_where_a_secret_came_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("first line \nsecond\n", encoding="utf-8")
    written = parsed(Secret, " with blanks ", tmp_path)
    assert (written.reveal(), written.origin, written.path) == (" with blanks ", SecretOrigin.WRITTEN, None)
    assert parsed(Secret, Expanded("x"), tmp_path).origin is SecretOrigin.ENVIRONMENT
    from_file = parsed(Secret, "file:secret", tmp_path)
    assert (from_file.reveal(), from_file.origin, from_file.path) == (
        "first line ",
        SecretOrigin.FILE,
        tmp_path / "secret",
    )
    assert parsed(Secret, Expanded("file:secret"), tmp_path).origin is SecretOrigin.FILE
    assert parsed(Secret, from_file, tmp_path) is from_file


def test_secrets_that_can_not_be_had(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert "digits alone need quotes" in refused(Secret, 123456, tmp_path)
    assert "write ${NAME}" in refused(Secret, "", tmp_path)
    assert "is empty" in refused(Secret, "file:empty", tmp_path)
    assert "No such file" in refused(Secret, "file:none", tmp_path)
    assert "write a path" in refused(Secret, "file:", tmp_path)


def test_texts_are_read_from_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_text("x" * 2000, encoding="utf-8")
    (tmp_path / "bom").write_text("\ufeffsecret", encoding="utf-8")
    for name, why in (("fifo", "not a regular file"), ("binary", "not UTF-8"), ("long", "larger than 1 KiB")):
        with pytest.raises(ValueError, match=why):
            read_text(tmp_path / name, "it", 1024)
    assert read_text(tmp_path / "bom", "it", 1024) == "secret"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert parsed(FilePath, "certs/", tmp_path) == tmp_path / "certs"
    assert parsed(FilePath, "/etc/x", tmp_path) == Path("/etc/x")
    assert parsed(FilePath, tmp_path, tmp_path) == tmp_path
    assert locate("x", cast(ValidationInfo, SimpleNamespace(context=None))) == Path.cwd() / "x"
    for value in (7, "", "a\0b"):
        assert "write a path" in refused(FilePath, value, tmp_path)


def test_why_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert trouble(tmp_path) == ""
    assert trouble(tmp_path / "none") == "does not exist"
    assert trouble(tmp_path / "file" / "below") == "cannot be read: Not a directory"
    assert trouble(tmp_path / ("x" * 300)) == "cannot be read: File name too long"


def test_the_path_of_a_socket_has_its_limit(tmp_path: Path) -> None:
    assert parsed(SocketPath, "/run/relay.sock", tmp_path) == Path("/run/relay.sock")
    assert "longer than the 107 bytes" in refused(SocketPath, "/" + "x" * 107, tmp_path)


def test_the_queue_is_absolute_and_its_folder_is_there(tmp_path: Path) -> None:
    assert parsed(QueueUrl, "sqlite:queue.db", tmp_path) == f"sqlite:{tmp_path}/queue.db"
    assert "make it first" in refused(QueueUrl, "sqlite:none/queue.db", tmp_path)
    for value in ("postgresql://x", "queue.db", 7):
        assert "write sqlite:PATH" in refused(QueueUrl, value, tmp_path)


def test_trust_is_system_or_something_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert parsed(Trust, "system", tmp_path) == "system"
    assert parsed(Trust, "ca.pem", tmp_path) == str(tmp_path / "ca.pem")
    assert "does not exist" in refused(Trust, "none.pem", tmp_path)
    for value in (7, ""):
        assert "write `system`" in refused(Trust, value, tmp_path)


def test_recipient_lists(tmp_path: Path) -> None:
    text = '# all of us\n\nAlice\nbob@Example.COM  # an address\nsales#eu\n"odd name"\n"plain"@example.com\n'
    (tmp_path / "list").write_text(text, encoding="utf-8")
    accept = Accept.model_validate(
        {"domains": ["example.com"], "recipients": {"Example.com": "file:list"}}, context={"base": tmp_path}
    )
    assert accept.recipients == {"example.com": frozenset({"alice", "bob", "sales#eu", '"odd name"', "plain"})}
    assert parsed(RecipientList, frozenset({"a"}), tmp_path) == frozenset({"a"})
    assert "write file:PATH" in refused(RecipientList, "list", tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# nobody\n", "names no recipient"),
        ("bob@other.example", "where it can never match"),
        ("two words", "is not a valid local part"),
        ("bob@two words", "is not a domain name"),
    ],
)
def test_recipient_lists_that_are_wrong(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text, encoding="utf-8")
    with pytest.raises(ValidationError, match=why):
        Accept.model_validate({"recipients": {"example.com": "file:list"}}, context={"base": tmp_path})


def test_two_lists_for_one_domain_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("alice", encoding="utf-8")
    lists = {"example.com": "file:list", "EXAMPLE.com.": "file:list"}
    with pytest.raises(ValidationError, match="are one domain"):
        Accept.model_validate({"recipients": lists}, context={"base": tmp_path})
    with pytest.raises(ValidationError, match="valid dictionary"):
        Accept.model_validate({"recipients": ["x"]}, context={"base": tmp_path})
