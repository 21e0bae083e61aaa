"""A probe as JSON: each host with what is published about it, each address with evidence and the verdict of every level."""

from relay.mail.codec import Json, evidence_json, outcome_json, plan_json
from relay.mail.outcome import Deferred
from relay.mail.plan import TlsPlan
from relay.outbound.offer import Offer
from relay.outbound.probe import Probe, ProbedAddress, ProbedHop
from relay.policy.probe import LevelVerdict
from relay.policy.published import Says

_WORDS = {
    "starttls": "STARTTLS",
    "pipelining": "PIPELINING",
    "chunking": "CHUNKING",
    "eight_bit": "8BITMIME",
    "smtputf8": "SMTPUTF8",
    "dsn": "DSN",
    "requiretls": "REQUIRETLS",
}


def probe_json(probe: Probe) -> Json:
    """`passes`: our policy would let mail go to one address at least."""
    return {
        "domain": probe.domain,
        "connector": probe.connector.name,
        "passes": probe.passes,
        "unroutable": None if probe.unroutable is None else outcome_json(probe.unroutable),
        "hops": [_hop(each) for each in probe.hops],
    }


def _hop(hop: ProbedHop) -> Json:
    plan = hop.measures[0].plan if hop.measures else None
    return {
        "host": hop.hop.host,
        "port": hop.hop.port,
        "trouble": hop.trouble or None,
        "mx_secure": hop.published.mx_secure,
        "dane": _says(hop.published.dane),
        "mta_sts": _says(hop.published.sts),
        "plan": plan_json(plan) if isinstance(plan, TlsPlan) else None,
        "withheld": outcome_json(plan) if isinstance(plan, Deferred) else None,
        "addresses": [_address(each) for each in hop.addresses],
        "left_out": [str(each) for each in hop.left_out],
    }


def _says(says: Says) -> Json:
    return {"reason": says.reason or None, "details": list(says.details)}


def _address(address: ProbedAddress) -> Json:
    return {
        "address": str(address.address),
        "seconds": round(address.seconds, 3),
        "trouble": address.trouble or None,
        "offers": None if address.offer is None else _offers(address.offer),
        "evidence": evidence_json(address.evidence),
        "verdicts": [_verdict(each) for each in address.verdicts],
    }


def _offers(offer: Offer) -> list[str]:
    words = [word for key, word in _WORDS.items() if getattr(offer, key, False)]
    return [*words, f"SIZE {offer.size_limit}"] if offer.size else words


def _verdict(verdict: LevelVerdict) -> Json:
    return {
        "level": verdict.level,
        "standing": verdict.standing.value,
        "text": verdict.text or None,
        "failure": verdict.failure.value if verdict.failure is not None else None,
    }
