import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from relay.mail.codec import accepted_json, evidence_json, outcome_json, plan_json
from relay.mail.envelope import Accepted
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.plan import Encryption, Level, Pins, Pkix, Plaintext, RequireTls, TlsPlan, TlsVersion
from relay.mail.tls import Certificate, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted
from relay.report.trace import render_message, render_trace, with_remedies
from tests.unit.report.builders import NOW

LEAF = Certificate(
    "CN=mx.contoso.com",
    "CN=Contoso CA",
    ("mx.contoso.com", "*.contoso.com"),
    (),
    NOW,
    NOW,
    "ab" * 32,
    "sha256:" + "A" * 43 + "=",
)
ROOT = Certificate("CN=Contoso CA", "CN=Contoso CA", (), (), NOW, NOW, "cd" * 32, "sha256:" + "B" * 43 + "=")
TLS = TlsEvidence(
    "TLSv1.3",
    "TLS_AES_256_GCM_SHA384",
    "X25519MLKEM768",
    "mx.contoso.com",
    (LEAF, ROOT),
    ("self-signed certificate in chain",),
    {
        "system": Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "no path"),
        "/etc/ca.pem": Trusted("CN=Contoso CA", NOW),
        "/etc/gone.pem": Undecided("no such file"),
    },
)
BARE = TlsEvidence("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", "")
SOURCE = "connector contoso-out"
PLAN = TlsPlan(
    Level.DOMAIN,
    Plaintext.NEVER,
    frozenset(
        {
            Encryption(SOURCE),
            Pkix(SOURCE, "/etc/ca.pem", ("*.contoso.com",)),
            Pins(SOURCE, (LEAF.spki_sha256,)),
            TlsVersion("default", "TLSv1.2"),
        }
    ),
    client_certificate="relay.example.com",
)
MISMATCH = Deferred(451, "4.7.5", "the certificate is for other.example", TlsFailure.CERTIFICATE_HOST_MISMATCH)


def text(shown: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(shown: RenderableType) -> str:
    return " ".join(text(shown).split())


def attempt(outcome: Outcome, plan: TlsPlan | None = PLAN, evidence: TlsEvidence | None = TLS) -> dict[str, Any]:
    return {
        "at": "2026-11-25T08:00:01.000Z",
        "hop": "mx.contoso.com:25",
        "address": "203.0.113.7",
        "connector": "contoso-out",
        "plan": plan_json(plan),
        "evidence": evidence_json(evidence),
        "seconds": 0.25,
        "outcomes": [{"recipient": "bob@contoso.com", **outcome_json(outcome)}],
    }


def recipient(outcome: Outcome | None, state: str = "waiting") -> dict[str, Any]:
    last = {"at": "2026-11-25T08:00:01.000Z", "hop": "mx.contoso.com:25", **outcome_json(outcome)} if outcome else None
    following = "2026-11-25T08:30:00.000Z" if state == "waiting" else None
    return {
        "address": "bob@contoso.com",
        "state": state,
        "connector": "contoso-out",
        "attempts": 1 if outcome else 0,
        "next_attempt": following,
        "last": last,
    }


def trace(*attempts: dict[str, Any], tls: TlsEvidence | None = TLS, **accepted: Any) -> dict[str, Any]:
    how = Accepted(NOW, "192.0.2.1", "client.example", "mx 0.0.0.0:25", "ESMTPS", tls=tls, **accepted)
    return {
        "id": "01JD3M8Z7Q0000000001",
        "message_id": "<1@example.com>",
        "sender": "alice@example.com",
        "size": 4096,
        "accepted": accepted_json(how),
        "recipients": [recipient(MISMATCH)],
        "attempts": list(attempts),
    }


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("requiretls", "REQUIRETLS asked for: TLS all the way"),
        ("tls_optional", "TLS-Required No: the sender asks that DANE and MTA-STS be left out"),
    ],
)
def test_what_the_message_asks_of_tls_is_shown(key: str, said: str) -> None:
    for shown in (render_trace, render_message):
        assert said in words(shown({**trace(), key: True}))
        assert said not in words(shown({**trace(), key: False}))
        assert said not in words(shown(trace())), "of a relay that does not know it"


@pytest.mark.parametrize(
    ("vouched", "said"),
    [
        ("dnssec", "REQUIRETLS, the host vouched for by dnssec (requiretls)"),
        ("", "REQUIRETLS, and nobody vouches for the host (requiretls)"),
    ],
)
def test_the_demand_of_requiretls_in_words(vouched: str, said: str) -> None:
    plan = PLAN.adding({RequireTls("requiretls", vouched)})
    assert said in words(render_trace(trace(attempt(MISMATCH, plan))))


EXPECTED = """\
Message       01JD3M8Z7Q0000000001
Message-ID    <1@example.com>
From          alice@example.com
Size          4,096 bytes
To            bob@contoso.com waiting

Accepted  2026-11-25T08:00:00.000Z
  client        192.0.2.1, which called itself client.example
  listener      mx 0.0.0.0:25, ESMTPS
  connector     contoso-in
  user          joe
  may relay     to anywhere
  TLS           TLSv1.2, ECDHE-RSA-AES256-GCM-SHA384, group unknown
  certificate   none was shown

Attempt 1  2026-11-25T08:00:01.000Z (0.250 s)
  hop           mx.contoso.com:25, address 203.0.113.7
  connector     contoso-out
  plan          level domain, never in clear
    requires    TLS (connector contoso-out)
    requires    the key sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= (connector contoso-out)
    requires    a certificate issued under /etc/ca.pem, for *.contoso.com (connector contoso-out)
    requires    TLSv1.2 or newer, where there is TLS (default)
    we show     the certificate of relay.example.com
  TLS           TLSv1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768, asked for mx.contoso.com
  certificate   CN=mx.contoso.com, for mx.contoso.com, *.contoso.com
    valid       from 2026-11-25T08:00:00.000Z until 2026-11-25T08:00:00.000Z
    sha256      abababababababababababababababababababababababababababababababab
    key         sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    issued by   CN=Contoso CA
    issuer      itself
    valid       from 2026-11-25T08:00:00.000Z until 2026-11-25T08:00:00.000Z
    sha256      cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
    checked     against system: certificate-not-trusted, no path
    checked     against /etc/ca.pem: trusted, anchor CN=Contoso CA
    checked     against /etc/gone.pem: could not be checked, no such file
    noticed     self-signed certificate in chain
  deferred      bob@contoso.com: 451 4.7.5 the certificate is for other.example
                [certificate-host-mismatch]
"""


def test_a_trace_as_an_auditor_reads_it() -> None:
    shown = trace(attempt(MISMATCH), tls=BARE, connector="contoso-in", auth="joe", may_relay=True)
    lines = [line.rstrip() for line in text(render_trace(shown)).splitlines()]
    assert "\n".join(lines) + "\n" == EXPECTED
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            attempt(Delivered(250, "2.0.0", "ok"), evidence=None),
            "TLS none: in clear delivered bob@contoso.com: 250 2.0.0 ok",
        ),
        (attempt(MISMATCH, evidence=None), "none: no handshake was completed, or the hop offers no TLS"),
        (attempt(Bounced(550, "", "no"), plan=None), "plan none could be made"),
        (attempt(MISMATCH, evidence=BARE), "certificate the hop showed none"),
        (
            attempt(MISMATCH, plan=TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS, until=NOW)),
            "level opportunistic, in clear if TLS fails exception ends 2026-11-25T08:00:00.000Z",
        ),
    ],
)
def test_attempts(made: dict[str, Any], said: str) -> None:
    assert said in words(render_trace(trace(made, tls=None)))


def test_a_message_that_came_in_clear_and_was_not_tried() -> None:
    shown = words(render_trace(trace(tls=None)))
    assert "TLS none: in clear" in shown
    assert "connector none names this sender" in shown
    assert "No attempt yet" in shown


def test_a_demand_of_a_newer_relay_and_a_hop_that_was_never_reached() -> None:
    made = attempt(MISMATCH)
    made["plan"]["demands"] = [{"demand": "tlsa", "source": "dane", "usage": 3}]
    made["hop"] = made["address"] = ""
    made["evidence"]["chain"][-1]["issuer"] = "CN=Another CA"
    older = trace(made)
    del older["size"]
    shown = words(render_trace(older))
    assert "issuer CN=Another CA" in shown
    assert "Size" not in shown
    assert "requires tlsa usage 3 (dane)" in shown
    assert " hop " not in shown.replace("the hop ", "")


@pytest.mark.parametrize("width", [40, 80, 100])
def test_what_peers_say_cannot_talk_to_the_terminal_and_is_no_markup(width: int) -> None:
    nasty = "\x1b[2J[bold]x[/bold]\r\nMessage  forged\u202e"
    shown = trace(attempt(Deferred(451, "4.0.0", nasty)))
    shown["accepted"]["helo"] = nasty
    shown["message_id"] = nasty
    printed = text(render_trace(shown), width)
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "[bold]x[/bold]" in printed
    assert sum(line.startswith("Message  ") for line in printed.splitlines()) == 1
    assert max(map(len, printed.splitlines())) <= width


def message(*recipients: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "01JD3M8Z7Q0000000001",
        "sender": "",
        "size": 4096,
        "accepted_at": "2026-11-25T08:00:00.000Z",
        "recipients": list(recipients),
    }


def test_a_queued_message_with_the_remedy() -> None:
    shown = words(render_message(message(recipient(MISMATCH))))
    assert "From <>" in shown
    assert "state waiting after 1 attempt, next attempt 2026-11-25T08:30:00.000Z" in shown
    assert "last attempt 2026-11-25T08:00:01.000Z at mx.contoso.com:25" in shown
    assert "TLS failure certificate-host-mismatch" in shown
    assert "what to do mx.contoso.com:25 shows a certificate for other names" in shown
    assert "add it to `names` of connector contoso-out" in shown


def test_a_queued_message_without_trouble() -> None:
    fresh = recipient(None)
    fresh["connector"] = None
    gone = recipient(Bounced(550, "5.1.1", "no such user"), "bounced")
    gone["last"]["hop"] = ""
    shown = words(render_message(message(fresh, gone)))
    assert "state waiting after 0 attempts" in shown
    assert "answer 550 5.1.1 no such user" in shown
    assert "what to do" not in shown


def test_remedies_in_json() -> None:
    odd = recipient(MISMATCH)
    odd["last"]["failure"] = "something-newer"
    unnamed = recipient(MISMATCH)
    unnamed["connector"] = unnamed["last"]["hop"] = None
    made = with_remedies(message(recipient(MISMATCH), recipient(None), odd, unnamed))
    assert ["remedy" in each for each in made["recipients"]] == [True, False, False, True]
    assert "the mail server of contoso.com" in made["recipients"][3]["remedy"]
