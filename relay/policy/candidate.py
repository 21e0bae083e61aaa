"""May a certificate wait to take a present one's place, and may it take that place now? Values in, findings out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relay.config.certificates import Severity
from relay.policy.holdings import Holding, chain_defects
from relay.policy.publish_check import Finding, State
from relay.policy.sheet import day

_ALL_NAMES = "have it issued for all of them, unless nobody needs these"


@dataclass(frozen=True, slots=True)
class Remark:
    """An ERROR keeps it from being staged (or used); a WARNING is for the admin to weigh. `text` and what to do."""

    severity: Severity
    text: str
    remedy: str = ""

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR


def judge(present: Holding | None, coming: Holding, now: datetime) -> Iterator[Remark]:
    """What speaks against `coming` in the place of `present`, None where it is the first of its name."""
    leaf = coming.chain[0]
    certificate, anchor = leaf.certificate, coming.anchor
    if now > certificate.not_after:
        yield Remark(Severity.ERROR, f"it ended on {day(certificate.not_after)}", "have it issued again")
    for each in chain_defects(coming.chain, anchor):
        yield Remark(Severity.ERROR if each.fatal else Severity.WARNING, each.text, each.remedy)
    if leaf.is_ca and not leaf.self_issued:
        yield Remark(Severity.ERROR, "the first certificate is a CA's", "put the leaf first, then its chain")
    if anchor is not None and not anchor.trust:
        who = (
            "it is self-signed"
            if leaf.self_issued
            else f"its root, {anchor.details.certificate.subject}, is in no trust store here"
        )
        yield Remark(
            Severity.WARNING, f"{who}: only partners who trust or pin it can verify it", "tell them (relay certs sheet)"
        )
    if now < certificate.not_before:
        yield Remark(Severity.WARNING, f"it begins on {day(certificate.not_before)}: not before that it can be used")
    if present is not None:
        yield from _beside(present, coming)
    if not certificate.names:
        yield Remark(
            Severity.WARNING, "it has no subject alternative name: nobody can verify its name", "have it issued again"
        )


def _lost_names(present: Holding, coming: Holding) -> str:
    after = coming.chain[0].certificate.names
    return ", ".join(name for name in present.chain[0].certificate.names if name not in after)


def _beside(present: Holding, coming: Holding) -> Iterator[Remark]:
    before, after = present.chain[0].certificate, coming.chain[0].certificate
    names = _lost_names(present, coming)
    if names:
        yield Remark(Severity.WARNING, f"it lacks {names}, which {present.name} has", _ALL_NAMES)
    if after.sha256 == before.sha256:
        yield Remark(Severity.WARNING, f"it is the very certificate that {present.name} has: nothing would change")
    elif after.not_after <= before.not_after:
        yield Remark(Severity.WARNING, f"it ends on {day(after.not_after)}, not later than the present one")


def lost(before: Holding, after: Holding) -> Iterator[Remark]:
    """What partners will stumble over in a renewed pair that they did not in the one before."""
    known = {each.text for each in chain_defects(before.chain, before.anchor)}
    for each in chain_defects(after.chain, after.anchor):
        if each.text not in known:
            yield Remark(Severity.ERROR if each.fatal else Severity.WARNING, each.text, each.remedy)
    if before.anchor is not None and before.anchor.trust and after.anchor is not None and not after.anchor.trust:
        root = after.anchor.details.certificate.subject
        text = f"it leads to {root}, which is in no trust store here; the one before led to one that is"
        yield Remark(
            Severity.WARNING, text, "tell partners who verify it (relay certs sheet), or take one of the CA of before"
        )
    names = _lost_names(before, after)
    if names:
        yield Remark(Severity.WARNING, f"it lacks {names}, which the one before had", _ALL_NAMES)


def obstacles(
    coming: Holding, findings: Iterable[Finding], now: datetime, links: Iterable[tuple[Path, Path]] = ()
) -> Iterator[Remark]:
    """What must be waited for before it is used. `findings` are those of `publish_check.compare` about TLSA records of hosts that will show
    it; a host without any record holds nobody to DANE. `links` are present files that somebody else renews, and where they lead."""
    certificate = coming.chain[0].certificate
    if now < certificate.not_before:
        yield Remark(Severity.ERROR, f"it begins on {day(certificate.not_before)}", "wait until then")
    if now > certificate.not_after:
        yield Remark(Severity.ERROR, f"it ended on {day(certificate.not_after)}", "have it issued again")
    for file, target in links:
        text = (
            f"{file} is a link to {target}, and would be a file of its own: what is renewed there would be used no more"
        )
        remedy = "have the next one put there by what renews it; or --now, and renew it here from then on"
        yield Remark(Severity.ERROR, text, remedy)
    for each in findings:
        if each.state is State.MISSING:
            text = f"DNS has no TLSA record {each.expected} at {each.name}: senders who hold to DANE would stop"
            yield Remark(Severity.ERROR, text, "publish it beside the present one, and wait for twice its TTL")
        elif each.state is State.UNKNOWN:
            text = f"whether the TLSA record {each.expected} is at {each.name} cannot be told: {each.text}"
            yield Remark(Severity.ERROR, text, "try again when DNS answers")
