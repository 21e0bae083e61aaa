"""An explanation as JSON, in the shape of design section 11. Holds no secret: of AUTH, only the user's name."""

from relay.mail.codec import Json, outcome_json, plan_json
from relay.policy.admission import Finding
from relay.policy.explain import Explanation, HopPlan, Inbound, Outbound
from relay.policy.plan import Step
from relay.policy.published import Says

_STEPS = {Step.START_TLS: "tls", Step.SEND_IN_CLEAR: "plaintext", Step.REFUSE: "refuse"}


def explanation_json(explanation: Explanation) -> Json:
    """`inbound` is null where only the delivery was asked about; `outbound` has one entry, for the recipient."""
    return {
        "inbound": None if explanation.inbound is None else _inbound(explanation.inbound),
        "outbound": [{"recipient": str(explanation.recipient), **_outbound(explanation.outbound)}],
    }


def _inbound(inbound: Inbound) -> Json:
    chosen = [each for each in inbound.findings if each.connector.name == inbound.connector]
    return {
        "sender": str(inbound.sender),
        "client": {
            "address": None if inbound.peer.address is None else str(inbound.peer.address),
            "tls": None if inbound.peer.evidence is None else inbound.peer.evidence.version,
        },
        "connector": inbound.connector or None,
        "accepted": inbound.accepted,
        "stage": inbound.stage,
        "reply": str(inbound.reply),
        "may_relay": inbound.may_relay or None,
        "needs_header_from": inbound.needs_header_from,
        "callout": None if inbound.callout is None else {"on_failure": inbound.callout.on_failure.value},
        "requirements": [each for finding in chosen for each in _requirements(finding)],
        "considered": [
            {"connector": each.connector.name, "satisfied": each.satisfied, "requirements": _requirements(each)}
            for each in inbound.findings
        ],
    }


def _requirements(finding: Finding) -> list[Json]:
    return [
        {"name": each.name, "required": each.required, "found": each.found, "met": each.met}
        for each in finding.requirements
    ]


def _outbound(outbound: Outbound) -> Json:
    exception, auth = outbound.exception, outbound.connector.route.auth
    return {
        "connector": outbound.connector.name,
        "pattern": outbound.pattern or None,
        "exception": None
        if exception is None
        else {"allow": exception.allow.value, "until": exception.until.isoformat(), "reason": exception.reason},
        "route": "mx" if outbound.connector.route.by_mx else "smart-hosts",
        "auth": None if auth is None else {"user": auth.user},
        "forward_client": outbound.connector.forward_client.value,
        "on_5xx": outbound.connector.on_5xx.value,
        "unroutable": None if outbound.unroutable is None else outcome_json(outbound.unroutable),
        "plan": plan_json(outbound.plan),
        "hops": [_hop(each) for each in outbound.hops],
    }


def _says(says: Says) -> Json:
    return {
        "reason": says.reason or None,
        "details": list(says.details),
        "withheld": None if says.withheld is None else outcome_json(says.withheld),
    }


def _hop(hop: HopPlan) -> Json:
    return {
        "host": hop.hop.host,
        "port": hop.hop.port,
        "addresses": [str(each) for each in hop.addresses],
        "unused": [{"address": str(address), "reason": reason} for address, reason in hop.unused],
        "trouble": hop.trouble or None,
        "mx_secure": hop.published.mx_secure,
        "dane": _says(hop.published.dane),
        "mta_sts": _says(hop.published.sts),
        "plan": plan_json(hop.plan),
        "without_starttls": _STEPS[hop.without_starttls],
        "with_broken_tls": _STEPS[hop.with_broken_tls],
    }
