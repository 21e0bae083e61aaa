"""Reading the file. What is said of which mistake stands in tests/golden/config; here: files, places, environment, and hostile texts."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.config.load import ConfigError, load, load_text, load_with_places
from relay.config.problems import Problem
from relay.mail.plan import Level
from tests.unit.config.builders import BASE, loaded, problems

SAMPLE = Path(__file__).parents[3] / "connectors.yaml"


def why_not(path: Path) -> Problem:
    with pytest.raises(ConfigError) as caught:
        load(path, environment={})
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_the_sample_loads() -> None:
    config = load(SAMPLE, environment={})
    assert [each.name for each in config.connectors] == ["inner", "contoso-in", "contoso-out", "on-premises"]
    assert config.queue == f"sqlite:{SAMPLE.parent}/queue.db"


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    assert "`relay init` writes one" in why_not(tmp_path / "none.yaml").message
    assert why_not(tmp_path).message == "this is not a regular file"
    os.mkfifo(tmp_path / "fifo")
    assert why_not(tmp_path / "fifo").message == "this is not a regular file"
    assert "File name too long" in why_not(tmp_path / ("x" * 300)).message
    assert "null" in why_not(tmp_path / "a\0b").message
    (tmp_path / "binary").write_bytes(b"a: b\nc: \xff\n")
    found = why_not(tmp_path / "binary")
    assert (found.line, found.column, found.message) == (2, 4, "the file is not UTF-8 text")
    (tmp_path / "huge").write_bytes(b"#" * (4 * 2**20 + 1))
    assert why_not(tmp_path / "huge").message == "the file is larger than 4 MiB"


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "connectors.yaml"
    path.write_text("\ufeff" + BASE, encoding="utf-8")
    assert load(path, environment={}).hostname == "relay.example.com"


def test_the_environment_is_the_process_own_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TEST_HELO", "helo.example")
    path = tmp_path / "connectors.yaml"
    path.write_text(BASE + "defaults: {outbound: {helo: '${RELAY_TEST_HELO}'}}\n", encoding="utf-8")
    assert load(path).default.helo == "helo.example"


class ChangingFile:
    """`os.fstat` that sees another size each time."""

    def __init__(self, real: Callable[[int], os.stat_result]) -> None:
        self._real = real
        self._calls = 0

    def __call__(self, descriptor: int) -> os.stat_result:
        self._calls += 1
        values = list(self._real(descriptor))
        values[6] += self._calls
        return os.stat_result(values)


def test_a_file_that_is_being_saved_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "connectors.yaml"
    path.write_text(BASE, encoding="utf-8")
    monkeypatch.setattr("relay.config.load.os.fstat", ChangingFile(os.fstat))
    assert "it is being saved" in why_not(path).message


def test_places_can_be_asked_for(tmp_path: Path) -> None:
    text = (
        "connectors:\n  - name: out\n    direction: outbound\n    match: {recipient_domains: [a.example, b.example]}\n"
    )
    path = tmp_path / "connectors.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    found = load_with_places(path, environment={})
    second = found.at(("connectors", 0, "match", "recipient_domains", 1), "so")
    assert (second.line, second.column, second.key) == (8, 44, 'connectors[0] "out" . match.recipient_domains[1]')
    # What is not written is shown at the nearest thing around it.
    assert found.at(("connectors", 0, "retry", "expire"), "so").line == 6
    assert found.at(("limits",), "so").line == 1
    assert found.at((), "so").key == ""


def test_problems_are_printed_with_all_there_is_to_say() -> None:
    assert str(Problem("f", 0, 0, "", "gone")) == "f: gone"
    assert str(Problem("f", 1, 2, "a.b", "wrong")) == "f:1:2: a.b: wrong"
    assert str(Problem("f", 1, 2, "a", "wrong", "x, y")) == "f:1:2: a: wrong. Allowed: x, y"
    assert str(Problem("f", 1, 2, "a", "wrong", "x, y", "x")) == "f:1:2: a: wrong; did you mean `x`? Allowed: x, y"


def test_problems_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "trust: none.pem\naccept: {networks: [x]}\nhostnam: x\n"
    assert [each.split(":")[0] for each in problems(text, tmp_path)] == ["trust", "accept.networks[0]", "hostnam"]


def test_defaults_act_where_a_connector_says_nothing(tmp_path: Path) -> None:
    text = """
defaults:
  outbound:
    tls: encryption
    plaintext: never
    retry: {expire: 2d}
    limits: {concurrency: 5}
    route: {smart_hosts: [a.example, b.example]}
connectors:
  - {name: plain, direction: outbound, match: {recipient_domains: [a.example]}}
  - {name: own, direction: outbound, match: {recipient_domains: [b.example]}, tls: opportunistic, plaintext: if-tls-fails,
     retry: {initial: 5m}, limits: {rate: 1/s}, route: mx}
"""
    text = text.replace("    plaintext: never\n", "")
    config = loaded(text, tmp_path).config
    plain, own = config.outbound
    assert (plain.tls, plain.source_of("tls"), [each.host for each in plain.route.hosts]) == (
        Level.ENCRYPTION,
        "default",
        ["a.example", "b.example"],
    )
    assert (own.tls, own.source_of("tls"), own.route.by_mx) == (Level.OPPORTUNISTIC, "connector own", True)
    assert (own.retry.initial.seconds, own.retry.expire.days, own.limits.concurrency, own.limits.rate) == (
        300,
        2,
        5,
        1.0,
    )
    assert (config.default.name, config.default.tls, config.default.source_of("tls")) == (
        "default",
        Level.ENCRYPTION,
        "default",
    )


def test_environment_in_part_of_a_value(tmp_path: Path) -> None:
    text = """
defaults: {outbound: {helo: "${HOST}.${ZONE}"}}
limits: {recipients: "${COUNT}"}
connectors:
  - name: out
    direction: outbound
    match: {recipient_domains: [a.example]}
    tls: certificate
    route: {smart_hosts: [a.example], auth: {user: "$${HOST}", password: "a$b${SECRET}$${"}}
"""
    config = loaded(text, tmp_path, {"HOST": "mx", "ZONE": "example", "COUNT": "100", "SECRET": "*{["}).config
    auth = config.outbound[0].route.auth
    assert auth is not None
    assert (config.default.helo, config.limits.recipients) == ("mx.example", 100)
    assert (auth.user, auth.password.reveal(), auth.password.origin.value) == ("${HOST}", "a$b*{[${", "environment")


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    def recipients(text: str) -> list[str]:
        return problems(f"limits: {{recipients: {text}}}\n", tmp_path)

    for number in ("100", "0o144", "0x64", "'100'", "+100"):
        assert recipients(number) == []
    for text in ("1_000", "0b1", "1e3", "100.0", "yes", ".inf", "9" * 5000, "1e999"):
        assert recipients(text) == ["limits.recipients: write a whole number"]


@pytest.mark.parametrize(
    "text", ["connectors: [1, x, [], {}]\n", "connectors: [{direction: 5}]\n", "limits: {}\nlimits: 5\n"]
)
def test_odd_shapes_are_told_and_no_more(text: str, tmp_path: Path) -> None:
    assert problems(text, tmp_path)


# What YAML is made of, put together at random.
SNIPPETS = st.sampled_from(
    (
        *(
            "connectors:",
            "- ",
            "  ",
            "\n",
            ": ",
            "{",
            "}",
            "[",
            "]",
            '"',
            "'",
            "${X}",
            "$${",
            "&a ",
            "*a",
            "<<",
            "!!str ",
            "---",
        ),
        *("\t", "#", "name", "direction", "outbound", "match", "null", "~", "true", "0x1", "|", ">", "? ", "%"),
    )
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=80), st.lists(SNIPPETS, max_size=25).map("".join)))
@example("? {a: b}\n: c")
@example("a: &a [*a]")
@example("- - - -")
@example("\ud800")
def test_any_text_gives_a_configuration_or_a_config_error(tmp_path: Path, text: str) -> None:
    for whole in (text, BASE + text):
        try:
            load_text(whole, tmp_path / "f.yaml", environment={"X": "1"})
        except ConfigError as error:
            assert error.problems  # noqa: PT017 - either outcome is right


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(SAMPLE.read_text(encoding="utf-8"))))
def test_a_file_cut_anywhere_gives_a_configuration_or_a_config_error(cut: int) -> None:
    text = SAMPLE.read_text(encoding="utf-8")[:cut]
    try:
        load_text(text, SAMPLE, environment={})
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right


@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(0, len(SAMPLE.read_text(encoding="utf-8"))),
    with_=st.sampled_from(["x", "\n", ":", "-", "'", "{", "\0", "  "]),
)
def test_a_file_with_a_slip_anywhere_gives_a_configuration_or_a_config_error(at: int, with_: str) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    try:
        load_text(text[:at] + with_ + text[at + 1 :], SAMPLE, environment={})
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right


def test_nothing_but_a_config_error_comes_out_even_where_the_rest_cannot_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: frozenset[str] = frozenset()
    monkeypatch.setattr("relay.config.load._stand_in", lambda *_: (nothing, nothing))
    assert problems("trust: none.pem\naccept: {domains: ['*']}\n", tmp_path) == [
        f"trust: {tmp_path}/none.pem does not exist: put the CA's certificate there, or name another file"
    ]
