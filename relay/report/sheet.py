"""The partner sheet as text for a mail, as JSON, and as one HTML page that prints and asks for nothing from elsewhere."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

from relay.mail.codec import time_text
from relay.policy.holdings import Details
from relay.policy.sheet import Paper, Sheet, day

Json = dict[str, Any]
_LABEL = 24
_TEMPLATE = "sheet.html"


def title(sheet: Sheet) -> str:
    return f"TLS certificate of {sheet.hostname}" + (f": {sheet.name}" if sheet.name != sheet.hostname else "")


def intent(sheet: Sheet) -> str:
    """What the sheet is about, in one sentence."""
    if sheet.coming is None:
        return "This is the certificate in use. No change is planned yet."
    begins = sheet.coming.leaf.certificate.not_before
    when = (
        f"on {sheet.on:%Y-%m-%d}"
        if sheet.on is not None
        else f"not before {day(max(begins, sheet.made))}; we name the day"
    )
    if sheet.present is None:
        return f"This certificate will come into use {when}."
    return f"The present certificate will be replaced by the coming one {when}."


def roles(sheet: Sheet) -> tuple[str, ...]:
    """Where a partner meets it."""
    words = []
    if sheet.server:
        words.append("your servers see it when they send mail to us (SMTP, STARTTLS)")
    if sheet.client:
        words.append("your servers see it as our client certificate when we send mail to you")
    return tuple(words)


def rows(paper: Paper) -> list[tuple[str, tuple[str, ...]]]:
    """Label and values, in the order in which they are read. No row is empty."""
    leaf, certificate = paper.leaf, paper.leaf.certificate
    found = [
        ("Subject", (certificate.subject or "(empty)",)),
        ("Names (SAN)", certificate.names),
        ("Issuer", (certificate.issuer,)),
        ("Intermediate CA", tuple(map(_link, paper.intermediates))),
        ("Root CA", (_root(paper),)),
        ("Key", (leaf.key,)),
        ("Signature", (leaf.signature,)),
        ("Key pin (SPKI SHA-256)", (certificate.spki_sha256,)),
        ("TLSA", tuple(f"{each.line}  ; {each.note}" for each in paper.tlsa)),
        ("Valid from", (day(certificate.not_before),)),
        ("Valid until", (day(certificate.not_after),)),
        ("Serial number", (leaf.serial,)),
        ("Fingerprint SHA-256", (leaf.sha256,)),
        ("Fingerprint SHA-1", (leaf.sha1,)),
        ("CRL", leaf.crl),
        ("OCSP", leaf.ocsp),
        ("Usage", (_usage(leaf),)),
    ]
    return [row for row in found if row[1]]


def _link(details: Details) -> str:
    return f"{details.certificate.subject} (SHA-256 {details.sha256})"


def _root(paper: Paper) -> str:
    if paper.leaf.self_issued:
        return "none: it is self-signed"
    return _link(paper.root) if paper.root is not None else "not known"


def _usage(leaf: Details) -> str:
    words = [word for word, allowed in (("server", leaf.server), ("client", leaf.client)) if allowed]
    return " and ".join(words) or "neither server nor client"


def papers(sheet: Sheet) -> list[tuple[str, Paper]]:
    both = (("The present certificate", sheet.present), ("The coming certificate", sheet.coming))
    return [(heading, paper) for heading, paper in both if paper is not None]


def sheet_text(sheet: Sheet) -> str:
    """Plain text. Values are never broken, so that they can be copied."""
    return "\n".join(_lines(sheet)) + "\n"


def _lines(sheet: Sheet) -> Iterator[str]:
    yield from _headline(title(sheet), "=")
    yield ""
    yield intent(sheet)
    yield from (f"- {each}" for each in roles(sheet))
    yield f"Questions: {sheet.contact}. Made on {day(sheet.made)}."
    yield ""
    yield from _headline("What you have to do", "-")
    for task in sheet.tasks:
        yield f"{'[!]' if task.act else '[ ]'} {task.who}:"
        yield f"    {task.text}"
    if sheet.changes:
        yield ""
        yield from _headline("What changes", "-")
        for change in sheet.changes:
            yield f"{change.what}:"
            yield f"    from  {change.present or '(none)'}"
            yield f"    to    {change.coming or '(none)'}"
    for heading, paper in papers(sheet):
        yield ""
        yield from _headline(heading, "-")
        for label, values in rows(paper):
            yield from _row(label, values)


def _headline(text: str, line: str) -> Iterable[str]:
    return (text, line * len(text))


def _row(label: str, values: Sequence[str]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield f"{label if number == 0 else '':<{_LABEL}}{value}"


def sheet_html(sheet: Sheet) -> str:
    """The whole page."""
    from jinja2 import Environment, StrictUndefined  # takes as long to import as all else together

    source = (files("relay.report") / "templates" / _TEMPLATE).read_text(encoding="utf-8")
    # Threat: names and subjects come from a CA, or from whoever asked it; they are text, never markup.
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return page.from_string(source).render(
        sheet=sheet,
        title=title(sheet),
        intent=intent(sheet),
        roles=roles(sheet),
        papers=[(heading, rows(paper)) for heading, paper in papers(sheet)],
        made=day(sheet.made),
    )


def sheet_json(sheet: Sheet) -> Json:
    """{name, hostname, contact, made_at, change_on, server, client, present, coming, changes, tasks}. Times RFC 3339."""
    return {
        "name": sheet.name,
        "hostname": sheet.hostname,
        "contact": sheet.contact,
        "made_at": time_text(sheet.made),
        "change_on": sheet.on.isoformat() if sheet.on is not None else None,
        "server": sheet.server,
        "client": sheet.client,
        "present": _paper_json(sheet.present),
        "coming": _paper_json(sheet.coming),
        "changes": [{"what": each.what, "present": each.present, "coming": each.coming} for each in sheet.changes],
        "tasks": [{"who": each.who, "act": each.act, "text": each.text} for each in sheet.tasks],
    }


def _paper_json(paper: Paper | None) -> Json | None:
    if paper is None:
        return None
    leaf, certificate = paper.leaf, paper.leaf.certificate
    return {
        "subject": certificate.subject,
        "names": list(certificate.names),
        "issuer": certificate.issuer,
        "intermediates": [_link_json(each) for each in paper.intermediates],
        "root": _link_json(paper.root) if paper.root is not None else None,
        "key": leaf.key,
        "signature": leaf.signature,
        "pin": certificate.spki_sha256,
        "tlsa": [{"name": each.name, "value": each.value, "line": each.line, "note": each.note} for each in paper.tlsa],
        "not_before": time_text(certificate.not_before),
        "not_after": time_text(certificate.not_after),
        "serial": leaf.serial,
        "sha256": leaf.sha256,
        "sha1": leaf.sha1,
        "crl": list(leaf.crl),
        "ocsp": list(leaf.ocsp),
        "server": leaf.server,
        "client": leaf.client,
    }


def _link_json(details: Details) -> Json:
    return {
        "subject": details.certificate.subject,
        "sha256": details.sha256,
        "pin": details.certificate.spki_sha256,
        "not_after": time_text(details.certificate.not_after),
    }
