"""What `relay doctor` reads of a machine, from folders that look like one, and what it prints."""

import ipaddress
import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from typer.testing import CliRunner

from relay.cli import build, doctor_host, doctor_net
from relay.config.load import load
from relay.config.values import HostPort
from relay.policy.surroundings import Bound, Reach
from relay.testing import write_config
from relay.tls.selfsigned import create_self_signed
from tests.fakes import FakeResolver


def base(folder: Path, **more: Any) -> Path:
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
    }
    return write_config(folder, values | more, {})


def run(*arguments: str) -> tuple[int, str]:
    command = ("doctor", *arguments)
    done = CliRunner().invoke(build(command), command)
    return done.exit_code, done.stdout


def test_ports_that_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = HostPort("127.0.0.1", taken.getsockname()[1])
        assert doctor_host.bound(address, []) is Bound.TAKEN
        assert doctor_host.bound(address, [address]) is Bound.OURS
    assert doctor_host.bound(address, []) is Bound.FREE
    assert doctor_host.bound(HostPort("192.0.2.77", address.port), []) is Bound.ABSENT


def test_the_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    lines = [
        "22 1 0:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        f"23 22 0:2 / {tmp_path} rw - nfs4 server:/mail rw",
        f"24 22 0:3 / {tmp_path}/other\\040one rw shared:7 master:2 - xfs /dev/sdb rw",
    ]
    mounts.write_text("\n".join(lines) + "\n")
    (tmp_path / "other one").mkdir()
    assert doctor_host.file_system(Path("/usr"), mounts) == "ext4"
    assert doctor_host.file_system(tmp_path, mounts) == "nfs4"
    assert doctor_host.file_system(tmp_path / "other one", mounts) == "xfs"
    assert doctor_host.file_system(tmp_path, tmp_path / "nothing") == ""


def test_the_kernel_as_its_files_say(tmp_path: Path) -> None:
    assert doctor_host.kernel(tmp_path).backlog is None
    for name, text in {
        "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
        "proc/sys/net/ipv4/tcp_migrate_req": "0",
        "proc/sys/net/core/somaxconn": "4096",
        "sys/fs/cgroup/memory.max": "1073741824",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = doctor_host.kernel(tmp_path)
    assert (found.ephemeral, found.migrates, found.backlog, found.memory) == (28232, False, 4096, 2**30)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert doctor_host.kernel(tmp_path).memory is None


def test_the_files_that_the_running_relay_may_open(tmp_path: Path) -> None:
    (tmp_path / "proc/77").mkdir(parents=True)
    lines = (
        "Limit  Soft Limit  Hard Limit  Units\nMax processes  96  97  processes\nMax open files  1024  65536  files\n"
    )
    (tmp_path / "proc/77/limits").write_text(lines)
    assert doctor_host.kernel(tmp_path, 77).files == 65536
    assert doctor_host.kernel(tmp_path, 78).files == doctor_host.kernel(tmp_path).files


def test_gateways_of_both_families(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    nothing, gateway = "0" * 32, "fd" + "0" * 29 + "1"
    (tmp_path / "proc/net/ipv6_route").write_text(
        f"{nothing} 00 {nothing} 00 {gateway} 00000400 00000001 00000000 00000003 eth0\n"
        f"{gateway} 80 {nothing} 00 {nothing} 00000100 00000001 00000000 00000001 eth0\n"
    )
    assert doctor_host.gateways(tmp_path) == (ipaddress.ip_address("172.17.0.1"), ipaddress.ip_address("fd00::1"))
    assert doctor_host.gateways(tmp_path / "nothing") == ()


def test_a_container_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("container", raising=False)
    assert not doctor_host.contained(tmp_path)
    (tmp_path / ".dockerenv").touch()
    assert doctor_host.contained(tmp_path)


def test_secrets_that_others_may_read(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    certs.mkdir()
    (certs / "a.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    (certs / "a.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    for each in certs.iterdir():
        each.chmod(0o644)
    (tmp_path / "queue.db").touch(mode=0o600)
    bodies = tmp_path / "queue.db-bodies"
    bodies.mkdir(mode=0o755)
    config = load(base(tmp_path, certificates="certs"))
    assert list(doctor_host.readable(config)) == [str(certs / "a.key"), str(bodies)]
    bodies.chmod(0o700)
    (certs / "a.key").chmod(0o640)  # a group may be meant
    assert list(doctor_host.readable(config)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_root_looks_as_the_relay_s_user() -> None:
    look = (
        "import os, sys; from pathlib import Path; from relay.cli import doctor_host as d; from relay.config.load import load;"
        "c = load(Path(sys.argv[1])); owner = d.become_the_relay(Path(sys.argv[2]));"
        "print(owner.name, os.getresuid(), os.getresgid(), os.getgroups());"
        "print(*((each.path, each.how) for each in d.barred(c)))"
    )
    with TemporaryDirectory() as folder:
        accounts, queue = Path(folder, "accounts"), Path(folder, "queue.db")
        config = base(Path(folder), admin={"socket": "relay.sock", "listen": "127.0.0.1:0", "accounts": "accounts"})
        for each in (accounts, queue, Path(folder, "queue.db.lock")):
            each.touch(mode=0o600)
        assert doctor_host.become_the_relay(queue) is None
        for each in (Path(folder), Path(folder, "queue.db.lock")):
            os.chown(each, 4711, 4712)
        done = subprocess.run(
            [sys.executable, "-c", look, str(config), str(queue)], capture_output=True, text=True, check=True
        )
    who, barred = done.stdout.splitlines()
    assert who == "4711 (4711, 4711, 4711) (4712, 4712, 4712) [4712]"
    assert barred == f"('{accounts}', 'read') ('{queue}', 'written')"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
@pytest.mark.parametrize(
    ("mode", "tls", "barred", "remedy"),
    [
        (0o700, {"tls": "encryption"}, "certs", "as 4711: relay check --config "),
        (0o755, {"tls": "encryption"}, "certs/relay.key", "as 4711: relay check --config "),
        (0o700, {"tls": "certificate", "ca": "certs/relay.pem"}, "", "as 4711: relay check says the same"),
    ],
)
def test_what_root_may_read_and_the_relay_s_user_may_not(
    mode: int, tls: dict[str, str], barred: str, remedy: str
) -> None:
    """As a process of its own: it gives its rights up for good."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for each in (folder / "queue", folder / "certs"):
            each.mkdir()
        os.chown(folder / "queue", 4711, 4712)
        create_self_signed(folder / "certs", "relay", datetime.now(UTC))
        match = {"recipient_domains": ["b.example"]}
        connector = {"name": "b", "direction": "outbound", "match": match, **tls}
        config = base(folder, queue="sqlite:queue/queue.db", certificates="certs", connectors=[connector])
        folder.chmod(0o755)
        (folder / "certs").chmod(mode)
        command = [sys.executable, "-m", "relay", "doctor", "--offline", "--json", "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    findings = json.loads(done.stdout)["findings"]
    assert findings[0]["text"] == f"looked with the rights of 4711, to whom {folder}/queue belongs"
    failed = {each["check"]: each for each in findings if each["state"] == "failed"}
    assert failed["configuration"]["remedy"].startswith(remedy)
    said = failed["permissions"]["text"] if barred else ""
    assert said == (f"{folder / barred} cannot be read by 4711, so the relay will not start" if barred else "")


def test_a_folder_that_is_not_there_is_nobody_s(tmp_path: Path) -> None:
    assert doctor_host.become_the_relay(tmp_path / "none" / "queue.db") is None


def test_the_disk_of_a_folder(tmp_path: Path) -> None:
    found = doctor_host.disk(tmp_path / "queue.db")
    assert found.sync is not None
    assert found.free > 0
    assert list(tmp_path.iterdir()) == []
    assert doctor_host.disk(tmp_path / "nothing" / "queue.db").sync is None


async def test_who_can_be_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = load(base(tmp_path))
        found = await doctor_net.reach(config, FakeResolver(), [f"127.0.0.1:{port}"])
        assert found == (Reach(f"127.0.0.1:{port}"),)
    found = await doctor_net.reach(config, FakeResolver(), [f"127.0.0.1:{port}"])
    assert (found[0].why, found[0].silent) == ("connection refused", False)


async def test_hosts_are_looked_up_as_for_a_delivery(tmp_path: Path) -> None:
    """By the relay's own resolver: in a container, say, the system's may know other names."""
    config = load(base(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        resolver = FakeResolver(hosts={"mail.internal": ["127.0.0.99", "127.0.0.1"], "empty.internal": []})
        wanted = [f"mail.internal:{port}", f"empty.internal:{port}", f"nowhere.internal:{port}"]
        there, empty, nowhere = await doctor_net.reach(config, resolver, wanted)
    assert there == Reach(f"mail.internal:{port}")
    assert empty.why == nowhere.why == "DNS knows no address of that name"


async def test_a_look_up_that_fails_is_told(tmp_path: Path) -> None:
    resolver = FakeResolver(failing={"mail.internal"})
    (found,) = await doctor_net.reach(load(base(tmp_path)), resolver, ["mail.internal:25"])
    assert found.why.startswith("DNS does not say where that is: ")
    assert not found.silent


def test_a_healthy_place(tmp_path: Path) -> None:
    code, out = run("--config", str(base(tmp_path)), "--offline", "--json")
    found = json.loads(out)
    failed = [each for each in found["findings"] if each["state"] == "failed"]
    assert (code == 0) == (not failed) == found["healthy"]
    assert {"configuration", "disk", "files", "clock", "permissions", "relay"} <= {
        each["check"] for each in found["findings"]
    }


def test_a_taken_port_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file = base(tmp_path, listeners=[{"address": address, "starttls": "off"}])
        code, out = run("--config", str(file), "--offline")
    assert code == 1
    assert f"ports: mx {address}: another program listens there" in out
    assert "ss -ltnp" in out


def test_a_file_with_errors_is_the_only_finding(tmp_path: Path) -> None:
    file = tmp_path / "connectors.yaml"
    file.write_text("hostname: relay.test\n")
    code, out = run("--config", str(file), "--offline", "--json")
    assert code == 1
    assert {each["check"] for each in json.loads(out)["findings"]} == {"configuration"}
