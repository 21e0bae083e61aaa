"""`explain` puts together what the other decisions say; here that it leaves nothing out and says why."""

import ipaddress
from datetime import UTC, datetime
from typing import Any

from relay.config.values import HostPort
from relay.mail.address import NULL, Address, parse_path
from relay.mail.outcome import Bounced, Deferred
from relay.mail.plan import Encryption, Level, Plaintext
from relay.mail.tls import TlsEvidence, Trusted, Undecided
from relay.policy.admission import Peer
from relay.policy.explain import Arrival, DnsFacts, Explanation, Question, explain
from relay.policy.explain_json import explanation_json
from relay.policy.plan import Step
from relay.policy.published import Published, Says
from relay.policy.route import LookupFailed, MxRecord, MxRecords, NoDomain
from tests.unit.policy.builders import NEVER, book, certificate, evidence

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PUBLIC = ipaddress.ip_address("1.1.1.1")
PUBLIC6 = ipaddress.ip_address("2606:4700:4700::1111")
PRIVATE = ipaddress.ip_address("10.1.2.3")
MX = {"contoso.com": MxRecords((MxRecord(20, "b.contoso.com"), MxRecord(10, "a.contoso.com")))}
INNER = {
    "name": "inner",
    "direction": "outbound",
    "match": {"recipient_domains": ["example.com"]},
    "route": {"smart_hosts": ["10.0.0.1:2525"]},
}
IN = {
    "name": "contoso-in",
    "direction": "inbound",
    "match": {"sender_domains": ["contoso.com"], "header_from": True},
    "require": {"certificate": {"names": ["mail.contoso.com"]}},
}


def asked(
    to: str,
    *,
    facts: DnsFacts | None = None,
    sender: str = "",
    client: str = "",
    tls: TlsEvidence | None = None,
    **values: Any,
) -> Explanation:
    accept = {"domains": ["example.com"], "networks": ["127.0.0.0/8"]}
    rules = book(**({"accept": accept, "connectors": [INNER]} | values))
    peer = Peer(ipaddress.ip_address(client) if client else None, tls)
    arrival = Arrival(parse_path(sender), peer) if sender else None
    return explain(rules, Question(parse_path(to), arrival), facts or DnsFacts({}, {}), NOW)


def dns(*addresses: Any, **more: Any) -> DnsFacts:
    return DnsFacts(MX, {"a.contoso.com": addresses, "b.contoso.com": addresses}, **more)


def test_by_mx_the_defaults_act_and_say_so() -> None:
    found = asked("bob@contoso.com", facts=dns(PUBLIC))
    assert found.inbound is None
    assert [str(each.hop) for each in found.outbound.hops] == ["a.contoso.com:25", "b.contoso.com:25"]
    assert (found.outbound.connector.name, found.outbound.pattern) == ("default", "")
    hop = found.outbound.hops[0]
    assert (hop.plan.level, hop.addresses, hop.trouble) == (Level.OPPORTUNISTIC, (PUBLIC,), "")
    assert (hop.without_starttls, hop.with_broken_tls) == (Step.SEND_IN_CLEAR, Step.REFUSE)


def test_a_connector_governs_by_its_pattern_and_each_host_has_its_own_names() -> None:
    out = {
        "name": "out",
        "direction": "outbound",
        "match": {"recipient_domains": ["*.contoso.com"]},
        "tls": "domain",
        "route": {"smart_hosts": ["a.contoso.com", "b.contoso.com"], "auth": {"user": "us", "password": "hunter2"}},
    }
    found = asked("bob@sub.contoso.com", facts=dns(PUBLIC), connectors=[out], accept={})
    assert (found.outbound.connector.name, found.outbound.pattern) == ("out", "*.contoso.com")
    names = [
        demand["names"]
        for hop in explanation_json(found)["outbound"][0]["hops"]
        for demand in hop["plan"]["demands"]
        if demand["demand"] == "pkix"
    ]
    assert names == [["a.contoso.com"], ["b.contoso.com"]]
    assert found.outbound.hops[0].without_starttls is Step.REFUSE
    assert explanation_json(found)["outbound"][0]["auth"] == {"user": "us"}
    assert "hunter2" not in repr(found) + str(explanation_json(found))


def test_a_running_exception_is_shown() -> None:
    exception = {
        "recipient_domain": "contoso.com",
        "allow": "plaintext",
        "until": "2026-11-22",
        "reason": "their gateway",
    }
    found = asked("bob@contoso.com", facts=dns(PUBLIC), exceptions=[exception])
    assert found.outbound.exception is not None
    hop = found.outbound.hops[0]
    assert (hop.plan.plaintext, hop.with_broken_tls) == (Plaintext.IF_TLS_FAILS, Step.SEND_IN_CLEAR)
    shown = explanation_json(found)["outbound"][0]
    assert shown["exception"] == {"allow": "plaintext", "until": "2026-11-22", "reason": "their gateway"}
    assert (shown["hops"][0]["without_starttls"], shown["hops"][0]["with_broken_tls"]) == ("plaintext", "plaintext")


def test_addresses_that_are_not_used_say_why() -> None:
    hop = asked("bob@contoso.com", facts=dns(PUBLIC, PRIVATE)).outbound.hops[0]
    assert hop.addresses == (PUBLIC,)
    assert hop.unused == ((PRIVATE, "not a public address; `route: {private: allow}` is for closed networks"),)
    facts = dns(PUBLIC, own={hop.hop: {PUBLIC}})
    hop = asked("bob@contoso.com", facts=facts).outbound.hops[0]
    assert hop.unused == ((PUBLIC, "mail sent there would come back to this relay"),)
    assert hop.trouble == "none of its addresses may be used"
    defaults = {"outbound": {"source": "192.0.2.1"}}
    hop = asked("bob@contoso.com", facts=dns(PUBLIC, PUBLIC6), defaults=defaults).outbound.hops[0]
    assert hop.unused == ((PUBLIC6, "cannot be reached from the source address 192.0.2.1"),)
    assert explanation_json(asked("b@contoso.com", facts=dns(PRIVATE)))["outbound"][0]["hops"][0]["unused"][0] == {
        "address": "10.1.2.3",
        "reason": "not a public address; `route: {private: allow}` is for closed networks",
    }


def test_hosts_without_address_say_why() -> None:
    facts = DnsFacts(MX, {"a.contoso.com": NoDomain(), "b.contoso.com": ()})
    assert [hop.trouble for hop in asked("bob@contoso.com", facts=facts).outbound.hops] == [
        "the host a.contoso.com does not exist",
        "the host b.contoso.com has no address",
    ]
    facts = DnsFacts(MX, {"a.contoso.com": LookupFailed("SERVFAIL")})
    assert [hop.trouble for hop in asked("bob@contoso.com", facts=facts).outbound.hops] == [
        "the look-up of a.contoso.com failed: SERVFAIL",
        "the look-up of b.contoso.com failed: it was not looked up",
    ]


def test_a_host_that_what_is_published_keeps_mail_from_says_so_and_shows_the_plan_without_it() -> None:
    withheld = Says(withheld=Deferred(451, "4.7.5", "the TLSA look-up of a.contoso.com failed"))
    secure = Says(demands=frozenset({Encryption("dane")}))
    facts = dns(
        PUBLIC,
        published={
            HostPort("a.contoso.com", 25): Published(dane=withheld, mx_secure=True),
            HostPort("b.contoso.com", 25): Published(dane=secure, mx_secure=True),
        },
    )
    first, second = asked("bob@contoso.com", facts=facts).outbound.hops
    assert (first.trouble, first.addresses) == ("the TLSA look-up of a.contoso.com failed", (PUBLIC,))
    assert first.published.dane is withheld
    assert not any(isinstance(demand, Encryption) for demand in first.plan.demands)
    assert (second.trouble, Encryption("dane") in second.plan.demands) == ("", True)


def test_domains_that_lead_nowhere() -> None:
    def unroutable(answer: Any, ourselves: tuple[str, ...] = ()) -> Any:
        facts = DnsFacts({"contoso.com": answer}, {}, ourselves)
        found = asked("bob@contoso.com", facts=facts)
        assert found.outbound.hops == ()
        assert explanation_json(found)["outbound"][0]["hops"] == []
        return found.outbound.unroutable

    assert unroutable(NoDomain()) == Bounced(550, "5.1.2", "the domain contoso.com does not exist")
    assert isinstance(unroutable(LookupFailed("timeout")), Deferred)
    null_mx = unroutable(MxRecords((MxRecord(0, ""),)))
    assert (null_mx.code, null_mx.status) == (556, "5.1.10")
    loop = unroutable(MxRecords((MxRecord(10, "relay.example.com"),)), ("relay.example.com",))
    assert loop.status == "5.4.6"
    shown = explanation_json(asked("bob@contoso.com"))["outbound"][0]
    assert (shown["unroutable"]["state"], shown["unroutable"]["status"]) == ("deferred", "4.4.3")


def test_postmaster_without_domain_is_ours() -> None:
    found = asked("<postmaster>", sender="x@other.example")
    assert found.recipient == Address("postmaster", "example.com")
    assert found.outbound.connector.name == "inner"
    assert found.inbound is not None
    assert found.inbound.accepted


def test_relaying_is_denied_and_granted() -> None:
    denied = asked("bob@contoso.com", sender="x@other.example", client="203.0.113.9").inbound
    assert denied is not None
    assert (denied.stage, denied.accepted, str(denied.reply)) == ("RCPT", False, "550 5.7.1 relaying denied")
    near = asked("bob@contoso.com", sender="x@other.example", client="127.0.0.1").inbound
    assert near is not None
    assert (near.accepted, near.may_relay) == (True, "127.0.0.1 is in accept.networks")
    peer = {
        "name": "onprem",
        "direction": "inbound",
        "match": {"networks": ["10.0.0.0/8"]},
        "require": {"networks": ["10.0.0.0/8"]},
        "grant": {"relay": True},
    }
    granted = asked("bob@contoso.com", sender="<>", client="10.1.1.1", connectors=[INNER, peer]).inbound
    assert granted is not None
    assert (granted.sender, granted.connector, granted.may_relay) == (NULL, "onprem", "connector onprem grants it")


def test_each_requirement_is_shown_met_or_not() -> None:
    leaf = certificate("other.example")
    tls = evidence(leaf, paths={"system": Trusted("CN=ca", NEVER)})
    found = asked("a@example.com", sender="eve@contoso.com", tls=tls, connectors=[INNER, IN])
    inbound = found.inbound
    assert inbound is not None
    assert (inbound.stage, inbound.accepted, inbound.connector, inbound.needs_header_from) == (
        "MAIL",
        False,
        "contoso-in",
        True,
    )
    shown = explanation_json(found)["inbound"]
    assert shown["reply"].startswith("550 5.7.1 connector contoso-in refuses this message")
    assert [(each["name"], each["met"]) for each in shown["requirements"]] == [
        ("tls", True),
        ("certificate names", False),
        ("certificate ca", True),
    ]
    assert shown["considered"][0]["connector"] == "contoso-in"


def test_what_can_not_be_judged_now_is_a_451() -> None:
    tls = evidence(certificate("mail.contoso.com"), paths={"system": Undecided("the file is gone")})
    inbound = asked("a@example.com", sender="eve@contoso.com", tls=tls, connectors=[INNER, IN]).inbound
    assert inbound is not None
    assert inbound.reply.code == 451


def test_a_partner_that_satisfies_its_connector_comes_in() -> None:
    tls = evidence(certificate("mail.contoso.com"), paths={"system": Trusted("CN=ca", NEVER)})
    inbound = asked("a@example.com", sender="bob@contoso.com", tls=tls, connectors=[INNER, IN]).inbound
    assert inbound is not None
    assert (inbound.stage, inbound.accepted, inbound.connector) == ("RCPT", True, "contoso-in")


def test_from_header_can_refuse_what_mail_let_in() -> None:
    """Two connectors name the domain: the one that the client satisfies does not speak of the From: header, the other does."""
    other = IN | {
        "name": "by-network",
        "match": {"sender_domains": ["contoso.com"]},
        "require": {"networks": ["10.0.0.0/8"]},
    }
    inbound = asked("a@example.com", sender="x@contoso.com", client="10.1.1.1", connectors=[INNER, IN, other]).inbound
    assert inbound is not None
    assert (inbound.stage, inbound.accepted, inbound.connector) == ("DATA", False, "contoso-in")
    null = asked("a@example.com", sender="<>", client="10.1.1.1", connectors=[INNER, IN, other]).inbound
    assert null is not None
    assert (null.stage, null.accepted, null.needs_header_from) == ("RCPT", True, True)


def test_what_is_done_for_a_mail_server_inside_is_shown() -> None:
    accept = {"domains": ["example.com"], "recipients": {"example.com": {"callout": {"on_failure": "accept"}}}}
    inner = INNER | {"forward_client": "xclient", "on_5xx": "hold"}
    found = asked("bob@example.com", sender="<a@b.example>", client="192.0.2.1", accept=accept, connectors=[inner])
    assert found.inbound is not None
    assert found.inbound.accepted
    shown = explanation_json(found)
    assert shown["inbound"]["callout"] == {"on_failure": "accept"}
    assert (shown["outbound"][0]["forward_client"], shown["outbound"][0]["on_5xx"]) == ("xclient", "hold")
    postmaster = asked("postmaster@example.com", sender="<a@b.example>", client="192.0.2.1", accept=accept)
    assert explanation_json(postmaster)["inbound"]["callout"] is None
    assert explanation_json(postmaster)["outbound"][0]["on_5xx"] == "bounce"
