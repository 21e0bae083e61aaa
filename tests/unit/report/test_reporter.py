import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage
from itertools import count
from typing import Any

import pytest

from relay.config.tlsrpt import Tlsrpt
from relay.mail.address import NULL, Address
from relay.mail.envelope import Message, Notify, Ret
from relay.mail.outcome import Bounced, Deferred
from relay.mail.plan import Demand, Encryption, Level, Plaintext, StsMx, Tlsa, TlsPlan
from relay.mail.tls import TlsFailure
from relay.policy.book import RuleBook
from relay.policy.plan import choose_plan
from relay.report.dsn import Issuer, Returned, Stamp, compose
from relay.report.notify import Kind
from relay.report.reporter import MAX_HEADER, MAX_WHOLE, Reporter, may_return_content, read_header, required_words
from tests.unit.report.builders import (
    ALICE,
    BOB,
    CAROL,
    GONE,
    LATER,
    NOW,
    OPEN,
    Body,
    End,
    book,
    connector,
    delayed,
    delivered,
    failed,
    message,
)

ORIGINAL = b"From: alice@example.com\r\nSubject: hello\r\n\r\nthe text\r\n"
ENCRYPTED = book(connector("contoso-out", "contoso.com", tls="encryption"))


def reporter(rules: RuleBook) -> Reporter:
    words = (f"word{number}" for number in count())
    return Reporter(lambda: rules, clock=lambda: NOW, new_word=lambda: next(words))


async def one(rules: RuleBook, about: Message, *ends: End, body: bytes = ORIGINAL) -> EmailMessage:
    (report,) = await reporter(rules)(about, Body(body), ends)
    parsed = email.message_from_bytes(report.content, policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    return parsed


def returned(parsed: EmailMessage) -> str:
    return list(parsed.iter_parts())[2].get_content_type()


async def test_one_report_per_kind_for_all_recipients() -> None:
    about = message(BOB, CAROL, Address("dave", "contoso.com"))
    made = await reporter(book())(about, Body(ORIGINAL), [failed(0), delayed(1), failed(2)])
    assert [(each.kind, each.recipient) for each in made] == [
        ("failure", "bob@contoso.com and 1 more"),
        ("delay", "carol@fabrikam.example"),
    ]
    assert [each.message_id for each in made] == ["<word0@relay.example.com>", "<word1@relay.example.com>"]
    for each in made:
        assert each.envelope.sender.is_null
        assert [(to.address, to.notify) for to in each.envelope.recipients] == [(ALICE, frozenset({Notify.NEVER}))]
        assert each.envelope.ret is Ret.UNSET
        assert each.message_id.encode() in each.content


async def test_nobody_to_tell_reads_nothing() -> None:
    body = Body(ORIGINAL)
    assert await reporter(book())(message(sender=NULL), body, [failed()]) == ()
    assert await reporter(book())(message(notify=frozenset({Notify.NEVER})), body, [failed()]) == ()
    assert body.read == 0


async def test_a_report_mailbox_never_answers() -> None:
    """It takes mail from anybody, so a warning or a bounce would go to whoever the sender says it is."""
    mailbox = Address("tlsrpt", "example.com")
    config = book().config.model_copy(update={"tlsrpt": Tlsrpt.model_validate({"mailbox": [str(mailbox)]})})
    asks = frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})
    about = message(Address("TLSRPT", "example.com"), BOB, notify=asks, auth="alice")
    answers = reporter(RuleBook.of(config))
    for end in (delayed, failed, delivered):
        assert await answers(about, Body(ORIGINAL), [end(0)]) == ()
        (told,) = await answers(about, Body(ORIGINAL), [end(0), end(1)])
        assert told.recipient == str(BOB)


async def test_the_partner_and_what_was_required_are_named() -> None:
    rules = book(connector("contoso-out", "contoso.com", tls="domain", names=["*.contoso.com"], tls_version="TLSv1.3"))
    said = Deferred(451, "4.7.5", "the certificate is for other.example", TlsFailure.CERTIFICATE_HOST_MISMATCH)
    end = End(0, "failed", Bounced(550, "5.7.5", "not delivered within 5 days"), said)
    text = next((await one(rules, message(), end)).iter_parts()).get_content()
    words = " ".join(text.split())
    assert (
        "contoso.com's mail server showed a certificate for another name than the one that connector contoso-out requires."
        in words
    )
    assert "Required: TLSv1.3 or newer with a trusted certificate for *.contoso.com" in words
    assert "Found: the certificate is for other.example" in words


async def test_the_message_goes_back_whole_only_where_asked_for_and_only_with_a_failure() -> None:
    full = message(ret=Ret.FULL, notify=frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY}), may_relay=True)
    assert returned(await one(book(), full, failed())) == "message/rfc822"
    assert returned(await one(book(), full, delayed())) == "text/rfc822-headers"
    assert returned(await one(book(), full, delivered())) == "text/rfc822-headers"
    assert returned(await one(book(), message(ret=Ret.HEADERS), failed())) == "text/rfc822-headers"
    assert returned(await one(book(), message(), failed())) == "text/rfc822-headers"


async def test_a_large_message_goes_back_as_its_header_section_and_is_not_read_through() -> None:
    content = ORIGINAL + b"x" * MAX_WHOLE
    body = Body(content, size=4096)
    (report,) = await reporter(book())(message(ret=Ret.FULL, size=len(content)), body, [failed()])
    assert b"text/rfc822-headers" in report.content
    assert body.read == 1


async def test_content_that_had_to_be_protected_does_not_go_back_unprotected() -> None:
    full = message(ret=Ret.FULL)
    parsed = await one(ENCRYPTED, full, failed())
    assert returned(parsed) == "text/rfc822-headers"
    assert b"the text" not in parsed.as_bytes()
    both = book(connector("all", "*", tls="encryption"))
    assert returned(await one(both, full, failed())) == "message/rfc822"


DANE = OPEN.adding({Encryption("dane"), Tlsa("dane", "mx.contoso.com", (), ("mx.contoso.com",))})
STS = OPEN.adding({Encryption("mta-sts"), StsMx("mta-sts", "mx.contoso.com", ("mx.contoso.com",))})
NO_DOMAIN = Bounced(550, "5.1.2", "the domain contoso.com does not exist")


@pytest.mark.parametrize(
    ("end", "whole"),
    [
        (replace(failed(), plan=DANE), False),
        (replace(failed(), plan=STS), False),
        (replace(failed(), plan=OPEN.adding({Encryption("dane")})), False),
        (replace(failed(), plan=None), False),  # given up long after the attempt, or withheld by policy
        (End(0, "failed", GONE, LATER, hop="", plan=None), False),  # DNS never answered: nobody knows what is published
        (End(0, "failed", GONE, None, hop="", plan=None), False),
        (End(0, "failed", NO_DOMAIN, NO_DOMAIN, hop="", plan=None), True),
    ],
    ids=["dane", "mta-sts", "unusable-tlsa", "not-known", "no-answer", "never-tried", "no-domain"],
)
async def test_content_that_published_policy_protected_does_not_go_back_unprotected(end: End, whole: bool) -> None:
    """No connector says so, and the way back is as open as the default is."""
    parsed = await one(book(), message(ret=Ret.FULL), end)
    assert (b"the text" in parsed.as_bytes()) is whole


@pytest.mark.parametrize(
    ("end", "kind"), [(failed(), "failure"), (delayed(), "delay"), (delivered(), "success")], ids=["f", "d", "s"]
)
async def test_what_tells_of_a_requiretls_message_goes_with_requiretls_and_carries_its_header_only(
    end: End, kind: str
) -> None:
    """RFC 8689 section 5, even where the way back would do for any other message."""
    every = frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})
    about = message(ret=Ret.FULL, notify=every, may_relay=True, requiretls=True)
    everywhere = book(connector("all", "*", tls="encryption"))
    for rules in (book(), everywhere):
        (report,) = await reporter(rules)(about, Body(ORIGINAL), [end])
        assert report.kind == kind
        assert report.envelope.requiretls
        assert not report.envelope.tls_optional
        assert b"text/rfc822-headers" in report.content
        assert b"the text" not in report.content
    (other,) = await reporter(everywhere)(message(ret=Ret.FULL), Body(ORIGINAL), [failed()])
    assert not other.envelope.requiretls


async def test_a_sender_who_asked_for_requiretls_reads_why_it_could_not_be_kept() -> None:
    bounced = Bounced(550, "5.7.30", "REQUIRETLS cannot be kept: no offer", TlsFailure.REQUIRETLS_NOT_SUPPORTED)
    parsed = await one(book(), message(requiretls=True), failed(outcome=bounced))
    assert "Status: 5.7.30" in parsed.as_string()
    words = " ".join(next(parsed.iter_parts()).get_content().split())
    assert "asks for encryption all the way (REQUIRETLS), and contoso.com's mail server cannot promise it" in words
    assert "Required: TLSv1.2 or newer with the promise of TLS all the way (REQUIRETLS)" in words


@pytest.mark.parametrize(
    ("out", "back", "allowed"),
    [
        ({}, {}, True),
        ({}, {"tls": "encryption"}, True),
        ({"tls": "encryption"}, {}, False),
        ({"tls": "encryption"}, {"tls": "encryption"}, True),
        ({"tls": "certificate"}, {"tls": "encryption"}, False),
        ({"tls": "encryption"}, {"tls": "certificate"}, True),
        ({"tls": "domain", "names": ["a.example"]}, {"tls": "certificate"}, False),
    ],
)
def test_the_way_back_must_be_as_strong(out: dict[str, Any], back: dict[str, Any], allowed: bool) -> None:
    rules = book(connector("out", "contoso.com", **out), connector("back", "example.com", **back))
    assert may_return_content(rules, ALICE, [BOB], NOW) is allowed
    # One recipient who had to be protected is enough.
    assert may_return_content(rules, ALICE, [CAROL, BOB], NOW) is allowed


async def test_a_smart_host_and_a_sender_that_is_our_postmaster() -> None:
    rules = book(connector("out", "contoso.com", tls="domain", route={"smart_hosts": ["mail.contoso.com:25"]}))
    said = Deferred(451, "4.7.4", "no STARTTLS", TlsFailure.STARTTLS_NOT_SUPPORTED)
    about = message(sender=Address("postmaster", ""), ret=Ret.FULL)
    parsed = await one(rules, about, End(0, "failed", said, said))
    assert parsed["To"] == "postmaster@example.com"
    assert "a trusted certificate for mail.contoso.com" in " ".join(parsed.as_string().split())


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (ORIGINAL, b"From: alice@example.com\r\nSubject: hello\r\n"),
        (b"\r\nno header at all\r\n", b""),
        (b"Subject: no body\r\n", b"Subject: no body\r\n"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_the_header_section_is_found_across_chunks(content: bytes, header: bytes, size: int) -> None:
    assert await read_header(Body(content, size)) == header


async def test_an_endless_header_section_is_cut_at_a_line() -> None:
    body = Body(b"X-Line: aaaaaaaaaaaaaaaaaaaa\r\n" * 100_000, size=4096)
    header = await read_header(body)
    assert MAX_HEADER - 40 < len(header) <= MAX_HEADER
    assert header.endswith(b"a\r\n")
    assert body.read <= MAX_HEADER // 4096 + 1


def test_what_a_plan_asks_in_words() -> None:
    class Published(Demand):
        pass

    pinned = book(connector("out", "contoso.com", tls="encryption", pins=["sha256:" + "A" * 43 + "="]))
    plan = choose_plan(pinned, pinned.outbound_for("contoso.com"), "contoso.com", "mx.contoso.com", NOW)
    assert required_words(plan) == "TLSv1.2 or newer with a key known beforehand"
    clear = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED)
    assert required_words(clear) == ""
    assert required_words(clear.adding([Published("dane")])) == "TLS with what the domain itself publishes"


@pytest.mark.parametrize("sender", [NULL, ALICE])
def test_composing_for_nobody_or_of_nothing_is_an_error(sender: Address) -> None:
    issuer = Issuer("relay.example.com", ALICE)
    with pytest.raises(ValueError, match="somebody to tell"):
        compose(issuer, message(sender=sender), Kind.FAILURE, [], Returned(b"", False), Stamp("x", NOW))


async def test_what_no_server_said_is_not_put_into_its_mouth() -> None:
    never = End(0, "failed", Bounced(550, "5.0.0", "given up by the administrator"), None, hop="", attempts=0)
    text = (await one(book(), message(), never)).as_string()
    assert "Diagnostic-Code: X-Ironpost; 550 5.0.0 given up by the administrator" in text
    assert "The message could not be passed on to contoso.com." in text
    assert "Remote-MTA" not in text
    assert "Last-Attempt-Date" not in text
