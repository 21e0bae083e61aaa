"""What the surroundings of a relay mean for it: facts about ports, disk, clock, names and networks to findings, each with a remedy.

Decides only; `relay.cli.doctor` looks. A fact that could not be had is None, and is told as such: it is never taken for a good one.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.config.models import Config
from relay.config.values import Network
from relay.policy.compare import ALL_THE_SAME

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class State(StrEnum):
    FINE = "fine"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It could not be found out here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is a stable name. `remedy` is "" where nothing has to be done."""

    check: str
    state: State
    text: str
    remedy: str = ""


class Bound(StrEnum):
    """What came of trying to listen on an address."""

    FREE = "free"
    OURS = "ours"
    TAKEN = "taken"
    DENIED = "denied"
    ABSENT = "absent"
    """No interface has the address."""


_BOUND = {
    Bound.TAKEN: ("another program listens there", "stop it (`ss -ltnp` names it), or give the listener another port"),
    Bound.DENIED: (
        "this user may not listen below port 1024",
        "run the check as the relay's user; give the relay CAP_NET_BIND_SERVICE (the systemd unit does), or map the port",
    ),
    Bound.ABSENT: ("no interface of this machine has the address", "write one that it has, or 0.0.0.0 or [::]"),
}


def ports(found: Mapping[str, Bound]) -> Iterator[Finding]:
    """`found` by listener, such as "mx 0.0.0.0:25"."""
    for name, bound in found.items():
        if bound in _BOUND:
            text, remedy = _BOUND[bound]
            yield Finding("ports", State.FAILED, f"{name}: {text}", remedy)
        else:
            says = "the running relay has it" if bound is Bound.OURS else "is free"
            yield Finding("ports", State.FINE, f"{name}: {says}")


@dataclass(frozen=True, slots=True)
class Reach:
    """A TCP connection that was tried. `why` is "" where it came about; `silent`: nothing answered at all."""

    target: str
    why: str = ""
    silent: bool = False


def way_out(tries: Sequence[Reach]) -> Iterator[Finding]:
    """Can mail leave? One host that does not answer is that host's trouble; all of them silent is a firewall."""
    if not tries:
        text = "no connector names a host or a domain to try: whether port 25 is open to the outside is not known"
        yield Finding("way-out", State.UNKNOWN, text, "try one: relay doctor --reach gmail.com")
    elif all(each.silent for each in tries):
        names = ", ".join(each.target for each in tries[:5])
        text = f"nobody answers: {names}. Many networks let no connection out to port 25"
        yield Finding("way-out", State.FAILED, text, "ask the provider to open port 25, or send by a smart host on 587")
    else:
        for each in tries:
            if each.why:
                remedy = f"relay probe {each.target} says more"
                yield Finding("way-out", State.WARNING, f"{each.target}: {each.why}", remedy)
            else:
                yield Finding("way-out", State.FINE, f"{each.target} answers")


def dns(answers: bool | None, seconds: float, declared: bool, trouble: str) -> Iterator[Finding]:
    """`answers`: about the root zone. `declared`: as validating; `trouble` is then what the self-test says, "" for none."""
    if answers is not True:
        remedy = "look at `dns.resolver`, or at /etc/resolv.conf where it is `system`"
        yield Finding("dns", State.FAILED, "the resolver gives no answer", remedy)
        return
    slow = seconds > 1.0
    yield Finding(
        "dns",
        State.WARNING if slow else State.FINE,
        f"the resolver answers in {seconds * 1000:.0f} ms",
        "every delivery waits for it: run one on this machine" if slow else "",
    )
    if not declared:
        text = "no resolver is declared to validate: DANE is not used, for nobody vouches for what DNS says"
        yield Finding("dnssec", State.WARNING, text, 'run unbound here: operations.md, "A resolver that validates"')
    elif trouble:
        yield Finding("dnssec", State.FAILED, trouble, 'operations.md, "A resolver that validates"')
    else:
        yield Finding(
            "dnssec", State.FINE, "the resolver validates: it vouches for signed zones and refuses broken ones"
        )


@dataclass(frozen=True, slots=True)
class Names:
    """Of one address that we send from: what DNS calls it, and those of these names that lead back to it. None: it did not say."""

    address: IpAddress
    names: tuple[str, ...] | None
    confirmed: tuple[str, ...] = ()


def reverse_dns(hostname: str, sources: Sequence[Names], leads_here: bool | None) -> Iterator[Finding]:
    """Large receivers refuse mail from addresses without a name, and from names that do not lead back (RFC 1912 section 2.1).

    `leads_here`: the hostname's addresses are among ours, None where DNS does not say.
    """
    if leads_here is None:
        text = f"{hostname} has no address in DNS: receivers that look at EHLO distrust it"
        yield Finding("names", State.WARNING, text, f"publish A and AAAA records for {hostname}")
    elif not leads_here:
        text = f"{hostname} leads to other addresses than this machine sends from"
        yield Finding(
            "names", State.WARNING, text, "right behind NAT or a load balancer; else mend the A and AAAA records"
        )
    else:
        yield Finding("names", State.FINE, f"{hostname} leads here")
    for each in sources:
        if not each.address.is_global:
            text = f"{each.address} is private: the world sees another address, which cannot be looked at from here"
            yield Finding("reverse-dns", State.UNKNOWN, text, f"see that the public address is called {hostname} (PTR)")
        elif each.names is None:
            yield Finding("reverse-dns", State.UNKNOWN, f"DNS does not say what {each.address} is called")
        elif not each.names:
            remedy = f"have whoever gives you the address set its PTR record to {hostname}"
            yield Finding(
                "reverse-dns", State.FAILED, f"{each.address} has no name: many receivers refuse mail", remedy
            )
        elif not each.confirmed:
            text = f"{each.address} is called {each.names[0]}, which does not lead back to it"
            yield Finding(
                "reverse-dns", State.FAILED, text, f"set its PTR record to {hostname}, whose A record leads back"
            )
        elif hostname not in each.confirmed:
            text = f"{each.address} is called {each.confirmed[0]}, and we say EHLO {hostname}"
            yield Finding("reverse-dns", State.WARNING, text, "let both be the same name")
        else:
            yield Finding("reverse-dns", State.FINE, f"{each.address} is called {hostname}, which leads back to it")


def clock(synchronised: bool | None) -> Finding:
    """`synchronised` is what the kernel says (adjtimex), None where it does not."""
    if synchronised is None:
        text = "the kernel does not say whether something keeps the clock right"
        return Finding("clock", State.UNKNOWN, text, "compare `date -u` with a clock that you trust")
    if synchronised:
        return Finding("clock", State.FINE, "something keeps the clock right")
    text = "nothing keeps the clock right: certificates, DNSSEC and traces go wrong with it"
    return Finding(
        "clock", State.WARNING, text, "run chrony or systemd-timesyncd on this machine (on the host, for a container)"
    )


@dataclass(frozen=True, slots=True)
class Disk:
    """Where the queue is. `file_system` "" where not known; `free` bytes, `inodes` free (None: it has none to run out of); `sync` seconds
    for a small write to be on the disk (median), None where it could not be written."""

    path: str
    file_system: str
    free: int
    inodes: int | None
    sync: float | None


_SHARES = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "afs", "fuse.sshfs", "fuse.glusterfs"})
_FLEETING = frozenset({"tmpfs", "ramfs", "overlay"})
_SLOW_SYNC = 0.02  # seconds: fifty messages a second in one session
_FEW_INODES = 1000


def disk(found: Disk, limit: int) -> Iterator[Finding]:
    """`limit` is limits.free_space."""
    if found.file_system in _SHARES:
        text = f"{found.path} is on a network share ({found.file_system}), where a power cut or a second host may damage the queue"
        yield Finding("disk", State.FAILED, text, "put `queue` on a local disk")
    elif found.file_system in _FLEETING:
        text = f"{found.path} is on {found.file_system}: mail in the queue is gone with the container or at a restart"
        yield Finding("disk", State.FAILED, text, "mount a volume there")
    if found.free < limit:
        text = f"{_size(found.free)} are free beside {found.path}, and limits.free_space is {_size(limit)}: mail is refused with 452"
        yield Finding("disk", State.FAILED, text, "make room, or lower limits.free_space")
    elif found.free < 2 * limit:
        text = f"{_size(found.free)} are free beside {found.path}; at {_size(limit)} mail is refused"
        yield Finding("disk", State.WARNING, text, "make room in time")
    else:
        yield Finding("disk", State.FINE, f"{_size(found.free)} are free beside {found.path}")
    if found.inodes is not None and found.inodes < _FEW_INODES:
        yield Finding("disk", State.WARNING, f"{found.inodes} inodes are left there", "remove small files")
    if found.sync is None:
        yield Finding("disk", State.FAILED, f"{found.path} cannot be written", "it must belong to the relay's user")
    elif found.sync > _SLOW_SYNC:
        text = f"a write takes {found.sync * 1000:.0f} ms to be on the disk, and every 250 waits for one"
        yield Finding("disk", State.WARNING, text, "use a disk with a write cache that survives power cuts")
    else:
        yield Finding("disk", State.FINE, f"a write is on the disk after {found.sync * 1000:.1f} ms")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class Kernel:
    """`files`: open files that a process may have. `memory` bytes that the control group grants, `backlog` net.core.somaxconn,
    `migrates` net.ipv4.tcp_migrate_req, `ephemeral` the number of outgoing ports; None where not known or not limited."""

    files: int
    memory: int | None = None
    backlog: int | None = None
    migrates: bool | None = None
    ephemeral: int | None = None


_OTHER_FILES = 3500  # a thousand deliveries, each with a connection and a large message's file, as many of those that come, the store, the log
_PORTS = 1500  # deliveries at the same time, and connections that are kept
_SESSION_MEMORY = 60 * 1024  # of an idle TLS session (bench/README.md)
_BASE_MEMORY = 150 * 2**20
_BACKLOG = 1024


def kernel(found: Kernel, connections: int, workers: int) -> Iterator[Finding]:
    """`connections` is limits.connections; a worker may have them all."""
    needed = connections + _OTHER_FILES
    if found.files < needed:
        text = f"a process may open {found.files} files; limits.connections of {connections} needs {needed}"
        yield Finding(
            "files",
            State.FAILED,
            text,
            f"LimitNOFILE={needed} (systemd), ulimits.nofile (containers), or lower the limit",
        )
    else:
        yield Finding("files", State.FINE, f"a process may open {found.files} files")
    memory = workers * _BASE_MEMORY + connections * _SESSION_MEMORY
    if found.memory is not None and found.memory < memory:
        text = f"{_size(found.memory)} of memory are granted; {connections} sessions and {workers} workers may need {_size(memory)}"
        yield Finding("memory", State.WARNING, text, "grant more, or lower limits.connections")
    if found.backlog is not None and found.backlog < _BACKLOG:
        text = f"net.core.somaxconn is {found.backlog}: a burst of clients finds the door closed"
        yield Finding("backlog", State.WARNING, text, f"sysctl net.core.somaxconn={4 * _BACKLOG}")
    if workers > 1 and found.migrates is False:
        text = "net.ipv4.tcp_migrate_req is 0: clients that wait for a worker which dies are reset"
        yield Finding("backlog", State.WARNING, text, "sysctl net.ipv4.tcp_migrate_req=1")
    if found.ephemeral is not None and found.ephemeral < _PORTS:
        text = f"{found.ephemeral} outgoing ports only (net.ipv4.ip_local_port_range)"
        yield Finding("ports-out", State.WARNING, text, 'sysctl net.ipv4.ip_local_port_range="32768 60999"')


@dataclass(frozen=True, slots=True)
class Owner:
    """Of the queue's folder, and so the user that the relay runs as."""

    name: str
    folder: str


def looked_as(owner: Owner | None, *, root: bool) -> Iterator[Finding]:
    """`owner`: whose rights we took on, having been root. `root`: we still are, and what root may read says nothing about the relay."""
    if owner is not None:
        text = f"looked with the rights of {owner.name}, to whom {owner.folder} belongs"
        yield Finding("user", State.FINE, text)
    elif root:
        text = "root may read everything, so whether the relay's user may is not told"
        remedy = "run this as the relay's user; better, let the relay have a user of its own, to whom the queue's folder belongs"
        yield Finding("user", State.UNKNOWN, text, remedy)


@dataclass(frozen=True, slots=True)
class Barred:
    """`how`: what the relay's user may not do with the file: it cannot be "read", or "written"."""

    path: str
    how: str


def permissions(readable: Iterable[str], barred: Iterable[Barred] = (), user: str = "") -> Iterator[Finding]:
    """`readable`: secrets (keys, password files, the queue) that other users of the machine may read or write. `user` is the relay's."""
    for each in barred:
        text = f"{each.path} cannot be {each.how} by {user}, so the relay will not start"
        yield Finding("permissions", State.FAILED, text, f"as root: chown {user} {each.path}")
    loose = tuple(readable)
    for path in loose:
        yield Finding("permissions", State.FAILED, f"others on this machine may read {path}", f"chmod o-rwx {path}")
    if not loose:
        yield Finding("permissions", State.FINE, "nobody else may read keys, passwords and the queue")


def gateways(config: Config, addresses: Iterable[IpAddress], *, contained: bool) -> Iterator[Finding]:
    """Threat: behind a container bridge's proxy every client has the gateway's address. Where that address may relay, everybody may."""
    if not contained:
        return
    for gateway in addresses:
        rights = _rights(config, gateway)
        for right in rights:
            text = f"{gateway}, the container network's gateway, is in {right}: strangers whose connections come through it may send anywhere"
            remedy = "take it out, and name the networks of your own clients; or give the container the host's network"
            yield Finding("gateway", State.FAILED, text, remedy)
        for listener in config.listeners:
            if listener.proxy_protocol is not None and _holds(listener.proxy_protocol.from_, gateway):
                text = f"{gateway}, the container network's gateway, may speak PROXY at {listener.name}: so may all who come through it"
                yield Finding(
                    "gateway", State.FAILED, text, "name the load balancer's own address in `proxy_protocol.from`"
                )
        if not rights:
            yield Finding(
                "gateway", State.FINE, f"{gateway}, the container network's gateway, has no rights of its own"
            )


def _rights(config: Config, address: IpAddress) -> list[str]:
    found = ["`accept.networks`"] if _holds(config.accept.networks, address) else []
    for each in config.inbound:
        by_network = _holds(each.require.networks or (), address) or _holds(each.match.networks or (), address)
        if each.grant is not None and each.grant.relay and by_network:
            found.append(f"connector {each.name}, which grants relaying")
    return found


def _holds(networks: Iterable[Network], address: IpAddress) -> bool:
    return any(each.version == address.version and address in each for each in networks)


def running(ready: bool | None, troubles: Sequence[str], waiting: Sequence[str]) -> Iterator[Finding]:
    """`ready` is None where no relay of this configuration runs."""
    if ready is None:
        yield Finding("relay", State.UNKNOWN, "no relay of this configuration runs, or its admin socket is not ours")
        return
    for trouble in troubles:
        yield Finding("relay", State.FAILED, trouble, 'operations.md, "When something is wrong"')
    for reason in waiting:
        if reason == ALL_THE_SAME:
            continue  # the remedy says so
        yield Finding("relay", State.WARNING, f"the file is not what is in force: {reason}", "relay reload")
    if ready and not troubles and not waiting:
        yield Finding("relay", State.FINE, "the relay runs, takes mail, and has this file in force")
