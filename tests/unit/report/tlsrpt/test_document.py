"""The JSON of RFC 8460 section 4.4, the names of section 5, and that another program understands it."""

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from relay.mail.address import Address
from relay.mail.published import PolicyKind
from relay.mail.tlsreport import Counts, Policy
from relay.report.tlsrpt.document import Subject, end_of, filename, packed, report, report_id
from tests.unit.report.tlsrpt.builders import ABOUT, COUNTS, DAY, REPORTER

PART = Subject(DAY, "b.example", datetime(2026, 11, 25, 14, 35, 7, tzinfo=UTC))


def test_the_whole_report() -> None:
    assert report(REPORTER, ABOUT, COUNTS) == {
        "organization-name": "Example Inc.",
        "date-range": {"start-datetime": "2026-11-25T00:00:00Z", "end-datetime": "2026-11-25T23:59:59Z"},
        "contact-info": "tls@example.com",
        "report-id": "2026-11-25.b.example@relay.example.com",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: enforce", "mx: *.b.example"],
                    "policy-domain": "b.example",
                    "mx-host": ["*.b.example"],
                },
                "summary": {"total-successful-session-count": 3, "total-failure-session-count": 3},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "192.0.2.1",
                        "receiving-mx-hostname": "mx.b.example",
                        "receiving-ip": "203.0.113.7",
                        "failed-session-count": 2,
                        "failure-reason-code": "certificate has expired",
                    },
                    {"result-type": "starttls-not-supported", "failed-session-count": 1},
                ],
            },
            {
                "policy": {"policy-type": "tlsa", "policy-string": ["3 1 1 ab12"], "policy-domain": "mx.b.example"},
                "summary": {"total-successful-session-count": 5, "total-failure-session-count": 0},
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "b.example"},
                "summary": {"total-successful-session-count": 7, "total-failure-session-count": 0},
            },
        ],
    }


def test_a_day_that_is_not_over() -> None:
    assert report(REPORTER, PART, ())["date-range"]["end-datetime"] == "2026-11-25T14:35:07Z"
    assert report_id(REPORTER, PART) == "2026-11-25T143507.b.example@relay.example.com"
    late = Subject(DAY, "b.example", end_of(DAY) + timedelta(hours=3))
    assert late.is_whole
    assert not PART.is_whole


def test_names() -> None:
    begins = int(datetime(2026, 11, 25, tzinfo=UTC).timestamp())
    name = filename(REPORTER, ABOUT)
    assert name.startswith(f"example.com!b.example!{begins}!{begins + 86399}!")
    unique = name.removesuffix(".json.gz").rpartition("!")[2]
    assert unique.isalnum()
    assert unique not in filename(replace(REPORTER, hostname="other.example.com"), ABOUT)
    assert replace(REPORTER, contact=Address("x", "y.example")).submitter == "y.example"


def test_the_file_is_gzip_and_always_the_same() -> None:
    document = report(REPORTER, ABOUT, COUNTS)
    assert packed(document) == packed(document)
    assert json.loads(gzip.decompress(packed(document))) == document


def test_text_that_is_no_unicode_harms_nobody() -> None:
    odd = Counts(Policy(PolicyKind.STS, "b.example", ("a\ud800b", "ü")), 1)
    text = gzip.decompress(packed(report(REPORTER, ABOUT, [odd]))).decode("utf-8")
    assert json.loads(text)["policies"][0]["policy"]["policy-string"] == ["a?b", "ü"]
