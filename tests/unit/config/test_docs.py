"""Every piece of YAML in docs/connectors.md is a configuration that loads."""

import re
import shutil
from pathlib import Path

import pytest

from tests.unit.config.builders import loaded
from tests.unit.config.test_advice import PINS, ROOT

TEXT = (ROOT / "docs/connectors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_what_the_guide_shows_loads(block: str, tmp_path: Path) -> None:
    partners = tmp_path / "certs/partners"
    partners.mkdir(parents=True)
    for name in re.findall(r"certs/partners/([\w-]+\.pem)", block):
        shutil.copy(ROOT / "certs/partners/contoso-ca.pem", partners / name)
    (tmp_path / "recipients.txt").write_text("alice\n", encoding="utf-8")
    shutil.copy(ROOT / "tests/golden/config/files/dkim.pem", tmp_path)
    (tmp_path / "hook.secret").write_text("0123456789abcdef\n", encoding="utf-8")
    text = block if not block.lstrip().startswith("- ") else f"connectors:\n{block}"
    text = text.replace('"sha256:...", "sha256:..."', PINS)
    assert loaded(text, tmp_path, {"PROVIDER_PASSWORD": "x"}).config.hostname == "relay.example.com"


def test_the_guide_has_recipes() -> None:
    assert len(BLOCKS) > 5
