"""Facts about a relay's surroundings and what is made of them, row by row."""

import ipaddress
from collections.abc import Iterable
from typing import Any

import pytest

from relay.config.models import Config
from relay.policy import surroundings as s
from relay.policy.compare import ALL_THE_SAME
from relay.policy.surroundings import Bound, Disk, Finding, Kernel, Names, Reach, State

GIB = 2**30
PUBLIC = ipaddress.ip_address("8.8.4.4")
PRIVATE = ipaddress.ip_address("10.0.0.7")


def states(findings: Iterable[Finding]) -> list[str]:
    found = list(findings)
    for each in found:
        assert each.remedy or each.state not in (State.FAILED, State.WARNING), f"{each.text} has no remedy"
    return [each.state.value for each in found]


@pytest.mark.parametrize(
    ("bound", "state"),
    [
        (Bound.FREE, "fine"),
        (Bound.OURS, "fine"),
        (Bound.TAKEN, "failed"),
        (Bound.DENIED, "failed"),
        (Bound.ABSENT, "failed"),
    ],
)
def test_ports(bound: Bound, state: str) -> None:
    assert states(s.ports({"mx 0.0.0.0:25": bound})) == [state]


SILENT = Reach("mx.a.test:25", "no answer", silent=True)
REFUSED = Reach("mx.b.test:25", "connection refused")
OPEN = Reach("mx.c.test:25")


@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        ((), ["unknown"]),
        ((SILENT,), ["failed"]),
        ((SILENT, SILENT), ["failed"]),
        ((SILENT, REFUSED), ["warning", "warning"]),  # somebody answers, so no firewall is in between
        ((SILENT, OPEN), ["warning", "fine"]),
        ((OPEN,), ["fine"]),
    ],
)
def test_the_way_out(tries: tuple[Reach, ...], expected: list[str]) -> None:
    assert states(s.way_out(tries)) == expected


@pytest.mark.parametrize(
    ("answers", "seconds", "declared", "trouble", "expected"),
    [
        (False, 8.0, True, "", ["failed"]),
        (None, 8.0, False, "", ["failed"]),
        (True, 0.01, False, "", ["fine", "warning"]),
        (True, 1.5, False, "", ["warning", "warning"]),
        (True, 0.01, True, "", ["fine", "fine"]),
        (True, 0.01, True, "it does not validate", ["fine", "failed"]),
    ],
)
def test_dns(answers: bool | None, seconds: float, declared: bool, trouble: str, expected: list[str]) -> None:
    assert states(s.dns(answers, seconds, declared, trouble)) == expected


@pytest.mark.parametrize(
    ("names", "leads", "expected"),
    [
        (Names(PUBLIC, ("relay.test",), ("relay.test",)), True, ["fine", "fine"]),
        (Names(PUBLIC, ("other.test",), ("other.test",)), True, ["fine", "warning"]),
        (Names(PUBLIC, ("relay.test",), ()), True, ["fine", "failed"]),
        (Names(PUBLIC, ()), False, ["warning", "failed"]),
        (Names(PUBLIC, None), None, ["warning", "unknown"]),
        (Names(PRIVATE, None), True, ["fine", "unknown"]),
    ],
)
def test_reverse_dns(names: Names, leads: bool | None, expected: list[str]) -> None:
    assert states(s.reverse_dns("relay.test", [names], leads)) == expected


@pytest.mark.parametrize(("synchronised", "state"), [(True, "fine"), (False, "warning"), (None, "unknown")])
def test_the_clock(synchronised: bool | None, state: str) -> None:
    assert states([s.clock(synchronised)]) == [state]


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (Disk("/q", "ext4", 10 * GIB, 100_000, 0.001), ["fine", "fine"]),
        (Disk("/q", "nfs4", 10 * GIB, 100_000, 0.001), ["failed", "fine", "fine"]),
        (Disk("/q", "overlay", 10 * GIB, 100_000, 0.001), ["failed", "fine", "fine"]),
        (Disk("/q", "xfs", GIB // 2, 100_000, 0.001), ["failed", "fine"]),
        (Disk("/q", "xfs", 3 * GIB // 2, 100_000, 0.05), ["warning", "warning"]),
        (Disk("/q", "ext4", 10 * GIB, 10, 0.001), ["fine", "warning", "fine"]),
        (Disk("/q", "btrfs", 10 * GIB, None, 0.001), ["fine", "fine"]),
        (Disk("/q", "", 0, None, None), ["failed", "failed"]),
    ],
)
def test_the_disk(disk: Disk, expected: list[str]) -> None:
    assert states(s.disk(disk, GIB)) == expected


@pytest.mark.parametrize(
    ("kernel", "workers", "expected"),
    [
        (Kernel(65536), 2, ["fine"]),
        (Kernel(13_499), 2, ["failed"]),
        (Kernel(13_500), 2, ["fine"]),
        (Kernel(65536, memory=GIB), 2, ["fine"]),
        (Kernel(65536, memory=GIB // 2), 2, ["fine", "warning"]),
        (Kernel(65536, backlog=128), 2, ["fine", "warning"]),
        (Kernel(65536, migrates=False), 2, ["fine", "warning"]),
        (Kernel(65536, migrates=False), 1, ["fine"]),
        (Kernel(65536, ephemeral=1000), 1, ["fine", "warning"]),
        (Kernel(65536, ephemeral=1500), 1, ["fine"]),
    ],
)
def test_the_kernel(kernel: Kernel, workers: int, expected: list[str]) -> None:
    assert states(s.kernel(kernel, 10_000, workers)) == expected


def test_permissions() -> None:
    assert states(s.permissions([])) == ["fine"]
    assert [each.remedy for each in s.permissions(["certs/a.key"])] == ["chmod o-rwx certs/a.key"]


def test_what_the_relay_s_user_may_not_write() -> None:
    (barred, fine) = s.permissions([], [s.Barred("/q/queue.db", "written")], "ironpost")
    assert (barred.state, barred.remedy) == (s.State.FAILED, "as root: chown ironpost /q/queue.db")
    assert fine.state is s.State.FINE


def test_with_whose_rights_it_was_looked() -> None:
    assert states(s.looked_as(s.Owner("ironpost", "/q"), root=False)) == ["fine"]
    assert states(s.looked_as(None, root=True)) == ["unknown"]
    assert states(s.looked_as(None, root=False)) == []


def config(**more: Any) -> Config:
    values = {"hostname": "relay.test", "postmaster": "p@relay.test", "listeners": [{"address": "0.0.0.0:2525"}]}
    return Config.model_validate(values | more)


def granting(**require: Any) -> dict[str, Any]:
    return {
        "name": "ours",
        "direction": "inbound",
        "match": {"networks": ["172.16.0.0/12"]},
        "require": {"tls": True, "networks": ["172.16.0.0/12"], **require},
        "grant": {"relay": True},
    }


ORDINARY = {
    "name": "partner",
    "direction": "inbound",
    "match": {"sender_domains": ["a.example"]},
    "require": {"tls": True, "networks": ["172.16.0.0/12"]},
}
PROXIED = [{"address": "0.0.0.0:2525", "proxy_protocol": {"from": ["172.17.0.0/16"]}}]
BRIDGE = ipaddress.ip_address("172.17.0.1")


@pytest.mark.parametrize(
    ("more", "contained", "expected"),
    [
        ({}, True, ["fine"]),
        ({"accept": {"networks": ["127.0.0.0/8"]}}, True, ["fine"]),
        ({"accept": {"networks": ["172.16.0.0/12"]}}, True, ["failed"]),
        ({"accept": {"networks": ["172.16.0.0/12"]}}, False, []),
        ({"connectors": [granting()]}, True, ["failed"]),
        ({"connectors": [granting(networks=["10.0.0.0/8"]) | {"match": {"networks": ["10.0.0.0/8"]}}]}, True, ["fine"]),
        ({"connectors": [ORDINARY]}, True, ["fine"]),
        ({"connectors": [granting(networks=["172.17.0.5/32"])]}, True, ["failed"]),
        ({"accept": {"networks": ["172.17.0.1/32"]}, "connectors": [granting()]}, True, ["failed", "failed"]),
        ({"listeners": PROXIED}, True, ["failed", "fine"]),
    ],
)
def test_gateways(more: dict[str, Any], contained: bool, expected: list[str]) -> None:
    assert states(s.gateways(config(**more), [BRIDGE], contained=contained)) == expected


def test_a_gateway_of_the_other_family_is_in_no_network() -> None:
    only = config(accept={"networks": ["172.16.0.0/12"]})
    assert states(s.gateways(only, [ipaddress.ip_address("fd00::1")], contained=True)) == ["fine"]


@pytest.mark.parametrize(
    ("ready", "troubles", "waiting", "expected"),
    [
        (None, [], [], ["unknown"]),
        (True, [], [], ["fine"]),
        (False, ["no listener is open"], [], ["failed"]),
        (True, [], ["line 3"], ["warning"]),
        (True, [], ["accept.networks has 10.0.0.0/8 in addition", ALL_THE_SAME], ["warning"]),
    ],
)
def test_the_running_relay(ready: bool | None, troubles: list[str], waiting: list[str], expected: list[str]) -> None:
    assert states(s.running(ready, troubles, waiting)) == expected
