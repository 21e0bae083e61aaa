"""`relay serve` in a process of its own, looked at and ordered about with the commands an ops team has."""

import asyncio
import json
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.testing import Pki, Sink, write_config
from tests.e2e.peers import program
from tests.e2e.process import RelayProcess, free_port

pytestmark = pytest.mark.timeout(120)


CLEAR = [{"address": "127.0.0.1:0", "starttls": "off"}]


def base(folder: Path, **more: Any) -> Path:
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "admin": {"socket": "relay.sock"},
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
    }
    return write_config(folder, values | more, {})


async def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """`relay ARGUMENTS`: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def send(port: int, sender: str, recipient: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=20) as client:
        client.sendmail(sender, [recipient], f"From: {sender}\r\nSubject: from smtplib\r\n\r\nhello\r\n")


async def test_a_day_with_the_command_line(tmp_path: Path) -> None:
    Pki(tmp_path / "pki").issue(tmp_path / "certs", "relay.test")
    nobody = free_port()
    connector = {
        "name": "partner-out",
        "direction": "outbound",
        "match": {"recipient_domains": ["partner.test"]},
        "tls": "encryption",
        "route": {"smart_hosts": [f"127.0.0.1:{nobody}"]},
        "retry": {"initial": "1h", "maximum": "1h"},
    }
    observe = free_port()
    file = base(tmp_path, connectors=[connector], observe=f"127.0.0.1:{observe}")
    config = ("--config", str(file))
    async with RelayProcess(file) as relay:
        code, out, _err = await run("health", *config)
        assert (code, out) == (0, "mail is taken\n")

        await asyncio.to_thread(send, relay.address.port, "alice@relay.test", "bob@partner.test")
        made = await relay.line(lambda each: each["event"] == "attempt-made")

        code, out, _err = await run("queue", "list", "--json", *config)
        (queued,) = json.loads(out)
        assert code == 0
        assert (queued["id"], queued["recipients"][0]["state"]) == (made["message"], "waiting")
        assert queued["recipients"][0]["last"]["code"] == 451
        code, out, _err = await run("queue", "show", made["message"], *config)
        assert code == 0
        assert "bob@partner.test" in out

        code, out, _err = await run("trace", made["message"], "--json", *config)
        (trace,) = json.loads(out)
        assert trace["attempts"][0]["connector"] == "partner-out"
        assert trace["attempts"][0]["plan"]["level"] == "encryption"
        code, out, err = await run("trace", "--to", "somebody@else.test", *config)
        assert code == 1, out + err

        async with Sink(Pki(tmp_path / "partner").issue(tmp_path / "partner", "partner.test")) as sink:
            text = file.read_text().replace(f"127.0.0.1:{nobody}", str(sink.address))
            file.write_text(text)
            code, out, _err = await run("reload", *config)
            assert code == 0
            assert str(sink.address) in out
            # A configuration that is put in force tries what waits, at once or when somebody says so.
            code, _out, _err = await run("queue", "retry", "--all", "--yes", *config)
            (message,) = await sink.wait()
        assert message.tls == "TLSv1.3"
        await relay.line(lambda each: each["event"] == "recipient-ended")
        code, out, _err = await run("queue", "list", *config)
        assert "empty" in out.lower() or "no message" in out.lower() or "nothing" in out.lower(), out

        seen = len(relay.lines)
        relay.signal(signal.SIGHUP)
        await relay.line(lambda each: each["event"] == "configuration-taken", after=seen)

        code, _out, err = await run("serve", *config)
        assert code == 1
        assert str(relay.pid) in err
        relay.signal(signal.SIGTERM)
        assert await relay.wait() == 0
    code, _out, err = await run("queue", "list", *config)
    assert code == 3
    assert "relay.sock" in err
    code, _out, _err = await run("health", *config)
    assert code == 3


async def test_a_fresh_folder_needs_two_commands(tmp_path: Path) -> None:
    file = tmp_path / "connectors.yaml"
    code, out, err = await run("init", "--config", str(file))
    assert code == 0, err
    assert "created" in out
    assert (await run("init", "--config", str(file)))[1] == "nothing is missing\n"
    code, out, err = await run("check", "--config", str(file))
    assert code == 0, out + err
    text = (
        file.read_text().replace("127.0.0.1:2525", "127.0.0.1:0").replace("127.0.0.1:9925", f"127.0.0.1:{free_port()}")
    )
    file.write_text(text)
    async with RelayProcess(file) as relay:
        with smtplib.SMTP("127.0.0.1", relay.address.port, timeout=20) as client:
            assert client.starttls(context=_trusting())[0] == 220
            client.ehlo()
            assert client.has_extn("chunking")


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostnme": "x"}, "hostname"),
        ({"certificates": "nowhere"}, "nowhere"),
        ({"listeners": [{"address": "192.0.2.99:0"}]}, "192.0.2.99"),
        ({"queue": "sqlite:pki"}, "pki"),
    ],
)
async def test_what_cannot_start_says_why_and_ends(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    Pki(tmp_path / "pki").issue(tmp_path / "certs", "relay.test")
    file = base(tmp_path, **change)
    code, out, err = await run("serve", "--config", str(file))
    assert code == 1, out + err
    assert said in err
    assert "Traceback" not in err


@pytest.mark.peers
async def test_swaks_in_clear_over_tls_with_a_certificate_and_with_a_login(tmp_path: Path) -> None:
    swaks = program("swaks")
    pki = Pki(tmp_path / "pki")
    pki.issue(tmp_path / "certs", "relay.test", "127.0.0.1")
    partner = pki.issue(tmp_path / "partner", "mail.partner.test")
    code, _out, err = await run(
        "password",
        "alice",
        "--senders",
        "alice@relay.test",
        "--file",
        str(tmp_path / "passwords"),
        stdin="correct horse\n",
    )
    assert code == 0, err
    async with Sink() as sink:
        submission = free_port()
        file = base(
            tmp_path,
            listeners=[
                {"address": f"127.0.0.1:{submission}", "kind": "submission"},
                {"address": "127.0.0.1:0"},
            ],
            submission={"passwords": "passwords"},
            accept={"domains": ["relay.test"]},
            connectors=[
                {
                    "name": "inner",
                    "direction": "outbound",
                    "match": {"recipient_domains": ["*"]},
                    "route": {"smart_hosts": [str(sink.address)]},
                },
                {
                    "name": "partner-in",
                    "direction": "inbound",
                    "match": {"sender_domains": ["partner.test"]},
                    "require": {"tls": True, "certificate": {"names": ["mail.partner.test"], "ca": str(pki.ca)}},
                },
            ],
        )
        async with RelayProcess(file) as relay:
            mx = relay.address.port
            tls = ("--tls", "--tls-verify", "--tls-ca-path", str(pki.ca))
            ours = ("--tls-cert", str(partner), "--tls-key", str(partner.with_suffix(".key")))
            login = ("--auth", "PLAIN", "--auth-user", "alice", "--auth-password", "correct horse")

            async def say(port: int, sender: str, recipient: str, *more: str) -> tuple[int, str]:
                arguments = [
                    swaks,
                    "--server",
                    "127.0.0.1",
                    "--port",
                    str(port),
                    "--from",
                    sender,
                    "--to",
                    recipient,
                    *more,
                ]
                done = await asyncio.to_thread(
                    subprocess.run,
                    [*arguments, "--helo", "swaks.test"],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                return done.returncode, done.stdout + done.stderr

            assert (await say(mx, "x@else.test", "bob@relay.test"))[0] == 0
            code, said = await say(mx, "x@else.test", "bob@elsewhere.test")
            assert code != 0
            assert "550 5.7.1 relaying denied" in said
            code, said = await say(mx, "boss@partner.test", "bob@relay.test")
            assert "530 5.7.10" in said
            code, said = await say(mx, "boss@partner.test", "bob@relay.test", *tls)
            assert "550 5.7.1" in said
            code, said = await say(mx, "boss@partner.test", "bob@relay.test", *tls, *ours)
            assert code == 0, said
            code, said = await say(submission, "alice@relay.test", "bob@elsewhere.test", *tls, *login)
            assert code == 0, said
            code, said = await say(submission, "mallory@relay.test", "bob@elsewhere.test", *tls, *login)
            assert "553 5.7.1" in said
            code, said = await say(submission, "alice@relay.test", "bob@elsewhere.test", *tls, *login[:-1], "wrong")
            assert "535 5.7.8" in said
            messages = await sink.wait(3)
    assert {each.sender for each in messages} == {"x@else.test", "boss@partner.test", "alice@relay.test"}
    (submitted,) = [each for each in messages if each.sender == "alice@relay.test"]
    assert b"with ESMTPSA" in submitted.content


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_service_manager_hears_of_start_life_and_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)

        async def hears(beginning: str) -> None:
            async with asyncio.timeout(30):
                while not (await asyncio.get_running_loop().sock_recv(manager, 1000)).startswith(beginning.encode()):
                    pass

        async with RelayProcess(base(tmp_path, certificates=None, listeners=CLEAR, workers=workers)):
            await hears("READY=1")
            await hears("WATCHDOG=1")
            await hears("WATCHDOG=1")
        await hears("STOPPING=1")
