"""What is legal and unwise: each warning in the case it is for, and silence where all is well."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.config.advice import advice
from relay.config.certificates import CertificateFiles, Folder, read_folder
from relay.config.load import load_with_places
from relay.config.references import missing_at_start
from relay.tls.selfsigned import create_self_signed
from tests.unit.config.builders import loaded

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
CA = f"ca: {ROOT}/tests/golden/config/files/ca.pem"
KEYS = ROOT / "tests/golden/config/files"
PIN = "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
PINS = f'"{PIN}", "sha256:{"A" * 43}="'


ONLY = "forced in one direction only"


def told(text: str, base: Path, folder: Folder | None = None, now: datetime = NOW) -> list[str]:
    """Key and text of each warning, without the ones about BASE's listener in clear and about the other direction, which few cases have."""
    return [each for each in all_told(text, base, folder, now) if ONLY not in each]


def all_told(text: str, base: Path, folder: Folder | None = None, now: datetime = NOW) -> list[str]:
    found = loaded(text, base)
    every = (found.at(each.place, each.text) for each in advice(found.config, folder or Folder(), now))
    return [f"{each.key}: {each.message}" for each in every if each.key != "listeners[0].starttls"]


def out(keys: str, domains: str = "contoso.com") -> str:
    return f"connectors:\n  - {{name: out, direction: outbound, match: {{recipient_domains: [{domains}]}}, {keys}}}\n"


def into(require: str, match: str = "sender_domains: [contoso.com], header_from: true") -> str:
    return f"connectors:\n  - {{name: in, direction: inbound, match: {{{match}}}, require: {{{require}}}}}\n"


def exception(until: str, allow: str = "plaintext") -> str:
    return f"exceptions: [{{recipient_domain: contoso.com, allow: {allow}, until: {until}, reason: old}}]\n"


WARNED = (
    ("observe: 0.0.0.0:9925\n", "observe: 0.0.0.0:9925 is not loopback"),
    ("accept: {networks: [8.0.0.0/8]}\n", "accept.networks[0]: 8.0.0.0/8 is a large part of the internet: all of it may send"),
    ("accept: {networks: [\"2600::/12\"]}\n", "accept.networks[0]: 2600::/12 is a large part of the internet"),
    ("bare_lf: {normalise: [8.0.0.0/8]}\n", "bare_lf.normalise[0]: 8.0.0.0/8 is a large part of the internet"),
    ("accept: {domains: [contoso.com]}\n" + out("tls: opportunistic"), "accept.domains[0]: mail for contoso.com goes to its MX"),
    ("accept: {domains: [\"*.contoso.com\"]}\n" + out("tls: opportunistic", "\"*\""), "accept.domains[0]: mail for *.contoso.com goes"),
    ("limits: {free_space: 0B}\n", "limits.free_space: on a full disk nothing can be recorded"),
    ("limits: {free_space: 1023KiB}\n", "limits.free_space: on a full disk nothing can be recorded"),
    ("tls_required_no: honour\n", "tls_required_no: only logged-in users are heard, and no listener here lets any log in"),
    # inbound
    (into("tls: true", "sender_domains: [contoso.com]"), "connectors[0] \"in\" . match: the From: header that people see is not"),
    (into("tls: true", "certificate_names: [a.example]"), "connectors[0] \"in\" . match.certificate_names: anyone can make a"),
    (into("certificate: {names: [a.example]}"), "connectors[0] \"in\" . require.certificate: any public CA may have issued it"),
    (into(f"certificate: {{pins: [\"{PIN}\"]}}"), "connectors[0] \"in\" . require.certificate.pins: one pin only"),
    (into("tls_version: TLSv1.1"), "connectors[0] \"in\" . require.tls_version: versions below TLSv1.2 are broken"),
    (into("networks: [10.0.0.0/8]", "networks: [\"::1\"]"), "connectors[0] \"in\" . require.networks: no address is in these"),
    (into("tls: true") + "  - {name: b, direction: inbound, match: {sender_domains: [contoso.com], header_from: true},"
     " require: {tls_version: TLSv1.3}}\n", "connectors[1] \"b\": connector in names the same domains and asks no more"),
    # outbound
    (out("tls: encryption"), "connectors[0] \"out\" . tls: any certificate passes, so an active attacker can read along"),
    (out("plaintext: if-tls-fails"), "connectors[0] \"out\" . plaintext: whoever breaks the handshake gets the mail in clear"),
    (out("tls: certificate"), "connectors[0] \"out\" . tls: any certificate of any public CA passes"),
    (out("tls: certificate, ca: system"), "connectors[0] \"out\" . tls: any certificate of any public CA passes"),
    (out(f"tls: encryption, pins: [\"{PIN}\"]"), "connectors[0] \"out\" . pins: one pin only"),
    (out("tls_version: TLSv1"), "connectors[0] \"out\" . tls_version: versions below TLSv1.2 are broken"),
    (out("tls_version: TLSv1.3"), "connectors[0] \"out\" . tls_version: at level opportunistic this does not stop"),
    (out("retry: {expire: 1h}"), "connectors[0] \"out\" . retry: `delay_warning` is not before `expire`"),
    (out("tls: encryption, route: {smart_hosts: [a.example], auth: {user: a, password: b}}"),
     "connectors[0] \"out\" . route.auth: at level encryption whoever sits on the way gets the password"),
    (out("tls: domain, route: {smart_hosts: [a.example], auth: {user: a, password: hunter2}}"),
     "connectors[0] \"out\" . route.auth.password: the secret stands in the file"),
    ("defaults: {outbound: {tls: encryption}}\n", "defaults.outbound.tls: any certificate passes"),
    # TLS reports
    ("tlsrpt: {organization: Example}\n", "tlsrpt: reports that go by mail are not signed, so most receivers ignore them"),
    (f"tlsrpt: {{dkim: {{domain: example.com, selector: a, key: \"file:{KEYS}/dkim-other.pem\"}}}}\n",
     "tlsrpt.dkim.key: the key has 1024 bits: make one of 2048"),
    ("tlsrpt: {send: off, mailbox: [a@example.com], unsigned: accept}\n", "tlsrpt.unsigned: anyone can write reports in anyone's name"),
    # exceptions
    (out("tls: domain, names: [a.example]") + exception("2026-11-21"), "exceptions[0].until: this ended on 2026-11-21"),
    (out("tls: domain, names: [a.example]") + exception("2026-11-22"), "exceptions[0].until: this ends in less than a day"),
    (out("tls: domain, names: [a.example]") + exception("2026-11-23"), "exceptions[0].until: this ends in 1 day:"),
    (out("tls: domain, names: [a.example]") + exception("2026-12-06"), "exceptions[0].until: this ends in 14 days:"),
    (out("tls: domain, names: [a.example]") + exception("2027-11-24"), "exceptions[0].until: this is more than a year away"),
    (exception("2027-03-31", "encryption"), "exceptions[0]: the rule for contoso.com allows this without it"),
    (out("plaintext: if-tls-fails") + exception("2027-03-31"), "exceptions[0]: the rule for contoso.com allows this without it"),
    (out("tls: encryption") + exception("2027-03-31", "encryption"), "exceptions[0]: the rule for contoso.com allows this"),
)  # fmt: skip

SILENT = (
    "limits: {free_space: 1MiB}\n",
    "tls_required_no: ignore\n",
    "observe: '[::1]:9925'\n",
    "accept: {networks: [10.0.0.0/8, 203.0.113.0/24, '2001:db8::/32', '2600:1234::/32']}\n",
    "accept: {domains: [contoso.com]}\n" + out("route: {smart_hosts: [a.example]}", "'*.com'").replace("'*.com'", "contoso.com"),
    into(f"certificate: {{names: [a.example], {CA}}}"),
    into(f"certificate: {{pins: [{PINS}]}}"),
    into("tls_version: TLSv1.2"),
    into("networks: [10.0.0.0/8]", "networks: [10.1.0.0/16]"),
    into(f"certificate: {{names: [a.example], {CA}}}", "certificate_names: [a.example]"),
    into("tls: true") + "  - {name: b, direction: inbound, match: {sender_domains: [contoso.com]"
    ", header_from: true}, require: {networks: [10.0.0.0/8]}}\n",
    into("tls: true") + "  - {name: b, direction: inbound, match: {sender_domains: [contoso.com]"
    ", header_from: true}, require: {tls: true}}\n",
    into("tls: true") + "  - {name: b, direction: inbound, match: {sender_domains: [contoso.com], header_from: true}"
    ", require: {tls: true, networks: [10.0.0.0/8]}, grant: {relay: true}}\n",
    into("tls: true", "sender_domains: [a.example, b.example], header_from: true")
    + "  - {name: b, direction: inbound, match: {sender_domains: [b.example, c.example]"
    ", header_from: true}, require: {tls_version: TLSv1.3}}\n",
    out(f"tls: encryption, pins: [{PINS}]"),
    out(f"tls: certificate, {CA}"),
    out("tls: domain, names: [a.example]"),
    out("tls_version: TLSv1.3, plaintext: never"),
    out("tls: domain, names: [a.example]") + exception("2026-12-07"),
    out("tls: domain, names: [a.example]") + exception("2027-11-23", "encryption"),
    out(f"tls: encryption, pins: [{PINS}]") + exception("2027-03-31", "encryption"),
    exception("2027-03-31"),
    "tlsrpt: {send: off, mailbox: [a@example.com]}\n",
    "tlsrpt: {send: off, unsigned: accept}\n",
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WARNED)
def test_warned(text: str, expected: str, tmp_path: Path) -> None:
    assert any(each.startswith(expected) for each in told(text, tmp_path)), told(text, tmp_path)


@pytest.mark.parametrize("text", SILENT)
def test_silent(text: str, tmp_path: Path) -> None:
    assert told(text, tmp_path) == []


ONE_WAY: tuple[tuple[str, list[str]], ...] = (
    (out("tls: encryption"), ['connectors[0] "out": forced in one direction only: mail to contoso.com must have TLS, and mail from']),
    (into("tls: true"), ['connectors[0] "in": forced in one direction only: mail from contoso.com must have TLS, and mail to there']),
    (out("tls: encryption") + into("tls: true").partition("\n")[2], []),
    (out("plaintext: never"), []),
    (out("tls: encryption") + into("networks: [10.0.0.0/8]").partition("\n")[2], ['connectors[0] "out": forced in one direction only']),
    ("accept: {domains: [contoso.com]}\n" + out("tls: encryption, route: {smart_hosts: [a.example]}"), []),
    (out("tls: encryption", "'*'"), []),
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ONE_WAY)
def test_partners_that_are_forced_in_one_direction_only(text: str, expected: list[str], tmp_path: Path) -> None:
    found = all_told(text, tmp_path)
    assert len([each for each in found if ONLY in each]) == len(expected)
    assert all(any(each.startswith(one) for each in found) for one in expected), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alerts: {}\n", ["alerts: nobody is told: give `mail` or `webhook`"]),
        ("alerts: {mail: [a@example.com]}\n", ["alerts: mail goes through the queue: that the queue does not move, only a `webhook` can tell"]),
        ("alerts: {webhook: {url: 'https://a.example/', secret: 0123456789abcdef}}\n",
         ["alerts.webhook.secret: the secret stands in the file: write ${NAME} or file:PATH, and change the secret"]),
    ],
)  # fmt: skip
def test_alerts(text: str, expected: list[str], tmp_path: Path) -> None:
    assert told(text, tmp_path) == expected


def test_a_connector_that_adds_nothing_is_told_once_in_each_way(tmp_path: Path) -> None:
    text = into("tls: true") + (
        "  - {name: other, direction: inbound, match: {sender_domains: [contoso.com], header_from: true}, require: {tls: true,"
        " networks: [10.0.0.0/8]}}\n"
        "  - {name: apart, direction: inbound, match: {sender_domains: [other.example], header_from: true}, require: {tls: true}}\n"
    )
    assert [each.split(":")[0] for each in told(text, tmp_path)] == ['connectors[1] "other"']


def test_clear_listeners_and_wide_proxies(tmp_path: Path) -> None:
    text = "# nothing more\n"
    found = loaded(text, tmp_path)
    assert [each.place for each in advice(found.config, Folder(), NOW)] == [("listeners", 0, "starttls")]
    listener = {"address": "127.0.0.1:25", "proxy_protocol": {"from": ["8.0.0.0/8"]}}
    config = type(found.config).model_validate(
        {"hostname": "a.example", "postmaster": "p@a.example", "listeners": [listener]}
    )
    assert [each.text for each in advice(config, Folder(), NOW)] == [
        "8.0.0.0/8 is a large part of the internet: all of it may claim any client address"
    ]


def test_users_who_may_set_published_policy_aside(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"hostname": "a.example", "postmaster": "p@a.example", "tls_required_no": "honour"}
    listeners = [{"address": "127.0.0.1:25"}, {"address": "127.0.0.1:587", "kind": "submission"}]
    (found,) = advice(type(loaded("", tmp_path).config).model_validate({**keys, "listeners": listeners}), Folder(), NOW)
    assert found.place == ("tls_required_no",)
    assert found.text.startswith("whoever may log in can send past the recipient's DANE and MTA-STS")


def test_secrets_that_others_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2", encoding="utf-8")
    text = out("tls: domain, route: {smart_hosts: [a.example], auth: {user: a, password: 'file:secret'}}")
    secret.chmod(0o604)
    assert told(text, tmp_path) == [
        f'connectors[0] "out" . route.auth.password: everybody on this machine can read {secret}: chmod 600 it'
    ]
    secret.chmod(0o640)
    assert told(text, tmp_path) == []
    config = loaded(text, tmp_path).config
    secret.unlink()
    assert [each.place for each in advice(config, Folder(), NOW) if ONLY not in each.text] == [
        ("listeners", 0, "starttls")
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    create_self_signed(tmp_path / "certs", "relay.example.com", NOW)
    return read_folder(tmp_path / "certs", NOW)


def test_certificates_that_end_soon_or_are_for_another_name(folder: Folder, tmp_path: Path) -> None:
    (ours,) = folder.certificates
    assert told("", tmp_path, folder) == []
    assert told("", tmp_path, folder, ours.not_after - timedelta(days=3, hours=1)) == [
        "certificates: the certificate relay.example.com ends in 3 days: renew it"
    ]
    assert told("", tmp_path, folder, ours.not_after + timedelta(days=1)) == []  # said of the folder
    other = CertificateFiles("other", ("other.example",), ours.not_before, ours.not_after, ours.chain, ours.key)
    assert told("", tmp_path, Folder((other,), ())) == [
        "hostname: no certificate is for relay.example.com: partners that verify ours will refuse it"
    ]


INNER = out("route: {smart_hosts: [inner.example]}, dane: auto", "example.com")
TLS = "publish: no listener of kind mx offers TLS: senders who hold to the policy will not deliver here"
PUBLISHED: tuple[tuple[str, list[str]], ...] = (
    ("", []),
    (
        "mode: testing",
        ["publish.mode: mode testing without `reports`: nobody tells you who could not reach you safely"],
    ),
    ('mode: testing, reports: ["mailto:r@example.com"]', []),
    ("mode: none", []),
    ("mode: enforce, max_age: 2w", [TLS.replace("publish", "publish.mode", 1)]),
    (
        "mode: enforce, max_age: 6d, mx: [mx.example.com, relay.example.com]",
        [
            "publish.mx: no certificate is for mx.example.com: senders who hold to the policy will not deliver there",
            "publish.max_age: below a week, a sender who writes seldom has forgotten the policy each time, and can be led astray",
            TLS.replace("publish", "publish.mode", 1),
        ],
    ),
    (
        "max_age: 1h, domains: {example.com: {mode: enforce}}",
        [
            "publish.max_age: below a week, a sender who writes seldom has forgotten the policy each time, and can be led astray",
            TLS.replace("publish", "publish.domains.example.com.mode", 1),
        ],
    ),
    (
        'mode: none, https: ["127.0.0.1:443"]',
        [
            "publish.https: no certificate is for mta-sts.example.com: senders cannot fetch the policy of example.com here"
        ],
    ),
)


@pytest.mark.parametrize(("publish", "expected"), PUBLISHED, ids=[each for each, _ in PUBLISHED])
def test_what_we_publish(publish: str, expected: list[str], folder: Folder, tmp_path: Path) -> None:
    text = f"accept: {{domains: [example.com]}}\ncertificates: certs\n{INNER}"
    text += f"publish: {{{publish}}}\n" if publish else ""
    assert told(text, tmp_path, folder) == expected


def test_one_word_about_many_domains_is_said_once(folder: Folder, tmp_path: Path) -> None:
    text = "accept: {domains: [a.example, b.example]}\npublish: {mode: testing}\n"
    connector = out("route: {smart_hosts: [inner.example]}", "a.example, b.example")
    assert len(told(text + connector, tmp_path, folder)) == 1


def test_a_next_certificate_that_is_for_less(folder: Folder, tmp_path: Path) -> None:
    (ours,) = folder.certificates

    def coming(name: str, *names: str) -> Folder:
        following = CertificateFiles(name, names, ours.not_before, ours.not_after, ours.chain, ours.key)
        return Folder(folder.certificates, (), (following,))

    assert told("", tmp_path, coming("relay.example.com.next", "other.example")) == [
        "certificates: the next certificate relay.example.com.next lacks relay.example.com, which relay.example.com has"
    ]
    assert told("", tmp_path, coming("relay.example.com.next", "relay.example.com", "other.example")) == []
    assert told("", tmp_path, coming("new.next", "other.example")) == []


def test_the_sample_has_nothing_unwise(folder: Folder) -> None:
    found = load_with_places(ROOT / "connectors.yaml", environment={})
    assert advice(found.config, folder, NOW) == ()
    assert list(missing_at_start(found.config, folder)) == []


def test_what_is_missing_at_the_start(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "connectors.yaml"
    path.write_text(
        "hostname: relay.example.com\npostmaster: p@example.com\ncertificates: certs\nsubmission: {passwords: users}\n"
        'listeners: [{address: "127.0.0.1:25"}, {address: "127.0.0.1:587", kind: submission},\n'
        '            {address: "127.0.0.1:26", starttls: off}]\n',
        encoding="utf-8",
    )
    config = load_with_places(path, environment={}).config
    assert [each.place for each in missing_at_start(config, Folder())] == [
        ("listeners", 0),
        ("listeners", 1),
        ("submission", "passwords"),
    ]
    (tmp_path / "users").touch()
    assert list(missing_at_start(config, folder)) == []
