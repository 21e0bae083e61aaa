"""What is listed of our certificates, and what partners would stumble over."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.config.certificates import Problem, Severity
from relay.config.models import Config
from relay.policy.candidate import judge, obstacles
from relay.policy.holdings import Holding, Standing, holding_json, is_error
from relay.policy.publish_check import Finding, State
from relay.policy.sheet import CA, DANE, Paper, Sheet
from relay.tls.inventory import Anchors, folder_defects, holding_of, holdings
from relay.tls.keyring import Keyring, checked_folder
from tests.unit.tls.pki import CLIENT_AUTH, DAY, NOW, SERVER_AUTH, Issued, Wish, clock, root, rsa_key, self_signed

ROOT = root("root")
MIDDLE = ROOT.issue(Wish("middle", ca=True, after=NOW + 500 * DAY))
HOST = "relay.test"


def config(folder: Path, **more: Any) -> Config:
    (folder / "ca.pem").write_bytes(ROOT.pem)
    values: dict[str, Any] = {
        "hostname": HOST,
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:25"}, {"address": "127.0.0.1:26", "starttls": "off"}],
        "certificates": str(folder / "certs"),
        "trust": str(folder / "ca.pem"),
    }
    return Config.model_validate(values | more)


def keyring(folder: Path, **pairs: Issued) -> Keyring:
    certs = folder / "certs"
    certs.mkdir()
    for name, each in pairs.items():
        each.write(certs, name)
    return Keyring(certs, hostname=HOST, clock=clock)


def leaf(*names: str, issuer: Issued = MIDDLE, **more: Any) -> Issued:
    return issuer.issue(Wish(names[0], names=names, **more))


def test_who_is_shown_what_and_who_uses_it(tmp_path: Path) -> None:
    connector = {"name": "out", "direction": "outbound", "match": {"recipient_domains": ["c.example"]}}
    loaded = config(
        tmp_path,
        connectors=[connector | {"client_certificate": "client"}],
        accept={"domains": []},
        publish={"https": ["127.0.0.1:443"], "domains": {"d.test": {}}},
    )
    rsa = MIDDLE.issue(Wish(HOST, names=[HOST]), rsa_key(2048))
    ring = keyring(
        tmp_path,
        client=leaf("client.test"),
        main=leaf(HOST, "*.relay.test"),
        other=rsa,
        shadow=leaf(HOST, after=NOW + 5 * DAY),
        sts=leaf("mta-sts.d.test"),
        **{"main.next": leaf(HOST)},
    )
    (ring_folder := tmp_path / "certs" / "broken.pem").write_bytes(b"junk")
    ring.reload()
    found = {each.name: each for each in holdings(loaded, ring, NOW)}
    assert {name: each.standing for name, each in found.items()} == {
        **dict.fromkeys(("client", "main", "other", "shadow", "sts"), Standing.IN_USE),
        "main.next": Standing.NEXT,
        "broken": Standing.IN_TROUBLE,
    }
    assert found["main"].shown.names == (HOST, "*.relay.test")
    assert found["main"].shown.otherwise
    assert found["main"].shown.listeners == ("mx 127.0.0.1:25",)
    assert found["other"].shown.names == (HOST,)
    assert not found["shadow"].shown.anybody
    assert not found["main.next"].shown.anybody
    assert found["sts"].shown.policies == ("mta-sts.d.test",)
    assert found["client"].connectors == ("out",)
    assert found["main"].anchor is not None
    assert found["main"].anchor.trust == str(tmp_path / "ca.pem")
    (problem,) = found["broken"].problems
    assert problem.file == ring_folder
    told = holding_json(found["broken"], NOW)
    assert (told["subject"], told["days_left"], told["problems"][0]["severity"]) == (None, None, "error")
    assert holding_json(found["shadow"], NOW)["days_left"] == 5.0
    assert holding_json(found["other"], NOW)["key"] == "RSA 2048"


ENDING_MIDDLE = ROOT.issue(Wish("ending", ca=True, after=NOW + 20 * DAY))
STRANGER = self_signed(Wish("stranger", ca=True, after=NOW + 500 * DAY))
LONE = replace(leaf(HOST), issuers=())
DEFECTS: dict[str, tuple[Issued, str]] = {
    "missing intermediate": (LONE, "no trusted CA has signed the end of the chain, and CN=middle is not in it"),
    "wrong order": (
        replace(LONE, issuers=(ROOT, MIDDLE, ROOT)),
        "certificate 1 was not issued by the one that follows it (CN=root)",
    ),
    "intermediate ends first": (leaf(HOST, issuer=ENDING_MIDDLE), "the intermediate CN=ending ends on"),
    "for clients only": (leaf(HOST, usages=[CLIENT_AUTH]), "does not allow it to be shown as a server's"),
    "for servers only, shown by a connector": (leaf(HOST, usages=[SERVER_AUTH]), "lacks clientAuth"),
}


@pytest.mark.parametrize("case", DEFECTS)
def test_what_partners_will_stumble_over(case: str, tmp_path: Path) -> None:
    issued, text = DEFECTS[case]
    connector = {"name": "out", "direction": "outbound", "match": {"recipient_domains": ["c.example"]}}
    users = [connector | {"client_certificate": HOST}] if "connector" in case else []
    loaded, ring = config(tmp_path, connectors=users), keyring(tmp_path, relay=issued)
    problems = list(folder_defects(loaded, checked_folder(tmp_path / "certs", NOW), NOW))
    assert [text in each.text for each in problems] == [True]
    assert problems[0].remedy
    assert problems[0].file == tmp_path / "certs" / "relay.pem"
    (holding,) = holdings(loaded, ring, NOW)
    assert list(holding.problems) == problems


@pytest.mark.parametrize(
    "issued",
    [
        leaf(HOST),
        self_signed(Wish(HOST, names=[HOST])),
        replace(leaf(HOST, issuer=STRANGER), issuers=(STRANGER, STRANGER)),
    ],
    ids=["trusted", "self-signed", "a CA of one's own, with its root"],
)
def test_chains_without_a_defect(issued: Issued, tmp_path: Path) -> None:
    loaded = config(tmp_path)
    keyring(tmp_path, relay=issued)
    assert not list(folder_defects(loaded, checked_folder(tmp_path / "certs", NOW), NOW))


def test_a_root_that_did_not_sign_it_is_no_anchor(tmp_path: Path) -> None:
    """A name alone proves nothing."""
    impostor = root("stranger")
    forged = replace(leaf(HOST, issuer=STRANGER), issuers=(impostor, impostor))
    assert Anchors(config(tmp_path)).of(forged.chain, NOW) is None


PRESENT = leaf(HOST, "mail.relay.test")
CANDIDATES: dict[str, tuple[Issued, list[tuple[Severity, str]]]] = {
    "good": (leaf(HOST, "mail.relay.test", after=NOW + 400 * DAY), []),
    "ended": (
        leaf(HOST, "mail.relay.test", after=NOW - DAY),
        [(Severity.ERROR, "it ended on"), (Severity.WARNING, "not later")],
    ),
    "begins later": (
        leaf(HOST, "mail.relay.test", before=NOW + DAY, after=NOW + 400 * DAY),
        [(Severity.WARNING, "it begins on")],
    ),
    "loses a name": (leaf(HOST, after=NOW + 400 * DAY), [(Severity.WARNING, "it lacks mail.relay.test")]),
    "no intermediate": (
        replace(leaf(HOST, "mail.relay.test", after=NOW + 400 * DAY), issuers=()),
        [(Severity.ERROR, "no trusted CA has signed")],
    ),
    "for clients only": (
        leaf(HOST, "mail.relay.test", after=NOW + 400 * DAY, usages=[CLIENT_AUTH]),
        [(Severity.ERROR, "does not allow it to be shown as a server's")],
    ),
    "self-signed": (
        self_signed(Wish(HOST, names=[HOST, "mail.relay.test"], after=NOW + 400 * DAY)),
        [(Severity.WARNING, "it is self-signed")],
    ),
    "an unknown CA with its root": (
        replace(leaf(HOST, "mail.relay.test", issuer=STRANGER, after=NOW + 400 * DAY), issuers=(STRANGER, STRANGER)),
        [(Severity.WARNING, "its root, CN=stranger, is in no trust store here")],
    ),
    "the same": (PRESENT, [(Severity.WARNING, "the very certificate")]),
    "ends sooner": (
        leaf(HOST, "mail.relay.test", after=NOW + 50 * DAY),
        [(Severity.WARNING, "not later than the present")],
    ),
    "no name": (
        MIDDLE.issue(Wish("x", after=NOW + 400 * DAY)),
        [(Severity.WARNING, "it lacks relay.test, mail"), (Severity.WARNING, "no subject alternative name")],
    ),
}


@pytest.mark.parametrize("case", CANDIDATES)
def test_may_it_be_the_next_one(case: str, tmp_path: Path) -> None:
    issued, expected = CANDIDATES[case]
    ring = keyring(tmp_path, relay=PRESENT, **{"relay.next": issued})
    loaded = config(tmp_path)
    anchors = Anchors(loaded)
    before, coming = (holding_of(each, loaded, anchors, NOW) for each in (ring.certificates[0], ring.next[0]))
    found = list(judge(before, coming, NOW))
    assert [each.severity for each in found] == [severity for severity, _text in expected]
    for remark, (_severity, text) in zip(found, expected, strict=True):
        assert text in remark.text
    first = [each for each in judge(None, coming, NOW) if "lacks" in each.text or "not later" in each.text]
    assert not first, "there is nothing that it could lack"


@pytest.fixture
def coming(tmp_path: Path) -> Holding:
    ring = keyring(tmp_path, **{"relay.next": leaf(HOST)})
    loaded = config(tmp_path)
    return holding_of(ring.next[0], loaded, Anchors(loaded), NOW)


@pytest.mark.parametrize(
    ("state", "text"),
    [(State.PUBLISHED, ""), (State.MISSING, "DNS has no TLSA record 3 1 1 ab"), (State.UNKNOWN, "SERVFAIL")],
)
def test_what_must_be_waited_for(state: State, text: str, coming: Holding) -> None:
    found = list(obstacles(coming, [Finding("_25._tcp.mx.test", "TLSA", state, "3 1 1 ab", text="SERVFAIL")], NOW))
    assert [text in each.text for each in found] == ([True] if text else [])


def test_dates_must_be_waited_for(coming: Holding) -> None:
    assert [each.text[:12] for each in obstacles(coming, [], NOW - 100 * DAY)] == ["it begins on"]
    assert [each.text[:11] for each in obstacles(coming, [], NOW + 200 * DAY)] == ["it ended on"]


def test_one_that_has_ended_is_no_candidate(tmp_path: Path) -> None:
    ring = keyring(tmp_path, relay=leaf(HOST))
    made = config(tmp_path)
    holding = holding_of(ring.certificates[0], made, Anchors(made), NOW)
    assert not holding.is_next
    later = holding.chain[0].certificate.not_after + DAY
    assert next(each.text for each in judge(None, holding, later) if each.is_error).startswith("it ended on")
    assert is_error(Problem(Severity.ERROR, tmp_path, "bad", "mend it"))
    assert not is_error(Problem(Severity.WARNING, tmp_path, "odd", "look"))


def test_an_intermediate_in_front_is_no_candidate(tmp_path: Path) -> None:
    ring = keyring(tmp_path, relay=MIDDLE)
    made = config(tmp_path)
    found = [
        each.text
        for files in ring.certificates
        for each in judge(None, holding_of(files, made, Anchors(made), NOW), NOW)
    ]
    assert "the first certificate is a CA's" in found


def sheet(present: Paper | None, coming: Paper | None) -> Sheet:
    return Sheet("relay", HOST, "postmaster@relay.test", NOW, True, True, present, coming)


def test_a_sheet_is_about_something() -> None:
    with pytest.raises(ValueError, match="about nothing"):
        _ = sheet(None, None).newest


def test_a_sheet_without_tlsa_records_and_without_a_known_root(tmp_path: Path) -> None:
    ring = keyring(tmp_path, relay=leaf(HOST), other=leaf(HOST))
    made = config(tmp_path)
    first, second = (holding_of(each, made, Anchors(made), NOW) for each in ring.certificates)
    alone = sheet(Paper(first.chain, None), None)
    assert {each.who for each in alone.tasks}.isdisjoint({CA, DANE})
    changing = sheet(Paper(first.chain, first.anchor), Paper(second.chain, second.anchor))
    assert DANE not in {each.who for each in changing.tasks}
