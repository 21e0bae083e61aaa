"""Suggestions from what was recorded, as connectors that can be pasted; refusals counted; what cannot be asked."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from relay.admin.endpoint import BadQuestionError
from relay.admin.security import Span, SuggestQuery
from relay.app.evidence import Around, Evidence, Refused, proving
from relay.cli import build
from relay.mail.events import CommandRefused, ConnectionRefused
from relay.mail.reply import Reply
from relay.mail.tally import CLEAR, OTHER, Count, Kind, Refusal, Result, Sighting, Style, Way
from relay.policy.book import RuleBook
from relay.queue.store import StoreUnavailable
from relay.queue.tallying import Tallying
from tests.unit.policy.builders import book, config

NOW = datetime.now(UTC)
TLS = Style("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519", "encrypted", "opportunistic")
IN_CLEAR = Style(CLEAR, CLEAR, CLEAR, "none", "opportunistic")

BASE = """hostname: relay.example.com
postmaster: postmaster@example.com
listeners:
  - {address: "127.0.0.1:0", starttls: "off"}
trust: ca.pem
"""


class Ca:
    """Issues chains, as they are shown: DER, leaf first."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def chain(self, *names: str, ends: datetime | None = None) -> tuple[bytes, ...]:
        made = self._ca.issue_cert(*names, not_after=ends)
        return tuple(
            x509.load_pem_x509_certificate(each.bytes()).public_bytes(Encoding.DER) for each in made.cert_chain_pems
        )


class Recorded:
    """Stands for the tally of a store."""

    def __init__(self) -> None:
        self.found: list[tuple[Count, datetime, datetime]] = []
        self.seen: list[Sighting] = []

    def mail(
        self, domain: str, way: Way = Way.OUT, *, messages: int = 100, style: Style = TLS, failure: str = ""
    ) -> None:
        moved = Result.DELIVERED if way is Way.OUT else Result.ACCEPTED
        result = Result.DEFERRED if failure else moved
        kind = Kind(way, domain, "default" if way is Way.OUT else "", style, result, failure)
        self.found.append((Count(NOW, kind, messages, messages), NOW, NOW))

    def show(self, domain: str, host: str, chain: tuple[bytes, ...], way: Way = Way.OUT, **more: Any) -> None:
        values: dict[str, Any] = {"complete": True, "messages": 100, "latest": NOW}
        self.seen.append(Sighting(way, domain, host, chain, **(values | more)))

    async def lines(self, _since: datetime, _until: datetime, _domain: str = "") -> list[Any]:
        return self.found

    async def sightings(self, _since: datetime) -> list[Sighting]:
        return self.seen

    async def counted_to(self) -> datetime:
        return NOW

    async def say(self) -> None: ...

    async def catch_up(self) -> None: ...

    async def refuse(self, group: Mapping[tuple[int, Refusal], int]) -> None: ...


async def nobody() -> None: ...


def evidence(recorded: Recorded, rules: RuleBook) -> Evidence:
    around = Around(lambda: rules, lambda: NOW, lambda _event: None, nobody)
    return Evidence(cast(Tallying, recorded), Refused(lambda: NOW), around)


def check(folder: Path, text: str) -> None:
    file = folder / "connectors.yaml"
    file.write_text(text)
    words = ["check", "--config", str(file)]
    result = CliRunner().invoke(build(words), words)
    assert result.exit_code == 0, result.output


def of(answer: Mapping[str, Any], domain: str) -> dict[str, Any]:
    (found,) = [each for each in answer["suggestions"] if each["domain"] == domain]
    return dict(found)


async def test_suggestions_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ca, other = Ca(tmp_path), Ca(tmp_path / "other")
    recorded = Recorded()
    for domain in (
        "named.example",
        "self.example",
        "strange.example",
        "clear.example",
        "few.example",
        "kept.example",
        "_odd.example",
    ):
        recorded.mail(domain, messages=5 if domain == "few.example" else 100)
    recorded.mail("clear.example", messages=1, style=IN_CLEAR)
    recorded.mail("broken.example")
    recorded.mail("broken.example", messages=2, failure="handshake-failed")
    recorded.mail("dane.example", style=Style("TLSv1.3", "x", "y", "dane", "opportunistic+dane"))
    recorded.show("named.example", "mx1.named.example:25", ca.chain("*.named.example"), messages=50)
    recorded.show("named.example", "mx2.named.example:25", ca.chain("*.named.example"), messages=50)
    recorded.show("self.example", "mx.self.example:25", other.chain("mx.self.example"))
    recorded.show("strange.example", "mx.strange.example:25", ca.chain("host.elsewhere.net"))
    recorded.show("kept.example", "mx.kept.example:25", (), complete=False)
    recorded.mail("partner.example", Way.IN, style=Style("TLSv1.3", "x", "y", "encrypted"))
    recorded.show("partner.example", "192.0.2.0/24", ca.chain("mail.partner.example"), Way.IN)
    recorded.mail("plain.example", Way.IN, style=Style(CLEAR, CLEAR, CLEAR, "none"))
    made = evidence(recorded, book(trust=str(ca.file)))
    answer = await made.suggest(SuggestQuery(30, 20))
    assert {each["domain"]: each["suggested"] for each in answer["suggestions"]} == {
        "named.example": "domain",
        "self.example": "encryption",
        "strange.example": "certificate",
        "kept.example": "encryption",
        "_odd.example": "encryption",
        "clear.example": None,
        "few.example": None,
        "broken.example": None,
        "dane.example": None,
        "partner.example": "inbound",
        "plain.example": None,
    }
    assert of(answer, "named.example")["names"] == ["*.named.example"]
    assert "DANE" in of(answer, "dane.example")["why"]
    text = answer["yaml"]
    assert "over mx1.named.example:25, mx2.named.example:25" in text
    assert 'certificate: {names: ["mail.partner.example"]}' in text
    check(tmp_path, BASE + "connectors:\n" + text)


async def test_mail_that_was_counted_without_its_domain_may_be_anybodys(tmp_path: Path) -> None:
    """A stranger who mails from a thousand domains in an hour must not hide that a partner sends in clear."""
    recorded = Recorded()
    recorded.mail("b.example")
    recorded.mail("a.example", Way.IN)
    made = evidence(recorded, book())
    answer = await made.suggest(SuggestQuery())
    assert {each["how"] for each in answer["suggestions"]} == {"new"}
    recorded.mail(OTHER, Way.IN, messages=3)
    answer = await made.suggest(SuggestQuery())
    assert {each["domain"]: each["how"] for each in answer["suggestions"]} == {"a.example": "none", "b.example": "new"}
    assert "3 messages of this time" in of(answer, "a.example")["why"]
    recorded.mail(OTHER, messages=1, failure="handshake-failed")
    answer = await made.suggest(SuggestQuery())
    assert {each["how"] for each in answer["suggestions"]} == {"none"}
    assert "Nothing can be suggested" in answer["yaml"]


async def test_what_cannot_all_be_looked_at_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded()
    for number in range(3):
        recorded.mail(f"d{number}.example")
    made = evidence(recorded, book())
    assert (await made.suggest(SuggestQuery()))["yaml"]
    monkeypatch.setattr("relay.app.evidence.MOST_LINES", 3)
    with pytest.raises(BadQuestionError, match="ask for fewer days"):
        await made.suggest(SuggestQuery())


@pytest.mark.parametrize("days", [1, 30])
async def test_whole_days_are_looked_at(days: int) -> None:
    """What is old is kept by day, and chains always are: both begin at one midnight."""
    answer = await evidence(Recorded(), book()).suggest(SuggestQuery(days, 20))
    begun = datetime.fromisoformat(answer["since"])
    assert (begun.hour, begun.minute, begun.second, begun.microsecond) == (0, 0, 0, 0)
    assert timedelta(days=days) <= NOW - begun < timedelta(days=days + 1)
    assert "No message" not in answer["yaml"]


async def test_what_stands_in_the_way_of_a_level_is_told(tmp_path: Path) -> None:
    ca, recorded = Ca(tmp_path), Recorded()
    recorded.mail("a.example")
    recorded.show("a.example", "mx.a.example:25", ca.chain("mx.a.example"))
    lines = {"tls": "opportunistic", "plaintext": "if-not-offered"}
    rules = book(trust=str(ca.file), connectors=[outbound("one", "a.example", **lines)])
    answer = await evidence(recorded, rules).suggest(SuggestQuery())
    assert of(answer, "a.example")["drop"] == ["plaintext"]
    assert (
        'In connector one: write `tls: domain` and `names: ["mx.a.example"]`, and take `plaintext` away.'
        in answer["yaml"]
    )
    as_told = {"tls": "domain", "names": ["mx.a.example"]}
    check(tmp_path, BASE + f"connectors: {json.dumps([outbound('one', 'a.example', **as_told)])}\n")


async def test_a_certificate_that_was_renewed_since_counts_as_it_was(tmp_path: Path) -> None:
    ca, recorded = Ca(tmp_path), Recorded()
    recorded.mail("b.example")
    ended = NOW - timedelta(days=3)
    recorded.show(
        "b.example",
        "mx.b.example:25",
        ca.chain("mx.b.example", ends=ended),
        latest=ended - timedelta(days=1),
        messages=50,
    )
    recorded.show("b.example", "mx.b.example:25", ca.chain("mx.b.example"), messages=50)
    made = evidence(recorded, book(trust=str(ca.file)))
    assert of(await made.suggest(SuggestQuery()), "b.example")["suggested"] == "domain"
    recorded.seen[0] = Sighting(Way.OUT, "b.example", "mx.b.example:25", recorded.seen[0].chain, True, 50, NOW)
    one = of(await made.suggest(SuggestQuery()), "b.example")
    assert one["suggested"] == "encryption"
    assert "expired" in one["limit"]


def outbound(name: str, *domains: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "direction": "outbound", "match": {"recipient_domains": list(domains)}, **more}


async def test_a_connector_of_several_domains_is_raised_as_far_as_all_of_them(tmp_path: Path) -> None:
    ca, recorded = Ca(tmp_path), Recorded()
    for domain in ("a.example", "b.example", "c.example", "d.example"):
        recorded.mail(domain)
    recorded.show("a.example", "mx.a.example:25", ca.chain("mx.a.example"))
    recorded.show("b.example", "mx.b.example:25", ca.chain("elsewhere.net"))
    recorded.mail("d.example", messages=1, style=IN_CLEAR)
    rules = book(
        trust=str(ca.file),
        connectors=[outbound("two", "a.example", "b.example"), outbound("rest", "c.example", "d.example")],
    )
    answer = await evidence(recorded, rules).suggest(SuggestQuery())
    assert [(of(answer, each)["how"], of(answer, each)["suggested"]) for each in ("a.example", "b.example")] == [
        ("edit", "certificate")
    ] * 2
    assert of(answer, "c.example")["how"] == "none"
    assert "In connector two: write `tls: certificate`." in answer["yaml"]
    check(tmp_path, BASE + answer["yaml"])


async def test_names_that_are_taken_are_not_given_again(tmp_path: Path) -> None:
    recorded = Recorded()
    recorded.mail("b.example")
    rules = book(connectors=[outbound("b.example-out", "x.example")])
    answer = await evidence(recorded, rules).suggest(SuggestQuery())
    assert of(answer, "b.example")["connector"] == "b.example-out-2"


@pytest.mark.parametrize(
    ("span", "step", "wrong"),
    [
        (Span(NOW, NOW - timedelta(days=1)), "hour", "since: it is not before"),
        (Span(NOW - timedelta(days=402)), "day", "since: no more than 400 days"),
        (Span(NOW - timedelta(days=90)), "hour", "step: more than 840 steps"),
    ],
)
async def test_spans_that_cannot_be_had(span: Span, step: str, wrong: str) -> None:
    with pytest.raises(BadQuestionError, match=wrong):
        await evidence(Recorded(), book()).overview(span, step)


async def test_refusals_are_counted_without_who_it_was() -> None:
    refused = Refused(lambda: NOW)
    reply = Reply(550, "5.7.1", "no")
    for client in ("192.0.2.1", "192.0.2.2"):
        refused(CommandRefused("mx", client, "MAIL FROM:<x@y>", reply, "x@y", "", "contoso-in"))
    refused(CommandRefused("mx", "192.0.2.1", "\x16\x03\x01", Reply(500, "5.5.2", "what")))
    refused(ConnectionRefused("mx", "192.0.2.1", "too many"))
    written: list[Mapping[tuple[int, Refusal], int]] = []

    async def write(group: Mapping[tuple[int, Refusal], int]) -> None:
        written.append(group)

    async def broken(_group: Mapping[tuple[int, Refusal], int]) -> None:
        raise StoreUnavailable("disk full")

    with pytest.raises(StoreUnavailable):
        await refused.flush(broken)
    await refused.flush(write)
    await refused.flush(write)
    (group,) = written
    counts = Counter({refusal: count for (_hour, refusal), count in group.items()})
    assert counts == {
        Refusal("command", "mx", "MAIL", "contoso-in", 550, "5.7.1"): 2,
        Refusal("command", "mx", "other", "", 500, "5.5.2"): 1,
        Refusal("connection", "mx"): 1,
    }


async def test_refusals_have_a_limit() -> None:
    refused = Refused(lambda: NOW)
    for index in range(5000):
        refused(CommandRefused(f"mx {index}", "192.0.2.1", "MAIL", Reply(550, "5.7.1", "no")))
    written: list[Mapping[tuple[int, Refusal], int]] = []

    async def write(group: Mapping[tuple[int, Refusal], int]) -> None:
        written.append(group)

    await refused.flush(write)
    assert len(written[0]) <= 2001
    assert sum(written[0].values()) == 5000


def test_which_connectors_prove_who_it_is() -> None:
    def inbound(name: str, **require: Any) -> dict[str, Any]:
        return {
            "name": name,
            "direction": "inbound",
            "match": {"sender_domains": [f"{name}.example"]},
            "require": require,
        }

    made = config(connectors=[inbound("a", tls=True), inbound("b", certificate={"names": ["mx.b.example"]})])
    assert proving(made) == {"b"}
