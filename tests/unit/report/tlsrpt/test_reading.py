"""Reports of others, as tables and as any bytes: read or refused, never more, and never more memory than the limits."""

import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.address import Address
from relay.mail.codec import received_json
from relay.mail.published import PolicyKind
from relay.mail.tlsreport import Received, ReceivedFailing
from relay.report.tlsrpt.document import packed, report
from relay.report.tlsrpt.mail import compose
from relay.report.tlsrpt.reading import JSON_LIMIT, MAIL_LIMIT, Mailed, NotAReportError, read, report_in
from tests.unit.report.tlsrpt.builders import ABOUT, COUNTS, NOW, REPORTER

MAILED = Mailed(NOW, "example.com", "example.com")
DOCUMENT: dict[str, Any] = report(REPORTER, ABOUT, COUNTS)

# RFC 8460 appendix B.
APPENDIX = """{
  "organization-name": "Company-X",
  "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {
      "policy-type": "sts",
      "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
      "policy-domain": "company-y.example",
      "mx-host": ["*.mail.company-y.example"]
    },
    "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
    "failure-details": [{
      "result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example", "failed-session-count": 100
    }, {
      "result-type": "starttls-not-supported", "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example", "receiving-ip": "203.0.113.56", "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"
    }, {
      "result-type": "validation-failure", "sending-mta-ip": "198.51.100.62", "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example", "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    }]
  }]
}"""


def read_json(document: Any) -> Received:
    return read(json.dumps(document).encode(), MAILED)


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    change(document)
    return document


def test_the_example_of_the_rfc() -> None:
    found = read(APPENDIX.encode(), MAILED)
    assert (found.organization, found.report_id) == ("Company-X", "5065427c-23d3-47ca-b6e0-946ea0e8c4be")
    assert found.begins == datetime(2016, 4, 1, tzinfo=UTC)
    assert (found.successes, found.failures) == (5326, 303)
    (policy,) = found.policies
    assert (policy.kind, policy.domain, policy.mx) == (
        PolicyKind.STS,
        "company-y.example",
        ("*.mail.company-y.example",),
    )
    assert [each.sessions for each in policy.failing] == [100, 200, 3]
    assert policy.failing[1].information.endswith("#StarttlsNotSupported")
    assert policy.failing[2].reason == "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"


def test_our_own_reports() -> None:
    mail = compose(REPORTER, ABOUT, Address("r", "b.example"), packed(DOCUMENT), NOW, None)
    found = read(report_in(mail.content), MAILED)
    assert found.submitter == "example.com"
    assert (found.successes, found.failures) == (15, 3)
    assert found.policies[0].failing[0] == ReceivedFailing(
        "certificate-expired", 2, "192.0.2.1", "mx.b.example", "", "203.0.113.7", "", "certificate has expired"
    )
    assert received_json(found)["policies"][2]["policy"] == "no-policy-found"


def policy0(document: dict[str, Any]) -> dict[str, Any]:
    return document["policies"][0]  # type: ignore[no-any-return]


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        node: Any = document
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value

    return change


DETAIL = ("policies", 0, "failure-details", 0)


@pytest.mark.parametrize(
    "change",
    [
        put("unknown", value={"x": [1]}),
        put("policies", 0, "policy", "mx-host", value="mx.b.example"),
        put("policies", 0, "policy", "policy-string", value=None),
        put("policies", 0, "failure-details", value=[]),
        put("contact-info", value=None),
        put(*DETAIL, "result-type", value="a-type-of-next-year"),
        put(*DETAIL, "receiving-mx-helo", value="mx"),
        put("date-range", "start-datetime", value="2026-11-25T01:00:00+01:00"),
        put("date-range", "start-datetime", value="2026-11-25T00:00:00"),
        put("policies", value=[]),
    ],
    ids=range(10),
)
def test_what_reporters_do_differently(change: Callable[[dict[str, Any]], None]) -> None:
    assert read_json(changed(change)).begins == datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("organization-name", value=5), "organization-name is no text"),
        (put("organization-name", value=None), "organization-name is no text"),
        (put("organization-name", value="\x00\u202e"), "organization-name is empty"),
        (put("report-id", value=""), "report-id is empty"),
        (put("contact-info", value=["a"]), "contact-info is no text"),
        (put("date-range", value="today"), "date-range is no JSON object"),
        (put("date-range", "end-datetime", value="yesterday"), "end-datetime is no time"),
        (put("date-range", "end-datetime", value=5), "end-datetime is no time"),
        (put("date-range", "end-datetime", value="0001-01-01T00:00:00+14:00"), "end-datetime is no time"),
        (put("policies", value={}), "policies is no JSON array"),
        (put("policies", value=[{}] * 201), "policies has too many entries"),
        (put("policies", 0, value=[]), "policies is no JSON object"),
        (put("policies", 0, "policy", value=None), "policy is no JSON object"),
        (put("policies", 0, "policy", "policy-type", value="other"), "policy-type is none of tlsa, sts, no-policy-found"),
        (put("policies", 0, "policy", "policy-type", value=[]), "policy-type is none of tlsa, sts, no-policy-found"),
        (put("policies", 0, "policy", "policy-domain", value=None), "policy-domain is no text"),
        (put("policies", 0, "policy", "mx-host", value={}), "mx-host is no list of texts"),
        (put("policies", 0, "policy", "mx-host", value=[1]), "mx-host is no list of texts"),
        (put("policies", 0, "summary", value=None), "summary is no JSON object"),
        (put("policies", 0, "summary", "total-failure-session-count", value=-1), "total-failure-session-count is no number of sessions"),
        (put("policies", 0, "summary", "total-failure-session-count", value=True), "total-failure-session-count is no number of sessions"),
        (put("policies", 0, "summary", "total-failure-session-count", value=1.5), "total-failure-session-count is no number of sessions"),
        (put("policies", 0, "summary", "total-failure-session-count", value=10**16), "total-failure-session-count is no number of sessions"),
        (put("policies", 0, "failure-details", value={}), "failure-details is no JSON array"),
        (put("policies", 0, "failure-details", value=[{}] * 5001), "failure-details has too many entries"),
        (put(*DETAIL, value="x"), "failure-details is no JSON object"),
        (put(*DETAIL, "result-type", value="Not A Word"), "result-type is no word"),
        (put(*DETAIL, "result-type", value=5), "result-type is no word"),
        (put(*DETAIL, "failed-session-count", value="2"), "failed-session-count is no number of sessions"),
    ],
)  # fmt: skip
def test_what_is_no_report(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    with pytest.raises(NotAReportError) as refused:
        read_json(changed(change))
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"policies": NaN}',
        b'{"policies": 1' + b"0" * 5000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 500_000,
    ],
    ids=range(10),
)
def test_what_is_no_json_object(text: bytes) -> None:
    with pytest.raises(NotAReportError):
        read(text, MAILED)


def test_text_is_cleaned_and_cut() -> None:
    document = changed(put("organization-name", value="Evil\r\n\x1b[2J\u202eCorp" + "x" * 10_000))
    found = read_json(document)
    assert found.organization.startswith("Evil [2J Corpxxx")
    assert len(found.organization) == 300
    many = changed(put("policies", 0, "policy", "policy-string", value=["y" * 10_000] * 1000))
    assert [len(each) for each in read_json(many).policies[0].strings] == [300] * 50


def test_of_many_failures_the_most_frequent_are_kept() -> None:
    details = [{"result-type": f"type-{number}", "failed-session-count": number} for number in range(400)]
    document = changed(put("policies", 0, "failure-details", value=details[::2]))
    document["policies"].append({**document["policies"][1], "failure-details": details[1::2]})
    found = read_json(document)
    kept = sorted(each.sessions for policy in found.policies for each in policy.failing)
    assert kept == list(range(200, 400))
    alike = [{"result-type": "x", "failed-session-count": 1}] * 400
    assert len(read_json(changed(put("policies", 0, "failure-details", value=alike))).policies[0].failing) <= 200


# The mail around it.


def mail(content: bytes, kind: str = "application/tlsrpt+gzip", *, head: str = "", encoding: str = "base64") -> bytes:
    body = base64.encodebytes(content).replace(b"\n", b"\r\n") if encoding == "base64" else content
    lines = f"From: a@b.example\r\n{head}Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return lines.encode() + body


TEXT = json.dumps(DOCUMENT).encode()
NO_PART = "it has no part of type application/tlsrpt+gzip or application/tlsrpt+json"


def test_mails_with_a_report_in_them() -> None:
    assert report_in(mail(gzip.compress(TEXT))) == TEXT
    assert report_in(mail(TEXT, "application/tlsrpt+json")) == TEXT
    assert report_in(mail(TEXT, "application/tlsrpt+json", encoding="8bit")) == TEXT
    assert report_in(mail(gzip.compress(TEXT) + b"more", 'APPLICATION/TLSRPT+GZIP; name="x"')) == TEXT
    nested = (
        b'Content-Type: multipart/mixed; boundary="a"\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\nhello\r\n--a\r\n'
        + mail(gzip.compress(TEXT))
        + b"\r\n--a--\r\n"
    )
    assert report_in(nested) == TEXT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", NO_PART),
        (b"Subject: hello\r\n\r\nhello\r\n", NO_PART),
        (mail(TEXT), "its report is not gzip"),
        (mail(gzip.compress(TEXT)[:-4]), "its report is cut off"),
        (mail(zlib.compress(TEXT)), "its report is not gzip"),
        (mail(b"", "application/tlsrpt+gzip"), "its report is cut off"),
        (mail(gzip.compress(b"x" * (JSON_LIMIT + 1))), "its report is larger than 2 MiB"),
        (mail(b"x" * (JSON_LIMIT + 1), "application/tlsrpt+json", encoding="8bit"), "its report is larger than 2 MiB"),
        (b"x" * (MAIL_LIMIT + 1), "the mail is larger than 3 MiB"),
        (b"Content-Type: multipart/mixed; boundary=a\r\n" * 21, "the mail has too many parts"),
        (b'Content-Type: multipart/x; boundary="a"\r\n\r\n' + b"--a\r\n\r\nx\r\n" * 60, NO_PART),
    ],
    ids=range(11),
)  # fmt: skip
def test_mails_without(content: bytes, reason: str) -> None:
    with pytest.raises(NotAReportError) as refused:
        report_in(content)
    assert str(refused.value) == reason


def test_a_compression_bomb_takes_no_more_than_its_limit() -> None:
    bomb = mail(gzip.compress(b"\0" * 60_000_000))
    assert len(bomb) < MAIL_LIMIT
    tracemalloc.start()
    with pytest.raises(NotAReportError, match="larger than 2 MiB"):
        report_in(bomb)
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30 * 2**20


def test_json_that_is_all_brackets_takes_bounded_memory() -> None:
    tracemalloc.start()
    with pytest.raises(NotAReportError):
        read(b"[" + b"[]," * (JSON_LIMIT // 12) + b"[]]", MAILED)  # a quarter of the limit
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 25 * 2**20


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=10,
)
PATHS = st.sampled_from(
    [
        ("organization-name",),
        ("date-range",),
        ("date-range", "start-datetime"),
        ("policies",),
        ("policies", 0),
        ("policies", 0, "policy"),
        ("policies", 0, "policy", "policy-type"),
        ("policies", 0, "policy", "policy-string"),
        ("policies", 0, "summary"),
        ("policies", 0, "summary", "total-failure-session-count"),
        ("policies", 0, "failure-details"),
        DETAIL,
        (*DETAIL, "receiving-ip"),
    ]
)


def outcome(text: bytes) -> None:
    with suppress(NotAReportError):
        found = read(text, MAILED)
        json.dumps(received_json(found)).encode()
        assert found.begins.utcoffset() == UTC.utcoffset(None) == timedelta(0)


@settings(deadline=None)
@given(st.binary(max_size=500))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    outcome(data)
    for content in (
        data,
        mail(data),
        mail(data, "application/tlsrpt+json"),
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + data,
    ):
        with suppress(NotAReportError):
            outcome(report_in(content))


@settings(deadline=None)
@given(PATHS, JSON_VALUES)
def test_any_value_in_any_place_is_read_or_refused(path: tuple[str | int, ...], value: Any) -> None:
    outcome(json.dumps(changed(put(*path, value=value))).encode())


@settings(deadline=None)
@given(st.integers(0, 3000), st.binary(max_size=40))
def test_a_damaged_mail_is_read_or_refused(place: int, damage: bytes) -> None:
    whole = compose(REPORTER, ABOUT, Address("r", "b.example"), packed(DOCUMENT), NOW, None).content
    with suppress(NotAReportError):
        outcome(report_in(whole[:place] + damage + whole[place + len(damage) :]))
