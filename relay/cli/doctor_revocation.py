"""What `relay doctor` finds out about CRLs and OCSP: can all be had that checking the smart hosts' certificates needs?

Looked at are the smart hosts of connectors that ask for it. Hosts by MX are the world's: `relay certs check HOST` looks at one.
"""

from collections.abc import Iterator, Sequence

from relay.cli.certs_check import Shown, examine
from relay.config.connectors import OutboundConnector
from relay.config.models import Config
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.mail.plan import Level
from relay.mail.revocation import Revocation, State
from relay.policy.book import RuleBook
from relay.policy.surroundings import Finding
from relay.policy.surroundings import State as Condition
from relay.tls.revocation.reach import Examined

CHECK = "revocation"
_MOST = 10  # hosts that are looked at


async def revocation(config: Config, resolver: Resolver) -> list[Finding]:
    """One finding for each host, or for each thing that is not as it should be there."""
    book, found = RuleBook.of(config), list[Finding]()
    for connector, hop in _asking(config)[:_MOST]:
        shown, examined = await examine(book, str(hop), None, connector.name, resolver)
        found.extend(judged(connector.revocation, str(hop), shown, examined))
    return found


def _asking(config: Config) -> list[tuple[OutboundConnector, HostPort]]:
    asking = (
        each
        for each in config.outbound
        if each.revocation is not Revocation.OFF and each.tls.rank >= Level.CERTIFICATE.rank
    )
    return [(each, hop) for each in asking for hop in each.route.hosts]


def judged(mode: Revocation, hop: str, shown: Shown, examined: Sequence[Examined]) -> Iterator[Finding]:
    """What is missing under `require` stops mail; under `prefer` it only goes without having been found out."""
    bad = Condition.FAILED if mode is Revocation.REQUIRE else Condition.WARNING
    if shown.trouble:
        yield Finding(CHECK, Condition.UNKNOWN, f"{hop}: {shown.trouble}", f"relay probe {hop} says more")
        return
    fine = True
    for each in examined:
        verdict = each.verdict
        for address in each.addresses:
            if address.trouble:
                fine = False
                known = verdict.state is not State.UNKNOWN
                state = Condition.WARNING if known else bad
                yield Finding(
                    CHECK, state, f"{hop}, {verdict.subject}: {address.url}: {address.trouble}", address.remedy
                )
        if verdict.state is State.REVOKED:
            fine = False
            text = f"{hop}: {verdict.subject} is {verdict.text}"
            yield Finding(CHECK, Condition.FAILED, text, "ask the partner for a new certificate; do not go around this")
        elif verdict.state is State.UNKNOWN and not each.addresses:
            fine = False
            text = f"{hop}: {verdict.subject} is {verdict.text}"
            yield Finding(CHECK, bad, text, "a pin is as much as can be had there: write `pins`, and `revocation: off`")
    if fine:
        yield Finding(CHECK, Condition.FINE, f"{hop}: every CRL and OCSP address of its certificates can be had")
