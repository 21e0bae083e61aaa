"""What published policy costs a delivery before it connects: `python -m bench.dane_bench [--seconds N]`. Needs knot and unbound.

cold: every look-up goes to a validating resolver on this machine that knows the answers. warm: all is in the relay's caches. Look-ups,
what follows from them, and the plan that comes of it, in microseconds for one host; loopback, one CPU. "both" is all that a delivery
does: MX, DANE, and an enforced MTA-STS policy that the store keeps.
"""

import argparse
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from relay.config.values import HostPort
from relay.dns.dane import Dane
from relay.dns.resolver import DnsResolver
from relay.dns.sts import Clocks, StsPolicies
from relay.mail.outcome import Deferred
from relay.mail.plan import Level, Plaintext, StsMx, Tlsa, TlsPlan
from relay.mail.published import StsFetched, StsKept, StsMode, StsPolicy, StsTrouble, Use
from relay.mail.tls import TlsEvidence, TlsFailure
from relay.outbound.publications import LookedUp, Way
from relay.outbound.ways import Ways
from relay.policy.plan import choose_plan
from relay.policy.published import Published, join
from relay.policy.route import MxRecords
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


class Kept:
    """A store in which every domain has an enforced policy of today."""

    async def load_sts(self, domain: str) -> StsKept:
        policy = StsPolicy(StsMode.ENFORCE, (f"mx.{domain}",), 86400, "1")
        now = datetime.now(UTC)
        return StsKept(domain, StsFetched(policy, now), now + timedelta(hours=12), now)

    def save_sts(self, kept: StsKept) -> None:
        raise RuntimeError("nothing is fetched here")

    async def due_sts(self, _now: datetime, _used: datetime, _limit: int) -> tuple[str, ...]:
        return ()

    async def drop_sts(self, _ended: datetime) -> None:
        """All is of today."""


async def no_fetch(domain: str) -> StsTrouble:
    return StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, domain)


async def both(resolver: DnsResolver, looked: LookedUp, ways: Ways, name: str) -> None:
    """What `relay.outbound.deliver` does before it connects."""
    domain = dane.domain(name)
    connector = ways.connector(domain)
    answer = await resolver.mx(domain)
    way = Way(connector, domain, HostPort(f"mx.{domain}", dane.PORT), isinstance(answer, MxRecords) and answer.secure)
    published = await looked.find(way, ways.uses(connector, domain, tls_optional=False))
    plan = ways.plan(way, NOW, published)
    kinds = {type(each) for each in plan.demands} if isinstance(plan, TlsPlan) else set()
    if not kinds >= {Tlsa, StsMx}:
        raise RuntimeError(f"{name}: {plan}")


async def measure_both(address: HostPort, seconds: float) -> None:
    resolver = DnsResolver(address, self_test=SELF_TEST)
    await resolver.test()
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)

    def policies() -> StsPolicies:
        chance = random.Random(1)
        return StsPolicies(resolver, no_fetch, Kept(), clocks=clocks, chance=chance, emit=lambda _event: None)

    looked, ways = LookedUp(resolver, policies(), clocks.now), Ways(RULES, NOW.date())
    await both(resolver, looked, ways, "ee")
    for kind in ("cold", "warm"):
        count, begun, started = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < begun + seconds:
            if kind == "cold":
                resolver.forget()
                looked, ways = LookedUp(resolver, policies(), clocks.now), Ways(RULES, NOW.date())
            await both(resolver, looked, ways, "ee")
            count += 1
        cpu, took = time.process_time() - started, time.perf_counter() - begun
        print(f"both       {kind}: {took / count * 1e6:8.1f} us, {cpu / count * 1e6:8.1f} us of it CPU of the relay")
    await resolver.close()


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
        uvloop.run(measure_both(dns.resolver, wanted.seconds))
    measure_judging("ee", 3, wanted.seconds)
    measure_judging("ta", 2, wanted.seconds)


if __name__ == "__main__":
    main()
