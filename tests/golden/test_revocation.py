"""Every row of revocation.txt: mode x statuses -> the verdict on a delivery, and the reply at MAIL."""

import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.mail.outcome import Deferred
from relay.mail.plan import Unrevoked
from relay.mail.revocation import By, CertificateStatus, Revocation, State, Statuses
from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, Untrusted
from relay.outbound.outcomes import of_verdict
from relay.policy.admission import Peer, Refused, admit, candidates, unchecked
from relay.policy.book import RuleBook
from relay.policy.plan import choose_plan
from relay.policy.verdict import Failed, judge
from tests.unit.policy.builders import NEVER, NOW, book, certificate, evidence

TABLE = Path(__file__).with_name("revocation.txt")
CA = str(Path(__file__).parent / "config/files/ca.pem")
HOST = "mail.contoso.com"


def one(state: State) -> CertificateStatus:
    return CertificateStatus("CN=x", "ab", state, By.CRL if state is not State.UNKNOWN else By.NOBODY, why="gone")


GOOD, REVOKED, UNKNOWN = one(State.GOOD), one(State.REVOKED), one(State.UNKNOWN)
SHOWN: dict[str, Statuses | None] = {
    "good": (GOOD, GOOD),
    "leaf": (REVOKED, GOOD),
    "above": (GOOD, REVOKED),
    "unknown": (UNKNOWN, GOOD),
    "above?": (GOOD, UNKNOWN),
    "both": (UNKNOWN, REVOKED),
    "anchor": (),
    "nobody": None,
    "untrusted": None,
}


def rows() -> Iterator[tuple[str, str, str]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    columns = [cell.strip() for cell in lines[0].split("|")[1:]]
    assert columns == list(SHOWN)
    for line in lines[1:]:
        mode, *cells = (cell.strip() for cell in line.split("|"))
        yield from ((mode, column, cell) for column, cell in zip(columns, cells, strict=True))


def rules(mode: str, **more: Any) -> RuleBook:
    outbound = {
        "name": "out",
        "direction": "outbound",
        "match": {"recipient_domains": ["contoso.com"]},
        "tls": "certificate",
        "ca": CA,
        "revocation": mode,
    }
    inbound = {
        "name": "in",
        "direction": "inbound",
        "match": {"sender_domains": ["contoso.com"]},
        "require": {"certificate": {"names": [HOST], "ca": CA, "revocation": mode}},
    }
    return book(connectors=[outbound, inbound], **more)


def shown(column: str) -> TlsEvidence:
    path: PathResult = Trusted("CN=ca", NEVER, (b"leaf", b"ca"))
    if column == "untrusted":
        path = Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "self-signed")
    statuses = SHOWN[column]
    return replace(evidence(certificate(HOST), paths={CA: path}), revocation={} if statuses is None else {CA: statuses})


@pytest.mark.parametrize(("mode", "column", "cell"), list(rows()))
def test_row(mode: str, column: str, cell: str) -> None:
    rule_book, seen = rules(mode), shown(column)
    verdict = judge(choose_plan(rule_book, rule_book.outbound_for("contoso.com"), "contoso.com", HOST, NOW), seen)
    admission = admit(rule_book, Peer(ipaddress.ip_address("192.0.2.1"), seen), "contoso.com")
    out = verdict.failure.value if isinstance(verdict, Failed) else "ok"
    reply = str(admission.reply.code) if isinstance(admission, Refused) else "ok"
    assert f"{out} / {reply}" == cell


def test_the_strictest_of_two_demands_holds() -> None:
    plan = choose_plan(rules("prefer"), rules("prefer").outbound_for("contoso.com"), "contoso.com", HOST, NOW)
    both = plan.adding([Unrevoked("somebody", CA, Revocation.REQUIRE)])
    assert not isinstance(judge(plan, shown("unknown")), Failed)
    failed = judge(both, shown("unknown"))
    assert isinstance(failed, Failed)
    assert (failed.failure, failed.source) == (TlsFailure.REVOCATION_UNAVAILABLE, "somebody")
    assert of_verdict(failed) == Deferred(451, "4.7.5", f"{failed.text} (asked by somebody)", failed.failure)


def test_the_demand_says_who_asks() -> None:
    def source(**values: Any) -> set[str]:
        connector = {"name": "out", "direction": "outbound", "match": {"recipient_domains": ["contoso.com"]}}
        made = book(connectors=[{**connector, **values}], defaults={"outbound": {"revocation": "require"}})
        plan = choose_plan(made, made.outbound_for("contoso.com"), "contoso.com", HOST, NOW)
        return {f"{each.source} {each.mode.value}" for each in plan.revocation}

    assert source(tls="certificate") == {"default require"}
    assert source(tls="certificate", revocation="prefer") == {"connector out prefer"}
    assert source(tls="certificate", revocation="off") == set()
    assert source(tls="encryption") == set()  # there is no path that could be looked at


@pytest.mark.parametrize("name", [HOST, "other.example"])
def test_nothing_is_found_out_for_who_is_refused_anyway(name: str) -> None:
    """Threat: whoever has any certificate of a public CA could make us fetch what it names."""
    rule_book = rules("require")
    seen = replace(shown("nobody"), chain=(certificate(name),))
    peer = Peer(ipaddress.ip_address("192.0.2.1"), seen)
    asked = unchecked(rule_book, peer, candidates(rule_book, peer, "contoso.com"))
    assert asked == (frozenset({CA}) if name == HOST else frozenset())


def test_nothing_is_found_out_without_a_path() -> None:
    rule_book = rules("require")
    for column in ("untrusted", "good"):
        peer = Peer(ipaddress.ip_address("192.0.2.1"), shown(column))
        assert not unchecked(rule_book, peer, candidates(rule_book, peer, "contoso.com"))
    assert rule_book.asks_revocation
    assert not rules("off").asks_revocation


def test_the_reply_says_what_is_revoked_and_not_why_nothing_is_known() -> None:
    rule_book = rules("require")

    def text(column: str) -> str:
        found = admit(rule_book, Peer(ipaddress.ip_address("192.0.2.1"), shown(column)), "contoso.com")
        assert isinstance(found, Refused)
        return str(found.reply)

    assert text("leaf").startswith("550 5.7.1 connector in refuses this message: certificate revocation")
    assert "CN=x is revoked" in text("leaf")
    assert text("unknown") == "451 4.7.1 connector in cannot be judged now: try again later"
