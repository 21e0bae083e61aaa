"""An explanation for people, readable at 80 columns. Says the same as the JSON of `relay.policy.explain_json`."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from relay.config.connectors import ForwardClient, On5xx, OutboundConnector
from relay.mail.outcome import Bounced
from relay.mail.plan import Demand, Encryption, Pins, Pkix, RequireTls, StsMx, Tlsa, TlsPlan, TlsVersion, Unrevoked
from relay.mail.revocation import Revocation
from relay.policy.admission import Finding
from relay.policy.explain import Arrival, Explanation, HopPlan, Inbound, Outbound, governed_by
from relay.policy.plan import Step

_CLEAR = "the mail goes in clear"


def print_explanation(explanation: Explanation, arrival: Arrival | None, console: Console | None = None) -> None:
    """To standard output unless given a console."""
    out = console or Console(highlight=False, markup=False, emoji=False)
    if explanation.inbound is not None and arrival is not None:
        _print_inbound(out, explanation.inbound, arrival)
        out.print()
    _print_outbound(out, str(explanation.recipient), explanation.outbound)


def _print_inbound(out: Console, inbound: Inbound, arrival: Arrival) -> None:
    peer = arrival.peer
    where = f"from {peer.address}" if peer.address is not None else "from an unknown address"
    how = peer.evidence.version if peer.evidence is not None else "in clear"
    sender = "<>" if inbound.sender.is_null else str(inbound.sender)
    out.print(Text.assemble(("Coming in: ", "bold"), f"{sender}, {where}, {how}"))
    verdict = ("accepted", "bold green") if inbound.accepted else (f"refused at {inbound.stage}", "bold red")
    rows = [("answer", Text.assemble(verdict, f": {inbound.reply}"))]
    rows.append(("connector", Text(inbound.connector or "none speaks of this sender or client")))
    rows.append(("may relay", Text(inbound.may_relay or "no: only to our own domains")))
    if inbound.callout is not None:
        failure = {"defer": "450", "accept": "it is accepted"}[inbound.callout.on_failure.value]
        asked = f"if the mail server inside says at RCPT that it exists; where that cannot be asked: {failure}"
        rows.append(("callout", Text(asked)))
    _grid(out, rows)
    for finding in inbound.findings:
        _print_finding(out, finding)
    if inbound.needs_header_from:
        note = "A connector uses `header_from`: at the end of the data, the From: header is judged like the sender."
        out.print(Padding(Text(note), (0, 0, 0, 2)))


def _print_finding(out: Console, finding: Finding) -> None:
    state = ("satisfied", "green") if finding.satisfied else ("not satisfied", "red")
    out.print(Padding(Text.assemble((f"connector {finding.connector.name}", "bold"), ": ", state), (0, 0, 0, 2)))
    rows = []
    for each in finding.requirements:
        mark = ("met", "green") if each.met else ("not met", "red")
        rows.append((each.name, Text.assemble(mark, f": {each.required}; found {each.found}")))
    _grid(out, rows, indent=4)


def _print_outbound(out: Console, recipient: str, outbound: Outbound) -> None:
    out.print(Text.assemble(("Going out: ", "bold"), recipient))
    rows = [("governed by", Text(governed_by(outbound)))]
    exception = outbound.exception
    if exception is not None:
        text = f"{exception.allow.value} until {exception.until}: {exception.reason}"
        rows.append(("exception", Text(text, style="yellow")))
    route = outbound.connector.route
    rows.append(("route", Text("the domain's MX" if route.by_mx else "smart hosts, in this order")))
    if route.auth is not None:
        rows.append(("login", Text(f"as {route.auth.user}, after TLS")))
    rows.extend(_front_rows(outbound.connector))
    if outbound.unroutable is not None:
        failed = outbound.unroutable
        state = "bounced" if isinstance(failed, Bounced) else "deferred"
        rows.append(("answer", Text(f"{state}: {failed.code} {failed.status} {failed.text}", style="red")))
        rows.extend(_plan_rows(outbound.plan))
    _grid(out, rows)
    for number, hop in enumerate(outbound.hops, 1):
        _print_hop(out, number, hop, outbound)


def _front_rows(connector: OutboundConnector) -> list[tuple[str, Text]]:
    """What is done for a mail server inside, where it is not what every hop gets."""
    rows = []
    if connector.forward_client is not ForwardClient.OFF:
        how = {ForwardClient.XCLIENT: "XCLIENT", ForwardClient.PROXY: "a PROXY header"}[connector.forward_client]
        rows.append(
            ("the hop hears", Text(f"of the client's address and HELO, by {how}; mail waits where it will not"))
        )
    if connector.on_5xx is On5xx.HOLD:
        rows.append(("refused by it", Text("mail from strangers is held for the postmaster; other mail bounces")))
    return rows


def _print_hop(out: Console, number: int, hop: HopPlan, outbound: Outbound) -> None:
    out.print(Padding(Text(f"{number}. {hop.hop}", style="bold"), (0, 0, 0, 2)))
    rows: list[tuple[str, Text]] = []
    if hop.trouble:
        rows.append(("not usable", Text(hop.trouble, style="red")))
    if hop.addresses:
        rows.append(("addresses", Text(", ".join(str(each) for each in hop.addresses))))
    rows.extend(("not used", Text(f"{address}: {reason}", style="yellow")) for address, reason in hop.unused)
    if outbound.connector.route.by_mx:
        rows.append(
            (
                "DNSSEC",
                Text("the MX records are secure" if hop.published.mx_secure else "the MX records are not secure"),
            )
        )
    for label, says in (("DANE", hop.published.dane), ("MTA-STS", hop.published.sts)):
        style = "red" if says.withheld is not None else ""
        rows.extend((label, Text(line, style=style)) for line in (says.reason, *says.details) if line)
    rows.extend(_plan_rows(hop.plan))
    rows.append(("no STARTTLS", _step(hop.without_starttls, "4.7.4")))
    rows.append(("TLS breaks", _step(hop.with_broken_tls, "4.7.5")))
    _grid(out, rows, indent=5)


def _step(step: Step, status: str) -> Text:
    if step is Step.SEND_IN_CLEAR:
        return Text(_CLEAR, style="yellow")
    return Text(f"not delivered here; where no host is left, deferred {status}")


def _plan_rows(plan: TlsPlan) -> list[tuple[str, Text]]:
    rows = [("TLS", Text(plan.level.value if not plan.until else f"{plan.level.value}, by an exception"))]
    if plan.client_certificate:
        rows.append(("we show", Text(f"the certificate {plan.client_certificate}")))
    demands = sorted(plan.demands, key=lambda each: (type(each).__name__, each.source))
    rows.extend(("demands", Text.assemble(_demand(each, plan), (f"  ({each.source})", "dim"))) for each in demands)
    return rows


def _demand(demand: Demand, plan: TlsPlan) -> str:
    match demand:
        case Encryption():
            return "TLS"
        case TlsVersion(_, minimum):
            return f"{minimum} or newer" if plan.requires_tls else f"where there is TLS, {minimum} or newer"
        case Pkix(_, trust, names):
            return f"a certificate issued under {trust}" + (f", for {' or '.join(names)}" if names else ", any name")
        case Pins(_, pins):
            return f"the key {' or '.join(pins)}"
        case Tlsa(_, base, records, _):
            return f"one of {len(records)} TLSA records of {base}"
        case StsMx(_, host, patterns):
            return f"{host} is one of {', '.join(patterns)}"
        case RequireTls(_, vouched):
            return f"REQUIRETLS offered, by a host that {vouched or 'nobody'} vouches for"
        case Unrevoked(_, trust, mode):
            unknown = "passes" if mode is Revocation.PREFER else "fails"
            return f"no certificate of the chain to {trust} revoked; what cannot be found out {unknown}"
    return type(demand).__name__


def _grid(out: Console, rows: list[tuple[str, Text]], indent: int = 2) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    previous = ""
    for label, value in rows:
        table.add_row("" if label == previous else label, value)
        previous = label
    out.print(Padding(table, (0, 0, 0, indent)))
