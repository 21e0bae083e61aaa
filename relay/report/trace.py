"""A message's life for people to read: how it was accepted, each attempt with its plan and its TLS evidence, what became of whom.

Takes the JSON of design section 11, as the admin socket gives it, and makes rich renderables that fit 100 columns. Fields that a newer or older
relay does not send are left out.

Threat: an auditor's terminal. What peers said is stripped of control characters and never read as markup.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from relay.mail.envelope import LOCAL
from relay.policy.remedy import remedy_for
from relay.policy.words import clear_words, client_words, demand_words, listener_words, path_words, revocation_words
from relay.report.text import one_line

Json = Mapping[str, Any]
Row = tuple[str, str] | tuple[str, str, str]  # label, value, style of the value

STYLES = {
    "delivered": "green",
    "waiting": "yellow",
    "delivering": "yellow",
    "deferred": "yellow",
    "held": "magenta",
    "bounced": "red",
    "deleted": "red",
}
_LABEL = 13


def with_remedies(message: Json) -> dict[str, Any]:
    """The message with `remedy` beside each recipient that has one, for `--json`."""
    recipients = [
        {**each, **({"remedy": text} if (text := remedy_for(each)) else {})} for each in message["recipients"]
    ]
    return {**message, "recipients": recipients}


def render_message(message: Json) -> RenderableType:
    """`relay queue show`: where each recipient stands, what was said last, and the remedy where TLS withholds it."""
    parts: list[RenderableType] = [_title(message, message.get("accepted_at"))]
    for each in message["recipients"]:
        parts.append(heading(each["address"], ""))
        parts.append(rows_of(_recipient(each)))
    return Group(*parts)


def render_trace(trace: Json) -> RenderableType:
    """`relay trace`: the whole life of one message."""
    accepted = trace["accepted"]
    parts: list[RenderableType] = [_title(trace, None)]
    states = [(each["address"], each["state"]) for each in trace.get("recipients") or ()]
    parts.append(rows_of((("To", f"{address}  {state}", STYLES.get(state, "")) for address, state in states), indent=0))
    detours = [(each["address"], each["via"]) for each in trace.get("recipients") or () if each.get("via")]
    parts.append(rows_of((("Sent via", f"{via_words(via)}  ({address})") for address, via in detours), indent=0))
    parts.append(heading("Accepted", accepted["at"]))
    parts.append(rows_of(_accepted(accepted)))
    for number, each in enumerate(trace["attempts"], start=1):
        parts.append(heading(f"Attempt {number}", each["at"], each.get("seconds")))
        parts.append(rows_of(_attempt(each)))
    if not trace["attempts"]:
        parts.append(heading("No attempt yet", ""))
    return Group(*parts)


def _title(message: Json, at: str | None) -> RenderableType:
    rows: list[Row] = [("Message", message["id"], "bold")]
    if message.get("message_id"):
        rows.append(("Message-ID", message["message_id"]))
    rows.append(("From", message["sender"] or "<>"))
    if message.get("size") is not None:
        rows.append(("Size", f"{message['size']:,} bytes"))
    if message.get("requiretls"):
        rows.append(("REQUIRETLS", "asked for: TLS all the way, to hosts that somebody vouches for, or not at all"))
    if message.get("tls_optional"):
        rows.append(("TLS-Required", "No: the sender asks that DANE and MTA-STS be left out"))
    if at:
        rows.append(("Accepted", at))
    return rows_of(rows, indent=0)


# What `relay.report.probe` is made of too.


def heading(name: str, at: str, seconds: float | None = None) -> Text:
    took = f" ({seconds:.3f} s)" if seconds is not None else ""
    return Text.assemble("\n", (one_line(name), "bold"), f"  {at}{took}" if at else "")


def rows_of(rows: Iterable[Row], indent: int = 2) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_LABEL, no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for label, value, *style in rows:
        table.add_row(label, Text(one_line(value), style=style[0] if style else ""))
    return Padding(table, (0, 0, 0, indent))


def _recipient(recipient: Json) -> Iterator[Row]:
    state, attempts = recipient["state"], recipient.get("attempts") or 0
    following = f", next attempt {recipient['next_attempt']}" if recipient.get("next_attempt") else ""
    yield "state", f"{state} after {attempts} attempt{'' if attempts == 1 else 's'}{following}", STYLES.get(state, "")
    if recipient.get("connector"):
        yield "connector", recipient["connector"]
    if recipient.get("via"):
        yield "sent via", via_words(recipient["via"]), "bold"
    if recipient.get("suspended"):
        yield "suspended", suspension_words(recipient["suspended"]), "bold"
    last = recipient.get("last")
    if not last:
        return
    yield (
        "last attempt",
        " ".join(each for each in (last["at"], "at" if last.get("hop") else "", last.get("hop")) if each),
    )
    yield "answer", _answer(last)
    if last.get("failure"):
        yield "TLS failure", last["failure"], "red"
    text = remedy_for(recipient)
    if text:
        yield "what to do", text, "bold"


def via_words(via: Json) -> str:
    """Where an operator sends a recipient (`relay queue reroute`)."""
    if via.get("host"):
        return str(via["host"])
    return f"connector {via['connector']}{', although that asks for less' if via.get('weaker') else ''}"


def suspension_words(suspension: Json, *, is_over: bool = False) -> str:
    """What a suspension is about, until when (if it is not over), whose it is and why."""
    what = one_line(" ".join(f"{key} {suspension[key]}" for key in ("to", "connector", "from") if suspension.get(key)))
    until = f"until {suspension['until'][:19]}Z" if suspension["until"] else "until it is resumed"
    parts = (
        what if is_over else f"{what}, {until}",
        f"by {one_line(suspension['who'])} since {suspension['since'][:19]}Z",
        one_line(suspension["reason"]),
    )
    return "; ".join(filter(None, parts))


def _answer(said: Json) -> str:
    return f"{said['code']} {said.get('status') or ''} {said['text']}"


def _accepted(accepted: Json) -> Iterator[Row]:
    yield "client", client_words(accepted)
    if listener := listener_words(accepted):
        yield "listener", listener
    yield "connector", accepted.get("connector") or "none names this sender"
    if accepted.get("auth"):
        yield "user", accepted["auth"]
    if accepted.get("may_relay"):
        yield "may relay", "to anywhere"
    if accepted["protocol"] != LOCAL:
        yield from evidence_rows(accepted.get("tls"), "none: in clear", "none was shown")


def _attempt(attempt: Json) -> Iterator[Row]:
    if attempt.get("hop"):
        address = f", address {attempt['address']}" if attempt.get("address") else ""
        yield "hop", attempt["hop"] + address
    yield "connector", attempt["connector"]
    yield from plan_rows(attempt.get("plan"))
    delivered = any(each["state"] == "delivered" for each in attempt["outcomes"])
    yield from evidence_rows(
        attempt.get("evidence"),
        "none: in clear" if delivered else "none: no handshake was completed, or the hop offers no TLS",
        "the hop showed none",
    )
    for each in attempt["outcomes"]:
        failure = f" [{each['failure']}]" if each.get("failure") else ""
        text = f"{each['recipient']}: {_answer(each)}{failure}"
        yield each["state"], text, STYLES.get(each["state"], "")


def plan_rows(plan: Json | None) -> Iterator[Row]:
    if plan is None:
        yield "plan", "none could be made"
        return
    yield "plan", f"level {plan['level']}, {clear_words(plan)}"
    for demand in plan["demands"]:
        yield "  requires", f"{demand_words(demand)} ({demand['source']})"
    if plan.get("until"):
        yield "  exception", f"ends {plan['until']}", "yellow"
    if plan.get("client_certificate"):
        yield "  we show", f"the certificate of {plan['client_certificate']}"


def evidence_rows(evidence: Json | None, without: str, bare: str) -> Iterator[Row]:
    if evidence is None:
        yield "TLS", without, "yellow"
        return
    asked = f", asked for {evidence['sni']}" if evidence.get("sni") else ""
    yield "TLS", f"{evidence['version']}, {evidence['cipher']}, {evidence.get('group') or 'group unknown'}{asked}"
    yield from _chain(evidence.get("chain") or (), bare)
    for trust, result in (evidence.get("verified_by") or {}).items():
        yield "  checked", f"against {trust}: {path_words(result)}"
    for statuses in (evidence.get("revocation") or {}).values():
        for each in statuses:
            style = {"revoked": "red", "unknown": "yellow"}.get(each["status"], "")
            yield "  revocation", f"{each['subject']}: {revocation_words(each)}", style
    for error in evidence.get("errors") or ():
        yield "  noticed", error


def _chain(chain: Sequence[Json], bare: str) -> Iterator[Row]:
    if not chain:
        yield "certificate", bare
    for number, each in enumerate(chain):
        names = f", for {', '.join(each['names'])}" if each.get("names") else ""
        yield "certificate" if not number else "  issued by", f"{each['subject']}{names}"
        if each["issuer"] != (chain[number + 1]["subject"] if number + 1 < len(chain) else ""):
            yield "  issuer", "itself" if each["issuer"] == each["subject"] else each["issuer"]
        yield "  valid", f"{_from(each)}until {each['not_after']}"
        yield "  sha256", each["sha256"]
        if not number:
            yield "  key", each["spki_sha256"]


def _from(certificate: Json) -> str:
    return f"from {certificate['not_before']} " if certificate.get("not_before") else ""
