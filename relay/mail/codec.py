"""Nouns to JSON and back, in the one shape that the store keeps and that `--json` prints (design section 11).

Times are RFC 3339 in UTC. Evidence and plans are written for people and programs to read; only what the queue must get back
after a restart (envelope, acceptance) is read back.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from relay.mail.address import Address
from relay.mail.envelope import Accepted, Body, Envelope, Notify, Recipient, Ret
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.plan import (
    Demand,
    Encryption,
    Pins,
    Pkix,
    PolicyApplied,
    RequireTls,
    StsMx,
    Tlsa,
    TlsPlan,
    TlsVersion,
    Unrevoked,
)
from relay.mail.revocation import CertificateStatus
from relay.mail.tls import Certificate, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted
from relay.mail.tlsreport import Posting, Received, ReceivedPolicy

Json = dict[str, Any]


def time_text(moment: datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_from(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def certificate_json(certificate: Certificate) -> Json:
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": list(certificate.names),
        "not_before": time_text(certificate.not_before),
        "not_after": time_text(certificate.not_after),
        "sha256": certificate.sha256,
        "spki_sha256": certificate.spki_sha256,
    }


def evidence_json(evidence: TlsEvidence | None) -> Json | None:
    """None in clear. `verified_by` maps each trust store asked about to its anchor, or to why there is no path to one; `revocation`, there where
    it was asked about, maps it to the statuses of the path's certificates."""
    if evidence is None:
        return None
    verified: Json = {}
    for trust, result in evidence.paths.items():
        match result:
            case Trusted(anchor):
                verified[trust] = {"anchor": anchor}
            case Untrusted(failure, text):
                verified[trust] = {"failure": failure.value, "text": text}
            case Undecided(text):
                verified[trust] = {"undecided": text}
    revocation: Json = (
        {
            "revocation": {
                trust: [status_json(each) for each in statuses] for trust, statuses in evidence.revocation.items()
            }
        }
        if evidence.revocation
        else {}
    )
    return {
        "version": evidence.version,
        "cipher": evidence.cipher,
        "group": evidence.group,
        "sni": evidence.sni,
        "resumed": evidence.resumed,
        "chain": [certificate_json(certificate) for certificate in evidence.chain],
        "errors": list(evidence.errors),
        "verified_by": verified,
        **revocation,
    }


def status_json(status: CertificateStatus) -> Json:
    """Whether one certificate is revoked, who says so, and from when to when that counts."""
    return {
        "subject": status.subject,
        "serial": status.serial,
        "status": status.state.value,
        "by": status.by.value or None,
        "url": status.url or None,
        "why": status.why or None,
        "revoked_at": time_text(status.revoked_at) if status.revoked_at else None,
        "reason": status.reason or None,
        "this_update": time_text(status.this_update) if status.this_update else None,
        "next_update": time_text(status.next_update) if status.next_update else None,
    }


def demand_json(demand: Demand) -> Json:
    match demand:
        case Encryption(source):
            return {"demand": "encryption", "source": source}
        case Pkix(source, trust, names):
            return {"demand": "pkix", "source": source, "trust": trust, "names": list(names)}
        case Pins(source, pins):
            return {"demand": "pins", "source": source, "pins": list(pins)}
        case TlsVersion(source, minimum):
            return {"demand": "tls-version", "source": source, "minimum": minimum}
        case Tlsa(source, base, records, names):
            shown = [str(record) for record in records]
            return {"demand": "tlsa", "source": source, "base": base, "records": shown, "names": list(names)}
        case StsMx(source, host, patterns):
            return {"demand": "sts-mx", "source": source, "host": host, "patterns": list(patterns)}
        case RequireTls(source, vouched):
            return {"demand": "requiretls", "source": source, "vouched": vouched or None}
        case Unrevoked(source, trust, mode):
            return {"demand": "revocation", "source": source, "trust": trust, "mode": mode.value}
    raise TypeError(f"no JSON form for {type(demand).__name__}")


def plan_json(plan: TlsPlan | None) -> Json | None:
    if plan is None:
        return None
    demands = sorted(
        (demand_json(demand) for demand in plan.demands), key=lambda each: (each["demand"], each["source"])
    )
    return {
        "level": plan.level.value,
        "plaintext": "never" if plan.requires_tls else plan.plaintext.value,
        "demands": demands,
        "client_certificate": plan.client_certificate or None,
        "until": time_text(plan.until) if plan.until else None,
        "published": [_applied_json(each) for each in plan.published],
    }


def _applied_json(policy: PolicyApplied) -> Json:
    return {
        "policy": policy.kind.value,
        "domain": policy.domain,
        "strings": list(policy.strings),
        "mx": list(policy.mx),
        "enforced": policy.enforced,
        "failure": policy.failure.value if policy.failure else None,
    }


def outcome_json(outcome: Outcome) -> Json:
    state = {Delivered: "delivered", Deferred: "deferred", Bounced: "bounced"}[type(outcome)]
    failure = None if isinstance(outcome, Delivered) else outcome.failure
    return {
        "state": state,
        "code": outcome.code,
        "status": outcome.status,
        "text": outcome.text,
        "failure": failure.value if failure else None,
    }


def outcome_from(data: Mapping[str, Any]) -> Outcome:
    failure = TlsFailure(data["failure"]) if data.get("failure") else None
    code, status, text = data["code"], data["status"], data["text"]
    match data["state"]:
        case "delivered":
            return Delivered(code, status, text)
        case "deferred":
            return Deferred(code, status, text, failure)
        case _:
            return Bounced(code, status, text, failure)


def envelope_json(envelope: Envelope) -> Json:
    """Without the recipients, which the store keeps one by one."""
    return {
        "sender": [envelope.sender.local, envelope.sender.domain],
        "body": envelope.body.value,
        "smtputf8": envelope.smtputf8,
        "ret": envelope.ret.value,
        "envid": envelope.envid,
        "requiretls": envelope.requiretls,
        "tls_optional": envelope.tls_optional,
    }


def envelope_from(data: Mapping[str, Any], recipients: tuple[Recipient, ...]) -> Envelope:
    return Envelope(
        Address(*data["sender"]),
        recipients,
        Body(data["body"]),
        data["smtputf8"],
        Ret(data["ret"]),
        data["envid"],
        # A queue of an older version has neither key.
        data.get("requiretls", False),
        data.get("tls_optional", False),
    )


def notify_text(notify: frozenset[Notify]) -> str:
    """The words of NOTIFY=, comma separated, in one order."""
    return ",".join(word.value for word in Notify if word in notify)


def notify_from(text: str) -> frozenset[Notify]:
    return frozenset(Notify(word) for word in text.split(",") if word)


def accepted_json(accepted: Accepted) -> Json:
    return {
        "at": time_text(accepted.at),
        "client": accepted.client,
        "client_port": accepted.client_port or None,
        "server": accepted.server or None,
        "helo": accepted.helo,
        "listener": accepted.listener,
        "protocol": accepted.protocol,
        "connector": accepted.connector or None,
        "auth": accepted.auth or None,
        "may_relay": accepted.may_relay,
        "tls": evidence_json(accepted.tls),
    }


def accepted_from(data: Mapping[str, Any]) -> Accepted:
    return Accepted(
        at=time_from(data["at"]),
        client=data["client"],
        helo=data["helo"],
        listener=data["listener"],
        protocol=data["protocol"],
        connector=data["connector"] or "",
        auth=data["auth"] or "",
        tls=evidence_from(data["tls"]),
        may_relay=data["may_relay"],
        # A queue of an older version has neither key.
        client_port=data.get("client_port") or 0,
        server=data.get("server") or "",
    )


def evidence_from(data: Mapping[str, Any] | None) -> TlsEvidence | None:
    """The record of a connection. Without certificates' bytes and path results, so it can be shown again, never judged again."""
    if data is None:
        return None
    chain = tuple(_certificate_from(each) for each in data["chain"])
    return TlsEvidence(
        data["version"],
        data["cipher"],
        data["group"],
        data["sni"],
        chain,
        tuple(data["errors"]),
        resumed=data.get("resumed", False),
    )


def _certificate_from(data: Mapping[str, Any]) -> Certificate:
    names = data["names"]
    addresses = tuple(name for name in names if ":" in name or name.replace(".", "").isdigit())
    return Certificate(
        subject=data["subject"],
        issuer=data["issuer"],
        dns_names=tuple(name for name in names if name not in addresses),
        ip_names=addresses,
        not_before=time_from(data["not_before"]),
        not_after=time_from(data["not_after"]),
        sha256=data["sha256"],
        spki_sha256=data["spki_sha256"],
    )


def posting_json(posting: Posting) -> Json:
    return {
        "to": posting.to or None,
        "state": posting.state.value,
        "until": time_text(posting.until),
        "next_try": None if posting.state.is_final else time_text(posting.due),
        "tries": posting.tries,
        "message": posting.message or None,
        "text": posting.text,
    }


def received_json(received: Received) -> Json:
    """A TLS report that somebody sent us."""
    return {
        "received_at": time_text(received.at),
        "organization": received.organization,
        "contact": received.contact,
        "report_id": received.report_id,
        "begins": time_text(received.begins),
        "ends": time_text(received.ends),
        "submitter": received.submitter,
        "signed_by": received.signer or None,
        "successes": received.successes,
        "failures": received.failures,
        "policies": [_received_policy_json(each) for each in received.policies],
    }


def _received_policy_json(policy: ReceivedPolicy) -> Json:
    return {
        "policy": policy.kind.value,
        "domain": policy.domain,
        "strings": list(policy.strings),
        "mx": list(policy.mx),
        "successes": policy.successes,
        "failures": policy.failures,
        "failing": [
            {
                "result": each.result,
                "sessions": each.sessions,
                "sending_ip": each.source or None,
                "mx": each.host or None,
                "helo": each.helo or None,
                "receiving_ip": each.address or None,
                "information": each.information or None,
                "reason": each.reason or None,
            }
            for each in policy.failing
        ],
    }
