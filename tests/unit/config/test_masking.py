"""No secret in what is shown of connectors.yaml, whether it loads or not."""

from pathlib import Path

import pytest

from relay.config.load import load_text
from relay.config.masking import difference, masked

BASE = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{address: "127.0.0.1:25", starttls: "off"}]
queue: sqlite:queue.db
connectors:
  - name: out
    direction: outbound
    match: {recipient_domains: [contoso.com]}
    tls: encryption
    route: {smart_hosts: ["mail.contoso.com:25"], auth: {user: us, password: SECRET}}
"""


@pytest.mark.parametrize("written", ["hunter2-x", '"hunter2-x"', "'hunter2-x'", "hunter2-x # old"])
def test_a_written_secret_is_masked_whether_the_file_loads_or_not(tmp_path: Path, written: str) -> None:
    text = BASE.replace("SECRET}}", written.replace(" #", "}} #") + ("" if "#" in written else "}}"))
    config = load_text(text, tmp_path / "connectors.yaml").config
    for found in (masked(text, config), masked(text, None), masked(text + "nonsense: [\n", None)):
        assert "hunter2" not in found
        assert "user: us" in found


def test_references_stand_as_they_are(tmp_path: Path) -> None:
    for reference in ("file:secret", '"${PASSWORD}"'):
        text = BASE.replace("SECRET", reference)
        assert masked(text, None) == text


@pytest.mark.parametrize(
    "text",
    [
        "dkim:\n  key: |\n    -----BEGIN PRIVATE KEY-----\n    c2VjcmV0c2VjcmV0\n    -----END PRIVATE KEY-----\nnext: 1\n",
        "dkim:\n  key: |\n    -----BEGIN RSA PRIVATE KEY-----\n    c2VjcmV0c2VjcmV0\n",
    ],
)
def test_a_private_key_in_a_file_that_does_not_load(text: str) -> None:
    assert "c2Vjcm" not in masked(text, None)


def test_a_diff_tells_that_a_secret_is_another_one_and_not_which(tmp_path: Path) -> None:
    one, other = (masked(BASE.replace("SECRET", value), None) for value in ("hunter2-x", "hunter3-y"))
    same = masked(BASE.replace("SECRET", "hunter2-x"), None)
    assert difference(one, same) == ""
    told = difference(one, other)
    assert told.count("********") == 2
    assert "hunter" not in told


def test_a_diff_has_a_bound() -> None:
    found = difference("", "x: 1\n" * 100_000)
    assert len(found) < 70_000
    assert found.endswith("[and more]\n")
