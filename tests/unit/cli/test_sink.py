"""`relay sink`: what it cannot do, it says in a sentence that names the file."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli import build


@pytest.mark.parametrize(
    ("option", "value", "code", "said"),
    [
        ("--listen", "nope", 2, "write address:port"),
        ("--certificate", "absent.pem", 1, "cannot use absent.pem with its key NAME.key beside it: No such file"),
        ("--certificate", "text.pem", 1, "cannot use text.pem with its key NAME.key beside it"),
        ("--folder", "text.pem", 1, "cannot store mail in text.pem: File exists"),
        ("--folder", "text.pem/below", 1, "cannot store mail in text.pem/below: Not a directory"),
    ],
)
def test_a_sink_that_cannot_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pem").write_text("no certificate\n")
    words = ["sink", "--listen", "127.0.0.1:0", option, value]
    result = CliRunner().invoke(build(words), words)
    assert result.exit_code == code, result.output
    assert said in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
