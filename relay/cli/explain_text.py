"""An explanation for people, readable at 80 columns, made of its JSON (`relay.policy.explain_json`): it may come from a relay elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from relay.report.text import one_line

Json = Mapping[str, Any]
Row = tuple[str, Text]

_CLEAR = "the mail goes in clear"
_DEFAULT = "default"


def print_explanation(found: Json, console: Console | None = None) -> None:
    """To standard output unless given a console."""
    out = console or Console(highlight=False, markup=False, emoji=False)
    if found["inbound"] is not None:
        _print_inbound(out, found["inbound"])
        out.print()
    for each in found["outbound"]:
        _print_outbound(out, each)


def _print_inbound(out: Console, inbound: Json) -> None:
    client = inbound["client"]
    where = f"from {client['address']}" if client["address"] else "from an unknown address"
    out.print(
        Text.assemble(("Coming in: ", "bold"), f"{inbound['sender'] or '<>'}, {where}, {client['tls'] or 'in clear'}")
    )
    verdict = ("accepted", "bold green") if inbound["accepted"] else (f"refused at {inbound['stage']}", "bold red")
    rows = [("answer", Text.assemble(verdict, f": {inbound['reply']}"))]
    rows.append(("connector", Text(inbound["connector"] or "none speaks of this sender or client")))
    rows.append(("may relay", Text(inbound["may_relay"] or "no: only to our own domains")))
    if inbound["callout"] is not None:
        failure = {"defer": "450", "accept": "it is accepted"}[inbound["callout"]["on_failure"]]
        asked = f"if the mail server inside says at RCPT that it exists; where that cannot be asked: {failure}"
        rows.append(("callout", Text(asked)))
    _grid(out, rows)
    for each in inbound["considered"]:
        _print_considered(out, each)
    if inbound["needs_header_from"]:
        note = "A connector uses `header_from`: at the end of the data, the From: header is judged like the sender."
        out.print(Padding(Text(note), (0, 0, 0, 2)))


def _print_considered(out: Console, finding: Json) -> None:
    state = ("satisfied", "green") if finding["satisfied"] else ("not satisfied", "red")
    out.print(Padding(Text.assemble((f"connector {finding['connector']}", "bold"), ": ", state), (0, 0, 0, 2)))
    rows = []
    for each in finding["requirements"]:
        mark = ("met", "green") if each["met"] else ("not met", "red")
        rows.append((each["name"], Text.assemble(mark, f": {each['required']}; found {each['found']}")))
    _grid(out, rows, indent=4)


def _print_outbound(out: Console, outbound: Json) -> None:
    out.print(Text.assemble(("Going out: ", "bold"), outbound["recipient"]))
    rows = [("governed by", Text(_governed_by(outbound)))]
    exception = outbound["exception"]
    if exception is not None:
        text = f"{exception['allow']} until {exception['until']}: {exception['reason']}"
        rows.append(("exception", Text(text, style="yellow")))
    rows.append(("route", Text("the domain's MX" if outbound["route"] == "mx" else "smart hosts, in this order")))
    if outbound["auth"] is not None:
        rows.append(("login", Text(f"as {outbound['auth']['user']}, after TLS")))
    rows.extend(_front_rows(outbound))
    if outbound["unroutable"] is not None:
        failed = outbound["unroutable"]
        answer = f"{failed['state']}: {failed['code']} {failed['status']} {failed['text']}"
        rows.append(("answer", Text(one_line(answer), style="red")))
        rows.extend(_plan_rows(outbound["plan"]))
    _grid(out, rows)
    for number, hop in enumerate(outbound["hops"], 1):
        _print_hop(out, number, hop, by_mx=outbound["route"] == "mx")


def _governed_by(outbound: Json) -> str:
    """Which rule chose, in words."""
    if outbound["connector"] == _DEFAULT:
        return "no connector names the domain: the defaults act"
    return f"connector {outbound['connector']}, by its pattern {outbound['pattern']}"


def _front_rows(outbound: Json) -> list[Row]:
    """What is done for a mail server inside, where it is not what every hop gets."""
    rows = []
    if outbound["forward_client"] != "off":
        how = {"xclient": "XCLIENT", "proxy": "a PROXY header"}[outbound["forward_client"]]
        rows.append(
            ("the hop hears", Text(f"of the client's address and HELO, by {how}; mail waits where it will not"))
        )
    if outbound["on_5xx"] == "hold":
        rows.append(("refused by it", Text("mail from strangers is held for the postmaster; other mail bounces")))
    return rows


def _print_hop(out: Console, number: int, hop: Json, *, by_mx: bool) -> None:
    out.print(Padding(Text(f"{number}. {hop['host']}:{hop['port']}", style="bold"), (0, 0, 0, 2)))
    rows: list[Row] = []
    if hop["trouble"]:
        rows.append(("not usable", Text(one_line(hop["trouble"]), style="red")))
    if hop["addresses"]:
        rows.append(("addresses", Text(", ".join(hop["addresses"]))))
    rows.extend(("not used", Text(f"{each['address']}: {each['reason']}", style="yellow")) for each in hop["unused"])
    if by_mx:
        secure = "the MX records are secure" if hop["mx_secure"] else "the MX records are not secure"
        rows.append(("DNSSEC", Text(secure)))
    for label, says in (("DANE", hop["dane"]), ("MTA-STS", hop["mta_sts"])):
        style = "red" if says["withheld"] is not None else ""
        rows.extend((label, Text(one_line(line), style=style)) for line in (says["reason"], *says["details"]) if line)
    rows.extend(_plan_rows(hop["plan"]))
    rows.append(("no STARTTLS", _step(hop["without_starttls"], "4.7.4")))
    rows.append(("TLS breaks", _step(hop["with_broken_tls"], "4.7.5")))
    _grid(out, rows, indent=5)


def _step(step: str, status: str) -> Text:
    if step == "plaintext":
        return Text(_CLEAR, style="yellow")
    return Text(f"not delivered here; where no host is left, deferred {status}")


def _plan_rows(plan: Json) -> list[Row]:
    rows = [("TLS", Text(plan["level"] if not plan["until"] else f"{plan['level']}, by an exception"))]
    if plan["client_certificate"]:
        rows.append(("we show", Text(f"the certificate {plan['client_certificate']}")))
    rows.extend(
        ("demands", Text.assemble(one_line(_demand(each, plan)), (f"  ({each['source']})", "dim")))
        for each in plan["demands"]
    )
    return rows


def _demand(demand: Json, plan: Json) -> str:
    match demand["demand"]:
        case "encryption":
            return "TLS"
        case "tls-version":
            always = plan["plaintext"] == "never"
            return f"{demand['minimum']} or newer" if always else f"where there is TLS, {demand['minimum']} or newer"
        case "pkix":
            names = demand["names"]
            return f"a certificate issued under {demand['trust']}" + (
                f", for {' or '.join(names)}" if names else ", any name"
            )
        case "pins":
            return f"the key {' or '.join(demand['pins'])}"
        case "tlsa":
            return f"one of {len(demand['records'])} TLSA records of {demand['base']}"
        case "sts-mx":
            return f"{demand['host']} is one of {', '.join(demand['patterns'])}"
        case "requiretls":
            return f"REQUIRETLS offered, by a host that {demand['vouched'] or 'nobody'} vouches for"
        case "revocation":
            unknown = "passes" if demand["mode"] == "prefer" else "fails"
            return f"no certificate of the chain to {demand['trust']} revoked; what cannot be found out {unknown}"
    return str(demand["demand"])  # a newer relay's: shown rather than left out


def _grid(out: Console, rows: Sequence[Row], indent: int = 2) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    previous = ""
    for label, value in rows:
        table.add_row("" if label == previous else label, value)
        previous = label
    out.print(Padding(table, (0, 0, 0, indent)))
