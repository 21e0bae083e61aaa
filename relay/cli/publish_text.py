"""What we publish, for people and as JSON. A record is one line that can be pasted into a zone file, never wrapped."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from relay.config.models import Config
from relay.mail.codec import time_text
from relay.policy.publish import DomainRecords, HostRecords, OurKey, OurRecords, Record
from relay.policy.publish_check import Finding, State

Json = dict[str, Any]

_COLOURS = {
    State.PUBLISHED: "green",
    State.MISSING: "bold red",
    State.DIFFERS: "bold red",
    State.EXTRA: "yellow",
    State.UNKNOWN: "yellow",
}


class _Lines:
    def __init__(self, console: Console | None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)

    def say(self, indent: int, *parts: str | tuple[str, str]) -> None:
        self._console.print(Text.assemble(" " * indent, *parts), soft_wrap=True)


def print_records(ours: OurRecords, config: Config, console: Console | None = None) -> None:
    """To standard output unless given a console."""
    out = _Lines(console)
    for domain in ours.domains:
        _print_domain(out, domain, config)
    if ours.hosts:
        out.say(
            0,
            ("The hosts of your MX records that are this relay", "bold"),
            " (DANE; counts where DNSSEC signs their zone)",
        )
        for host in ours.hosts:
            for record in host.tlsa:
                _print_record(out, record)
            if not host.tlsa:
                out.say(2, (f"{host.host}: there is no certificate, so there is nothing to publish", "yellow"))
    if ours.elsewhere:
        hosts = ", ".join(ours.elsewhere)
        out.say(2, f"The TLSA records of {hosts} depend on the certificates there: they are not made here.")
    if ours.keys:
        out.say(0, ("Pins", "bold"), " (for partners who pin our keys)")
        for key in ours.keys:
            out.say(2, key.certificate.spki_sha256, (f"  {_about(key)}", "dim"))


def _print_domain(out: _Lines, domain: DomainRecords, config: Config) -> None:
    out.say(0, (domain.domain, "bold"))
    for record in (domain.sts, domain.alias, domain.tlsrpt):
        if record is not None:
            _print_record(out, record)
    if domain.tlsrpt is None:
        out.say(
            2,
            (
                "No record says where reports about us go: name a `tlsrpt.mailbox`, or somebody as `publish.reports`.",
                "yellow",
            ),
        )
    served = config.publish.https
    where = "to be served there" if served is None else f"served by this relay on {', '.join(map(str, served))}"
    out.say(2, domain.url, (f"  ({where})", "dim"))
    for line in domain.policy.text:
        out.say(4, line)


def _print_record(out: _Lines, record: Record) -> None:
    out.say(2, record.line, (f"  ; {record.note}" if record.note else "", "dim"))


def _about(key: OurKey) -> str:
    state = "not in use yet" if key.is_next else "in use"
    names = ", ".join(key.certificate.names[:5]) or "no name"
    return f"{key.name}: {state}, for {names}, ends {key.certificate.not_after:%Y-%m-%d}"


def print_findings(findings: Iterable[Finding], console: Console | None = None) -> None:
    """To standard output unless given a console."""
    out = _Lines(console)
    wrong = total = 0
    for each in findings:
        total += 1
        wrong += each.state is not State.PUBLISHED
        out.say(0, (f"{each.state.value:<10}", _COLOURS[each.state]), f"{each.type:<5}{each.name}")
        if each.state is State.PUBLISHED:
            continue
        for label, value in (("expected", each.expected), ("found", each.found)):
            for number, line in enumerate(value.split("\n") if value else ()):
                out.say(10, f"{label if not number else '':<10}{line}")
        if each.text:
            out.say(10, each.text)
    out.say(0, f"all {total} are as they should be" if not wrong else f"{wrong} of {total} are not as they should be")


def records_json(ours: OurRecords) -> Json:
    return {
        "domains": [_domain_json(each) for each in ours.domains],
        "hosts": [_host_json(each) for each in ours.hosts],
        "elsewhere": list(ours.elsewhere),
        "keys": [_key_json(each) for each in ours.keys],
    }


def _domain_json(domain: DomainRecords) -> Json:
    records = (each for each in (domain.sts, domain.alias, domain.tlsrpt) if each is not None)
    return {
        "domain": domain.domain,
        "records": [_record_json(each) for each in records],
        "policy": {
            "url": domain.url,
            "id": domain.policy.id,
            "mode": domain.policy.mode.value,
            "mx": list(domain.policy.mx),
            "max_age": domain.policy.max_age,
            "text": "".join(f"{line}\r\n" for line in domain.policy.text),
        },
    }


def _host_json(host: HostRecords) -> Json:
    return {"host": host.host, "records": [_record_json(each) for each in host.tlsa]}


def _record_json(record: Record) -> Json:
    return {
        "name": record.name,
        "type": record.type,
        "value": record.value,
        "line": record.line,
        "note": record.note or None,
    }


def _key_json(key: OurKey) -> Json:
    return {
        "name": key.name,
        "next": key.is_next,
        "names": list(key.certificate.names),
        "not_after": time_text(key.certificate.not_after),
        "spki_sha256": key.certificate.spki_sha256,
    }


def findings_json(findings: Iterable[Finding]) -> Json:
    listed = tuple(findings)
    return {
        "published": all(each.state is State.PUBLISHED for each in listed),
        "records": [
            {
                "name": each.name,
                "type": each.type,
                "state": each.state.value,
                "expected": each.expected or None,
                "found": each.found or None,
                "text": each.text or None,
            }
            for each in listed
        ],
    }
