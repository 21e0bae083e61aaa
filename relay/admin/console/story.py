"""A trace as a story: accepted, each attempt with its plan and evidence, what became of whom. From the JSON of design section 11, into what a
template draws. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.admin.console.charts import LifeLine, life_line
from relay.admin.console.words import moment
from relay.policy.words import clear_words, client_words, demand_words, listener_words, path_words, revocation_words

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Demand:
    """What was asked of the hop, and who asked."""

    what: str
    source: str


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate of a chain. `role` is "Certificate" or "Issued by"."""

    role: str
    subject: str
    issuer: str
    names: str
    not_before: str
    not_after: str
    sha256: str
    spki: str


@dataclass(frozen=True, slots=True)
class Tls:
    """What a connection really had. `checks` are (trust, result in words, it is trusted), `revocation` (status, subject,
    in words)."""

    version: str
    cipher: str
    group: str
    sni: str
    resumed: bool
    chain: Sequence[Link]
    checks: Sequence[tuple[str, str, bool]]
    errors: Sequence[str]
    revocation: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """What one recipient came to in one attempt."""

    recipient: str
    state: str
    answer: str
    failure: str


@dataclass(frozen=True, slots=True)
class Event:
    """One point of the story. `kind` is "accepted", "delivered", "deferred" or "bounced"; `without` says what it means that `tls` is None."""

    kind: str
    title: str
    at: datetime | None
    seconds: float | None
    facts: Sequence[tuple[str, str]]
    connector: str
    plan: str
    until: str
    demands: Sequence[Demand]
    tls: Tls | None
    without: str
    endings: Sequence[Ending]


def story(trace: Json) -> Sequence[Event]:
    """The acceptance first, then every attempt in order."""
    return [_accepted(trace["accepted"]), *(_attempt(number, each) for number, each in enumerate(trace["attempts"], 1))]


def line_of(events: Sequence[Event]) -> LifeLine | None:
    """The story as marks on a line; None where its times are not known."""
    timed = [(each.at, each.kind, each.title, _words(each)) for each in events if each.at is not None]
    return life_line(timed) if timed else None


def _words(event: Event) -> str:
    states = ", ".join(dict.fromkeys(each.state for each in event.endings))
    tls = f"{event.tls.version}" if event.tls else "in clear" if event.kind in ("accepted", "delivered") else "no TLS"
    return ", ".join(each for each in (event.title, states, tls) if each)


def _accepted(accepted: Json) -> Event:
    facts = [("Client", client_words(accepted))]
    if listener := listener_words(accepted):
        facts.append(("Listener", listener))
    if accepted.get("auth"):
        facts.append(("User", accepted["auth"]))
    if accepted.get("may_relay"):
        facts.append(("May relay", "to anywhere"))
    tls, connector = tls_of(accepted.get("tls")), accepted.get("connector") or ""
    return Event(
        "accepted", "Accepted", moment(accepted["at"]), None, facts, connector, "", "", (), tls, "none: in clear", ()
    )


def _attempt(number: int, attempt: Json) -> Event:
    endings = [
        Ending(each["recipient"], each["state"], answer_of(each), each.get("failure") or "")
        for each in attempt["outcomes"]
    ]
    states = {each.state for each in endings}
    kind = next((each for each in ("bounced", "deferred", "delivered") if each in states), "deferred")
    facts = []
    if attempt.get("hop"):
        address = f", address {attempt['address']}" if attempt.get("address") else ""
        facts.append(("Hop", f"{attempt['hop']}{address}"))
    plan = attempt.get("plan")
    if plan and plan.get("client_certificate"):
        facts.append(("We showed", f"the certificate of {plan['client_certificate']}"))
    return Event(
        kind,
        f"Attempt {number}",
        moment(attempt["at"]),
        attempt.get("seconds"),
        facts,
        attempt.get("connector") or "",
        plan_of(plan),
        (plan or {}).get("until") or "",
        demands_of(plan),
        tls_of(attempt.get("evidence")),
        "none: in clear" if "delivered" in states else "none: no handshake was completed, or the hop offers no TLS",
        endings,
    )


def answer_of(said: Json) -> str:
    return " ".join(str(each) for each in (said["code"], said.get("status"), said["text"]) if each)


def plan_of(plan: Json | None) -> str:
    return f"level {plan['level']}, {clear_words(plan)}" if plan else "none could be made"


def demands_of(plan: Json | None) -> Sequence[Demand]:
    return [Demand(demand_words(each), each["source"]) for each in plan["demands"]] if plan else ()


def tls_of(evidence: Json | None) -> Tls | None:
    """The evidence of one connection, None in clear."""
    if evidence is None:
        return None
    checks = [
        (trust, path_words(each), "anchor" in each) for trust, each in (evidence.get("verified_by") or {}).items()
    ]
    return Tls(
        evidence["version"],
        evidence["cipher"],
        evidence.get("group") or "group unknown",
        evidence.get("sni") or "",
        bool(evidence.get("resumed")),
        list(_links(evidence.get("chain") or ())),
        checks,
        evidence.get("errors") or (),
        [
            (each["status"], each["subject"], revocation_words(each))
            for statuses in (evidence.get("revocation") or {}).values()
            for each in statuses
        ],
    )


def _links(chain: Sequence[Json]) -> Iterator[Link]:
    for number, each in enumerate(chain):
        issuer = "itself" if each["issuer"] == each["subject"] else each["issuer"]
        yield Link(
            "Issued by" if number else "Certificate",
            each["subject"],
            issuer,
            ", ".join(each.get("names") or ()),
            each.get("not_before") or "",
            each["not_after"],
            each["sha256"],
            "" if number else each.get("spki_sha256") or "",
        )
