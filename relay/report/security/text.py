"""The security report for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from relay.report.security.document import text_of
from relay.report.text import one_line

_MOST = 50  # partners

Json = Mapping[str, Any]


def text_lines(report: Json) -> Iterator[str]:
    """In the shape of `document`. Every line is safe to print."""
    for line in _lines(report):
        yield line[: len(line) - len(line.lstrip())] + one_line(line)


def _lines(report: Json) -> Iterator[str]:
    about = f", {report['domain']}" if report["domain"] else ""
    yield f"Security report of {report['hostname']}{about}: {report['since']} to {report['until']}, UTC"
    yield f"made {report['made_at']} by ironpost {report['version']}, counted up to {report['counted_to']}"
    yield ""
    came, went = report["totals"]["in"], report["totals"]["out"]
    yield f"came in {came['messages']} messages: {came['tls']} under TLS, {came['clear']} in clear"
    yield f"went out {went['messages']} messages: {went['tls']} under TLS, {went['clear']} in clear"
    yield f"  {went['deferred']} deferrals, {went['bounced']} refused by the other side for good (recipients, by attempt)"
    if not report["domain"]:
        yield f"refused {report['totals']['refused']} commands and connections"
    for way, shares in report["shares"].items():
        if shares["messages"]:
            yield ""
            yield f"Mail that {'came in' if way == 'in' else 'went out'}, by"
            for name in ("version", "verified", "cipher", "group"):
                parts = ", ".join(f"{each['name']} {each['share']:.1%}" for each in shares[name][:6])
                yield f"  {name:<9} {parts}"
    yield from _partners(report)
    yield from _rest(report)


def _partners(report: Json) -> Iterator[str]:
    yield ""
    yield "Partners"
    for each in report["partners"][:_MOST]:
        yield (
            f"  {each['domain']} ({each['direction']}): {each['messages']} messages, {each['clear']} in clear; "
            f"{text_of(each['versions'])}; verified {text_of(each['verified'])}"
        )
        if each["failures"]:
            yield f"    failures: {text_of(each['failures'])}"
    if not report["partners"]:
        yield "  none"
    if len(report["partners"]) > _MOST:
        yield f"  and {len(report['partners']) - _MOST} more: --json, --csv or --html"


def _rest(report: Json) -> Iterator[str]:
    yield ""
    yield "What connectors asked, and what was had"
    for each in report["demands"]:
        failed = f"; failures: {text_of(each['failures'])}" if each["failures"] else ""
        yield (
            f"  {each['connector'] or '(none)'} ({each['direction']}{', ' + each['asked'] if each['asked'] else ''}): "
            f"{each['messages']} messages, {each['clear']} in clear; {text_of(each['verified'])}{failed}"
        )
    if report["exceptions"]:
        yield ""
        yield "Exceptions"
        for each in report["exceptions"]:
            state = "" if each["running"] else " (has ended)"
            yield f"  {each['recipient_domain']}: {each['allow']} until {each['until']}{state}, {each['reason']}"
    if report["clear"]:
        yield ""
        yield "Mail in clear"
        for each in report["clear"][:_MOST]:
            yield f"  {each['domain']} ({each['direction']}): {each['messages']}, since {each['why']}"
    if report["refusals"]:
        yield ""
        yield "Refused"
        for each in report["refusals"][:20]:
            words = (each["what"], each["listener"], each["command"], each["connector"], each["code"], each["status"])
            yield f"  {each['count']} x {' '.join(str(word) for word in words if word)}"
    if report["troubled"]:
        yield ""
        yield "In trouble now"
        for each in report["troubled"]:
            what = f"{each['failure'] or each['reason']} since {each['since'][:16]}Z, {each['recipients']} waiting"
            yield f"  {each['domain']}: {what}. {each['remedy']}"
    yield ""
    yield "Not in this report"
    for each in report["left_out"]:
        yield f"  - {each}"
