"""`relay serve` with several workers, as an ops team sees it: one relay, whichever of its processes answers, and whichever dies."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import smtplib
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.admin.accounts import add_token
from relay.admin.endpoint import Scope
from relay.inbound.passwords import make_line
from relay.testing import Pki, Sink, write_config
from tests.e2e.process import RelayProcess, crowd, free_port
from tests.e2e.test_serve import run, send

pytestmark = pytest.mark.timeout(120)

LATER = "450 4.2.0 later"
_SOON = 0.4  # seconds from one client to the next


def config(folder: Path, sink: Sink | None = None, *, workers: int = 2, **more: Any) -> Path:
    route = {"smart_hosts": [str(sink.address) if sink else f"127.0.0.1:{free_port()}"]}
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
        "workers": workers,
        "queue": "sqlite:queue.db",
        "admin": {"socket": "relay.sock"},
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "defaults": {"outbound": {"route": route, "retry": {"initial": "100ms", "maximum": "300ms"}}},
    }
    return write_config(folder, values | more, {})


@asynccontextmanager
async def serving(file: Path, workers: int = 2) -> AsyncIterator[RelayProcess]:
    async with RelayProcess(file) as relay:
        await relay.all_listen(workers)
        yield relay


async def taken_by_all(relay: RelayProcess, recipient: str = "bob@example.com", *, workers: int = 2) -> list[str]:
    """Mail until every worker has taken some; the ids."""
    seen, sent = len(relay.lines), [0]
    async with crowd(relay.address):
        while True:
            await asyncio.to_thread(send, relay.address.port, "alice@relay.test", recipient)
            sent[0] += 1
            await until(lambda: len(_accepted(relay, seen)) == sent[0])
            accepted = _accepted(relay, seen)
            if len({each["worker"] for each in accepted}) == workers:
                return [each["message"] for each in accepted]


def _accepted(relay: RelayProcess, after: int = 0) -> list[dict[str, Any]]:
    return [each for each in relay.lines[after:] if each.get("event") == "message-accepted"]


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """What other processes do, no event of this loop tells."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.to_thread(time.sleep, 0.005)


async def until_true(question: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await question():
            await asyncio.to_thread(time.sleep, 0.02)


async def listed(file: Path) -> list[dict[str, Any]]:
    code, out, err = await run("queue", "list", "--json", "--config", str(file))
    assert code in (0, 1), err
    found: list[dict[str, Any]] = json.loads(out)
    return found


async def states(file: Path) -> Counter[str]:
    return Counter(recipient["state"] for each in await listed(file) for recipient in each["recipients"])


async def test_commands_and_metrics_speak_for_all_workers(tmp_path: Path) -> None:
    observe = free_port()
    gate = asyncio.Event()
    async with slow_sink(gate) as (port, _busy):
        file = config(tmp_path, observe=f"127.0.0.1:{observe}")
        file.write_text(file.read_text().replace(_hop(file), f"127.0.0.1:{port}"))
        where = ("--config", str(file))
        async with serving(file) as relay:
            ids = await taken_by_all(relay)
            await until_true(lambda: _are(file, {"delivering": len(ids)}))
            # An order for what is being delivered waits for the end of its attempt, in whichever worker that is.
            code, out, _err = await run("queue", "hold", "--all", "--yes", "--json", *where)
            assert (code, json.loads(out)) == (0, {"changed": 0, "running": len(ids), "unknown": []})
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"http://127.0.0.1:{observe}/metrics")).text
                assert _metric(metrics, "ironpost_messages_accepted_total") == len(ids)
                assert _metric(metrics, 'ironpost_queue_recipients{state="delivering"}') == len(ids)
                assert _metric(metrics, "ironpost_workers ") == 2
                assert _metric(metrics, "process_resident_memory_bytes") > 100 * 2**20
                ready = (await client.get(f"http://127.0.0.1:{observe}/readyz")).json()
                assert ready == {"ready": True, "reasons": []}
            gate.set()
            await until_true(lambda: _are(file, {"held": len(ids)}))
            code, _out, _err = await run("queue", "release", *ids, *where)
            assert code == 0
            await until_true(lambda: _are(file, {}))
            code, out, _err = await run("trace", "--to", "bob@example.com", "--json", *where)
            assert sorted(each["id"] for each in json.loads(out)) == sorted(ids)


def _hop(file: Path) -> str:
    text = file.read_text()
    found: str = text.split("smart_hosts:")[1].split("127.0.0.1:")[1].split()[0].strip("\"'[]")
    return f"127.0.0.1:{found}"


async def _are(file: Path, expected: dict[str, int]) -> bool:
    return dict(await states(file)) == expected


def _metric(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@asynccontextmanager
async def slow_sink(gate: asyncio.Event) -> AsyncIterator[tuple[int, list[int]]]:
    """A hop that answers the final dot with 450 when the gate is opened, and takes mail from then on. `busy`: how many wait, and the most."""
    busy = [0, 0]
    was_open = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal was_open
        writer.write(b"220 slow\r\n")
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    writer.write(b"354 go\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    first = not gate.is_set()
                    busy[0] += 1
                    busy[1] = max(busy)
                    await gate.wait()
                    busy[0] -= 1
                    writer.write(b"450 4.2.0 later\r\n" if first else b"250 2.0.0 kept\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], busy
    finally:
        gate.set()
        server.close()


async def test_what_a_dead_worker_held_is_delivered_by_its_successor(tmp_path: Path) -> None:
    """Each in turn; nothing comes twice, since nothing was under way at the next hop."""
    refuse = True
    async with Sink(judge=lambda _recipient: LATER if refuse else "250 OK") as sink:
        file = config(tmp_path, sink)
        async with serving(file) as relay:
            ids = await taken_by_all(relay)
            for slot, pid in relay.workers.items():
                seen = len(relay.lines)
                os.kill(pid, signal.SIGKILL)
                ended = await relay.line(lambda each: each.get("event") == "worker-ended", after=seen)
                assert (ended["worker"], ended["how"], ended["level"]) == (slot, "killed by SIGKILL", "error")
                await relay.line(lambda each: each.get("event") == "listener-ready", after=seen)
            refuse = False
            await sink.wait(len(ids))
            await until_true(lambda: _are(file, {}))
            assert len(sink.messages) == len(ids)
            assert len(relay.workers) == 2


async def test_a_supervisor_that_is_killed_takes_its_workers_with_it(tmp_path: Path) -> None:
    async with Sink() as sink:
        file = config(tmp_path, sink)
        relay = RelayProcess(file)
        await relay.start()
        await relay.all_listen(2)
        began = time.monotonic()
        await relay.kill()  # returns when nobody holds its standard output any more
        assert time.monotonic() - began < 20
        async with serving(file) as after:
            await asyncio.to_thread(send, after.address.port, "alice@relay.test", "bob@example.com")
            await sink.wait()


async def test_a_graceful_stop_lets_those_finish_who_are_in(tmp_path: Path) -> None:
    async with Sink() as sink:
        file = config(tmp_path, sink)
        async with serving(file) as relay:
            clients = [smtplib.SMTP("127.0.0.1", relay.address.port, timeout=30) for _ in range(6)]
            idle, busy = clients[:2], clients[2:]
            for each in busy:
                each.ehlo("client.test")
                each.mail("alice@relay.test")
                each.rcpt("bob@example.com")
                assert each.docmd("DATA")[0] == 354
            relay.signal(signal.SIGTERM)
            for each in idle:
                assert await asyncio.to_thread(each.getreply) == (421, b"4.3.2 shutting down: try again in a moment")
            # Refused, or 421 where one of the workers has not closed its socket yet; reset where it does so in the middle of the TCP handshake.
            with pytest.raises(OSError, match=r"refused|shutting down|reset by peer"):
                await asyncio.to_thread(smtplib.SMTP, "127.0.0.1", relay.address.port, timeout=30)
            for each in busy:
                each.send(b"Subject: in time\r\n\r\nhello\r\n.\r\n")
                assert (await asyncio.to_thread(each.getreply))[0] == 250
            for each in clients:
                each.close()
            assert await relay.wait() == 0
        async with serving(file):
            await sink.wait(4)


async def test_a_second_relay_on_the_same_queue_is_refused(tmp_path: Path) -> None:
    file = config(tmp_path)
    async with serving(file) as relay:
        code, _out, err = await run("serve", "--config", str(file))
        assert code == 1
        assert f"in use by process {relay.pid}" in err
        os.kill(relay.workers[1], signal.SIGKILL)
        code, _out, err = await run("serve", "--config", str(file))
        assert code == 1
        assert f"in use by process {relay.pid}" in err


async def test_a_port_that_is_taken_is_said_at_the_start(tmp_path: Path) -> None:
    """Another relay of ours must not get half of the mail: SO_REUSEPORT alone would let it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = config(tmp_path / "one")
    async with serving(first) as relay:
        second = config(tmp_path / "two", listeners=[{"address": f"127.0.0.1:{relay.address.port}", "starttls": "off"}])
        code, _out, err = await run("serve", "--config", str(second))
        assert code == 1
        assert f"cannot listen on 127.0.0.1:{relay.address.port}" in err


# Which of them clients meet.


async def test_one_client_at_a_time_meets_the_same_worker(tmp_path: Path) -> None:
    """And goes on meeting one when that is killed."""
    async with Sink() as sink, serving(config(tmp_path, sink, workers=3), 3) as relay:
        (first,) = await _one_by_one(relay)
        await taken_by_all(relay, workers=3)
        (after,) = await _one_by_one(relay)
        assert after == first
        seen = len(relay.lines)
        os.kill(relay.workers[first], signal.SIGKILL)
        await relay.line(lambda each: each.get("event") == "listener-ready", after=seen)
        (other,) = await _one_by_one(relay)
        assert other != first


async def test_a_worker_that_hangs_does_not_keep_all_clients(tmp_path: Path) -> None:
    async with Sink() as sink, serving(config(tmp_path, sink)) as relay:
        (slot,) = await _one_by_one(relay)
        pid = relay.workers[slot]
        os.kill(pid, signal.SIGSTOP)
        try:
            await until_true(lambda: _is_greeted(relay.address.port))
        finally:
            os.kill(pid, signal.SIGCONT)
        await until_true(lambda: _is_greeted(relay.address.port))


async def test_one_client_with_much_mail_does_not_leave_it_all_to_one_worker(tmp_path: Path) -> None:
    """A connection for each message, and a hop that takes its time: who took a message delivers it."""
    with socket.create_server(("127.0.0.1", 0)) as hop:  # and never a greeting
        route = {"smart_hosts": [f"127.0.0.1:{hop.getsockname()[1]}"]}
        async with serving(config(tmp_path, defaults={"outbound": {"route": route}})) as relay:
            await _one_by_one(relay)
            seen = len(relay.lines)
            sent = [0]
            while sent[0] < 400:
                sent[0] += 1
                await asyncio.to_thread(_send_to_the_end, relay.address.port)
                await until(lambda: len(_accepted(relay, seen)) == sent[0])
                if len({each["worker"] for each in _accepted(relay, seen)}) == 2:
                    break
            else:
                raise AssertionError("one worker took all of it")
            hop.close()


async def _one_by_one(relay: RelayProcess) -> set[int]:
    """The workers that took ten messages, each sent soon after the client before it was gone: a worker has the door for a second."""
    async with asyncio.timeout(60):
        while True:
            workers, longest = await _twelve(relay)
            if longest < _SOON:  # else something else had the processors: once more
                return workers


async def _twelve(relay: RelayProcess) -> tuple[set[int], float]:
    """The workers that took the last ten of them, and the seconds from one to the next at most. Others may have been there before the first."""
    began, longest = [len(relay.lines)], 0.0
    for _ in range(12):
        at = time.monotonic()
        await asyncio.to_thread(_send_to_the_end, relay.address.port)
        await until(lambda: len(_accepted(relay, began[0])) == len(began))
        began.append(len(relay.lines))
        longest = max(longest, time.monotonic() - at)
    return {each["worker"] for each in _accepted(relay, began[2])}, longest


def _send_to_the_end(port: int) -> None:
    """Returns when the relay has closed the connection."""
    client = smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=20)
    client.sendmail("alice@relay.test", ["bob@example.com"], "Subject: from smtplib\r\n\r\nhello\r\n")
    assert client.docmd("QUIT")[0] == 221
    assert client.sock is not None
    assert client.sock.recv(1) == b""
    client.close()


async def _is_greeted(port: int) -> bool:
    try:
        client = await asyncio.to_thread(smtplib.SMTP, "127.0.0.1", port, timeout=1)
    except OSError:
        return False
    client.close()
    return True


# Limits.


def greeting(port: int) -> tuple[smtplib.SMTP, int]:
    client = smtplib.SMTP(timeout=20)
    code, _text = client.connect("127.0.0.1", port)
    return client, code


async def test_connections_are_counted_for_all_workers(tmp_path: Path) -> None:
    file = config(tmp_path, limits={"free_space": "1MiB", "connections": 12, "connections_per_ip": 8}, workers=3)
    async with serving(file, 3) as relay:
        port = relay.address.port
        found = [await asyncio.to_thread(greeting, port) for _ in range(14)]
        assert [code for _client, code in found] == [220] * 8 + [421] * 6
        for client, _code in found[:3]:
            client.quit()
        await until_true(lambda: _lets_in(port))
        for client, _code in found:
            client.close()


async def _lets_in(port: int) -> bool:
    client, code = await asyncio.to_thread(greeting, port)
    client.close()
    return code == 220


async def test_concurrency_of_a_destination_holds_for_all_workers(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with slow_sink(gate) as (port, busy):
        limited = {
            "name": "slow",
            "direction": "outbound",
            "match": {"recipient_domains": ["slow.test"]},
            "route": {"smart_hosts": [f"127.0.0.1:{port}"]},
            "limits": {"concurrency": 4},
            "retry": {"initial": "100ms", "maximum": "300ms"},
        }
        file = config(tmp_path, connectors=[limited], workers=3)
        async with serving(file, 3) as relay:
            for _ in range(2):
                await taken_by_all(relay, "bob@slow.test", workers=3)
            await until(lambda: busy[0] >= 4)
            await asyncio.sleep(
                0.3
            )  # anything that would start too much has had its time: a deadline is asked every 25 ms
            assert 4 <= busy[1] <= 4 + 2  # one less than there are workers may have asked at the same moment
            gate.set()
            await until_true(lambda: _are(file, {}))


async def test_a_rate_holds_for_all_workers(tmp_path: Path) -> None:
    async with Sink() as sink:
        limited = {
            "name": "slow",
            "direction": "outbound",
            "match": {"recipient_domains": ["slow.test"]},
            "route": {"smart_hosts": [str(sink.address)]},
            "limits": {"rate": "4/s"},
        }
        file = config(tmp_path, connectors=[limited])
        async with serving(file) as relay:
            for _ in range(12):
                await asyncio.to_thread(send, relay.address.port, "alice@relay.test", "bob@slow.test")
            first = time.monotonic()
            await sink.wait(12)
            # A second's worth at once, then four a second; the sending itself took some of that time.
            assert time.monotonic() - first > 0.5
            began = min(each["time"] for each in relay.lines if each.get("event") == "attempt-made")
            ended = max(each["time"] for each in relay.lines if each.get("event") == "attempt-made")
            assert _seconds(ended) - _seconds(began) > (12 - 4 - 2) / 4


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def test_who_is_blocked_for_failed_logins_has_no_fresh_tries_at_a_successor(tmp_path: Path) -> None:
    Pki(tmp_path / "pki").issue(tmp_path / "certs", "relay.test", "127.0.0.1")
    (tmp_path / "passwords").write_text(make_line("alice", "correct horse", "*") + "\n")
    listener = {"address": f"127.0.0.1:{free_port()}", "kind": "submission"}
    file = config(tmp_path, listeners=[listener], certificates="certs", submission={"passwords": "passwords"})
    async with serving(file) as relay:
        port = relay.address.port
        await until_true(lambda: _is_blocked(port))
        for slot, pid in relay.workers.items():
            seen = len(relay.lines)
            os.kill(pid, signal.SIGKILL)
            await relay.line(lambda each: each.get("event") == "listener-ready", after=seen)
            async with crowd(relay.address):
                while not any(
                    each.get("event") == "command-refused" and each["worker"] == slot for each in relay.lines[seen:]
                ):
                    assert await _is_blocked(port)


async def _is_blocked(port: int) -> bool:
    return await asyncio.to_thread(_login, port) == (
        454,
        b"4.7.0 too many failed logins from your address: try again later",
    )


def _login(port: int) -> tuple[int, bytes]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=20) as client:
        client.starttls(context=context)
        client.ehlo()
        return client.docmd("AUTH", "PLAIN " + base64.b64encode(b"\0alice\0wrong").decode())


# The configuration.


async def test_a_reload_is_everybodys(tmp_path: Path) -> None:
    async with Sink() as sink:
        file = config(tmp_path, sink)
        where = ("--config", str(file))
        async with serving(file) as relay:
            text = file.read_text()
            file.write_text(text.replace("127.0.0.0/8", "127.0.0.2/32"))
            await until(lambda: _took(relay, 1))
            assert await _replies(relay) == {550}
            # What weakens waits; a worker that dies meanwhile has a successor with what is in force, not with what is on disk.
            file.write_text(text)
            await relay.line(lambda each: each.get("event") == "configuration-waiting")
            before = len(relay.lines)
            for pid in relay.workers.values():
                seen = len(relay.lines)
                os.kill(pid, signal.SIGKILL)
                await relay.line(lambda each: each.get("event") == "listener-ready", after=seen)
            assert await _replies(relay) == {550}
            await relay.line(lambda each: each.get("event") == "configuration-waiting", after=before)
            code, _out, err = await run("reload", *where)
            assert code == 0, err
            assert await _replies(relay) == {250}


def _took(relay: RelayProcess, count: int) -> bool:
    return len([each for each in relay.lines if each.get("event") == "configuration-taken"]) >= count


async def _replies(relay: RelayProcess) -> set[int]:
    """To RCPT, of whichever worker the kernel chooses."""
    async with crowd(relay.address):
        return {await asyncio.to_thread(_rcpt, relay.address.port) for _ in range(12)}


def _rcpt(port: int) -> int:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=20) as client:
        client.ehlo()
        client.mail("alice@relay.test")
        code, _text = client.rcpt("bob@example.com")
        return code


async def test_a_new_listener_is_opened_by_all_or_by_none(tmp_path: Path) -> None:
    file = config(tmp_path)
    where = ("--config", str(file))
    async with serving(file) as relay:
        text, port = file.read_text(), free_port()
        more = text.replace("listeners:\n", f"listeners:\n- address: 127.0.0.1:{port}\n  starttls: 'off'\n")
        assert more != text
        file.write_text(more)
        code, _out, err = await run("reload", *where)
        assert code == 0, err
        await until(lambda: sum(each.get("address") == f"127.0.0.1:{port}" for each in relay.lines) == 2)
        assert await _lets_in(port)
        with contextlib.closing(await asyncio.to_thread(_occupied)) as taken:
            number = taken.getsockname()[1]
            file.write_text(more.replace(f"127.0.0.1:{port}", f"127.0.0.1:{number}"))
            code, out, err = await run("reload", *where)
            assert code == 1
            assert f"cannot listen on 127.0.0.1:{number}" in out + err
            assert await _lets_in(port)


def _occupied() -> Any:
    import socket

    return socket.create_server(("127.0.0.1", 0))


async def test_with_fewer_workers_the_mail_of_the_others_goes_out_once(tmp_path: Path) -> None:
    refuse = True
    async with Sink(judge=lambda _recipient: LATER if refuse else "250 OK") as sink:
        file = config(tmp_path, sink, workers=3)
        async with serving(file, 3) as relay:
            ids = await taken_by_all(relay, workers=3)
        file.write_text(file.read_text().replace("workers: 3", "workers: 1"))
        refuse = False
        async with RelayProcess(file) as relay:
            await sink.wait(len(ids))
            await until_true(lambda: _are(file, {}))
            assert relay.workers == {}
        assert len(sink.messages) == len(ids)


async def test_the_network_door_is_one_for_all_workers(tmp_path: Path) -> None:
    """It is the first worker's; what is asked there is about all, and what is ordered there is done by whoever has the mail."""
    accounts, pki = tmp_path / "accounts", Pki(tmp_path / "pki")
    pki.issue(tmp_path / "certs", "relay.test", "127.0.0.1")
    token = add_token(accounts, "ops", Scope.ADMIN)
    (tmp_path / "token").write_text(token)
    port = free_port()
    admin = {"socket": "relay.sock", "listen": f"127.0.0.1:{port}", "accounts": "accounts"}
    retry = {"initial": "1h", "maximum": "1h"}
    route = {"smart_hosts": [f"127.0.0.1:{free_port()}"]}
    more: dict[str, Any] = {
        "admin": admin,
        "certificates": "certs",
        "defaults": {"outbound": {"route": route, "retry": retry}},
    }
    async with serving(config(tmp_path, **more)) as relay:
        taken = await taken_by_all(relay)
        context, headers = ssl.create_default_context(cafile=str(pki.ca)), {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            verify=context, base_url=f"https://127.0.0.1:{port}", headers=headers, trust_env=False
        ) as client:

            async def all_wait() -> bool:
                found = (await client.get("/queue")).json()["messages"]
                states = [each["state"] for message in found for each in message["recipients"]]
                return sorted(each["id"] for each in found) == sorted(taken) and set(states) == {"waiting"}

            await until_true(all_wait)
            status = (await client.get("/status")).json()
            assert {each["worker"]: each["pid"] for each in status["workers"]} == relay.workers
            held = (await client.post("/queue/hold", json={"all": True})).json()
            assert (held["changed"], held["running"]) == (len(taken), 0)
            os.kill(relay.workers[1], signal.SIGKILL)  # the door is not this one's
            assert (await client.get("/status")).status_code == 200
            entries = (await client.get("/audit?action=hold")).json()["entries"]
        ways = ("--url", f"https://127.0.0.1:{port}", "--token-file", str(tmp_path / "token"), "--ca", str(pki.ca))
        code, out, _err = await run("queue", "list", "--state", "held", "--json", *ways)
    assert [(each["who"], each["via"], each["count"]) for each in entries] == [("ops", "token", len(taken))]
    assert (code, sorted(each["id"] for each in json.loads(out))) == (0, sorted(taken))


async def test_a_reload_by_signal_is_in_the_audit_log(tmp_path: Path) -> None:
    """SIGHUP goes to the supervisor, which has no queue: the first worker reloads and notes it, once."""
    file = config(tmp_path)
    async with serving(file) as relay:
        text = file.read_text()
        file.write_text(
            text.replace("127.0.0.0/8", "10.0.0.0/8")
        )  # it would wait otherwise: it takes somebody's right away
        seen = len(relay.lines)
        relay.signal(signal.SIGHUP)
        acted = await relay.line(lambda each: each.get("event") == "admin-acted", after=seen)
        code, out, _err = await run("audit", "--action", "reload", "--json", "--config", str(file))
        (entry,) = json.loads(out)
        file.write_text("hostname: x\n")
        seen = len(relay.lines)
        relay.signal(signal.SIGHUP)
        await relay.line(lambda each: each.get("event") == "admin-acted", after=seen)
        _code, out, _err = await run("audit", "--action", "reload", "--json", "--socket", str(tmp_path / "relay.sock"))
    assert (acted["who"], acted["action"], acted["worker"]) == ("SIGHUP", "reload", 0)
    assert (code, entry["who"], entry["via"]) == (0, "SIGHUP", "itself")
    assert "10.0.0.0/8" in entry["after"]["diff"]
    failed, first = json.loads(out)
    assert first == entry
    assert (failed["what"], failed["count"]) == ("nothing was taken", 0)
    assert "connectors.yaml" in failed["after"]["errors"][0]
