"""Our certificates as somebody who runs the relay wants to see them: what each says, who is shown it, what is wrong with it.

Values only: `relay.tls.inventory` reads them from the folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from relay.config.certificates import Problem, Severity
from relay.mail.codec import time_text
from relay.mail.seen import SeenCertificate
from relay.mail.tls import Certificate
from relay.policy.expiry import days_left, sooner_than_leaf

Json = dict[str, Any]


class Standing(StrEnum):
    IN_USE = "in use"
    NEXT = "next"
    """Published, and shown to nobody."""
    IN_TROUBLE = "in trouble"
    """It is in the folder and not used."""


@dataclass(frozen=True, slots=True)
class Details:
    """What one certificate says beyond `relay.mail.tls.Certificate`. Addresses as they stand in it, http or ldap.

    `key` and `signature` in words ("EC P-256", "ECDSA with SHA-256"). `serial` and the fingerprints in hex, octets apart by colons.
    `server` and `client`: its extended key usage lets it be shown as such. `is_ca` as its basic constraints say.
    """

    certificate: Certificate
    key: str
    signature: str
    serial: str
    sha1: str
    sha256: str
    crl: tuple[str, ...] = ()
    ocsp: tuple[str, ...] = ()
    issuer_at: tuple[str, ...] = ()
    server: bool = True
    client: bool = True
    is_ca: bool = False

    @property
    def self_issued(self) -> bool:
        return self.certificate.subject == self.certificate.issuer


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a chain ends. `trust` is the trust store that has it, "" where only the chain itself does."""

    details: Details
    trust: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Who is shown a certificate: clients of `listeners` (and of the policy server, `policies`) that ask for one of `names`; those that ask
    for no known name where `otherwise`."""

    listeners: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    otherwise: bool = False

    @property
    def anybody(self) -> bool:
        return bool((self.listeners or self.policies) and (self.names or self.otherwise))


@dataclass(frozen=True, slots=True)
class Holding:
    """A certificate of ours. `name` is its file's. `chain` as shown, leaf first; empty where it cannot be read.

    `anchor` is None where the chain leads to nobody known. `connectors` show it to partners (`client_certificate`).
    """

    name: str
    standing: Standing
    chain: tuple[Details, ...] = ()
    anchor: Anchor | None = None
    shown: Shown = Shown()
    connectors: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    @property
    def leaf(self) -> Details | None:
        return self.chain[0] if self.chain else None

    @property
    def is_next(self) -> bool:
        return self.standing is Standing.NEXT


@dataclass(frozen=True, slots=True)
class Defect:
    """What partners will stumble over. `fatal`: nobody who verifies can get by it."""

    text: str
    remedy: str
    fatal: bool = False


def chain_defects(chain: Sequence[Details], anchor: Anchor | None, *, client: bool = False) -> Iterator[Defect]:
    """Of a chain that can be read, leaf first. `client`: some connector shows it to partners."""
    leaf = chain[0]
    for number, (each, above) in enumerate(pairwise(chain), start=1):
        if each.certificate.issuer != above.certificate.subject:
            text = f"certificate {number} was not issued by the one that follows it ({above.certificate.subject})"
            yield Defect(text, "put the leaf first, then each one's issuer, and nothing else", fatal=anchor is None)
            return
    if anchor is None:
        where = f", such as from {chain[-1].issuer_at[0]}" if chain[-1].issuer_at else ""
        text = f"no trusted CA has signed the end of the chain, and {chain[-1].certificate.issuer} is not in it"
        yield Defect(text, f"add the missing intermediate{where}; of a CA of your own, its root at the end", fatal=True)
    sooner = sooner_than_leaf([each.certificate for each in chain])
    if sooner is not None:
        text = f"the intermediate {sooner.subject} ends on {sooner.ends:%Y-%m-%d}, before the certificate itself"
        yield Defect(text, "ask the CA for the chain with its newer intermediate")
    if not leaf.server:
        text = "its extended key usage does not allow it to be shown as a server's"
        yield Defect(text, "have it issued with serverAuth", fatal=True)
    if client and not leaf.client:
        text = "its extended key usage lacks clientAuth, and a connector shows it as `client_certificate`"
        yield Defect(text, "partners that insist refuse it: ask them, or have one issued that has it")


def holding_json(holding: Holding, now: datetime) -> Json:
    """Times RFC 3339, days left with fractions; null where the certificate cannot be read."""
    leaf = holding.leaf
    anchor = holding.anchor
    return {
        "name": holding.name,
        "state": holding.standing.value,
        **(_leaf_json(leaf, now) if leaf is not None else dict.fromkeys(_LEAF)),
        "chain": [_link_json(each, now) for each in holding.chain[1:]],
        "root": {**_link_json(anchor.details, now), "trust": anchor.trust or None} if anchor is not None else None,
        "shown": {
            "listeners": list(holding.shown.listeners),
            "policies": list(holding.shown.policies),
            "names": list(holding.shown.names),
            "otherwise": holding.shown.otherwise,
        },
        "connectors": list(holding.connectors),
        "problems": [problem_json(each) for each in holding.problems],
    }


def problem_json(problem: Problem) -> Json:
    return {
        "severity": problem.severity.value,
        "file": problem.file.name,
        "text": problem.text,
        "remedy": problem.remedy,
    }


_LEAF = (
    *("subject", "names", "issuer", "key", "signature", "serial", "pin", "sha256", "sha1", "not_before", "not_after"),
    *("days_left", "crl", "ocsp"),
)


def _leaf_json(details: Details, now: datetime) -> Json:
    certificate = details.certificate
    return {
        "subject": certificate.subject,
        "names": list(certificate.names),
        "issuer": certificate.issuer,
        "key": details.key,
        "signature": details.signature,
        "serial": details.serial,
        "pin": certificate.spki_sha256,
        "sha256": certificate.sha256,
        "sha1": details.sha1.replace(":", "").lower(),
        "not_before": time_text(certificate.not_before),
        "not_after": time_text(certificate.not_after),
        "days_left": days_left(certificate.not_after, now),
        "crl": list(details.crl),
        "ocsp": list(details.ocsp),
    }


def _link_json(details: Details, now: datetime) -> Json:
    certificate = details.certificate
    return {
        "subject": certificate.subject,
        "key": details.key,
        "sha256": certificate.sha256,
        "not_after": time_text(certificate.not_after),
        "days_left": days_left(certificate.not_after, now),
    }


def seen_json(seen: SeenCertificate, now: datetime, *, verified: bool) -> Json:
    """`verified`: the connector asks more of it than that there is one, so its end stops mail."""
    spot, sooner = seen.spot, seen.sooner
    return {
        "connector": spot.connector,
        "direction": spot.direction.value,
        "hop": spot.hop,
        "address": seen.address,
        "domain": seen.domain,
        "verified": verified,
        "failure": seen.failure or None,
        "subject": seen.leaf.subject,
        "names": list(seen.names),
        "issuer": seen.issuer,
        "pin": seen.pin,
        "sha256": seen.leaf.sha256,
        "not_before": time_text(seen.not_before),
        "not_after": time_text(seen.leaf.ends),
        "days_left": days_left(seen.leaf.ends, now),
        "sooner": {"subject": sooner.subject, "sha256": sooner.sha256, "not_after": time_text(sooner.ends)}
        if sooner is not None
        else None,
        "first_seen": time_text(seen.first),
        "last_seen": time_text(seen.last),
    }


def troubled(name: str, problems: Sequence[Problem]) -> Holding:
    """A file that is not used, and why."""
    return Holding(name, Standing.IN_TROUBLE, problems=tuple(problems))


def is_error(problem: Problem) -> bool:
    return problem.severity is Severity.ERROR
