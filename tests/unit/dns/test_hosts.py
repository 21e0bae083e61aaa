"""/etc/hosts: who it names, and that a change is seen."""

import ipaddress
from pathlib import Path

import pytest

from relay.dns.hosts import HostsFile, parse_hosts
from tests.unit.dns.test_cache import Clock

TEXT = """
127.0.0.1 localhost loop
::1 localhost ip6-localhost
10.1.2.3\tMail.Internal. mail # the inner server
10.1.2.4 mail
10.1.2.4 mail
not-an-address wrong
192.0.2.1
"""


def addresses(*texts: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    return tuple(ipaddress.ip_address(text) for text in texts)


def test_names_and_aliases_in_the_order_of_the_file() -> None:
    assert parse_hosts(TEXT) == {
        "localhost": addresses("127.0.0.1", "::1"),
        "loop": addresses("127.0.0.1"),
        "ip6-localhost": addresses("::1"),
        "mail.internal": addresses("10.1.2.3"),
        "mail": addresses("10.1.2.3", "10.1.2.4"),
    }


def test_a_change_is_seen_after_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "hosts", Clock()
    hosts = HostsFile(path, monotonic=clock)
    assert hosts.find("mail") == ()
    path.write_text("10.0.0.1 mail\n")
    assert hosts.find("mail") == ()
    clock.now += 1
    assert hosts.find("mail") == addresses("10.0.0.1")
    path.unlink()
    clock.now += 1
    assert hosts.find("mail") == ()


@pytest.mark.parametrize("name", ["localhost", "a.localhost"])
def test_localhost_is_this_machine_without_a_file(tmp_path: Path, name: str) -> None:
    assert HostsFile(tmp_path / "none", monotonic=Clock()).find(name) == addresses("127.0.0.1", "::1")
