"""Everything that is wrong or unwise in connectors.yaml and in the files that it names: for `relay check`, and the admin API."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from relay.config.advice import advice
from relay.config.certificates import Folder, Severity
from relay.config.load import ConfigError, Loaded, Problem, load_with_places
from relay.config.references import missing_at_start, trust_places
from relay.tls.inventory import folder_defects
from relay.tls.keyring import checked_folder
from relay.tls.trust import TrustStores


class Weight(StrEnum):
    ERROR = "error"
    """The relay refuses this file."""
    WARNING = "warning"
    """Legal, and unwise; or something that only the machine that serves needs to have."""


Found = tuple[tuple[Weight, Problem], ...]


def check(file: Path, now: datetime) -> Found:
    """Blocks: it reads the file and those that it names."""
    try:
        return tuple(beyond_the_file(load_with_places(file), now))
    except ConfigError as error:
        return tuple((Weight.ERROR, problem) for problem in error.problems)


def beyond_the_file(loaded: Loaded, now: datetime) -> Iterator[tuple[Weight, Problem]]:
    """What stands in other files, and advice, for a file that is sound by itself."""
    config = loaded.config
    stores = TrustStores()
    for place, trust in trust_places(config):
        if why := stores.problem(trust, now):
            yield Weight.ERROR, loaded.at(place, why)
    folder = checked_folder(config.certificates, now) if config.certificates is not None else Folder()
    for each in (*folder.problems, *folder_defects(config, folder, now)):
        weight = Weight.ERROR if each.severity is Severity.ERROR else Weight.WARNING
        yield weight, loaded.at(("certificates",), str(each))
    for missing in missing_at_start(config, folder):
        # The keys may be elsewhere: a file is often checked where it is kept, not where it serves.
        yield Weight.WARNING, loaded.at(missing.place, f"will not start on this machine: {missing.text}")
    for each_advice in advice(config, folder, now):
        yield Weight.WARNING, loaded.at(each_advice.place, each_advice.text)


def check_json(file: Path, found: Found) -> dict[str, Any]:
    """`{file, valid, problems: [{severity, file, line, column, key, message, allowed, meant}]}`."""
    valid = not any(weight is Weight.ERROR for weight, _problem in found)
    return {"file": str(file), "valid": valid, "problems": [_as_json(*each) for each in found]}


def _as_json(weight: Weight, problem: Problem) -> dict[str, Any]:
    return {
        "severity": weight.value,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "allowed": problem.allowed or None,
        "meant": problem.meant or None,
    }
