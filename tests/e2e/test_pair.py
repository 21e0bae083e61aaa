"""A -> B -> sink in this process: what arrives, over what, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from ruamel.yaml import YAML

from relay.admin.queue import Action, Selection
from relay.admin.trace import TraceQuery
from relay.mail.events import AttemptMade, ConfigurationTaken, ConfigurationWaiting, RecipientEnded
from relay.testing import Pki, RelayPair, Sink, relay_pair
from tests.e2e.heard import Heard

MESSAGE = b"From: alice@a.test\r\nTo: bob@b.test\r\nSubject: hello\r\n\r\n.dot\r\n..dots\r\nend\r\n"


async def trace(pair: RelayPair, recipient: str, relay: str = "a") -> dict[str, Any]:
    found = await (pair.a if relay == "a" else pair.b).operator.trace(TraceQuery(recipient=recipient))
    assert found, f"no trace of {recipient}"
    return dict(found[0])


async def test_a_message_goes_over_mutually_verified_tls_1_3_and_arrives_unchanged() -> None:
    heard = Heard()
    async with relay_pair(observers=[heard]) as pair:
        await pair.send("bob@b.test", content=MESSAGE)
        (message,) = await pair.received()
        await heard.wait(RecipientEnded, 2)
        at_a, at_b = await trace(pair, "bob@b.test"), await trace(pair, "bob@b.test", "b")
    assert message.content.endswith(MESSAGE)
    assert message.content.count(b"\r\nReceived: ") == 1
    assert message.content.startswith(b"Received: from a.test")
    assert (message.sender, message.recipients) == ("alice@a.test", ("bob@b.test",))
    (attempt,) = at_a["attempts"]
    assert attempt["plan"]["level"] == "domain"
    assert {each["source"] for each in attempt["plan"]["demands"]} == {"connector to-b"}
    assert attempt["evidence"]["version"] == "TLSv1.3"
    assert attempt["evidence"]["group"] == "X25519MLKEM768"
    assert attempt["evidence"]["chain"][0]["names"] == ["b.test", "127.0.0.1"]
    assert [each["state"] for each in attempt["outcomes"]] == ["delivered"]
    assert at_b["accepted"]["connector"] == "from-a"
    assert at_b["accepted"]["protocol"] == "ESMTPS"
    assert at_b["accepted"]["tls"]["chain"][0]["names"] == ["a.test"]
    assert b"with ESMTPS" in message.content.split(b"\r\n\r\n", 1)[0]


async def test_many_messages_share_few_connections() -> None:
    heard = Heard()
    async with relay_pair(observers=[heard]) as pair:
        for number in range(30):
            await pair.send(f"user{number}@b.test")
        messages = await pair.received(30)
        await heard.wait(RecipientEnded, 60)
    assert {each.recipients[0] for each in messages} == {f"user{number}@b.test" for number in range(30)}
    used = {id(each.attempt.evidence) for each in heard.of(AttemptMade) if each.attempt.evidence is not None}
    assert 1 <= len(used) < 30


@pytest.mark.parametrize(
    ("outbound", "failure"),
    [
        ({"ca": "WRONG"}, "certificate-not-trusted"),
        ({"names": ["other.test"]}, "certificate-host-mismatch"),
        ({"pins": ["sha256:" + "A" * 43 + "="]}, "pin-mismatch"),
        ({"tls": "encryption", "names": None, "ca": None, "pins": ["sha256:" + "A" * 43 + "="]}, "pin-mismatch"),
    ],
)
async def test_b_with_the_wrong_certificate_gets_nothing(
    outbound: Mapping[str, Any], failure: str, tmp_path: Path
) -> None:
    wrong = Pki(tmp_path / "wrong", "wrong").ca
    changed = {key: str(wrong) if value == "WRONG" else value for key, value in outbound.items()}
    heard = Heard()
    async with relay_pair(outbound=changed, observers=[heard]) as pair:
        await pair.send("bob@b.test")
        (attempt, *_) = await heard.wait(AttemptMade)
        assert not pair.sink.messages
        assert not await pair.b.operator.trace(TraceQuery(recipient="bob@b.test"))
    ((_index, outcome),) = attempt.attempt.outcomes
    assert getattr(outcome, "failure", None) == failure
    assert (outcome.code, outcome.status) == (451, "4.7.5")


@pytest.mark.parametrize(
    "outbound",
    [
        {"tls": "opportunistic", "names": None, "ca": None},
        {"tls": "encryption", "names": None, "ca": None},
        {"tls": "certificate", "names": None},
        {"tls": "domain", "names": ["b.test"]},
        {"tls": "domain", "names": None},  # the smart host as configured: the IP address in the SAN
    ],
)
async def test_every_level_is_satisfied_by_the_right_certificate(outbound: Mapping[str, Any]) -> None:
    async with relay_pair(outbound=outbound) as pair:
        await pair.send("bob@b.test")
        (message,) = await pair.received()
    assert message.recipients == ("bob@b.test",)


async def test_without_its_client_certificate_a_is_refused_and_its_sender_is_told() -> None:
    heard = Heard()
    async with relay_pair(outbound={"client_certificate": None}, observers=[heard]) as pair:
        await pair.send("bob@b.test", sender="alice@a.test")
        (attempt, *_) = await heard.wait(AttemptMade)
    ((_index, outcome),) = attempt.attempt.outcomes
    assert (outcome.code, outcome.status) == (550, "5.7.1")
    assert "connector from-a" in outcome.text


async def test_a_client_in_clear_cannot_send_as_a() -> None:
    async with relay_pair() as pair:
        with pytest.raises(aiosmtplib.SMTPSenderRefused, match="from-a requires TLS") as refused:
            await pair.send("bob@b.test", via="b")
    assert refused.value.code == 530


async def test_nobody_relays_who_may_not() -> None:
    async with relay_pair() as pair:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await pair.send("x@elsewhere.example", sender="someone@c.test", via="b")
    assert refused.value.recipients[0].code == 550
    assert "relaying denied" in refused.value.recipients[0].message


async def test_a_certificate_that_is_put_right_lets_the_waiting_mail_through(tmp_path: Path) -> None:
    heard = Heard()
    async with relay_pair(outbound={"names": ["mail.b.test"]}, observers=[heard]) as pair:
        await pair.send("bob@b.test")
        await heard.wait(AttemptMade)
        certs = pair.folder / "b" / "certs"
        for old in certs.iterdir():
            old.unlink()
        pair.pki.issue(certs, "mail.b.test")
        (message,) = await pair.received()
    assert message.recipients == ("bob@b.test",)


def edit(file: Path, **keys: Any) -> None:
    """Changes A's connector to B in its file, as an admin's editor would: all at once. None takes a key away."""
    yaml = YAML(typ="safe")
    values = yaml.load(file.read_text())
    connector = values["connectors"][0]
    values["connectors"][0] = {key: value for key, value in (connector | keys).items() if value is not None}
    fresh = file.with_suffix(".new")
    with fresh.open("w") as stream:
        yaml.dump(values, stream)
    fresh.rename(file)


async def test_a_stronger_file_is_taken_by_itself_and_a_weaker_one_waits_for_a_word() -> None:
    heard = Heard()
    async with relay_pair(outbound={"tls": "certificate", "names": None}, observers=[heard]) as pair:
        file = pair.folder / "a" / "connectors.yaml"
        edit(file, tls="domain", names=["nobody.test"])
        await heard.wait(ConfigurationTaken)
        await pair.send("bob@b.test")
        (attempt, *_) = await heard.wait(AttemptMade)
        assert attempt.attempt.plan is not None
        assert attempt.attempt.plan.level == "domain"
        edit(file, tls="encryption", names=None, ca=None)
        (waiting,) = await heard.wait(ConfigurationWaiting)
        assert any("encryption" in reason for reason in waiting.reasons)
        assert not pair.sink.messages
        result = await pair.a.operator.reload(dry_run=False)
        assert result.taken
        assert any("encryption" in text for text in result.weaker)
        (message,) = await pair.received()
    assert message.recipients == ("bob@b.test",)


async def test_a_broken_file_changes_nothing() -> None:
    heard = Heard()
    async with relay_pair(observers=[heard]) as pair:
        file = pair.folder / "a" / "connectors.yaml"
        file.write_text(file.read_text()[:-40] + "\n  nonsense: [")
        await heard.wait(ConfigurationWaiting)
        result = await pair.a.operator.reload(dry_run=False)
        assert not result.taken
        assert result.errors
        await pair.send("bob@b.test")
        (message,) = await pair.received()
    assert message.recipients == ("bob@b.test",)


async def test_the_queue_can_be_looked_at_and_acted_on() -> None:
    heard = Heard()
    async with relay_pair(outbound={"names": ["nobody.test"]}, observers=[heard]) as pair:
        await pair.send("bob@b.test")
        await heard.wait(AttemptMade)
        operator = pair.a.operator
        page = await operator.messages(Selection(everything=True), after="", limit=10)
        (queued,) = page["messages"]
        assert queued["recipients"][0]["address"] == "bob@b.test"
        everything = Selection(everything=True)
        assert (await operator.act(Action.HOLD, everything))["changed"] == 1
        held = await operator.message(queued["id"])
        assert held is not None
        assert held["recipients"][0]["state"] == "held"
        assert (await operator.act(Action.DELETE, Selection(ids=(queued["id"],))))["changed"] == 1
        assert (await operator.messages(everything, after="", limit=10))["messages"] == []
        status = await operator.status()
    assert status["ready"]
    assert status["queue"]["messages"] == 0


def to(name: str, domain: str, sink: Sink) -> dict[str, Any]:
    match = {"recipient_domains": [domain]}
    return {"name": name, "direction": "outbound", "match": match, "route": {"smart_hosts": [str(sink.address)]}}


async def test_mail_that_is_refused_comes_back_to_its_sender() -> None:
    async with Sink() as senders, Sink(judge=lambda _recipient: "550 5.1.1 nobody of that name") as refusing:
        more = [to("home", "home.test", senders), to("refusing", "refusing.test", refusing)]
        async with relay_pair(more=more) as pair:
            await pair.send("bob@refusing.test", sender="alice@home.test")
            (report,) = await senders.wait()
    assert report.sender == ""
    assert report.recipients == ("alice@home.test",)
    assert b"multipart/report" in report.content
    assert b"bob@refusing.test" in report.content
    assert b"nobody of that name" in report.content
