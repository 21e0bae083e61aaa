"""A small configuration file on disk, for tests of reading it."""

from pathlib import Path

from relay.config.load import ConfigError, Loaded, load_text

BASE = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners:
  - {address: "127.0.0.1:0", starttls: off}
"""


def loaded(text: str, base: Path, environment: dict[str, str] | None = None) -> Loaded:
    """BASE and `text`, as if it stood in `base`/connectors.yaml."""
    return load_text(BASE + text, base / "connectors.yaml", environment=environment or {})


def problems(text: str, base: Path, environment: dict[str, str] | None = None) -> list[str]:
    """What is wrong with BASE and `text`: `key: message`."""
    try:
        loaded(text, base, environment)
    except ConfigError as error:
        return [f"{each.key}: {each.message}" for each in error.problems]
    return []
