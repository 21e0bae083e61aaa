"""Real DNSSEC on loopback: knot serves zones below `test.` and signs them, unbound validates them from a trust anchor of `test.` alone.

    with bench(folder, zones) as dns:
        DnsResolver(dns.resolver, self_test=SELF_TEST)

Each process has a block of 64 addresses of its own, so that ports need not be looked for: name servers first, then `host_address(n)`.
"""

import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.name
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from relay.config.models import SelfTest
from relay.config.values import HostPort

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SELF_TEST = SelfTest(signed="test", broken="bogus.test")
_BLOCK = ipaddress.IPv4Address("127.64.0.0") + os.getpid() % 0x10000 * 64
_PORT = 5300
_PATIENCE = 20.0
_HEAD = """\
$ORIGIN {name}.
$TTL 300
@ SOA ns.test. hostmaster.test. 1 3600 600 86400 60
@ NS ns.test.
"""
_KNOT = """\
server:
  rundir: "{folder}"
  listen: {address}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: "{folder}/db"
log:
  - target: "{folder}/knot.log"
    any: info
policy:
  - id: nsec
    algorithm: ecdsap256sha256
    single-type-signing: on
  - id: nsec3
    algorithm: ecdsap256sha256
    single-type-signing: on
    nsec3: on
template:
  - id: default
    storage: "{folder}/zones"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
zone:
"""
_UNBOUND = """\
server:
  {interfaces}
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  logfile: "{folder}/unbound.log"
  use-syslog: no
  num-threads: 1
  do-ip6: no
  do-not-query-localhost: no
  target-fetch-policy: "0 0 0 0 0"
  trust-anchor-file: "{folder}/anchor.key"
  local-zone: "test." nodefault
  ede: yes
  {more}
remote-control:
  control-enable: no
"""


@dataclass(frozen=True)
class Zone:
    """`records` without SOA and NS. `signed`: nsec, nsec3, "" for not at all, `expired` for signatures that have ended.

    `vouched`: the parent has a DS record for the zone's key; for another key where it is `wrong`; none where it is "".
    """

    records: str
    signed: str = "nsec"
    vouched: str = "right"


NAME_SERVER = str(_BLOCK + 2)
"""The resolver's address, for programs that know port 53 only: give `also_at=[f"{NAME_SERVER}@53"]`."""


@dataclass(frozen=True)
class Bench:
    """`resolver` validates."""

    resolver: HostPort
    folder: Path
    _stubs: str

    @contextmanager
    def another(self, *settings: str) -> Iterator[HostPort]:
        """One more resolver of the same zones, with these lines of unbound.conf."""
        address = HostPort(str(_BLOCK + 3), _PORT)
        with _unbound(self.folder, address, (), settings, self._stubs):
            yield address


def host_address(number: int) -> str:
    return str(_BLOCK + 8 + number)


def find(program: str) -> str:
    """The program's path. FileNotFoundError where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path=PATH)
    if found is None:
        raise FileNotFoundError(program)
    return found


@contextmanager
def bench(folder: Path, zones: Mapping[str, Zone], *, also_at: Sequence[str] = ()) -> Iterator[Bench]:
    """Serves `zones`, by their names, and a signed `test` above them.

    `also_at`: more "ADDRESS@PORT" at which the resolver listens.
    """
    for name in ("zones", "db"):
        (folder / name).mkdir(parents=True)
    server, resolver = HostPort(str(_BLOCK + 1), _PORT), HostPort(NAME_SERVER, _PORT)
    parent = [f"ns A {server.host}"]
    config = _KNOT.format(folder=folder, address=f"{server.host}@{server.port}")
    for name, zone in (*zones.items(), ("test", Zone(""))):
        config += f"  - domain: {name}\n"
        if zone.signed.startswith("nsec"):
            config += f"    dnssec-signing: on\n    dnssec-policy: {zone.signed}\n"
    (folder / "knot.conf").write_text(config)
    for name, zone in zones.items():
        text = _HEAD.format(name=name) + zone.records
        text, ds = (
            _signed_in_the_past(name, text) if zone.signed == "expired" else (text, _key(folder, name, zone, "ds"))
        )
        (folder / "zones" / f"{name}.zone").write_text(text)
        parent += [f"{name}. NS ns.test.", *_vouching(ds, zone.vouched)]
    (folder / "zones/test.zone").write_text(_HEAD.format(name="test") + "\n".join(parent) + "\n")
    (folder / "anchor.key").write_text(_key(folder, "test", Zone(""), "dnskey"))
    stubs = "".join(
        f'stub-zone:\n  name: "{name}."\n  stub-addr: {server.host}@{server.port}\n' for name in (*zones, "test")
    )
    with ExitStack() as stack:
        stack.enter_context(_running(folder, server, find("knotd"), "-c", f"{folder}/knot.conf"))
        stack.enter_context(_unbound(folder, resolver, also_at, (), stubs))
        yield Bench(resolver, folder, stubs)


@contextmanager
def _unbound(
    folder: Path, address: HostPort, also_at: Sequence[str], settings: Sequence[str], stubs: str
) -> Iterator[None]:
    interfaces = "\n  ".join(f"interface: {each}" for each in (f"{address.host}@{address.port}", *also_at))
    more = "\n  ".join(settings or ('module-config: "validator iterator"',))
    file = folder / f"unbound-{address.host}.conf"
    file.write_text(_UNBOUND.format(folder=folder, interfaces=interfaces, more=more) + stubs)
    with _running(folder, address, find("unbound"), "-d", "-c", str(file)):
        yield


def _key(folder: Path, name: str, zone: Zone, form: str) -> str:
    """Makes the key that knot will sign with, and gives it as lines of DS or DNSKEY records."""
    if not zone.signed:
        return ""
    tool = [find("keymgr"), "-c", f"{folder}/knot.conf", f"{name}."]
    subprocess.run([*tool, "generate", "algorithm=13", "ksk=yes", "zsk=yes"], check=True, capture_output=True)
    return subprocess.run([*tool, form], check=True, capture_output=True, text=True).stdout


def _vouching(ds: str, which: str) -> list[str]:
    lines = [line for line in ds.splitlines() if line.split()[4] == "2"] if which else []  # SHA-256
    return [line.rpartition(" ")[0] + " " + "00" * 32 for line in lines] if which == "wrong" else lines


def _signed_in_the_past(name: str, text: str) -> tuple[str, str]:
    """A zone file whose signatures ended days ago, and the DS of its key: knot never makes such a thing.

    Not yesterday: unbound forgives a tenth of their life and up to a day (`val-sig-skew-max`), for clocks that are wrong.
    """
    zone = dns.zone.from_text(text, dns.name.from_text(name), relativize=False)
    key = ec.generate_private_key(ec.SECP256R1())
    dnskey = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
    now = datetime.now(UTC)
    dns.dnssec.sign_zone(
        zone,
        keys=[(key, dnskey)],
        inception=now - timedelta(days=30),
        expiration=now - timedelta(days=5),
        dnskey_ttl=300,
    )
    ds = dns.dnssec.make_ds(dns.name.from_text(name), dnskey, "SHA256")
    return str(zone.to_text(relativize=False)), f"{name}. DS {ds}"


@contextmanager
def _running(folder: Path, address: HostPort, *command: str) -> Iterator[None]:
    """The program, from the moment that it takes connections until the block ends."""
    with (folder / f"{Path(command[0]).name}.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(process, address, folder)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", address: HostPort, folder: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((address.host, address.port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                logs = "\n".join(each.read_text() for each in folder.glob("*.[lo]*") if each.is_file())
                raise RuntimeError(f"no name server at {address}:\n{logs}") from None
            time.sleep(0.01)
        else:
            return
