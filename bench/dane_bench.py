"""What DANE costs a delivery before it connects: `python -m bench.dane_bench [--seconds N]`. Needs knot and unbound.

cold: every look-up goes to a validating resolver on this machine that knows the answers. warm: all is in the relay's caches. Look-ups,
what follows from them, and the plan that comes of it, in microseconds for one host; loopback, one CPU.
"""

import argparse
import tempfile
import time
from pathlib import Path

import uvloop

from relay.config.values import HostPort
from relay.dns.dane import Dane
from relay.dns.resolver import DnsResolver
from relay.mail.outcome import Deferred
from relay.mail.plan import Level, Plaintext, Tlsa, TlsPlan
from relay.mail.published import Use
from relay.mail.tls import TlsEvidence
from relay.policy.plan import choose_plan
from relay.policy.published import Published, join
from relay.policy.verdict import judge
from relay.tls.evidence import parse_certificate
from relay.tls.tlsa import check_tlsa
from tests.dnssec import SELF_TEST, bench
from tests.e2e import dane
from tests.unit.policy.builders import NOW, book
from tests.unit.tls.pki import NOW as NOW_PKI
from tests.unit.tls.pki import tlsa_record

RULES = book()


async def once(resolver: DnsResolver, found: Dane, name: str) -> None:
    """Everything from the recipient's domain to the plan."""
    domain, host = dane.domain(name), HostPort(f"mx.{dane.domain(name)}", dane.PORT)
    await resolver.mx(domain)
    says = await found.says(host, Use.AUTO, mx_secure=True, next_hop=domain)
    plan = join(choose_plan(RULES, RULES.outbound_for(domain), domain, host.host, NOW), Published(says, mx_secure=True))
    if isinstance(plan, Deferred) or not plan.requires_tls:
        raise RuntimeError(f"{name}: {plan}")


async def measure(address: HostPort, seconds: float) -> None:
    resolver = DnsResolver(address, self_test=SELF_TEST)
    found = Dane(resolver)
    await resolver.test()
    for name in ("ee", "ta", "chain", "rollover"):
        await once(resolver, found, name)  # so that the resolver knows the answers
        for kind in ("cold", "warm"):
            count, end = 0, time.perf_counter() + seconds
            started = time.process_time()
            begun = time.perf_counter()
            while time.perf_counter() < end:
                if kind == "cold":
                    resolver.forget()
                await once(resolver, found, name)
                count += 1
            cpu, took = time.process_time() - started, time.perf_counter() - begun
            print(f"{name:10} {kind}: {took / count * 1e6:8.1f} us, {cpu / count * 1e6:8.1f} us of it CPU of the relay")
    await resolver.close()


def measure_judging(name: str, usage: int, seconds: float) -> None:
    """Once for each connection: records against the chain. Once for each message: the verdict."""
    issued = dane.PARTNERS[name].certificate
    assert issued is not None
    demand = Tlsa("dane", "x", (tlsa_record(usage, 1, 1, dane.CA if usage == 2 else issued),), ("mx.ta.secure.test",))
    plan = TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER, frozenset({demand}))
    shown = TlsEvidence("TLSv1.3", "", "", chain=tuple(map(parse_certificate, (*issued.chain, dane.CA.der))))
    checked = check_tlsa(shown, [demand], NOW_PKI)
    for what, call in (
        ("a connection", lambda: check_tlsa(shown, [demand], NOW_PKI)),
        ("a message", lambda: judge(plan, checked)),
    ):
        count, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            call()
            count += 1
        print(f"{name:10} judging {what}: {(time.perf_counter() - begun) / count * 1e6:.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dane-bench-") as folder, bench(Path(folder) / "dns", dane.zones()) as dns:
        uvloop.run(measure(dns.resolver, wanted.seconds))
    measure_judging("ee", 3, wanted.seconds)
    measure_judging("ta", 2, wanted.seconds)


if __name__ == "__main__":
    main()
