"""Which certificate for which name, and what a reload takes in."""

import ssl
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from relay.config.certificates import CertificateFiles
from relay.tls import keyring as module
from relay.tls.context import client_context, server_context
from relay.tls.keyring import Changes, Keyring
from tests.unit.tls import odd
from tests.unit.tls.pki import DAY, NOW, Issued, Pair, Wish, clock, root, rsa_key, self_signed


class Ring:
    """A keyring over a folder of its own, with a clock that can be set."""

    def __init__(self, folder: Path, **certificates: Issued) -> None:
        self.folder = folder
        self.now = NOW
        for name, issued in certificates.items():
            issued.write(folder, name)
        self.keyring = Keyring(folder, hostname="host.example", clock=self.clock)

    def clock(self) -> datetime:
        return self.now

    def names(self) -> list[str]:
        return [files.name for files in self.keyring.certificates]

    def picked(self, server_name: str) -> str:
        return " ".join(sorted(files.name for files in self.keyring.pick(server_name)))


def of(*names: str, after: datetime = NOW + 100 * DAY, before: datetime = NOW - DAY) -> Issued:
    return self_signed(Wish(names[0] if names else "leaf", names=names, after=after, before=before))


@pytest.mark.parametrize(
    ("asked", "picked"),
    [
        ("a.example", "exact"),
        ("A.Example", "exact"),
        ("a.example.", "exact"),
        ("b.example", "wild"),
        ("x.b.example", "default"),
        ("", "default"),
        ("example", "default"),
        (".example", "wild"),
        ("*.example", "wild"),
        ("\udcff\0", "default"),
        ("a" * 10_000, "default"),
    ],
)
def test_exact_then_wildcard_then_the_hostname_s(asked: str, picked: str, tmp_path: Path) -> None:
    ring = Ring(tmp_path, aaa=of("z.test"), exact=of("a.example"), wild=of("*.example"), default=of("host.example"))
    assert ring.picked(asked) == picked


def test_default_without_the_hostname_is_the_first(tmp_path: Path) -> None:
    assert Ring(tmp_path, b=of("b.test"), a=of("a.test")).picked("unknown.test") == "a"


def test_default_may_be_a_wildcard_for_the_hostname(tmp_path: Path) -> None:
    assert Ring(tmp_path, a=of("a.test"), b=of("*.example")).picked("") == "b"


def test_nothing_to_pick(tmp_path: Path) -> None:
    keyring = Ring(tmp_path).keyring
    assert not keyring.usable
    assert keyring.pick("a.example") == ()
    assert keyring.by_name("a.example") is None
    assert keyring.expiring(DAY) == ()


@given(st.binary(max_size=300))
def test_any_bytes_find_a_certificate(raw: bytes) -> None:
    files = CertificateFiles("a", ("a.example",), NOW, NOW, (b"",), root().key)
    keys = module.Keys.of([files], "host.example")
    keyring = Keyring(Path("/nonexistent"), hostname="host.example", clock=clock)
    assert keyring.pick_from(keys, raw) == (files,)


def test_of_several_the_one_that_is_valid_and_ends_last(tmp_path: Path) -> None:
    """So that the next certificate can lie beside the present one."""
    ring = Ring(
        tmp_path,
        ended=of("host.example", after=NOW - timedelta(hours=1)),
        early=of("host.example", after=NOW + 10 * DAY),
        late=of("host.example", after=NOW + 20 * DAY),
        future=of("host.example", before=NOW + 15 * DAY, after=NOW + 400 * DAY),
    )
    assert ring.picked("host.example") == ring.picked("") == "late"
    ring.now = NOW + 15 * DAY
    assert ring.picked("host.example") == ring.picked("") == "future"


def test_one_for_each_kind_of_key(tmp_path: Path) -> None:
    def rsa(after: datetime) -> Issued:
        return self_signed(Wish("rsa", names=("host.example",), after=after), rsa_key(2048))

    ring = Ring(
        tmp_path,
        ec=of("host.example", after=NOW + 10 * DAY),
        ec_old=of("host.example", after=NOW + 5 * DAY),
        rsa=rsa(NOW + 8 * DAY),
        wild=self_signed(Wish("wild", names=("*.example",)), rsa_key(2048)),
    )
    assert ring.picked("host.example") == "ec rsa"
    assert ring.picked("a.example") == "wild"
    ring.now = NOW + 9 * DAY
    assert ring.picked("host.example") == "ec", "what has ended is shown only where nothing else is left"
    ring.now = NOW + 20 * DAY
    assert ring.picked("host.example") == "ec"


def test_by_name(tmp_path: Path) -> None:
    ring = Ring(tmp_path, mail=of("relay.example"))
    for name in ("mail", "relay.example"):
        files = ring.keyring.by_name(name)
        assert files is not None
        assert files.name == "mail"
    assert ring.keyring.by_name("other.example") is None


def test_expiring_most_urgent_first(tmp_path: Path) -> None:
    ring = Ring(
        tmp_path, a=of("a", after=NOW + 9 * DAY), b=of("b", after=NOW + 2 * DAY), c=of("c", after=NOW + 30 * DAY)
    )
    assert [files.name for files in ring.keyring.expiring(10 * DAY)] == ["b", "a"]
    ring.now = NOW + 3 * DAY
    assert [files.name for files in ring.keyring.expiring(timedelta(0))] == ["b"]


# the next certificate


def test_no_peer_is_shown_the_next_one_before_it_is_renamed(tmp_path: Path) -> None:
    ring = Ring(tmp_path, mail=of("host.example", after=NOW + 10 * DAY))
    following = of("host.example", "new.example", after=NOW + 400 * DAY)
    following.write(tmp_path, "mail.next")
    assert ring.keyring.reload() == Changes()
    assert [files.name for files in ring.keyring.next] == ["mail.next"]
    for asked in ("host.example", "new.example", "mail.next", ""):
        assert ring.picked(asked) == "mail"
        assert ring.keyring.by_name("mail.next") is None
    assert not ring.keyring.expiring(1000 * DAY)[1:]
    # As docs/operations.md says: key first, so that no moment has a pair in use that does not match.
    (tmp_path / "mail.next.key").rename(tmp_path / "mail.key")
    changes = ring.keyring.reload()
    assert not changes.any
    assert [problem.file.name for problem in changes.kept] == ["mail.key"]
    (tmp_path / "mail.next.pem").rename(tmp_path / "mail.pem")
    assert ring.keyring.reload() == Changes(replaced=("mail",))
    assert ring.keyring.next == ()
    assert [files.leaf for files in ring.keyring.pick("new.example")] == [following.der]


def test_a_next_one_alone_is_nothing_to_show(tmp_path: Path) -> None:
    assert not Ring(tmp_path, **{"mail.next": of("host.example")}).keyring.usable


def test_a_next_one_that_openssl_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_refused", lambda files: "no" if files.is_next else "")
    ring = Ring(tmp_path, mail=of("host.example"), **{"mail.next": of("host.example")})
    assert ring.keyring.next == ()
    assert [problem.file.name for problem in ring.keyring.problems] == ["mail.next.pem"]


def test_what_to_publish_for_a_host(tmp_path: Path) -> None:
    ring = Ring(
        tmp_path,
        ended=of("mx.example", after=NOW - timedelta(hours=1)),
        mail=of("mx.example"),
        begins=of("mx.example", before=NOW + DAY, after=NOW + 400 * DAY),
        default=of("host.example"),
        **{"mail.next": of("renamed.example"), "new.next": of("*.example"), "other.next": of("other.test")},
    )

    def published(host: str) -> list[str]:
        return [files.name for files in ring.keyring.to_publish(host)]

    assert published("mx.example") == ["begins", "mail", "mail.next", "new.next"]
    assert published("elsewhere.test") == ["default"]
    assert published("host.example") == ["default", "new.next"]
    ring.now = NOW + 1000 * DAY
    assert published("mx.example") == ["begins", "ended", "mail", "mail.next", "new.next"]


# reload


def test_reload_without_a_change(tmp_path: Path) -> None:
    ring = Ring(tmp_path, a=of("a.example"))
    keys, generation = ring.keyring.keys, ring.keyring.generation
    assert ring.keyring.reload() == Changes()
    assert not Changes().any
    assert ring.keyring.keys is keys
    assert ring.keyring.generation == generation


def test_reload_takes_in_what_changed(tmp_path: Path) -> None:
    ring = Ring(tmp_path, a=of("a.example"), b=of("b.example"), c=of("c.example"))
    generation = ring.keyring.generation
    new = of("a.example")
    new.write(tmp_path, "a")
    (tmp_path / "b.pem").unlink()
    (tmp_path / "b.key").unlink()
    of("d.example").write(tmp_path, "d")
    changes = ring.keyring.reload()
    assert changes == Changes(added=("d",), removed=("b",), replaced=("a",))
    assert changes.any
    assert ring.names() == ["a", "c", "d"]
    assert ring.keyring.generation == generation + 1
    (files,) = ring.keyring.pick("a.example")
    assert files.leaf == new.der


HALF: dict[str, Callable[[Issued], dict[str, bytes | None]]] = {
    "certificate cut off": lambda new: {"a.pem": new.pem[:300], "a.key": new.key_pem},
    "certificate empty": lambda new: {"a.pem": b"", "a.key": new.key_pem},
    "key of the old one": lambda new: {"a.pem": new.pem},
    "key cut off": lambda new: {"a.pem": new.pem, "a.key": new.key_pem[:40]},
    "key gone": lambda new: {"a.pem": new.pem, "a.key": None},
    "certificate gone, key still there": lambda new: {"a.pem": None},
}


@pytest.mark.parametrize("case", HALF)
def test_half_written_changes_nothing(case: str, tmp_path: Path) -> None:
    old = of("a.example")
    ring = Ring(tmp_path, a=old, b=of("b.example"))
    keys, new = ring.keyring.keys, of("a.example")
    for name, data in HALF[case](new).items():
        if data is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes(data)
    changes = ring.keyring.reload()
    assert not changes.any
    assert len(changes.kept) == 1
    assert changes.kept == ring.keyring.problems
    assert ring.keyring.keys is keys
    new.write(tmp_path, "a")
    assert ring.keyring.reload() == Changes(replaced=("a",))
    assert not ring.keyring.problems


def test_folder_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "certs"
    path.mkdir()
    ring = Ring(path, a=of("a.example"))
    path.rename(tmp_path / "elsewhere")
    changes = ring.keyring.reload()
    assert not changes.any
    assert "the certificates folder cannot be read" in changes.kept[0].text
    assert ring.names() == ["a"]


def test_folder_that_never_was(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "nowhere", hostname="host.example", clock=clock)
    assert not keyring.usable
    assert len(keyring.problems) == 1
    assert keyring.reload() == Changes()


def test_new_file_in_trouble_is_only_a_problem(tmp_path: Path) -> None:
    ring = Ring(tmp_path, a=of("a.example"))
    (tmp_path / "b.pem").write_bytes(b"junk")
    assert ring.keyring.reload() == Changes()
    assert [problem.file.name for problem in ring.keyring.problems] == ["b.pem"]
    assert ring.names() == ["a"]


def test_chain_too_weak_for_a_handshake(tmp_path: Path) -> None:
    """OpenSSL takes such a chain when it is loaded, and then fails every handshake with it."""
    weak_ca = self_signed(Wish("weak", ca=True), rsa_key(1024))
    leaf = weak_ca.issue(Wish(names=["a.example"]))
    Issued(leaf.certificate, leaf.key, (weak_ca, root())).write(tmp_path, "a")
    keyring = Keyring(tmp_path, hostname="host.example", clock=clock)
    (problem,) = keyring.problems
    assert problem.file == tmp_path / "a.pem"
    assert problem.text == "certificate 2 is too weak for peers to accept: RSA key of 1024 bits"
    assert not keyring.usable


def test_weak_signatures(tmp_path: Path) -> None:
    """Of the leaf it counts, of a root that is sent along it does not."""
    ca = root()
    leaf = ca.issue(Wish(names=["a.example"]))
    for name, chain in {
        "bad": (odd.changed(leaf, odd.signed_with_sha1), ca.der),
        "good": (leaf.der, odd.changed(ca, odd.signed_with_sha1)),
    }.items():
        leaf.write(tmp_path, name)
        (tmp_path / f"{name}.pem").write_text("".join(map(ssl.DER_cert_to_PEM_cert, chain)))
    ring = Ring(tmp_path)
    assert ring.names() == ["good"]
    assert ring.keyring.problems[0].text == "certificate 1 is too weak for peers to accept: signature with SHA1"
    Pair(server_context(ring.keyring, ask_certificate=False), client_context()).shake().talk()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(SSL.Error(), "no reason given"), (SSL.Error([("SSL routines", "", "ee key too small")]), "ee key too small")],
)
def test_certificate_that_openssl_refuses(
    error: SSL.Error, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> SSL.Context:
        raise error

    monkeypatch.setattr(module, "server_engine", refuse)
    ring = Ring(tmp_path, a=of("a.example"))
    assert ring.keyring.problems[0].text == f"OpenSSL refuses the certificate or its key: {reason}"
    assert not ring.keyring.usable


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (of("a.example", after=NOW - DAY, before=NOW - 2 * DAY), "the new certificate ended on"),
        (of("a.example", before=NOW + DAY), "the new certificate begins on"),
    ],
)
def test_a_renewal_that_is_not_valid_now_does_not_take_a_valid_one_s_place(
    new: Issued, text: str, tmp_path: Path
) -> None:
    old = of("a.example")
    ring = Ring(tmp_path, a=old)
    new.write(tmp_path, "a")
    changes = ring.keyring.reload()
    assert not changes.any
    assert [text in each.text for each in changes.kept] == [True]
    assert changes.kept == ring.keyring.problems
    assert ring.keyring.by_name("a") is not None
    assert [files.leaf for files in ring.keyring.certificates] == [old.der]
    begins = "begins" in text
    assert ring.keyring.waits_until == (NOW + DAY if begins else None)
    if begins:
        ring.now = NOW + DAY
        assert ring.keyring.reload() == Changes(replaced=("a",))
        assert ring.keyring.waits_until is None
    # Where the old one is no better, the new one is taken.
    ring.now = NOW + 200 * DAY
    of("a.example", after=NOW + 150 * DAY).write(tmp_path, "a")
    assert ring.keyring.reload() == Changes(replaced=("a",))


def test_an_emptied_folder_takes_nothing_away(tmp_path: Path) -> None:
    old = of("a.example")
    ring = Ring(tmp_path, a=old, b=of("b.example"))
    for path in list(tmp_path.iterdir()):
        path.unlink()
    changes = ring.keyring.reload()
    assert not changes.any
    assert [each.text for each in changes.kept] == [
        "no certificate is left in the folder: those that were loaded before stay in use"
    ]
    assert ring.names() == ["a", "b"]
    old.write(tmp_path, "a")
    assert ring.keyring.reload() == Changes(removed=("b",))
    assert not ring.keyring.problems


def test_what_ended_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    """It still keeps mail from going in clear."""
    ring = Ring(tmp_path, a=of("a.example", after=NOW - DAY, before=NOW - 2 * DAY))
    assert ring.picked("a.example") == "a"
