"""Another program's opinion: tlsrpt-reportd (sys4, the reporter beside Postfix) writes the same report, and we read its mails.

parsedmarc, which reads reports, would be 36 packages and 106 MB more in every development environment. To try it by hand: `relay reports show`
into a file, `pip install parsedmarc` elsewhere, `parsedmarc --offline FILE`; version 11.1.0 took ours, as JSON and as the whole mail.
"""

import gzip
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tlsrpt_reporter import tlsrpt
from tlsrpt_reporter.utility import MalformedTlsrptRecordException, parse_tlsrpt_record

from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.mail.tlsreport import Counts, Failing
from relay.policy.rua import Destinations, read_records
from relay.policy.tlsrpt import REPORTABLE
from relay.report.tlsrpt.document import report
from relay.report.tlsrpt.reading import Mailed, read, report_in
from tests.unit.report.tlsrpt.builders import ABOUT, COUNTS, DAY, EXPIRED, NOW, REPORTER, STS

KINDS = {PolicyKind.TLSA: 1, PolicyKind.STS: 2, PolicyKind.NONE: 9}
CODES = {
    TlsFailure.STARTTLS_NOT_SUPPORTED: 201,
    TlsFailure.CERTIFICATE_HOST_MISMATCH: 202,
    TlsFailure.CERTIFICATE_NOT_TRUSTED: 203,
    TlsFailure.CERTIFICATE_EXPIRED: 204,
    TlsFailure.VALIDATION_FAILURE: 205,
    TlsFailure.STS_POLICY_FETCH_ERROR: 301,
    TlsFailure.STS_POLICY_INVALID: 302,
    TlsFailure.STS_WEBPKI_INVALID: 303,
    TlsFailure.TLSA_INVALID: 304,
    TlsFailure.DNSSEC_INVALID: 305,
    TlsFailure.DANE_REQUIRED: 306,
}


def as_collected(counts: Counts) -> tuple[str, dict[str, Any]]:
    """As libtlsrpt and tlsrpt-collectd hand it on."""
    policy: dict[str, Any] = {"policy-type": KINDS[counts.policy.kind], "policy-domain": counts.policy.domain}
    if counts.policy.strings:
        policy["policy-string"] = list(counts.policy.strings)
    if counts.policy.mx:
        policy["mx-host"] = list(counts.policy.mx)
    failures = {}
    for failing, sessions in counts.failures:
        told = {
            "c": CODES[failing.result],
            "s": failing.source,
            "n": failing.host,
            "r": failing.address,
            "f": failing.reason,
        }
        failures[json.dumps({key: value for key, value in told.items() if value})] = sessions
    total = counts.successes + counts.failed
    return json.dumps(policy), {"cntrtotal": total, "cntrfailure": counts.failed, "failures": failures}


def theirs(counts: tuple[Counts, ...]) -> dict[str, Any]:
    """What tlsrpt-reportd makes of the same counts."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE reports (r_id INTEGER PRIMARY KEY, day, domain, uniqid, report)")
    db.execute("CREATE TABLE destinations (destination, d_r_id, retries, status, nexttry)")
    reportd = SimpleNamespace(
        con=db,
        report_id=lambda _day, _index, _domain: "ID",
        destination_map=SimpleNamespace(map_destination=lambda _domain, ruas, _logger: ruas),
        schedule_report_delivery=lambda: 0,
    )
    document = report(REPORTER, ABOUT, ())
    record = "v=TLSRPTv1;rua=mailto:r@b.example"
    tlsrpt.TLSRPTReportd.render_report(
        reportd, 20261125, "b.example", record, dict(map(as_collected, counts)), document
    )
    ((stored,),) = db.execute("SELECT report FROM reports")
    db.close()
    return json.loads(stored)  # type: ignore[no-any-return]


EVERY = (Counts(STS, 0, tuple((Failing(each, host="mx.b.example"), 1) for each in sorted(REPORTABLE))),)


@pytest.mark.parametrize(
    "counts", [COUNTS, EVERY, (Counts(STS, 5, ((EXPIRED, 1),)),)], ids=["some", "every type", "one"]
)
def test_we_write_what_they_write(counts: tuple[Counts, ...]) -> None:
    ours, other = report(REPORTER, ABOUT, counts), theirs(counts)
    for policy in other["policies"]:
        if not policy["failure-details"]:
            del policy["failure-details"]  # they write an empty list
    assert ours | {"report-id": "ID"} == other


def test_we_read_their_mail(tmp_path: Path) -> None:
    file = tmp_path / "mail"
    config = SimpleNamespace(
        sender_address="noreply@example.com",
        contact_info="tls@example.com",
        organization_name="Example Inc.",
        debug_send_mail_dest="",
        debug_send_file_dest="",
        sendmail_script=f"cat > {file}",
        sendmail_timeout=10,
    )
    reportd = tlsrpt.TLSRPTReportd.__new__(tlsrpt.TLSRPTReportd)
    reportd.cfg = config
    document = theirs(COUNTS)
    sent = reportd.send_out_report_to_mail(
        DAY.isoformat(), "b.example", 1, 1, "mailto:r@b.example", gzip.compress(json.dumps(document).encode())
    )
    assert sent is tlsrpt.DeliveryResult.SUCCEEDED
    found = read(report_in(file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")), Mailed(NOW, "", ""))
    assert (found.organization, found.successes, found.failures) == ("Example Inc.", 15, 3)


@pytest.mark.parametrize(
    "record",
    [
        "v=TLSRPTv1;rua=mailto:r@b.example",
        "v=TLSRPTv1; rua=mailto:r@b.example,https://b.example/r",
        "v=TLSRPTv1;rua=mailto:r@b.example;ext=1",
    ],
)
def test_records_that_both_understand(record: str) -> None:
    ours = read_records([record])
    assert isinstance(ours, Destinations)
    assert [each.uri for each in ours.found] == parse_tlsrpt_record(record)


@pytest.mark.parametrize("record", ["v=TLSRPTv1", "v=TLSRPTv2;rua=mailto:r@b.example", "v=TLSRPTv1;ext=1"])
def test_records_that_neither_takes(record: str) -> None:
    assert not isinstance(read_records([record]), Destinations)
    with pytest.raises(MalformedTlsrptRecordException):
        parse_tlsrpt_record(record)
