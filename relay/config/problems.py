"""What is wrong with connectors.yaml, placed: file, line, column, key, what is allowed and the word that was likely meant."""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.config.rules import Place


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` and `column` count from 1, 0 where the file could not be read at all. `key`, `allowed` and `meant` are "" where there is none."""

    file: str
    line: int
    column: int
    key: str
    message: str
    allowed: str = ""
    meant: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [place, self.key, self.message] if self.key else [place, self.message]
        text = ": ".join(parts)
        if self.meant:
            text += f"; did you mean `{self.meant}`?"
        if self.allowed:
            text += f" Allowed: {self.allowed}" if self.meant else f". Allowed: {self.allowed}"
        return text


class ConfigError(Exception):
    """The file cannot be used. `problems` are all that were found, in the file's order; str() is one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.line, each.column, each.key, each.message)))
        super().__init__("\n".join(str(each) for each in self.problems))


def key_text(place: Place, names: dict[int, str]) -> str:
    """`connectors[2] "contoso-out" . names[0]`. `names` are the connectors' names by position, where they have one."""
    text = ""
    for depth, part in enumerate(place):
        if isinstance(part, int):
            text += f"[{part}]"
            if depth == 1 and place[0] == "connectors" and part in names:
                text += f' "{names[part]}"'
                text += " . " if depth + 1 < len(place) else ""
        else:
            separator = "" if not text or text.endswith(" . ") else "."
            text += separator + part
    return text
