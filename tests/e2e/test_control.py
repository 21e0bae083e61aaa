"""The flow of mail in an operator's hands, with real processes: what was suspended, held or sent another way is so after kill -9."""

import asyncio
import json
import resource
import smtplib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.testing import Sink
from tests.e2e.process import RelayProcess, crowd, free_port
from tests.e2e.test_workers import config, serving, until

pytestmark = pytest.mark.timeout(180)


class Shell:
    """`relay` beside a running one."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def __call__(self, group: str, action: str, *words: str, code: int = 0) -> str:
        arguments = [sys.executable, "-m", "relay", group, action, "--config", str(self._file), *words]
        done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=False)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return str(done.stdout) + str(done.stderr)

    async def states(self) -> list[str]:
        listed = json.loads(await self("queue", "list", "--json"))
        return sorted(each["state"] for message in listed for each in message["recipients"])


def send(port: int, recipient: str, sender: str = "alice@relay.test", text: str = "hello") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail(sender, [recipient], f"Subject: x\r\n\r\n{text}\r\n")


async def by_all(relay: RelayProcess, recipient: str, **more: Any) -> None:
    async with crowd(relay.address):
        for _ in range(8):
            await asyncio.to_thread(send, relay.address.port, recipient, **more)


async def taken(sink: Sink, count: int) -> None:
    await until(lambda: len(sink.messages) >= count)


async def test_what_was_stopped_is_so_after_a_kill(tmp_path: Path) -> None:
    async with Sink() as sink, Sink() as elsewhere:
        file = config(tmp_path, sink)
        relay = Shell(file)
        process = RelayProcess(file)
        await process.start()
        await process.all_listen(2)
        await relay("queue", "suspend", "--to", "*.a.example", "--reason", "their move")
        await relay("queue", "suspend", "--from", "@bad.example")
        await relay("queue", "suspend", "--to", "held.example")
        await by_all(process, "bob@x.a.example")
        await by_all(process, "bob@b.example", sender="eve@bad.example")
        await by_all(process, "bob@held.example")
        await relay("queue", "hold", "--to", "held.example")
        await relay("queue", "reroute", "--to", "x.a.example", "--via", str(elsewhere.address))
        await by_all(process, "bob@c.example")
        await taken(sink, 8)
        await process.kill()
        await process.start()
        await process.all_listen(2)
        assert await relay.states() == ["held"] * 8 + ["suspended"] * 16
        assert len(json.loads(await relay("queue", "suspensions", "--json"))) == 3
        assert len(sink.messages) == 8
        await by_all(process, "bob@x.a.example")
        await relay("queue", "resume", "--to", "*.a.example")
        await taken(elsewhere, 8)  # those that were sent another way
        await taken(sink, 16)  # those that came later
        await relay("queue", "resume", "--all")
        await taken(sink, 24)
        assert await relay.states() == ["held"] * 8
        await relay("queue", "release", "--all")
        await taken(sink, 32)
        assert len(elsewhere.messages) == 8
        await process.__aexit__(None, None, None)


async def test_all_workers_heed_it_at_once(tmp_path: Path) -> None:
    async with Sink() as sink:
        file = config(tmp_path, sink)
        relay = Shell(file)
        async with serving(file) as process:
            await relay("queue", "suspend", "--connector", "nobody", code=1)
            for round_ in range(3):
                await relay("queue", "suspend", "--to", "a.example")
                await by_all(process, "bob@a.example")
                await by_all(process, "bob@b.example")
                await taken(sink, 16 * round_ + 8)
                assert await relay.states() == ["suspended"] * 8
                await relay("queue", "flush")
                assert await relay.states() == ["suspended"] * 8
                await relay("queue", "resume", "--all")
                await taken(sink, 16 * (round_ + 1))
            assert "nothing" in (await relay("queue", "list")).lower() or await relay.states() == []


async def test_one_that_ends_by_itself_is_told_of(tmp_path: Path) -> None:
    """In log and audit, once, also where it ended while the relay was down."""
    async with Sink() as sink:
        file = config(tmp_path, sink)
        relay = Shell(file)
        process = RelayProcess(file)
        await process.start()
        await process.all_listen(2)
        await relay("queue", "suspend", "--to", "a.example", "--until", "2s", "--reason", "their move")
        await relay("queue", "suspend", "--from", "@b.example", "--until", "8s")
        await by_all(process, "bob@a.example")
        await taken(sink, 8)
        await until(lambda: "to a.example, whose time is over" in _ended(process))
        await process.kill()
        await process.start()
        await until(lambda: "from @b.example, whose time is over" in _ended(process))
        assert json.loads(await relay("queue", "suspensions", "--json")) == []
        noted = json.loads(await relay("audit", "--json", "--action", "resume"))
        assert {(each["who"], each["via"], each["before"][0]["reason"]) for each in noted} == {
            ("relay", "itself", "their move"),
            ("relay", "itself", ""),
        }
        assert len(noted) == 2
        await process.__aexit__(None, None, None)


def _ended(process: RelayProcess) -> list[str]:
    return [
        each["selection"]
        for each in process.lines
        if each.get("event") == "admin-acted" and each["action"] == "resume" and each["who"] == "relay"
    ]


async def test_out_of_one_queue_and_into_another(tmp_path: Path) -> None:
    """Bytes and envelope are the same; what came in once does not come in twice; kill -9 right after loses nothing."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    large = "x" * 70 + "\r\n"
    async with Sink() as sink:
        first, second = config(tmp_path / "one"), config(tmp_path / "two", sink)
        out = tmp_path / "out"
        async with serving(first) as process:
            relay = Shell(first)
            await relay("queue", "suspend", "--to", "*")
            await by_all(process, "bob@a.example")
            await asyncio.to_thread(send, process.address.port, "bob@large.example", text=large * 20_000)
            await relay("queue", "export", "--all", str(out))
            assert len(await relay.states()) == 9, "they stay"
        for each in out.iterdir():
            assert each.stat().st_mode & 0o777 == 0o600
        process = RelayProcess(second)
        await process.start()
        relay = Shell(second)
        await relay("queue", "suspend", "--to", "*")
        said = await relay("queue", "import", str(out))
        assert said.count("queued as") == 9
        await process.kill()
        await process.start()
        assert await relay.states() == ["suspended"] * 9
        again = await relay("queue", "import", str(out), code=1)
        assert again.count("is known here already") == 9
        await relay("queue", "resume", "--all")
        await taken(sink, 9)
        assert {len(got.content) > 1_000_000 for got in sink.messages} == {True, False}
        for got in sink.messages:
            body = got.content.partition(b"\r\n\r\n")[2]
            assert body in (b"hello\r\n", (large * 20_000).encode() + b"\r\n")
            head = got.content.partition(b"\r\n\r\n")[0]
            assert head.count(b"Received: ") == 2, "where it came from is told too"
            assert b"(imported as " in head
        await process.__aexit__(None, None, None)


async def test_what_is_not_fit_is_refused(tmp_path: Path) -> None:
    file = config(tmp_path, limits={"free_space": "1MiB", "message_size": "100KiB"})
    to = ("--from", "a@b.example", "--to", "bob@held.example")
    message = tmp_path / "m.eml"
    async with serving(file):
        relay = Shell(file)
        await relay("queue", "suspend", "--to", "*")
        for content, why in (
            (b"Subject: x\n\nhi\n", "must end with CRLF"),
            (b"Subject: x\r\n\r\nhi\rhi\r\n", "must end with CRLF"),
            (b"Subject: x\r\n\r\n\0\r\n", "a NUL"),
            (b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000, "larger than limits.message_size"),
            (b"Subject: x\r\n\r\n" + b"x" * 9000 + b"\r\n", "longer than limits.line_length"),
            (b"", "empty"),
            (b"From - Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n\r\nhi\r\n", "as in an mbox"),
            (b"Received: x\r\n" * 100 + b"\r\nhi\r\n", "in a circle"),
        ):
            message.write_bytes(content)
            assert why in await relay("queue", "import", str(message), *to, code=1)
        message.write_bytes(b"Subject: x\n\nhi")
        assert "queued as" in await relay("queue", "import", "--crlf", str(message), *to)
        assert "not local-part@domain" in await relay(
            "queue", "import", "--crlf", str(message), "--from", "<>", "--to", "bob", code=1
        )
        assert "No such file" in await relay("queue", "import", str(tmp_path / "none.eml"), *to, code=1)
        assert await relay.states() == ["suspended"]


async def test_a_folder_of_many_files_weighs_nothing(tmp_path: Path) -> None:
    """Neither the command nor the relay grows with the number of files."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2000):
        (folder / f"{number}.eml").write_bytes(b"Subject: x\r\n\r\n" + b"y" * 60 + b"\r\n")
    file = config(tmp_path)
    async with serving(file) as process:
        relay = Shell(file)
        await relay("queue", "suspend", "--to", "*")
        await relay("queue", "import", str(folder / "0.eml"), "--from", "a@b.example", "--to", "b@c.example")
        before = _weight(process)
        said = await relay("queue", "import", str(folder), "--from", "a@b.example", "--to", "b@c.example")
        assert said.count("queued as") == 2000
        assert _weight(process) - before < 20 * 1024
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        assert most < 400 * 1024


def _weight(process: RelayProcess) -> int:
    """KiB of all its processes."""
    total = 0
    for pid in (process.pid, *process.workers.values()):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    return total


async def test_traces_are_forgotten(tmp_path: Path) -> None:
    async with Sink() as sink:
        file = config(tmp_path, sink)
        relay = Shell(file)
        async with serving(file) as process:
            await by_all(process, "bob@a.example")
            await by_all(process, "eve@a.example")
            await taken(sink, 16)
            await relay("queue", "list")
            await relay("queue", "suspend", "--to", "*")
            await by_all(process, "bob@a.example")
            assert "add --yes" in await relay("trace", "purge", "--to", "bob@a.example", code=2)
            assert "8 messages are forgotten" in await relay("trace", "purge", "--to", "bob@a.example", "--yes")
            assert len(await relay.states()) == 8, "live mail stays"
            await relay("trace", "purge", "--to", "bob@a.example", "--yes", code=1)
            left = json.loads(await relay("trace", "show", "--to", "a.example", "--json", "--limit", "100"))
            assert len(left) == 16
        log = json.dumps([each for each in process.lines if each.get("event") == "admin-acted"])
        assert "purge-traces" in log
        assert "bob@a.example" not in log, "the log of who did what must not keep it"


async def test_a_port_that_nobody_has_is_no_reason_to_lose_mail(tmp_path: Path) -> None:
    """Sent to the wrong place, and back."""
    async with Sink() as sink:
        file = config(tmp_path, sink)
        relay = Shell(file)
        async with serving(file) as process:
            own = str(process.address)
            await relay("queue", "suspend", "--to", "a.example")
            await by_all(process, "bob@a.example")
            assert "is this relay itself" in await relay("queue", "reroute", "--all", "--via", own, code=1)
            assert "no outbound connector typo" in await relay("queue", "reroute", "--all", "--via", "typo", code=1)
            await relay("queue", "reroute", "--to", "a.example", "--via", f"127.0.0.1:{free_port()}")
            await relay("queue", "resume", "--all")
            await asyncio.to_thread(send, process.address.port, "bob@b.example")
            await taken(sink, 1)
            shown = json.loads(await relay("queue", "list", "--json"))
            assert len(shown) == 8
            assert all(each["recipients"][0]["via"]["host"] for each in shown)
            await relay("queue", "reroute", "--to", "a.example", "--via", "default")
            await taken(sink, 9)
