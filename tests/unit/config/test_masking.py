"""No secret in what is shown of connectors.yaml, however it is written; and no diff where secrets cannot be found."""

from pathlib import Path

import pytest

from relay.config.load import load_text
from relay.config.masking import NotMaskedError, difference, masked

BASE = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{address: "127.0.0.1:25", starttls: "off"}]
"""
CONNECTOR = (
    BASE
    + """\
connectors:
  - name: out
    direction: outbound
    match: {recipient_domains: [contoso.com]}
    tls: encryption
    route:
      smart_hosts: ["mail.contoso.com:25"]
      auth:
        password: SECRET
        user: us
"""
)
ALERTS = BASE + "alerts:\n  webhook:\n    url: URL\n    secret: SECRET\n    private: refuse\n"

WRITTEN = {
    "plain": "hunter2-and-more",
    "before a comment": "hunter2-and-more # hunter1",
    "double quotes": '"hunter2-and-more"',
    "single quotes": "'hunter2-and-more'",
    "a quote in single quotes": "'it''s-a-hunter2-secret'",
    "only quotes": "'''''hunter2-and-more'''''",
    "a quote in double quotes": '"it\\"hunter2-and-more"',
    "escapes in double quotes": '"\\x68unter2-\\u0061nd-hunter2"',
    "an escaped line end": '"begin-of-it-\\\n          hunter2"',
    "literal": "|\n          begin-of-it\n          hunter2",
    "literal, with an indent": "|2-\n          hunter2-and-more",
    "literal, with empty lines": "|+\n          begin-of-it\n\n          hunter2\n\n",
    "folded": ">-\n          begin-of-it\n          hunter2",
    "behind a folded one": ">- # hunter1\n          begin-of-it-hunter2",
    "several lines in single quotes": "'begin-of-it\n          hunter2'",
    "several lines in double quotes": '"begin-of-it\n          hunter2"',
    "several plain lines": "begin-of-it\n          hunter2",
    "with an anchor": "&anchor hunter2-and-more",
    "with an anchor, in quotes": "&anchor 'hunter2-and-more'",
    "on the next line": "\n          hunter2-and-more",
    "a brace": "hunter2}-and-more",
    "a hash": "hunter2#hunter2-and-more",
    "half a reference": '"${NAME}-hunter2-and-more"',
    "a reference that is none": "$${hunter2}-and-more",
    "what looks like a file": "'FILE:hunter2-and-more'",
    "not ascii": '"\u00e9\U0001f600-hunter2-and-more"',
}


@pytest.mark.parametrize("text", [CONNECTOR, ALERTS.replace("URL", "https://hooks.example.com")])
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_is_masked_however_it_is_written(tmp_path: Path, text: str, written: str) -> None:
    text = text.replace("SECRET", written)
    load_text(text, tmp_path / "connectors.yaml", environment={"NAME": "value"})
    found = masked(text)
    for part in ("hunter", "begin", "more", "\\", "it", "'"):
        assert part not in found.split("password:" if "password:" in found else "secret:")[1]
    assert "hunter" not in found
    assert found.endswith("        user: us\n" if text.count("user") else "    private: refuse\n")
    assert found.count("********") == 1 + written.count("# hunter1") * (not written.startswith(">"))


def test_in_braces_and_as_a_default(tmp_path: Path) -> None:
    route = "{smart_hosts: ['m.contoso.com:25'], auth: {user: us, password: 'it''s-hunter2', }}"
    text = BASE + f"defaults: {{outbound: {{tls: encryption, route: {route}}}}}\n"
    load_text(text, tmp_path / "connectors.yaml")
    assert masked(text).partition("password: ********(")[2].partition(")")[2] == ", }}}}\n"


def test_where_an_alias_leads_to(tmp_path: Path) -> None:
    for text in (
        CONNECTOR.replace("password: SECRET\n        user: us", "user: &x hunter2-and-more\n        password: *x"),
        CONNECTOR.replace("SECRET", "&x hunter2-and-more").replace("user: us", "user: *x"),
    ):
        load_text(text, tmp_path / "connectors.yaml")
        assert "hunter2" not in masked(text)


@pytest.mark.parametrize("reference", ["file:secret", '"file:secret"', '"${PASSWORD}"', "'${PASSWORD}'"])
def test_references_stand_as_they_are(reference: str) -> None:
    for text in (CONNECTOR, ALERTS, BASE + "tlsrpt: {dkim: {domain: x.test, selector: s, key: SECRET}}\n"):
        shown = text.replace("SECRET", reference).replace("URL", "https://hooks.example.com")
        assert masked(shown) == shown


@pytest.mark.parametrize("key", ["hunter2", "|\n    -----BEGIN PRIVATE KEY-----\n    hunter2\n"])
def test_a_private_key(key: str) -> None:
    assert "hunter2" not in masked(BASE + f"tlsrpt:\n dkim:\n  domain: x.test\n  selector: s\n  key: {key}\n")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://hooks.example.com:8443", "https://hooks.example.com:8443"),
        ('"${HOOK}"', '"${HOOK}"'),
        ("https://hooks.slack.com/services/T0/B0/hunter2", "https://hooks.slack.com/********"),
        ("'https://hooks.slack.com/services/T0/B0/hunter2'", "https://hooks.slack.com/********"),
        ('"https://hooks.slack.com/\\x68unter2"', "https://hooks.slack.com/********"),
        (">-\n      https://hooks.slack.com/hunter2", "https://hooks.slack.com/********"),
        ("&hook https://hooks.slack.com/hunter2", "https://hooks.slack.com/********"),
        ("https://hooks.example.com?token=hunter2", "https://hooks.example.com/********"),
        ("https://hooks.example.com:8443/a?token=hunter2", "https://hooks.example.com:8443/********"),
        ("https://[2001:db8::1]/hunter2", "https://[2001:db8::1]/********"),
        ("HTTPS://hooks.example.com/hunter2", "https://hooks.example.com/********"),
        ('"https://${HOST}/hunter2"', "https://${HOST}/********"),
        ('"${HOOK}/hunter2"', "********"),
        ('"https:${REST}/hunter2"', "********"),
    ],
)
def test_path_and_query_of_the_webhook(tmp_path: Path, url: str, shown: str) -> None:
    text = ALERTS.replace("URL", url).replace("SECRET", "file:secret")
    (tmp_path / "secret").write_text("x" * 32)
    environment = {"HOOK": "https://hooks.example.com", "HOST": "hooks.example.com", "REST": "//hooks.example.com"}
    load_text(text, tmp_path / "connectors.yaml", environment=environment)
    found = masked(text)
    assert "unter2" not in found
    line = found.partition("    url: ")[2].partition("\n")[0]
    assert line.partition("(")[0] == shown
    assert found.endswith("\n    secret: file:secret\n    private: refuse\n")


def test_comments_are_masked_as_what_was_commented_out_may_be_a_secret() -> None:
    found = masked(BASE + "#\n#  pasword: |\n#    hunter2\nqueue: sqlite:queue.db # was hunter2\n")
    assert "hunter2" not in found
    assert "#\n#  ********(" in found
    assert "queue: sqlite:queue.db # ********(" in found


@pytest.mark.parametrize("file", ["connectors.yaml", "docker/a/connectors.yaml", "docker/b/connectors.yaml"])
def test_our_own_files_can_be_shown(file: str) -> None:
    text = (Path(__file__).parents[3] / file).read_text()
    assert len(masked(text).splitlines()) == len(text.splitlines())


NO_DIFF = {
    "a misspelt key": CONNECTOR.replace("password: SECRET", "pasword: hunter2"),
    "a misspelt key above": ALERTS.replace("alerts:", "alert:"),
    "no YAML": CONNECTOR + "nonsense: [\n",
    "an open quote": CONNECTOR.replace("SECRET", "'hunter2"),
    "a key twice": CONNECTOR.replace("SECRET", "hunter1\n        password: hunter2"),
    "a merge key": CONNECTOR.replace("password: SECRET", "<<: {password: hunter2}"),
    "a tag": CONNECTOR.replace("SECRET", "!!str hunter2"),
    "a list of secrets": CONNECTOR.replace("SECRET", "[hunter2]"),
    "a mapping": CONNECTOR.replace("SECRET", "{value: hunter2}"),
    "an alias to nothing": CONNECTOR.replace("SECRET", "*hunter2"),
    "no blank behind the key": CONNECTOR.replace("password: SECRET", "password:hunter2: x"),
    "two documents": BASE + "---\n" + CONNECTOR,
    "a control character": CONNECTOR + "# \x07\n",
    "a list": "- password: hunter2\n",
    "a word": "hunter2",
}


@pytest.mark.parametrize("text", NO_DIFF.values(), ids=NO_DIFF)
def test_no_diff_where_secrets_cannot_be_found(text: str) -> None:
    with pytest.raises(NotMaskedError):
        masked(text)
    assert difference(CONNECTOR, text) == ""
    assert difference(text, CONNECTOR) == ""


def test_a_diff_tells_that_a_secret_is_another_one_and_not_which() -> None:
    texts = (CONNECTOR.replace("SECRET", value) for value in ("hunter2-x", "hunter3-y", "'hunter2-x'"))
    one, other, same = texts
    assert difference(one, same) == ""
    told = difference(one, other)
    assert told.count("********") == 2
    assert "hunter" not in told


def test_a_reference_without_quotes() -> None:
    text = CONNECTOR.replace("SECRET", "${PASSWORD}")
    assert masked(text) == text


def test_a_diff_has_a_bound() -> None:
    found = difference(BASE, BASE + "revocation_hosts:\n" + "- pki.example.internal\n" * 5000)
    assert len(found) < 70_000
    assert found.endswith("[and more]\n")
