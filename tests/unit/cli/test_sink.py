"""`relay sink`: what it cannot do, it says in a sentence that names the file."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli import build
from relay.config.values import HostPort
from relay.testing.pair import submit


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


@pytest.mark.parametrize(("stored", "end"), [(False, signal.SIGINT), (True, signal.SIGTERM)])
async def test_a_message_as_json(tmp_path: Path, stored: bool, end: signal.Signals) -> None:
    """One object on one line, for whoever reads it by program."""
    words = [sys.executable, "-m", "relay", "sink", "--listen", "127.0.0.1:0", "--json"]
    more = ["--folder", str(tmp_path / "mail")] if stored else []
    process = await asyncio.create_subprocess_exec(
        *words, *more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            ready = (await process.stderr.readline()).decode()
            port = int(ready.strip().rpartition(":")[2])
            await submit(HostPort("127.0.0.1", port), "a@b.example", ["c@d.example"], b"Subject: x\r\n\r\nhello\r\n")
            found = json.loads(await process.stdout.readline())
    finally:
        process.send_signal(end)
        code = await process.wait()
    assert code == 0
    assert (found["number"], found["sender"], found["recipients"], found["tls"]) == (
        1,
        "a@b.example",
        ["c@d.example"],
        None,
    )
    file = str(tmp_path / "mail" / "000001.eml") if stored else None
    assert (found["file"], found["content"] is None) == (file, stored)
    assert stored or "hello" in found["content"]
    assert [each.read_bytes() for each in (tmp_path / "mail").glob("*")] == (
        [b"Subject: x\r\n\r\nhello\r\n"] if stored else []
    )
