"""Every event as one flat record: its name, its level, its fields. The names are a contract with whoever reads the log (docs/operations.md).

A field without a value is left out. Lists are cut at `_MANY` entries, with the full number beside them; text from peers is cut at `_LONG`.
Built by hand, one function per event class, since this runs several times for each message.
"""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from relay.mail import events as e
from relay.mail.address import Address
from relay.mail.attempt import Attempt
from relay.mail.codec import time_text
from relay.mail.envelope import Message
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.published import StsMode
from relay.mail.tls import TlsEvidence
from relay.mail.tlsreport import PostState

Fields = dict[str, Any]
Record = tuple[str, str, Fields]  # level, name, fields

DEBUG, INFO, WARNING, ERROR = "debug", "info", "warning", "error"

_MANY = 20
_LONG = 500


def record(event: e.Event) -> Record:
    """The event as level, name and fields. An event class that is not known here is written out field by field."""
    build = _BUILDERS.get(type(event))
    return build(event) if build is not None else _generic(event)


def is_debug(event: e.Event) -> bool:
    """Its record would have the level "debug": known without building it, since most logs leave it out."""
    if isinstance(event, e.SessionClosed):
        return event.reason == "quit"
    if isinstance(event, e.RecipientAsked):
        return event.result != "unknown"
    return isinstance(event, e.SessionOpened | e.TlsSessionTried)


def known() -> frozenset[type[e.Event]]:
    """The event classes that have a record of their own."""
    return frozenset(_BUILDERS)


def sender_text(sender: Address) -> str:
    return str(sender) or "<>"


def _some(**fields: Any) -> Fields:
    return {key: value for key, value in fields.items() if value != "" and value is not None}


def _tls(fields: Fields, evidence: TlsEvidence | None, certificate: str) -> None:
    if evidence is None:
        return
    fields["tls_version"] = evidence.version
    fields["tls_cipher"] = evidence.cipher
    if evidence.group:
        fields["tls_group"] = evidence.group
    leaf = evidence.leaf
    if leaf is not None:
        fields[certificate] = leaf.names[0] if leaf.names else leaf.subject
        fields[f"{certificate}_sha256"] = leaf.sha256


def _message(message: Message) -> Fields:
    recipients = message.envelope.recipients
    fields = {
        "message": message.id,
        "sender": sender_text(message.envelope.sender),
        "recipients": [str(each.address) for each in recipients[:_MANY]],
        "recipient_count": len(recipients),
        "size": message.size,
    }
    if message.envelope.requiretls:
        fields["requiretls"] = True
    if message.envelope.tls_optional:
        fields["tls_optional"] = True
    return fields


def _accepted(event: e.MessageAccepted) -> Record:
    accepted = event.message.accepted
    fields = _message(event.message)
    if event.message.message_id:
        fields["message_id"] = event.message.message_id[:_LONG]
    fields["client"] = accepted.client
    fields["helo"] = accepted.helo
    fields["listener"] = accepted.listener
    fields["protocol"] = accepted.protocol
    if accepted.connector:
        fields["connector"] = accepted.connector
    if accepted.auth:
        fields["user"] = accepted.auth
    _tls(fields, accepted.tls, "client_certificate")
    return INFO, "message-accepted", fields


_STATES: Mapping[type[Outcome], str] = {Delivered: "delivered", Deferred: "deferred", Bounced: "bounced"}


def _outcome(message: Message, index: int, outcome: Outcome) -> Fields:
    fields = {
        "recipient": str(message.envelope.recipients[index].address),
        "state": _STATES[type(outcome)],
        "code": outcome.code,
        "status": outcome.status,
        "text": outcome.text[:_LONG],
    }
    if not isinstance(outcome, Delivered) and outcome.failure is not None:
        fields["failure"] = outcome.failure.value
    return fields


def _attempt(event: e.AttemptMade) -> Record:
    attempt, message = event.attempt, event.message
    fields: Fields = {"message": attempt.message}
    if attempt.hop:
        fields["hop"] = attempt.hop
    if attempt.address:
        fields["address"] = attempt.address
    fields["connector"] = attempt.connector
    if attempt.plan is not None:
        fields["tls_level"] = attempt.plan.level.value
    _tls(fields, attempt.evidence, "certificate")
    fields["seconds"] = round(attempt.seconds, 3)
    fields["recipient_count"] = len(attempt.outcomes)
    fields["outcomes"] = [_outcome(message, index, each) for index, each in attempt.outcomes[:_MANY]]
    return WARNING if _failed(attempt) else INFO, "attempt-made", fields


def _failed(attempt: Attempt) -> bool:
    """TLS stood in the way of somebody's mail."""
    return any(not isinstance(each, Delivered) and each.failure is not None for _index, each in attempt.outcomes)


def _refused(event: e.CommandRefused) -> Record:
    fields = _some(
        listener=event.listener,
        client=event.client,
        command=event.command[:_LONG],
        code=event.reply.code,
        status=event.reply.status,
        text=event.reply.text[:_LONG],
        sender=event.sender,
        recipient=event.recipient,
        connector=event.connector,
    )
    return INFO, "command-refused", fields


def _closed(event: e.SessionClosed) -> Record:
    fields = _some(
        listener=event.listener,
        client=event.client,
        reason=event.reason,
        seconds=round(event.seconds, 3),
        tls_version=event.tls,
    )
    # A session that ended as it should is told by the messages it brought.
    return DEBUG if is_debug(event) else INFO, "session-closed", fields


def _ended(event: e.RecipientEnded) -> Record:
    fields = {"message": event.message, "recipient": event.recipient, "state": event.state, "status": event.status}
    return INFO, "recipient-ended", fields


def _asked(event: e.RecipientAsked) -> Record:
    fields = _some(
        recipient=event.recipient, result=event.result, text=event.text[:_LONG], seconds=round(event.seconds, 3)
    )
    return DEBUG if is_debug(event) else WARNING, "recipient-asked", fields


def _refusal_held(event: e.RefusalHeld) -> Record:
    fields = _some(
        message=event.message,
        recipient=event.recipient,
        hop=event.hop,
        code=event.code,
        status=event.status,
        text=event.text[:_LONG],
    )
    return WARNING, "refusal-held", fields


def _taken(event: e.ConfigurationTaken) -> Record:
    fields = _some(file=event.file, weaker=list(event.weaker))
    return WARNING if event.weaker else INFO, "configuration-taken", fields


def _ending(name: str, *fields: str) -> Callable[[Any], Record]:
    build = _plain(WARNING, name, *fields)

    def record(event: Any) -> Record:
        level, name, values = build(event)
        times = {key: time_text(each) for key, each in values.items() if isinstance(each, datetime)}
        return ERROR if event.days < 0 else level, name, values | times

    return record


def _sts_changed(event: e.StsPolicyChanged) -> Record:
    fields = {
        "domain": event.domain,
        "before": event.before.value,
        "mode": event.mode.value,
        "mx": list(event.mx[:_MANY]),
        "mx_count": len(event.mx),
    }
    weaker = event.before is StsMode.ENFORCE and event.mode is not StsMode.ENFORCE
    return WARNING if weaker else INFO, "sts-policy-changed", fields


def _sts_failed(event: e.StsFetchFailed) -> Record:
    """RFC 8461 section 3.3: the administrator hears of a refresh that fails, unless the policy in force is mode none."""
    fields = _some(domain=event.domain, failure=event.failure.value, trouble=event.trouble[:_LONG], held=event.held)
    alarming = event.held in (StsMode.ENFORCE, StsMode.TESTING)
    return WARNING if alarming else INFO, "sts-fetch-failed", fields


def _session(event: e.TlsSessionTried) -> Record:
    results = [
        f"{each.policy.kind.value} {each.failing.result.value if each.failing else 'success'}" for each in event.judged
    ]
    fields = _some(domain=event.domain, hop=event.hop, address=event.address, results=results)
    return DEBUG, "tls-session-tried", fields


def _report_sent(event: e.TlsReportSent) -> Record:
    fields = _some(
        domain=event.domain,
        day=event.day.isoformat(),
        to=event.to[:_LONG],
        state=event.state.value,
        tries=event.tries,
        text=event.text[:_LONG],
    )
    return WARNING if event.state is PostState.FAILED else INFO, "tls-report-sent", fields


def _report_received(event: e.TlsReportReceived) -> Record:
    report = event.report
    fields = _some(
        message=event.message,
        organization=report.organization,
        report_id=report.report_id,
        signer=report.signer,
        domains=list(dict.fromkeys(each.domain for each in report.policies))[:_MANY],
        successes=report.successes,
        failures=report.failures,
    )
    return WARNING if report.failures else INFO, "tls-report-received", fields


def _raised(event: e.AlertRaised) -> Record:
    fields = _some(
        kind=event.kind,
        subject=event.subject,
        severity=event.severity,
        state=event.state,
        title=event.title,
        text=event.text[:_LONG],
    )
    return ERROR if event.severity == "critical" else WARNING, "alert-raised", fields


def _not_sent(event: e.AlertNotSent) -> Record:
    fields = _some(
        id=event.id,
        kind=event.kind,
        way=event.way,
        reason=event.reason[:_LONG],
        tries=event.tries,
        given_up=event.given_up,
    )
    return ERROR if event.given_up else WARNING, "alert-not-sent", fields


def _crl(event: e.CrlFetched) -> Record:
    return INFO, "crl-fetched", _some(url=event.url[:_LONG], size=event.size, next_update=time_text(event.next_update))


def _revocation_failed(event: e.RevocationFetchFailed) -> Record:
    fields = _some(
        url=event.url[:_LONG],
        trouble=event.trouble[:_LONG],
        remedy=event.remedy,
        held=time_text(event.held) if event.held else "",
    )
    return WARNING, "revocation-fetch-failed", fields


def _revoked(event: e.CertificateRevokedSeen) -> Record:
    fields = _some(
        certificate=event.certificate,
        serial=event.serial,
        revoked_at=time_text(event.revoked_at) if event.revoked_at else "",
        reason=event.reason,
        by=event.by,
    )
    return ERROR, "certificate-revoked-seen", fields


def _unavailable(event: e.RevocationUnavailable) -> Record:
    remedy = (
        "relay certs check HOST (or FILE --connector NAME) says which addresses must be reachable, and what to open"
    )
    fields = _some(certificate=event.certificate, serial=event.serial, trouble=event.trouble[:_LONG], remedy=remedy)
    return WARNING, "revocation-unavailable", fields


def _plain(level: str, name: str, *fields: str) -> Callable[[Any], Record]:
    """For events whose fields go out as they are. Tuples become lists."""

    def build(event: e.Event) -> Record:
        values = ((field, getattr(event, field)) for field in fields)
        return level, name, _some(**{key: list(each) if isinstance(each, tuple) else each for key, each in values})

    return build


def _generic(event: e.Event) -> Record:
    name = "".join(f"-{char.lower()}" if char.isupper() else char for char in type(event).__name__).lstrip("-")
    fields = (field.name for field in dataclasses.fields(event) if field.repr)
    return INFO, name, {each: _simple(getattr(event, each)) for each in fields}


def _simple(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:_LONG]


_BUILDERS: dict[type[e.Event], Callable[[Any], Record]] = {
    e.MessageAccepted: _accepted,
    e.AttemptMade: _attempt,
    e.CommandRefused: _refused,
    e.SessionClosed: _closed,
    e.ConfigurationTaken: _taken,
    e.ListenerReady: _plain(INFO, "listener-ready", "listener", "address"),
    e.SessionOpened: _plain(DEBUG, "session-opened", "listener", "client"),
    e.ConnectionRefused: _plain(WARNING, "connection-refused", "listener", "client", "reason"),
    e.LoginFailed: _plain(WARNING, "login-failed", "listener", "client", "user"),
    e.RecipientEnded: _ended,
    e.TlsWithheld: _plain(WARNING, "tls-withheld", "message", "recipient", "hop", "failure", "remedy"),
    e.ReportQueued: _plain(INFO, "report-queued", "message", "about", "kind", "recipient"),
    e.ReportHeld: _plain(WARNING, "report-held", "message", "status"),
    e.RecipientAsked: _asked,
    e.CalloutTakesAll: _plain(WARNING, "callout-takes-all", "domain"),
    e.RefusalHeld: _refusal_held,
    e.StsPolicyFetched: _plain(INFO, "sts-policy-fetched", "domain", "mode", "id", "max_age"),
    e.StsPolicyChanged: _sts_changed,
    e.StsFetchFailed: _sts_failed,
    e.TlsSessionTried: _session,
    e.TlsReportSent: _report_sent,
    e.TlsReportReceived: _report_received,
    e.TlsReportIgnored: _plain(WARNING, "tls-report-ignored", "message", "sender", "reason"),
    e.ConfigurationWaiting: _plain(WARNING, "configuration-waiting", "file", "reasons"),
    e.ConfigurationSettled: _plain(INFO, "configuration-settled", "file"),
    e.CertificatesLoaded: _plain(INFO, "certificates-loaded", "names"),
    e.CertificateTrouble: _plain(WARNING, "certificate-trouble", "name", "trouble"),
    e.CertificateEnding: _ending("certificate-ending", "name", "subject", "sha256", "ends", "days", "threshold"),
    e.PartnerCertificateEnding: _ending(
        "partner-certificate-ending",
        *("connector", "direction", "hop", "subject", "sha256", "ends", "days", "threshold", "seen"),
    ),
    e.CrlFetched: _crl,
    e.RevocationFetchFailed: _revocation_failed,
    e.RevocationUnavailable: _unavailable,
    e.CertificateRevokedSeen: _revoked,
    e.StoreTrouble: _plain(ERROR, "store-trouble", "trouble"),
    e.StoreRecovered: _plain(INFO, "store-recovered"),
    e.DaneUnusable: _plain(ERROR, "dane-unusable", "trouble"),
    e.DaneUsable: _plain(INFO, "dane-usable", "resolver"),
    e.StoreDamaged: _plain(ERROR, "store-damaged", "problems"),
    e.ClockSetBack: _plain(WARNING, "clock-set-back", "seconds"),
    e.AdminActed: _plain(INFO, "admin-acted", "who", "via", "action", "selection", "count"),
    e.WorkerStarted: _plain(INFO, "worker-started", "worker", "pid"),
    e.WorkerEnded: _plain(ERROR, "worker-ended", "worker", "how", "pause"),
    e.AlertRaised: _raised,
    e.AlertCleared: _plain(INFO, "alert-cleared", "kind", "subject", "text"),
    e.AlertSent: _plain(INFO, "alert-sent", "id", "kind", "way", "message"),
    e.AlertNotSent: _not_sent,
    e.Unexpected: _plain(ERROR, "unexpected", "id", "where", "trace"),
}
