"""TLSRPT records (RFC 8460 section 3), as a table: where reports go, or why nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.rua import MOST, Destinations, Https, MailTo, NoRecord, read_records, read_uri

V = "v=TLSRPTv1;"
MALFORMED = "its TLSRPT record is malformed at "
NOWHERE = "its TLSRPT record names nowhere that a report can go: mailto: and https: are possible"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (V + "rua=mailto:reports@example.com", ["mailto:reports@example.com"]),
        (V + " rua=mailto:reports@example.com ; ", ["mailto:reports@example.com"]),
        ("v=TLSRPTv1 \t; rua=https://reporting.example.com/v1/tlsrpt", ["https://reporting.example.com/v1/tlsrpt"]),
        (V + "rua=mailto:a@b.example , https://c.example/x?a=b;", ["mailto:a@b.example", "https://c.example/x?a=b"]),
        (V + "rua=MAILTO:a@B.example,HTTPS://C.example", ["MAILTO:a@B.example", "HTTPS://C.example"]),
        (V + "rua=mailto:a@b.example,mailto:%61@b.example", ["mailto:a@b.example"]),
        (V + "ext=1;rua=mailto:a@b.example;other-ext.x_y=!-:<>~", ["mailto:a@b.example"]),
        (V + "rua=ftp://x.example/,mailto:a@b.example", ["mailto:a@b.example"]),
        (V + "rua=mailto:a%21b@c.example?subject=x%0d%0abcc:me", ["mailto:a%21b@c.example?subject=x%0d%0abcc:me"]),
        (V + "rua=https://c.example:8443", ["https://c.example:8443"]),
        # not asked for
        ("rua=mailto:a@b.example", "it has no TLSRPT record"),
        ("v=tlsrptv1;rua=mailto:a@b.example", "it has no TLSRPT record"),
        ("v=TLSRPTv2;rua=mailto:a@b.example", "it has no TLSRPT record"),
        ("v=TLSRPTv1", "it has no TLSRPT record"),
        (" " + V + "rua=mailto:a@b.example", "it has no TLSRPT record"),
        # malformed
        (V, "its TLSRPT record has no rua"),
        (V + "ext=1", "its TLSRPT record has no rua"),
        (V + "RUA=mailto:a@b.example", "its TLSRPT record has no rua"),
        (V + "rua=mailto:a@b.example;rua=mailto:c@d.example", "its TLSRPT record has more than one rua"),
        (V + "rua=mailto:a@b.example;;", MALFORMED + "''"),
        (V + "rua=mailto:a@b.example; nonsense", MALFORMED + "'nonsense'"),
        (V + "rua=mailto:a@b.example; ext = 1", MALFORMED + "'ext = 1'"),
        (V + "rua=mailto:a@b.example; ext=a=b", MALFORMED + "'ext=a=b'"),
        (V + "rua=", MALFORMED + "''"),
        (V + "rua=mailto:a@b.example,", MALFORMED + "''"),
        (V + "rua=mailto:a b@b.example", MALFORMED + "'mailto:a b@b.example'"),
        (V + "rua=reports@example.com", MALFORMED + "'reports@example.com'"),
        (V + "rua=mailto:" + "a" * 1000 + "@b.example", MALFORMED + "'mailto:" + "a" * 33 + "'"),
        # nothing that we send to
        (V + "rua=http://c.example/", NOWHERE),
        (V + "rua=mailto:nobody", NOWHERE),
        (V + "rua=mailto:a@[192.0.2.1]", NOWHERE),
        (V + "rua=mailto:a%0d%0aRCPT@b.example", NOWHERE),
        (V + "rua=mailto:%ff@b.example", NOWHERE),
        (V + "rua=https://192.0.2.1/x", NOWHERE),
        (V + "rua=https://[2001:db8::1]/x", NOWHERE),
        (V + "rua=https://[nonsense]/x", NOWHERE),
        (V + "rua=https://0x7f.1/x", NOWHERE),
        (V + "rua=https://2130706433/x", NOWHERE),
        (V + "rua=https://localhost/x", NOWHERE),
        (V + "rua=https://user@c.example/x", NOWHERE),
        (V + "rua=https://:pass@c.example/x", NOWHERE),
        (V + "rua=https://c.example/x#y", NOWHERE),
        (V + "rua=https:///x", NOWHERE),
        (V + "rua=https://c.example:0/", NOWHERE),
        (V + "rua=https://c.example:99999/", NOWHERE),
        (V + "rua=https://c_d.e*f/", NOWHERE),
    ],
)  # fmt: skip
def test_one_record(record: str, expected: list[str] | str) -> None:
    found = read_records([record])
    if isinstance(expected, str):
        assert found == NoRecord(expected)
    else:
        assert isinstance(found, Destinations)
        assert [each.uri for each in found.found] == expected


def test_several_records() -> None:
    good = V + "rua=mailto:a@b.example"
    assert isinstance(read_records(["v=spf1 -all", good, "something else"]), Destinations)
    assert read_records([good, good]) == NoRecord("it has 2 TLSRPT records")
    assert read_records([]) == NoRecord("it has no TLSRPT record")


def test_only_so_many_destinations() -> None:
    found = read_records([V + "rua=" + ",".join(f"mailto:a{number}@b.example" for number in range(30))])
    assert isinstance(found, Destinations)
    assert len(found.found) == MOST


def test_what_a_uri_says() -> None:
    mail, post = read_uri("mailto:a%21b@B.example?subject=x"), read_uri("https://C.example:8443/v1?x=1")
    assert isinstance(mail, MailTo)
    assert (mail.address.local, mail.address.domain) == ("a!b", "b.example")
    assert isinstance(post, Https)
    assert (post.host, post.port, post.target) == ("c.example", 8443, "/v1?x=1")
    bare = read_uri("https://c.example")
    assert isinstance(bare, Https)
    assert (bare.port, bare.target) == (443, "/")


@given(st.text(max_size=300) | st.text("v=TLSRP1;rua:/,@%.[]#?mhtpslo \t", max_size=100))
def test_any_text_gives_destinations_or_a_reason(text: str) -> None:
    for record in (text, V + text, V + "rua=" + text, V + "rua=mailto:" + text, V + "rua=https://" + text):
        found = read_records([record])
        if isinstance(found, NoRecord):
            assert found.reason
        else:
            assert all(read_uri(each.uri) == each for each in found.found)
