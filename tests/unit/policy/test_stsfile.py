"""The `_mta-sts` record and the policy file: what counts, what does not and why, and that any bytes are one or the other."""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from relay.mail.published import StsMode, StsPolicy
from relay.policy.stsfile import MAX_FILE, StsRecord, StsSyntaxError, read_policy, read_record

GOOD = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1; id=20160831085700Z"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ;\tid=1 ; "], "1"),
        (["v=STSv1; later=x; id=1; more=a:b,c"], "1"),
        (["v=STSv1; id=1; id=2"], "1"),
        (["v=STSv1; id=" + "a" * 32], "a" * 32),
        (["v=spf1 -all", "v=STSv1; id=1;", "v=STSv2; id=2;", ""], "1"),
        ([], None),
        (["v=spf1 -all"], None),
        (["v=STSv1"], None),
        (["v=STSv10; id=1"], None),
        (["v=stsv1; id=1"], None),
        ([" v=STSv1; id=1"], None),
        (["id=1; v=STSv1;"], None),
    ],
)
def test_records(texts: list[str], found: str | None) -> None:
    assert read_record(texts) == (None if found is None else StsRecord(found))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["v=STSv1; id=1", "v=STSv1; id=1"], "2 TXT records begin with v=STSv1, and only one may"),
        (["v=STSv1;"], "the TXT record has no id"),
        (["v=STSv1; ID=1"], "the TXT record has no id"),
        (["v=STSv1; id=" + "a" * 33], f"the id '{'a' * 33}' of the TXT record is not 1 to 32 letters and digits"),
        (["v=STSv1; id=2026-11-22"], "the id '2026-11-22' of the TXT record is not 1 to 32 letters and digits"),
        (["v=STSv1; id=\u0663"], "'id=\\u0663' in the TXT record is not name=value"),
        (["v=STSv1; id="], "'id=' in the TXT record is not name=value"),
        (["v=STSv1; id = 1"], "'id = 1' in the TXT record is not name=value"),
        (["v=STSv1;; id=1"], "'' in the TXT record is not name=value"),
        (["v=STSv1; id=1; x=a=b"], "'x=a=b' in the TXT record is not name=value"),
        (["v=STSv1; id=1; x=a b"], "'x=a b' in the TXT record is not name=value"),
        (["v=STSv1; id=1; -x=a"], "'-x=a' in the TXT record is not name=value"),
        (["v=STSv1; id=1\n; x=a"], "'id=1\\n' in the TXT record is not name=value"),
        (["v=STSv1; id=1; " + "x" * 100], f"'{'x' * 60}...' in the TXT record is not name=value"),
    ],
)
def test_records_that_do_not_count(texts: list[str], words: str) -> None:
    with pytest.raises(StsSyntaxError) as caught:
        read_record(texts)
    assert str(caught.value) == words


def test_a_policy() -> None:
    assert read_policy(GOOD.encode(), "7") == StsPolicy(
        StsMode.ENFORCE, ("mail.example.com", "*.example.net"), 604800, "7", tuple(GOOD.split("\r\n")[:-1])
    )


@pytest.mark.parametrize(
    ("text", "mode", "mx", "max_age"),
    [
        (GOOD.replace("\r\n", "\n"), "enforce", "mail.example.com *.example.net", 604800),
        (GOOD.rstrip(), "enforce", "mail.example.com *.example.net", 604800),
        (GOOD.replace("mode: enforce\r\n", "mode: enforce\n"), "enforce", "mail.example.com *.example.net", 604800),
        ("max_age:0\nmx:a.example\nmode:testing\nversion:STSv1", "testing", "a.example", 0),
        ("version: STSv1\nmode: none\nmax_age: 86400\n", "none", "", 86400),
        ("version: STSv1\nmode: none\nmx: a.example\nmax_age: 31557600\n", "none", "a.example", 31557600),
        ("version:  STSv1  \nmode:\tnone\t\nmax_age: 1 \n", "none", "", 1),
        ("\nversion: STSv1\n\nmode: none\n \nmax_age: 1\n\n\n", "none", "", 1),
        ("version: STSv1\nmode: none\nmode: enforce\nmax_age: 1\nmax_age: x\nversion: STSv2", "none", "", 1),
        ("version: STSv1\nmode: none\nmax_age: 1\nnew_key: any thing: at all\nMode: x\nblå: x".replace("blå", "bla"), "none", "", 1),
        ("version: STSv1\nmode: none\nmax_age: 1\nnote: für später\n", "none", "", 1),
        ("version: STSv1\nmode: enforce\nmax_age: 1\nmx: MAIL.Example.COM.\nmx: mail.example.com", "enforce", "mail.example.com", 1),
        ("version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.straße.example", "enforce", "*.xn--strae-oqa.example", 1),
        ("version: STSv1\nmode: enforce\nmax_age: 0000000060\nmx: mx_1.example", "enforce", "mx_1.example", 60),
    ],
)  # fmt: skip
def test_policies(text: str, mode: str, mx: str, max_age: int) -> None:
    found = read_policy(text.encode(), "1")
    assert (found.mode, found.mx, found.max_age) == (mode, tuple(mx.split()), max_age)
    assert found.text == tuple(line for line in text.replace("\r\n", "\n").split("\n") if line.strip())


BASE = "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 60\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "the policy has no version"),
        ("version: STSv1\nmax_age: 1\nmx: a.example", "the policy has no mode"),
        ("version: STSv1\nmode: none", "the policy has no max_age"),
        (BASE.replace("mx: a.example\n", ""), "the policy says mode enforce and has no mx"),
        (BASE.replace("mx: a.example\n", "").replace("enforce", "testing"), "the policy says mode testing and has no mx"),
        (BASE.replace("STSv1", "STSv2"), "the policy's version is 'STSv2', not STSv1"),
        (BASE.replace("STSv1", "stsv1"), "the policy's version is 'stsv1', not STSv1"),
        (BASE.replace("enforce", "Enforce"), "the policy's mode is 'Enforce', not enforce, testing or none"),
        (BASE.replace("60", "31557601"), "the policy's max_age is '31557601', not a number of seconds up to 31557600"),
        (BASE.replace("60", "-1"), "the policy's max_age is '-1', not a number of seconds up to 31557600"),
        (BASE.replace("60", "1e3"), "the policy's max_age is '1e3', not a number of seconds up to 31557600"),
        (BASE.replace("60", "\u0666"), "the policy's max_age is '\\u0666', not a number of seconds up to 31557600"),
        (BASE.replace("60", "00000000060"), "the policy's max_age is '00000000060', not a number of seconds up to 31557600"),
        (BASE + "mx: *", "mx '*' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: *.", "mx '*.' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: .example.com", "mx '.example.com' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: a.*.example", "mx 'a.*.example' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: *.*.example", "mx '*.*.example' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: m*.example", "mx 'm*.example' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: a.example, b.example", "mx 'a.example, b.example' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx: [192.0.2.1]", "mx '[192.0.2.1]' in the policy is neither a host name nor one with *. before it"),
        (BASE + "mx:", "'mx:' in the policy is not key: value"),
        (BASE + "nothing", "'nothing' in the policy is not key: value"),
        (BASE + " note: x", "' note: x' in the policy is not key: value"),
        (BASE + "note : x", "'note : x' in the policy is not key: value"),
        (BASE + "n" * 33 + ": x", f"'{'n' * 33}: x' in the policy is not key: value"),
        (BASE + "note: a\tb", "'note: a\\tb' in the policy is not key: value"),
        (BASE + "note: a\0b", "'note: a\\x00b' in the policy is not key: value"),
        (BASE.replace("\n", "\r"), "'version: STSv1\\rmode: enforce\\rmx: a.example\\rmax_age: 60' in the policy is not key: value"),
        ("\ufeff" + BASE, "'\\ufeffversion: STSv1' in the policy is not key: value"),
        ("<!DOCTYPE html>\n<title>404</title>", "'<!DOCTYPE html>' in the policy is not key: value"),
        (BASE + "note: " + "x" * MAX_FILE, "the policy is longer than 65536 bytes"),
    ],
    ids=lambda value: value[-40:],
)  # fmt: skip
def test_policies_that_are_none(data: str, words: str) -> None:
    with pytest.raises(StsSyntaxError) as caught:
        read_policy(data.encode(), "1")
    assert str(caught.value) == words


def test_a_policy_that_is_no_text() -> None:
    with pytest.raises(StsSyntaxError, match="not UTF-8"):
        read_policy(GOOD.encode("utf-16"), "1")


PIECES = st.sampled_from(
    [b"version: STSv1", b"mode: enforce", b"mode: none", b"mx: a.example", b"mx: *.", b"max_age: 60", b":", b" ", b"\t",
     b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"\xc3\xa9", b"x", b"v=STSv1;", b"id=1", b";", b"="]
)  # fmt: skip


@given(st.binary(max_size=300) | st.lists(PIECES, max_size=30).map(b"".join))
def test_any_bytes_are_a_policy_or_an_error(data: bytes) -> None:
    try:
        policy = read_policy(data, "1")
    except StsSyntaxError as error:
        event(_fit_for_a_report(error))
        return
    assert policy.mx or policy.mode is StsMode.NONE
    assert 0 <= policy.max_age <= 31557600
    assert read_policy("\n".join(policy.text).encode(), "1") == policy, "its lines say all of it"


@given(
    st.lists(
        st.text(max_size=80) | st.lists(PIECES, max_size=10).map(lambda each: b"".join(each).decode("utf-8", "replace"))
    )
)
def test_any_texts_are_a_record_nothing_or_an_error(texts: list[str]) -> None:
    try:
        record = read_record(texts)
    except StsSyntaxError as error:
        event(_fit_for_a_report(error))
        return
    assert record is None or record.id.isalnum()


def _fit_for_a_report(error: StsSyntaxError) -> str:
    text = str(error)
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 600
    return text[-30:]


@pytest.mark.parametrize("piece", [" ", "\t", "\n", ":", "mx:a\n", "a:b\n", "x", "*."])
def test_what_is_as_large_as_may_be_is_read_within_the_time_limit_of_a_test(piece: str) -> None:
    """Which what takes quadratic time would not be."""
    with pytest.raises(StsSyntaxError):
        read_policy((piece * MAX_FILE)[:MAX_FILE].encode(), "1")
