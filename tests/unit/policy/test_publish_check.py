"""Our records against what DNS and HTTPS say: every way to be right, wrong or not known."""

from dataclasses import replace
from typing import Any

import pytest

from relay.mail.published import TlsaRecord
from relay.policy.publish import our_records
from relay.policy.publish_check import FetchFailed, FileFound, Finding, PublicView, State, TlsaFound, compare
from relay.policy.route import LookupFailed, MxRecord, MxRecords, NoDomain
from tests.unit.policy.test_publish import HEX, NEXT, OTHER_HEX, RENEWED, USED, ours

FULL = ours({"reports": ["mailto:tls@example.com"], "other_mx": ["*.backup.example"]})
RECORDS = our_records(FULL, ["example.com"], {"relay.example.com": (USED, NEXT)}, [USED, NEXT])
DOMAIN = RECORDS.domains[0]
IN_USE, COMING = TlsaRecord(3, 1, 1, HEX), TlsaRecord(3, 1, 1, OTHER_HEX)
OLD, AUTHORITY = TlsaRecord(3, 1, 1, "ff" * 32), TlsaRecord(2, 1, 1, "11" * 32)
STS, TLSRPT = DOMAIN.sts.value, "v=TLSRPTv1; rua=mailto:tls@example.com"
GOOD = PublicView(
    texts={"_mta-sts.example.com": (STS,), "_smtp._tls.example.com": (TLSRPT,)},
    files={"example.com": FileFound(DOMAIN.policy.text)},
    tlsa={"relay.example.com": TlsaFound((IN_USE, COMING), secure=True)},
    mx={"example.com": MxRecords((MxRecord(10, "relay.example.com"), MxRecord(20, "mx.backup.example")))},
    validates=True,
)


def found(**changes: Any) -> list[Finding]:
    return list(compare(RECORDS, replace(GOOD, **changes)))


def about(kind: str, **changes: Any) -> list[tuple[State, str]]:
    return [(each.state, each.text) for each in found(**changes) if each.type == kind]


def texts(sts: Any = (STS,), tlsrpt: Any = (TLSRPT,)) -> dict[str, Any]:
    return {"_mta-sts.example.com": sts, "_smtp._tls.example.com": tlsrpt}


def test_all_is_well() -> None:
    assert [(each.name, each.type, each.state) for each in found()] == [
        ("_mta-sts.example.com", "TXT", State.PUBLISHED),
        ("https://mta-sts.example.com/.well-known/mta-sts.txt", "file", State.PUBLISHED),
        ("example.com", "MX", State.PUBLISHED),
        ("_smtp._tls.example.com", "TXT", State.PUBLISHED),
        ("_25._tcp.relay.example.com", "TLSA", State.PUBLISHED),
        ("_25._tcp.relay.example.com", "TLSA", State.PUBLISHED),
    ]
    assert all(not each.text for each in found())


def test_nothing_was_looked_up() -> None:
    states = {each.state for each in compare(RECORDS, PublicView())}
    assert states == {State.UNKNOWN, State.MISSING}


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (("v=spf1 -all", STS), State.PUBLISHED, ""),
        ((STS.removesuffix(";"),), State.PUBLISHED, ""),
        ((f"v=STSv1 ;id={DOMAIN.policy.id}",), State.PUBLISHED, ""),
        (("v=STSv1; id=20200101;",), State.DIFFERS, ""),
        ((STS, "v=STSv1; id=2;"), State.DIFFERS, "of several records senders take none: leave one"),
        (("v=STSv1x; id=2;", "v=spf1 -all"), State.MISSING, ""),
        ((), State.MISSING, ""),
        (LookupFailed("SERVFAIL"), State.UNKNOWN, "the look-up failed: SERVFAIL"),
    ],
    ids=["beside others", "no last semicolon", "blanks", "another id", "two", "none of them", "none", "failed"],
)
def test_text_records(answer: Any, state: State, text: str) -> None:
    (sts, _tlsrpt) = [each for each in found(texts=texts(answer)) if each.type == "TXT"]
    assert (sts.state, sts.text, sts.expected) == (state, text, STS)


def test_the_report_record() -> None:
    assert about("TXT", texts=texts(tlsrpt=("v=TLSRPTv1;rua=mailto:tls@example.com",)))[1] == (State.PUBLISHED, "")
    assert about("TXT", texts=texts(tlsrpt=("v=TLSRPTv1;rua=mailto:else@example.com",)))[1] == (State.DIFFERS, "")
    silent = our_records(ours(), ["example.com"], {}, [])
    assert [each.type for each in compare(silent, GOOD)].count("TXT") == 1


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (FileFound((*DOMAIN.policy.text, "")), State.PUBLISHED, ""),
        (FileFound(tuple(f"{line} " for line in DOMAIN.policy.text)), State.PUBLISHED, ""),
        (FileFound(DOMAIN.policy.text[:-1]), State.DIFFERS, ""),
        (FetchFailed("404"), State.MISSING, "404"),
    ],
    ids=["empty last line", "blanks", "lacks a line", "404"],
)
def test_the_policy_file(answer: Any, state: State, text: str) -> None:
    assert about("file", files={"example.com": answer}) == [(state, text)]


def test_mx_hosts_must_be_in_the_policy() -> None:
    assert about("MX", mx={"example.com": MxRecords(())}) == [(State.MISSING, "")]
    assert about("MX", mx={"example.com": NoDomain()}) == [
        (State.UNKNOWN, "the look-up failed: the domain does not exist")
    ]
    assert about("MX", mx={"example.com": LookupFailed("timeout")}) == [(State.UNKNOWN, "the look-up failed: timeout")]
    ((state, text),) = about("MX", mx={"example.com": MxRecords((MxRecord(1, "a.b.backup.example"),))})
    assert state is State.DIFFERS
    assert text.startswith("a.b.backup.example is not in the policy")
    taken_back = our_records(ours({"mode": "none"}), ["example.com"], {}, [])
    assert [each for each in compare(taken_back, GOOD) if each.type == "MX"] == []


STALE = "no certificate of ours, present or next, satisfies it: take it out once no server shows what does"
AT_ONCE = "senders who hold to DANE refuse the certificate in use: publish it at once"
BEFORE = "publish it, and wait for twice the record's TTL, before the next certificate is used"
WELL = (State.PUBLISHED, "")


@pytest.mark.parametrize(
    ("published", "matching", "expected"),
    [
        ((), (), [(State.MISSING, ""), (State.MISSING, BEFORE)]),
        ((IN_USE,), (IN_USE,), [WELL, (State.MISSING, BEFORE)]),
        ((COMING,), (COMING,), [(State.MISSING, AT_ONCE), WELL]),
        ((OLD,), (), [(State.MISSING, AT_ONCE), (State.MISSING, BEFORE), (State.EXTRA, STALE)]),
        ((IN_USE, COMING, OLD), (IN_USE, COMING), [WELL, WELL, (State.EXTRA, STALE)]),
        ((AUTHORITY,), (AUTHORITY,), [(State.MISSING, ""), (State.MISSING, BEFORE), WELL]),
        ((IN_USE, COMING, AUTHORITY), (IN_USE, COMING, AUTHORITY), [WELL, WELL, WELL]),
        ((IN_USE, COMING, AUTHORITY), (IN_USE, COMING), [WELL, WELL, (State.EXTRA, STALE)]),
    ],
    ids=["none", "current", "next", "old", "all and old", "of a CA", "all and of a CA", "all and of another CA"],
)
def test_tlsa(
    published: tuple[TlsaRecord, ...], matching: tuple[TlsaRecord, ...], expected: list[tuple[State, str]]
) -> None:
    matches = frozenset(matching)
    answer = TlsaFound(published, secure=True, matching=matches, in_use=matches - {COMING})
    assert about("TLSA", tlsa={"relay.example.com": answer}) == expected


def test_tlsa_that_nobody_will_use() -> None:
    insecure = {"relay.example.com": TlsaFound((IN_USE, COMING), secure=False)}
    assert about("TLSA", tlsa=insecure)[-1] == (
        State.DIFFERS,
        "DNSSEC does not vouch for this zone, so no sender uses these records: sign it",
    )
    assert all(state is State.PUBLISHED for state, _ in about("TLSA", tlsa=insecure, validates=False))
    assert about("TLSA", tlsa={"relay.example.com": TlsaFound((), secure=False)})[-1][0] is State.MISSING


def test_tlsa_look_up_that_fails() -> None:
    failed = {"relay.example.com": LookupFailed("SERVFAIL", bogus=True)}
    assert about("TLSA", tlsa=failed) == [(State.UNKNOWN, "the look-up failed: SERVFAIL")] * 2


def test_a_key_in_use_counts_as_in_use_whatever_else_has_it() -> None:
    records = our_records(FULL, ["example.com"], {"relay.example.com": (RENEWED, USED)}, [])
    view = replace(GOOD, tlsa={"relay.example.com": TlsaFound((OLD,), secure=True)})
    states = [(each.state, each.text) for each in compare(records, view) if each.type == "TLSA"]
    assert states == [(State.MISSING, AT_ONCE), (State.EXTRA, STALE)]
