"""Ironpost in front of a real Postfix: the checks inside see the real client, unknown recipients are refused at RCPT, and what is refused
after our 250 makes no backscatter. All of it over enforced TLS."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from argon2 import PasswordHasher

from relay.admin.queue import Action, Selection
from relay.admin.trace import TraceQuery
from relay.app import Relay
from relay.config.models import ListenerKind
from relay.mail.events import AttemptMade, CalloutTakesAll, RecipientAsked, RecipientEnded, RefusalHeld, ReportQueued
from relay.mail.outcome import Deferred
from relay.outbound.handshake import TlsClient
from relay.outbound.probe import Means, probe_domain
from relay.outbound.publications import NothingPublished
from relay.policy.book import RuleBook
from relay.testing import Pki, Sink, write_config
from relay.tls.trust import TrustStores
from tests.e2e.heard import Heard
from tests.e2e.peers import postfix, program
from tests.e2e.process import free_port
from tests.fakes import FakeResolver

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

MESSAGE = b"From: alice@example.test\r\nSubject: hello\r\n\r\nbody\r\n"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
UNKNOWN = "unknown"
BLOCKED, OTHER, V6 = "192.0.2.66", "192.0.2.7", "2001:db8::25"


@dataclass(frozen=True, slots=True)
class Front:
    """A relay with a Postfix for example.com behind it on `port`, which hands what it takes to `sink`. `log` is Postfix's."""

    relay: Relay
    heard: Heard
    sink: Sink
    log: Path
    pki: Pki
    port: int

    async def send(
        self, client: str, helo: str, recipient: str = "bob@example.com", sender: str = "alice@example.test"
    ) -> str:
        """As a client behind a load balancer. Gives the reply to the message."""
        return (
            await self.talk(
                client, helo, [f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA", MESSAGE.decode() + "."]
            )
        )[-1]

    async def talk(self, client: str, helo: str, lines: Sequence[str]) -> list[str]:
        address = self.relay.address()
        reader, writer = await asyncio.open_connection(address.host, address.port)
        family, server = ("TCP6", "2001:db8::1") if ":" in client else ("TCP4", "198.51.100.1")
        known = client != UNKNOWN
        writer.write(f"PROXY {family} {client} {server} 40025 25\r\n".encode() if known else b"PROXY UNKNOWN\r\n")
        replies = []
        for line in ("", f"EHLO {helo}", *lines, "QUIT"):
            if line:
                writer.write(line.encode() + b"\r\n")
            reply = b"250-"
            while reply[3:4] == b"-":
                reply = await asyncio.wait_for(reader.readline(), 30)
            replies.append(reply.decode().rstrip())
        writer.close()
        return replies[2:-1]


def postfix_settings(pki: Pki, folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    pem = pki.issue(folder, "inner.test", "127.0.0.1")
    pem.with_suffix(".key").chmod(0o644)
    restrictions = f"check_client_access inline:{{{BLOCKED}=REJECT}},reject_unauth_destination"
    return {
        "relay_domains": "example.com",
        "relay_recipient_maps": "inline:{bob@example.com=x,carol@example.com=x,postmaster@example.com=x}",
        "relay_transport": "relay",
        "smtpd_recipient_restrictions": restrictions,
        "smtpd_relay_restrictions": "reject_unauth_destination",
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_cert_file": str(pem),
        "smtpd_tls_key_file": str(pem.with_suffix(".key")),
        "smtpd_tls_received_header": "yes",
        "smtpd_delay_reject": "yes",
        "inet_protocols": "all",
        **extra,
    }


XCLIENT = {"smtpd_authorized_xclient_hosts": "127.0.0.1"}
PROXY = {"smtpd_upstream_proxy_protocol": "haproxy"}


@asynccontextmanager
async def front(
    folder: Path,
    settings: Mapping[str, str],
    connector: Mapping[str, Any],
    accept: Mapping[str, Any] | None = None,
    resolver: FakeResolver | None = None,
) -> AsyncIterator[Front]:
    pki, heard, port = Pki(folder / "pki"), Heard(), free_port()
    pki.issue(folder / "relay" / "certs", "relay.test", "127.0.0.1")
    inner = {
        "name": "inner",
        "direction": "outbound",
        "match": {"recipient_domains": ["example.com"]},
        "tls": "domain",
        "names": ["inner.test"],
        "ca": str(pki.ca),
        "route": {"smart_hosts": [f"127.0.0.1:{port}"]},
        "retry": {"initial": "300ms", "maximum": "1s"},
        **connector,
    }
    back = {
        "name": "back",
        "direction": "outbound",
        "match": {"recipient_domains": ["*"]},
    }
    (folder / "relay" / "passwords").write_text(f"joe:{CHEAP.hash('geheim')}:*\n")
    async with Sink() as sink:
        back["route"] = {"smart_hosts": [str(sink.address)]}
        config = {
            "hostname": "relay.test",
            "postmaster": "postmaster@relay.test",
            "listeners": [
                {"address": "127.0.0.1:0", "proxy_protocol": {"from": ["127.0.0.0/8"]}},
                {"address": "127.0.0.1:0", "kind": "submission"},
            ],
            "submission": {"passwords": "passwords"},
            "certificates": "certs",
            "queue": "sqlite:queue.db",
            "limits": {"free_space": "1MiB"},
            "accept": {"domains": ["example.com"], "networks": ["10.0.0.0/8"], **(accept or {})},
            "connectors": [inner, back],
        }
        file = write_config(folder / "relay", config, {})
        with postfix("inner", port, sink.address, postfix_settings(pki, folder / "keys", settings)) as log:
            async with Relay(file, observers=[heard], resolver=resolver or FakeResolver()) as relay:
                yield Front(relay, heard, sink, log, pki, port)


def received_by_postfix(content: bytes) -> str:
    """The Received header of the Postfix behind us, unfolded."""
    head = content.partition(b"\r\n\r\n")[0].decode()
    unfolded = re.sub(r"\r\n[ \t]+", " ", head)
    return next(line for line in unfolded.split("\r\n") if "by inner.test (Postfix)" in line)


NAMES = FakeResolver(reverse={OTHER: ["mail.other.example"]}, hosts={"mail.other.example": [OTHER]})


@pytest.mark.parametrize(
    ("how", "settings", "name"),
    [("xclient", XCLIENT, "mail.other.example"), ("proxy", PROXY, "unknown")],
)
async def test_postfix_sees_the_real_client(tmp_path: Path, how: str, settings: Mapping[str, str], name: str) -> None:
    async with front(tmp_path, settings, {"forward_client": how}, resolver=NAMES) as it:
        assert (await it.send(OTHER, "helo.other.example")).startswith("250 2.0.0")
        assert (await it.send(V6, "helo.six.example")).startswith("250 2.0.0")
        assert (await it.send("10.1.2.3", "[10.1.2.3]")).startswith("250 2.0.0")
        messages = await it.sink.wait(3, seconds=60)
        seen = [received_by_postfix(each.content) for each in messages]
        log = it.log.read_text()
    assert any(f"from helo.other.example ({name} [{OTHER}])" in each for each in seen)
    assert any(f"from helo.six.example (unknown [IPv6:{V6}])" in each for each in seen)
    assert any("(unknown [10.1.2.3])" in each for each in seen)
    assert all("TLSv1.3" in each for each in seen)
    assert f"client={name}[{OTHER}]" in log


@pytest.mark.parametrize(("how", "settings"), [("xclient", XCLIENT), ("proxy", PROXY)])
async def test_a_restriction_inside_speaks_of_the_real_client(
    tmp_path: Path, how: str, settings: Mapping[str, str]
) -> None:
    """And it is a stranger: no bounce goes to whom it claims to be."""
    connector = {"forward_client": how, "on_5xx": "hold"}
    async with front(tmp_path, settings, connector) as it:
        # Good and bad mail at the same time, so that connections would be shared if they could be.
        replies = await asyncio.gather(
            *(it.send(BLOCKED if index % 2 else OTHER, f"h{index}.example") for index in range(8))
        )
        assert all(each.startswith("250 2.0.0") for each in replies)
        held = await it.heard.wait(RefusalHeld, 4)
        messages = await it.sink.wait(4, seconds=60)
        seen = [received_by_postfix(each.content) for each in messages]
        listed = await it.relay.operator.trace(TraceQuery(recipient="bob@example.com"))
    assert all(f"[{OTHER}]" in each for each in seen)
    assert {name for each in seen for name in re.findall(r"from (h\d)", each)} == {"h0", "h2", "h4", "h6"}
    assert all((each.code, each.status) == (554, "5.7.1") and f"[{BLOCKED}]" in each.text for each in held)
    assert len(listed) == 8
    assert not it.heard.of(ReportQueued)


async def test_a_postfix_that_expects_no_proxy_header_gets_nothing(tmp_path: Path) -> None:
    async with front(tmp_path, {}, {"forward_client": "proxy"}) as it:
        await it.send(OTHER, "h.example")
        (made, *_) = await it.heard.wait(AttemptMade)
        log = it.log.read_text()
    ((_index, outcome),) = made.attempt.outcomes
    assert isinstance(outcome, Deferred)
    assert "from=<" not in log
    assert not it.sink.messages


async def test_a_probe_speaks_with_a_postfix_that_wants_a_proxy_header(tmp_path: Path) -> None:
    async with front(tmp_path, PROXY, {"forward_client": "proxy"}) as it:
        tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
        means = Means(RuleBook.of(it.relay.config), FakeResolver(), tls, NothingPublished(), lambda: datetime.now(UTC))
        found = await probe_domain(means, "example.com")
    assert found.passes


async def test_a_postfix_that_does_not_let_us_use_xclient_gets_nothing(tmp_path: Path) -> None:
    async with front(tmp_path, {}, {"forward_client": "xclient"}) as it:
        await it.send(OTHER, "h.example")
        (made, *_) = await it.heard.wait(AttemptMade)
        log = it.log.read_text()
    ((_index, outcome),) = made.attempt.outcomes
    assert (outcome.code, outcome.status) == (451, "4.7.0")
    assert "smtpd_authorized_xclient_hosts" in outcome.text
    assert "from=<" not in log
    assert not it.sink.messages


async def test_one_client_s_messages_share_a_connection_and_another_s_do_not(tmp_path: Path) -> None:
    one = ["MAIL FROM:<a@b.example>", "RCPT TO:<bob@example.com>", "DATA", MESSAGE.decode() + "."]
    async with front(tmp_path, XCLIENT, {"forward_client": "xclient", "limits": {"concurrency": 1}}) as it:
        for _ in range(2):
            # Nothing but the order of the replies is relied upon: the connection is kept for a second.
            await it.talk(OTHER, "h.example", one * 3)
        await it.talk(V6, "six.example", one)
        await it.sink.wait(7, seconds=60)
        log = it.log.read_text()
    assert log.count(f"client=unknown[{OTHER}]") == 6
    assert log.count(f"client=unknown[{V6}]") == 1
    assert log.count("connect from") - log.count("disconnect from") <= 7
    assert 2 <= log.count(": connect from") <= 4


async def test_our_own_reports_are_ours(tmp_path: Path) -> None:
    """A relayed message of a client that we know bounces, and the bounce to a recipient inside comes from our own address."""
    async with front(tmp_path, XCLIENT, {"forward_client": "xclient", "on_5xx": "hold"}) as it:
        await it.send("10.9.9.9", "app.example", recipient="nobody@example.com", sender="carol@example.com")
        (message,) = await it.sink.wait(1, seconds=60)
        (ended, *_) = await it.heard.wait(RecipientEnded)
    assert (message.sender, message.recipients) == ("", ("carol@example.com",))
    assert "(unknown [127.0.0.1])" in received_by_postfix(message.content)
    assert (ended.state, ended.status) == ("bounced", "5.1.1")
    assert not it.heard.of(RefusalHeld)


@pytest.mark.parametrize(("how", "settings"), [("off", {}), ("xclient", XCLIENT), ("proxy", PROXY)])
async def test_postfix_is_asked_who_exists(tmp_path: Path, how: str, settings: Mapping[str, str]) -> None:
    accept = {"recipients": {"example.com": "callout"}}
    async with front(tmp_path, settings, {"forward_client": how}, accept) as it:
        lines = ["MAIL FROM:<a@b.example>"]
        lines += [f"RCPT TO:<{each}@example.com>" for each in ("bob", "nobody", "carol", "nobody", "postmaster", "x.y")]
        replies = await it.talk(OTHER, "h.example", [*lines, "DATA", MESSAGE.decode() + "."])
        asked = [(each.recipient, each.result) for each in it.heard.of(RecipientAsked)]
        await it.sink.wait(1, seconds=60)
    unknown = "550 5.1.1 no such recipient here"
    assert [each[:3] for each in replies] == ["250", "250", "550", "250", "550", "250", "550", "354", "250"]
    assert replies[2] == replies[4] == replies[6] == unknown
    assert asked == [
        ("bob@example.com", "exists"),
        ("nobody@example.com", "missing"),
        ("carol@example.com", "exists"),
        ("x.y@example.com", "missing"),
    ]
    assert {each for message in it.sink.messages for each in message.recipients} == {
        "bob@example.com",
        "carol@example.com",
        "postmaster@example.com",
    }


async def test_a_callout_says_nothing_where_the_certificate_is_wrong(tmp_path: Path) -> None:
    accept = {"recipients": {"example.com": "callout"}}
    async with front(tmp_path, {}, {"names": ["other.test"]}, accept) as it:
        replies = await it.talk(OTHER, "h.example", ["MAIL FROM:<a@b.example>", "RCPT TO:<bob@example.com>"])
        log = it.log.read_text()
        (asked,) = it.heard.of(RecipientAsked)
    assert replies[1].startswith("450 4.1.1")
    assert "other.test" not in replies[1]
    assert "other.test" in asked.text
    assert "RCPT" not in log
    assert "bob@example.com" not in log


async def test_mail_refused_after_its_end_is_held_and_can_be_bounced(tmp_path: Path) -> None:
    extra = {"body_checks": "inline:{/virus/=REJECT}", "header_checks": "regexp:"}
    del extra["header_checks"]
    extra["body_checks"] = "regexp:" + str(tmp_path / "checks")
    (tmp_path / "checks").write_text("/^body/ REJECT not in this house\n")
    for each in (tmp_path, *tmp_path.parents):
        if each.owner() == "root" and str(each).startswith("/tmp/"):
            each.chmod(0o755)
    async with front(tmp_path, extra, {"on_5xx": "hold"}) as it:
        await it.send(OTHER, "h.example")
        (held,) = await it.heard.wait(RefusalHeld)
        (trace,) = await it.relay.operator.trace(TraceQuery(recipient="bob@example.com"))
    assert "not in this house" in held.text
    assert trace["accepted"]["client_port"] == 40025
    assert trace["accepted"]["server"] == "198.51.100.1:25"


@pytest.mark.parametrize(("how", "settings"), [("xclient", XCLIENT), ("proxy", PROXY)])
async def test_a_client_of_unknown_address_is_not_taken_for_us(
    tmp_path: Path, how: str, settings: Mapping[str, str]
) -> None:
    """Our own address is in the mynetworks of the Postfix behind us: it would relay."""
    rights = {
        "mynetworks": "127.0.0.0/8",
        "smtpd_recipient_restrictions": "permit_mynetworks,reject_plaintext_session,reject",
    }
    async with front(tmp_path, {**settings, **rights}, {"forward_client": how, "on_5xx": "hold"}) as it:
        await it.send(UNKNOWN, "h.example")
        (held,) = await it.heard.wait(RefusalHeld)
        log = it.log.read_text()
    assert (held.code, held.status) == (554, "5.7.1")
    assert "reject: RCPT from unknown[unknown]" in log or "reject: RCPT from unknown[0.0.0.0]" in log


async def test_postfix_hears_who_logged_in_with_us(tmp_path: Path) -> None:
    async with front(tmp_path, XCLIENT, {"forward_client": "xclient"}) as it:
        submission = it.relay.address(ListenerKind.SUBMISSION)
        async with aiosmtplib.SMTP(
            hostname=submission.host,
            port=submission.port,
            start_tls=True,
            validate_certs=False,
            local_hostname="pc.example",
        ) as client:
            await client.login("joe", "geheim")
            await client.sendmail("joe@example.test", ["bob@example.com"], MESSAGE)
        (message,) = await it.sink.wait(1, seconds=60)
        log = it.log.read_text()
    assert "sasl_username=joe" in log
    assert "from pc.example (unknown [127.0.0.1])" in received_by_postfix(message.content)


async def test_what_waited_over_a_restart_still_goes_out_as_its_client_s(tmp_path: Path) -> None:
    """The facts are in the queue, not in memory."""
    async with front(tmp_path, {}, {"forward_client": "xclient", "retry": {"initial": "1h"}}) as it:
        await it.send(OTHER, "h.example")
        await it.heard.wait(AttemptMade)
    pki, port = it.pki, free_port()
    file = tmp_path / "relay" / "connectors.yaml"
    file.write_text(file.read_text().replace(f"127.0.0.1:{it.port}", f"127.0.0.1:{port}"))
    async with Sink() as sink:
        with postfix("inner", port, sink.address, postfix_settings(pki, tmp_path / "keys", XCLIENT)):
            async with Relay(file, resolver=FakeResolver()) as relay:
                await relay.operator.act(Action.RETRY, Selection(everything=True))
                (message,) = await sink.wait(1, seconds=60)
    assert f"from h.example (unknown [{OTHER}])" in received_by_postfix(message.content)


async def test_a_postfix_that_takes_anybody_is_found_out(tmp_path: Path) -> None:
    accept = {"recipients": {"example.com": "callout"}}
    async with front(tmp_path, {"relay_recipient_maps": ""}, {}, accept) as it:
        await it.talk(OTHER, "h.example", ["MAIL FROM:<a@b.example>", "RCPT TO:<bob@example.com>"])
        (told,) = await it.heard.wait(CalloutTakesAll)
    assert told.domain == "example.com"


def steer(log: Path, command: str) -> None:
    """`postfix start`, `stop` or `reload` of the Postfix that writes `log`."""
    run = [program("postfix"), "-c", str(log.parent / "etc"), command]
    subprocess.run(run, check=True, capture_output=True, timeout=60)


async def asked(it: Front, recipient: str) -> str:
    """The reply to RCPT."""
    return (await it.talk(OTHER, "h.example", ["MAIL FROM:<a@b.example>", f"RCPT TO:<{recipient}@example.com>"]))[1]


async def test_while_postfix_is_down_nothing_is_lost_and_nobody_is_made_up(tmp_path: Path) -> None:
    accept = {"recipients": {"example.com": {"callout": {"positive": "1s", "negative": "1s", "timeout": "5s"}}}}
    async with front(tmp_path, {}, {}, accept) as it:
        assert (await asked(it, "bob")).startswith("250")
        assert (await asked(it, "nobody")).startswith("550 5.1.1")
        await asyncio.to_thread(steer, it.log, "stop")
        answers = it.heard.of(RecipientAsked)
        while not (await asked(it, "bob")).startswith("250") or len(it.heard.of(RecipientAsked)) == len(answers):
            pass  # until a second has passed, the answer is one that was kept
        # Who existed a moment ago is taken; of the others nobody says that they exist, and nobody that they do not.
        assert (await it.send(OTHER, "h.example")).startswith("250 2.0.0")
        while (reply := await asked(it, "nobody")).startswith("550"):
            pass  # the same
        assert reply.startswith("450 4.1.1")
        assert (await asked(it, "carol")).startswith("450 4.1.1")
        await asyncio.to_thread(steer, it.log, "start")
        await it.relay.operator.act(Action.RETRY, Selection(everything=True))
        (message,) = await it.sink.wait(1, seconds=60)
    assert message.recipients == ("bob@example.com",)
    assert not it.heard.of(ReportQueued)


async def test_a_postfix_that_greylists_is_asked_again(tmp_path: Path) -> None:
    """Its 450 is no answer: the client comes again, and so does the question."""
    table = tmp_path / "grey"
    table.write_text("/^carol@/ DEFER 4.7.1 greylisted\n")
    for each in (tmp_path, *tmp_path.parents):
        if each.owner() == "root" and str(each).startswith("/tmp/"):  # Postfix reads it as itself
            each.chmod(0o755)
    rules = {"smtpd_recipient_restrictions": f"check_recipient_access regexp:{table},reject_unauth_destination"}
    async with front(tmp_path, rules, {}, {"recipients": {"example.com": "callout"}}) as it:
        assert (await asked(it, "carol")).startswith("450 4.1.1")
        table.write_text("")
        await asyncio.to_thread(steer, it.log, "reload")
        while not (await asked(it, "carol")).startswith("250"):
            pass  # each round asks Postfix, which takes a moment to read its table again
        heard = it.heard.of(RecipientAsked)
    assert "greylisted" in heard[0].text
    assert {each.result for each in heard[:-1]} == {"unknown"}


@pytest.mark.parametrize(
    ("rule", "client", "helo", "said"),
    [
        ("check_client_access inline:{mail.other.example=REJECT}", OTHER, "h.example", f"mail.other.example[{OTHER}]"),
        ("check_reverse_client_hostname_access inline:{mail.other.example=REJECT}", OTHER, "h.example", "Unverified"),
        ("check_helo_access inline:{bad.example=REJECT}", BLOCKED, "bad.example", "<bad.example>: Helo command"),
        ("reject_unknown_client_hostname", BLOCKED, "h.example", f"your hostname, [{BLOCKED}]"),
    ],
)
async def test_restrictions_by_name_and_helo_see_the_client_s(
    tmp_path: Path, rule: str, client: str, helo: str, said: str
) -> None:
    restrictions = {"smtpd_recipient_restrictions": f"{rule},reject_unauth_destination"}
    rules = {**XCLIENT, **restrictions, "unknown_client_reject_code": "550"}
    resolver = FakeResolver(
        reverse={**NAMES.reverse, "192.0.2.8": ["good.example"]}, hosts={**NAMES.hosts, "good.example": ["192.0.2.8"]}
    )
    async with front(tmp_path, rules, {"forward_client": "xclient", "on_5xx": "hold"}, resolver=resolver) as it:
        await it.send("192.0.2.8", "good.example")
        await it.send(client, helo)
        (held,) = await it.heard.wait(RefusalHeld)
        (message,) = await it.sink.wait(1, seconds=60)
    assert said in held.text
    assert "from good.example (good.example [192.0.2.8])" in received_by_postfix(message.content)
