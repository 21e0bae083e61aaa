"""A probe of a connector's hosts as steps: hosts, addresses, connection, EHLO, STARTTLS, TLS, certificate, what else must be there.

Pure: judges nothing by itself. What the policy in force says stands in the probe (`relay.policy.probe`), what to do in `relay.policy.remedy`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.config.models import OutboundConnector
from relay.mail.tls import TlsEvidence, TlsFailure, Trusted
from relay.outbound.connection import Stage
from relay.outbound.offer import NOTHING, Offer
from relay.outbound.probe import Probe, ProbedAddress, ProbedHop
from relay.policy.names import matching_name
from relay.policy.probe import IN_FORCE, LevelVerdict, Standing
from relay.policy.remedy import remedy
from relay.policy.steps import Result, Step
from relay.policy.unreached import no_address, no_connection, no_hosts

SOON = timedelta(days=30)
_TLS = frozenset((TlsFailure.TLS_VERSION_TOO_LOW, TlsFailure.HANDSHAKE_FAILED))
_LATER = "not reached: a step before it failed"
_MEANS = (
    ("requiretls", "REQUIRETLS", "messages that ask for TLS all the way cannot go there"),
    ("eight_bit", "8BITMIME", "messages with octets above 127 are returned to their senders"),
    ("smtputf8", "SMTPUTF8", "addresses beyond ASCII cannot be written to there"),
    ("chunking", "CHUNKING", "each message takes a round trip more"),
    ("pipelining", "PIPELINING", "each message takes some round trips more"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What steps are held against. `largest`: bytes of a message that we take. `now` aware."""

    connector: OutboundConnector
    domain: str
    largest: int
    now: datetime


def probe_steps(probe: Probe, wanted: Wanted) -> Iterator[Step]:
    """In the order in which a delivery meets them."""
    route = probe.connector.route
    if probe.unroutable is not None:
        lost = probe.unroutable
        how = no_hosts(lost.status, domain=probe.domain, connector=probe.connector.name)
        if lost.failure is not None:
            how = _remedy(lost.failure, "", wanted)
        yield Step("hosts", probe.domain, Result.FAILED, lost.text, how, probe.seconds)
        return
    names = ", ".join(str(each.hop) for each in probe.hops)
    what = "MX" if route.by_mx else "smart hosts of the connector"
    yield Step("hosts", probe.domain, Result.OK, f"{what}: {names}", seconds=probe.seconds)
    for hop in probe.hops:
        yield from _hop(hop, wanted)


def _hop(hop: ProbedHop, wanted: Wanted) -> Iterator[Step]:
    host = str(hop.hop)
    for name, says in (("dane", hop.published.dane), ("mta-sts", hop.published.sts)):
        text = "; ".join(each for each in (says.reason, *says.details) if each) or "nothing is published"
        if says.withheld is None:
            yield Step(name, host, Result.OK, text)
            continue
        failure = says.withheld.failure
        advice = _remedy(failure, host, wanted) if failure is not None else ""
        yield Step(name, host, Result.FAILED, says.withheld.text, advice)
    if hop.trouble:
        yield Step("addresses", host, Result.FAILED, hop.trouble, _no_address(hop, wanted), hop.seconds)
        return
    found = ", ".join(str(each.address) for each in hop.addresses)
    yield Step("addresses", host, Result.OK, found, seconds=hop.seconds)
    if hop.left_out:
        text = f"not looked at, since there are so many: {', '.join(map(str, hop.left_out[:5]))}"
        yield Step("addresses", host, Result.WARNING, text)
    for address in hop.addresses:
        yield from _address(hop, address, wanted)


def _address(hop: ProbedHop, address: ProbedAddress, wanted: Wanted) -> Iterator[Step]:
    target = f"{hop.hop} [{address.address}]"
    reached, took = dict(address.stages), _durations(address)
    verdict = next((each for each in address.verdicts if each.level == IN_FORCE), None)
    for name, stage in (("connect", Stage.CONNECTED), ("greeting", Stage.GREETED), ("ehlo", Stage.EHLO)):
        if stage in reached:
            yield Step(name, target, Result.OK, _WENT[stage], seconds=took[stage])
            continue
        how = no_connection(hop.hop.host, hop.hop.port) if stage is Stage.CONNECTED else _UNWILLING
        yield Step(name, target, Result.FAILED, address.trouble or "no answer", how, address.seconds)
        yield Step("starttls", target, Result.SKIPPED, _LATER)
        return
    if address.evidence is None:
        yield _without_tls(target, hop, verdict, address, wanted)
    else:
        yield Step("starttls", target, Result.OK, "offered, and the handshake is complete", seconds=took.get(Stage.TLS))
        yield from _inside(target, hop, address, address.evidence, verdict, wanted)
    if address.offer is not None:
        yield _auth(target, address, wanted) if wanted.connector.route.auth is not None else _no_auth(target)
        yield from _extensions(target, address.offer, wanted)
    yield _policy(target, hop, address, verdict)


_WENT = {Stage.CONNECTED: "connected", Stage.GREETED: "220", Stage.EHLO: "EHLO is answered"}
_UNWILLING = (
    "The host is there and refuses to talk: ask its operators whether they block this machine's address or name."
)


def _no_address(hop: ProbedHop, wanted: Wanted) -> str:
    connector = wanted.connector
    by_mx = connector.route.by_mx
    return no_address(hop.status, host=hop.hop.host, domain=wanted.domain, connector=connector.name, by_mx=by_mx)


def _durations(address: ProbedAddress) -> dict[Stage, float]:
    before, found = 0.0, {}
    for stage, at in address.stages:
        found[stage], before = at - before, at
    return found


def _without_tls(
    target: str, hop: ProbedHop, verdict: LevelVerdict | None, address: ProbedAddress, wanted: Wanted
) -> Step:
    text = (verdict.text if verdict is not None else address.trouble) or "there is no TLS"
    failure = (verdict.failure if verdict is not None else None) or TlsFailure.STARTTLS_NOT_SUPPORTED
    passes = verdict is not None and verdict.standing is Standing.PASSES
    how = _remedy(failure, str(hop.hop), wanted, waits=not passes)
    if address.offer == NOTHING:
        text += ", nor anything else: perhaps it refused EHLO"
        how = f"See what it answers to EHLO (swaks --server {hop.hop} --quit-after EHLO). {how}"
    return Step("starttls", target, Result.WARNING if passes else Result.FAILED, text, how, address.seconds)


def _inside(
    target: str,
    hop: ProbedHop,
    address: ProbedAddress,
    evidence: TlsEvidence,
    verdict: LevelVerdict | None,
    wanted: Wanted,
) -> Iterator[Step]:
    failure = verdict.failure if verdict is not None and verdict.standing is Standing.FAILS else None
    text = ", ".join(each for each in (evidence.version, evidence.cipher, evidence.group) if each)
    if verdict is not None and failure is not None and failure in _TLS:
        yield Step("tls", target, Result.FAILED, f"{verdict.text}: {text}", _remedy(failure, str(hop.hop), wanted))
    else:
        yield Step("tls", target, Result.OK, text)
    yield _certificate(target, hop, evidence, verdict, wanted)
    if wanted.connector.client_certificate is not None:
        name = wanted.connector.client_certificate
        if Stage.EHLO_INSIDE in dict(address.stages):
            yield Step(
                "client-certificate", target, Result.OK, f"{name}: the host went on with it, or did not ask for one"
            )
        else:
            how = f"Ask its operators whether they know the certificate {name} and its CA: relay trace and their log say more."
            yield Step("client-certificate", target, Result.FAILED, address.trouble, how)
    elif Stage.EHLO_INSIDE not in dict(address.stages):
        how = (
            "If the host wants a client certificate, name one of ours as `client_certificate` of the connector; else its operators know why "
            "it will not go on."
        )
        yield Step("ehlo-inside", target, Result.FAILED, address.trouble or "no answer inside TLS", how)


def _certificate(
    target: str, hop: ProbedHop, evidence: TlsEvidence, verdict: LevelVerdict | None, wanted: Wanted
) -> Step:
    leaf = evidence.leaf
    if leaf is None:
        return Step("certificate", target, Result.FAILED, "none was shown", "Ask its operators to install one.")
    left = (leaf.not_after - wanted.now) // timedelta(days=1)
    facts = [
        f"for {', '.join(leaf.names[:5]) or leaf.subject}",
        f"from {leaf.issuer}",
        f"{left} days left" if left >= 0 else f"ended on {leaf.not_after:%Y-%m-%d}",
        leaf.spki_sha256,
    ]
    trusted = [path.anchor for path in evidence.paths.values() if isinstance(path, Trusted)]
    if trusted:
        facts.append(f"chain to {trusted[0]}")
    names = wanted.connector.names or ()
    if names and (name := matching_name(names, leaf)):
        facts.append(f"has the name {name}")
    text = "; ".join(facts)
    failure = verdict.failure if verdict is not None and verdict.standing is Standing.FAILS else None
    if verdict is not None and failure is not None and failure not in _TLS:
        return Step(
            "certificate", target, Result.FAILED, f"{verdict.text}: {text}", _remedy(failure, str(hop.hop), wanted)
        )
    if leaf.not_after - wanted.now <= SOON:
        return Step("certificate", target, Result.WARNING, text, f"Remind {wanted.domain} to renew it in time.")
    return Step("certificate", target, Result.OK, text)


def _no_auth(target: str) -> Step:
    return Step("auth", target, Result.SKIPPED, "the connector has no user and password")


def _auth(target: str, address: ProbedAddress, wanted: Wanted) -> Step:
    """Offered only: passwords are said in deliveries alone."""
    offered = sorted(address.offer.auth) if address.offer is not None else []
    if address.evidence is None:
        text, how = "the connection is in clear: the password is never said there", "See that STARTTLS works."
        return Step("auth", target, Result.FAILED, text, how)
    if not {"plain", "login"} & set(offered):
        how = "Ask its operators to offer AUTH PLAIN inside TLS, or take `auth` out of the connector's route."
        return Step(
            "auth",
            target,
            Result.FAILED,
            f"neither PLAIN nor LOGIN is offered inside TLS ({', '.join(offered) or 'nothing'})",
            how,
        )
    return Step("auth", target, Result.OK, f"offered inside TLS: {', '.join(offered)}; --send-test logs in")


def _extensions(target: str, offer: Offer, wanted: Wanted) -> Iterator[Step]:
    has = [word for key, word, _means in _MEANS if getattr(offer, key)]
    lacks = [f"no {word}: {means}" for key, word, means in _MEANS if not getattr(offer, key)]
    size = [f"SIZE {offer.size_limit}"] if offer.size_limit else []
    yield Step("extensions", target, Result.OK, "; ".join((", ".join((*has, *size)) or "none", *lacks)))
    if 0 < offer.size_limit < wanted.largest:
        text = f"it takes messages of {offer.size_limit} bytes at most, and we take up to {wanted.largest}"
        how = "Larger ones are returned to their senders: lower `limits.message_size`, or ask its operators for more."
        yield Step("size", target, Result.WARNING, text, how)


def _policy(target: str, hop: ProbedHop, address: ProbedAddress, verdict: LevelVerdict | None) -> Step:
    if verdict is None:
        return Step("policy", target, Result.SKIPPED, "nothing was seen that it could be held against")
    if verdict.standing is Standing.PASSES:
        text = f"satisfied: {verdict.text}" if verdict.text else "satisfied: mail would be sent"
        return Step("policy", target, Result.WARNING if verdict.failure is not None else Result.OK, text)
    how = f"See what to do at the step {_failing(hop, address, verdict)} above."
    return Step("policy", target, Result.FAILED, f"not satisfied: {verdict.text}", how)


def _failing(hop: ProbedHop, address: ProbedAddress, verdict: LevelVerdict) -> str:
    """The step that says why the policy is not satisfied."""
    for name, says in (("dane", hop.published.dane), ("mta-sts", hop.published.sts)):
        if says.withheld is not None:
            return name
    if address.evidence is None:
        return "starttls"
    return "tls" if verdict.failure in _TLS else "certificate"


def _remedy(failure: TlsFailure | None, hop: str, wanted: Wanted, *, waits: bool = True) -> str:
    if failure is None:
        return ""
    return remedy(failure, hop=hop, connector=wanted.connector.name, domain=wanted.domain, waits=waits)
