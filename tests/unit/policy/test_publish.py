"""What we publish: records and files to the byte, and an id that changes exactly when the policy does."""

import base64
from typing import Any

import pytest

from relay.config.models import Config
from relay.mail.published import StsMode, TlsaRecord
from relay.policy.publish import OurKey, our_hosts, our_policy, our_records, policy_file, policy_served_at, tlsa_of
from relay.policy.stsfile import read_policy, read_record
from tests.unit.policy.builders import OTHER_PIN, PIN, certificate, config

HEX = base64.b64decode("A" * 43 + "=").hex()
OTHER_HEX = base64.b64decode("B" * 42 + "A=").hex()
USED = OurKey("relay", certificate("relay.example.com"))
NEXT = OurKey("relay.next", certificate("relay.example.com", pin=OTHER_PIN), is_next=True)
RENEWED = OurKey("relay.next", certificate("relay.example.com"), is_next=True)  # the same key
INNER = {"name": "inner", "direction": "outbound", "route": {"smart_hosts": ["inner.example"]}}


def ours(publish: dict[str, Any] | None = None, domains: tuple[str, ...] = ("example.com",)) -> Config:
    values = {} if publish is None else {"publish": publish}
    return config(accept={"domains": list(domains)}, **values)


def test_without_a_word_the_policy_is_careful() -> None:
    (domain,) = our_records(ours(), ["example.com"], {}, []).domains
    assert policy_file(domain.policy) == (
        b"version: STSv1\r\nmode: testing\r\nmx: relay.example.com\r\nmax_age: 604800\r\n"
    )
    assert domain.sts.line == f'_mta-sts.example.com. IN TXT "v=STSv1; id={domain.policy.id};"'
    assert domain.url == "https://mta-sts.example.com/.well-known/mta-sts.txt"
    assert domain.tlsrpt is None
    assert domain.alias is None


def test_all_that_can_be_said() -> None:
    full = ours(
        {
            "mode": "enforce",
            "mx": ["mx1.example.com", "mx2.example.com"],
            "other_mx": ["*.backup.example", "mx2.example.com"],
            "max_age": "4w",
            "reports": ["mailto:tls@example.com", "https://reports.example/v1"],
            "https": ["127.0.0.1:443"],
        }
    )
    records = our_records(full, ["example.com"], {"mx1.example.com": (USED, NEXT)}, [USED, NEXT])
    (domain,) = records.domains
    assert policy_file(domain.policy).decode().split("\r\n") == [
        "version: STSv1",
        "mode: enforce",
        "mx: mx1.example.com",
        "mx: mx2.example.com",
        "mx: *.backup.example",
        "max_age: 2419200",
        "",
    ]
    assert domain.tlsrpt is not None
    assert domain.tlsrpt.line == (
        '_smtp._tls.example.com. IN TXT "v=TLSRPTv1; rua=mailto:tls@example.com,https://reports.example/v1"'
    )
    assert domain.alias is not None
    assert domain.alias.line == "mta-sts.example.com. IN CNAME relay.example.com."
    first, second = records.hosts
    assert [each.line for each in first.tlsa] == [
        f"_25._tcp.mx1.example.com. IN TLSA 3 1 1 {HEX}",
        f"_25._tcp.mx1.example.com. IN TLSA 3 1 1 {OTHER_HEX}",
    ]
    assert [each.note for each in first.tlsa] == ["relay: ends 2036-01-01", "relay.next: not in use yet"]
    assert (second.host, second.tlsa) == ("mx2.example.com", ())
    assert records.elsewhere == ("*.backup.example", "mx2.example.com")
    assert records.keys == (USED, NEXT)


def test_reports_come_to_our_own_mailbox_unless_said_otherwise() -> None:
    def tlsrpt(publish: dict[str, Any]) -> str:
        domain, mailbox = "example.com", {"mailbox": ["tls@example.com", '"a;b"@example.com']}
        both = config(accept={"domains": [domain]}, publish=publish, tlsrpt=mailbox)
        record = our_records(both, [domain], {}, []).domains[0].tlsrpt
        return record.value if record is not None else ""

    assert tlsrpt({}) == "v=TLSRPTv1; rua=mailto:tls@example.com,mailto:%22a%3Bb%22@example.com"
    assert tlsrpt({"reports": ["https://reports.example/"]}) == "v=TLSRPTv1; rua=https://reports.example/"


def test_a_renewal_that_keeps_the_key_needs_no_new_record() -> None:
    (host,) = our_records(ours(), ["example.com"], {"relay.example.com": (USED, RENEWED)}, []).hosts
    assert [(each.value, each.note) for each in host.tlsa] == [
        (f"3 1 1 {HEX}", "relay: ends 2036-01-01; relay.next: not in use yet")
    ]
    assert tlsa_of(NEXT) == TlsaRecord(3, 1, 1, OTHER_HEX)


def test_no_tlsa_where_none_are_wanted() -> None:
    assert our_records(ours({"tlsa": False}), ["example.com"], {}, []).hosts == ()


def test_a_long_record_is_written_in_several_strings() -> None:
    uris = [f"https://reports.example/{number}/{'x' * 90}" for number in range(3)]
    (domain,) = our_records(ours({"reports": uris}), ["example.com"], {}, []).domains
    assert domain.tlsrpt is not None
    strings = domain.tlsrpt.line.split(" TXT ")[1].removeprefix('"').removesuffix('"').split('" "')
    assert [len(each) for each in strings[:-1]] == [255]
    assert "".join(strings) == domain.tlsrpt.value == "v=TLSRPTv1; rua=" + ",".join(uris)


def test_a_domain_s_own_words() -> None:
    own = {"mode": "none", "mx": ["mx9.example.com"], "other_mx": ["o.example"], "max_age": "1d"}
    several = ours(
        {"mode": "enforce", "domains": {"b.example": own, "c.a.example": {"reports": ["mailto:c@a.example"]}}},
        ("a.example", "b.example", "*.a.example"),
    )
    assert several.published_domains == ("a.example", "b.example", "c.a.example")
    assert our_policy(several, "a.example").mode is StsMode.ENFORCE
    assert policy_file(our_policy(several, "b.example")) == b"version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n"
    assert our_policy(several, "b.example").mx == ("mx9.example.com", "o.example")
    assert our_hosts(several, several.published_domains) == ("relay.example.com", "mx9.example.com")
    records = our_records(several, several.published_domains, {}, [])
    assert [each.tlsrpt is not None for each in records.domains] == [False, False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "enforce"},
        {"mx": ["other.example.com"]},
        {"other_mx": ["other.example.com"]},
        {"max_age": "2w"},
    ],
    ids=str,
)
def test_the_id_changes_with_the_policy(change: dict[str, Any]) -> None:
    before, after = our_policy(ours(), "example.com"), our_policy(ours(change), "example.com")
    assert before.id != after.id
    for policy in (before, after):
        assert policy.id.isalnum()
        assert 0 < len(policy.id) <= 32


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "testing", "max_age": "7d"},
        {"reports": ["mailto:a@example.com"]},
        {"tlsa": False, "https": ["127.0.0.1:1"]},
    ],
    ids=str,
)
def test_the_id_stays_where_the_policy_does(change: dict[str, Any]) -> None:
    assert our_policy(ours(), "example.com").id == our_policy(ours(change), "example.com").id


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("mta-sts.example.com", True),
        ("mta-sts.other.example", False),
        ("example.com", False),
        ("mta-sts.", False),
        ("mta-sts.mta-sts.example.com", False),
        ("www.mta-sts.example.com", False),
        ("", False),
    ],
)
def test_a_policy_is_served_for_our_domains_only(host: str, served: bool) -> None:
    found = policy_served_at(ours(), host)
    assert found == (policy_file(our_policy(ours(), "example.com")) if served else None)


@pytest.mark.parametrize("mode", list(StsMode))
def test_those_who_look_read_what_is_meant(mode: StsMode) -> None:
    """Our own reader of others' policies is a strict one."""
    words = {"mode": mode.value, "mx": ["mx1.example.com"], "other_mx": ["*.backup.example"], "max_age": "4w"}
    ((domain,), policy) = (
        our_records(ours(words), ["example.com"], {}, []).domains,
        our_policy(ours(words), "example.com"),
    )
    record = read_record([domain.sts.value])
    assert record is not None
    assert record.id == policy.id
    read = read_policy(policy_file(policy), record.id)
    assert (read.mode, read.max_age, read.text) == (mode, policy.max_age, policy.text)
    assert read.mx == (() if mode is StsMode.NONE else policy.mx)


def test_pins_are_as_partners_write_them() -> None:
    assert USED.certificate.spki_sha256 == PIN
