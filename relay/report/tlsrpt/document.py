"""A report as RFC 8460 section 4.4 wants it: JSON from counts, its names, and the file. Values in, bytes out."""

import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from relay.mail.address import Address
from relay.mail.tlsreport import Counts, Failing, Policy

GZIP = "application/tlsrpt+gzip"
JSON = "application/tlsrpt+json"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports. `contact` is for people who read the report, `sender` what it comes from; `hostname` is this relay's."""

    organization: str
    contact: Address
    sender: Address
    hostname: str

    @property
    def submitter(self) -> str:
        """RFC 8460 section 5.3: the domain of contact-info."""
        return self.contact.domain


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about. `ends` is the day's end, or an earlier moment in a day that was not over."""

    day: date
    domain: str
    ends: datetime

    @property
    def begins(self) -> datetime:
        return datetime.combine(self.day, time(), UTC)

    @property
    def is_whole(self) -> bool:
        return self.ends >= end_of(self.day)

    @property
    def last(self) -> datetime:
        """The last second that it covers, as RFC 8460 appendix B writes it."""
        return self.ends - timedelta(seconds=1) if self.is_whole else self.ends


def end_of(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def report_id(reporter: Reporter, about: Subject) -> str:
    """The same for every try to deliver this report, so that it counts once. Fit for the Subject field: id-left "@" id-right."""
    part = "" if about.is_whole else f"T{about.ends:%H%M%S}"
    return f"{about.day.isoformat()}{part}.{about.domain}@{reporter.hostname}"


def filename(reporter: Reporter, about: Subject) -> str:
    """RFC 8460 section 5.1. Two relays of one organisation differ in the unique-id."""
    unique = hashlib.sha256(reporter.hostname.encode()).hexdigest()[:8]
    begins, last = int(about.begins.timestamp()), int(about.last.timestamp())
    return f"{reporter.submitter}!{about.domain}!{begins}!{last}!{unique}.json.gz"


def report(reporter: Reporter, about: Subject, counts: Iterable[Counts]) -> Json:
    return {
        "organization-name": reporter.organization,
        "date-range": {"start-datetime": _second(about.begins), "end-datetime": _second(about.last)},
        "contact-info": str(reporter.contact),
        "report-id": report_id(reporter, about),
        "policies": [_policy(each) for each in counts],
    }


def packed(document: Json) -> bytes:
    """The file: I-JSON (RFC 7493), gzip. The same bytes for the same report."""
    return gzip.compress(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"), mtime=0)


def _policy(counts: Counts) -> Json:
    found: Json = {
        "policy": _named(counts.policy),
        "summary": {
            "total-successful-session-count": counts.successes,
            "total-failure-session-count": counts.failed,
        },
    }
    if counts.failures:
        found["failure-details"] = [_failing(*each) for each in counts.failures]
    return found


def _named(policy: Policy) -> Json:
    found: Json = {"policy-type": policy.kind.value}
    if policy.strings:
        found["policy-string"] = list(policy.strings)
    found["policy-domain"] = policy.domain
    if policy.mx:
        found["mx-host"] = list(policy.mx)
    return found


def _failing(failing: Failing, sessions: int) -> Json:
    told = {
        "result-type": failing.result.value,
        "sending-mta-ip": failing.source,
        "receiving-mx-hostname": failing.host,
        "receiving-ip": failing.address,
        "failed-session-count": sessions,
        "failure-reason-code": failing.reason,
    }
    return {key: value for key, value in told.items() if value != ""}


def _second(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
