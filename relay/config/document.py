"""A YAML 1.2 text into nodes that remember their line and column. Knows nothing of what the keys mean.

Built from ruamel.yaml's event stream, with the core schema of YAML 1.2.2 section 10.3.2: `off` and `no` are words. What could hide
something from whoever reads the file is an error: duplicate keys, merge keys, tags, a second document.

Threat: a file that grows without bound when read (aliases of aliases), and a secret in an error message. So nodes are counted as if
every alias were written out, and no message here repeats a line of the file.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from relay.config.files import Expanded
from relay.config.rules import Place

Scalar = str | int | float | bool | None

_MAX_DEPTH = 32
_MAX_NODES = 500_000
_MAX_DIGITS = 18
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PLAIN_KEY = re.compile(r"[\w.*<-]+")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in the text. `line` and `column` count from 1; `place` is the path of keys to it, as far as it is known."""

    line: int
    column: int
    message: str
    place: Place = ()


@dataclass(slots=True)
class Node:
    """`content` is a scalar, a list of nodes, or a mapping of nodes; `keys` are the places of a mapping's keys.

    `reference` is the scalar as written, where it holds `${NAME}`: what it stands for may be a secret. `span` is where a scalar begins
    and ends in the text, with its quotes, its anchor, or all its lines; None for what is no scalar.
    """

    line: int
    column: int
    content: "Scalar | list[Node] | dict[str, Node]" = None
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    reference: str = ""
    weight: int = 1
    span: tuple[int, int] | None = None

    def child(self, part: str | int) -> "Node | None":
        """The value of a key, or the entry of a list; None where there is none."""
        if isinstance(self.content, dict):
            return self.content.get(part) if isinstance(part, str) else None
        if isinstance(self.content, list) and isinstance(part, int) and 0 <= part < len(self.content):
            return self.content[part]
        return None

    def plain(self) -> Any:
        """The same as lists, dictionaries and scalars."""
        if isinstance(self.content, list):
            return [each.plain() for each in self.content]
        if isinstance(self.content, dict):
            return {key: value.plain() for key, value in self.content.items()}
        return self.content


class UnreadableError(Exception):
    """The text is not YAML, or not YAML as it is used here; `fault` is the first thing wrong."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def read(text: str, environment: Mapping[str, str]) -> tuple[Node, list[Fault]]:
    """The document, and what is wrong in it that does not stop the reading. Raises UnreadableError where it does."""
    reader = _Reader(environment)
    return reader.read(text), reader.faults


def read_spans(text: str) -> tuple[Node, list[Fault], list[tuple[int, int]]]:
    """The same without an environment: each `${NAME}` is taken for set. With where each part of the text that is no blank, no sign between
    values and no comment begins and ends, in order. Raises UnreadableError."""
    reader = _Reader(_EverySet())
    return reader.read(text), reader.faults, reader.spans


class _EverySet(dict[str, str]):
    """An environment in which every variable is set, to nothing."""

    def __contains__(self, key: object) -> bool:
        return True


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._anchors: dict[str, Node] = {}
        self.faults: list[Fault] = []
        self.spans: list[tuple[int, int]] = []

    def read(self, text: str) -> Node:
        try:
            return self._document(text)
        except MarkedYAMLError as error:
            raise UnreadableError(_syntax(error, text)) from None
        except YAMLError as error:
            raise UnreadableError(_character(error, text)) from None

    def _document(self, text: str) -> Node:
        root = Node(1, 1)
        documents = 0
        events = self._noted(YAML(typ="safe", pure=True).parse(text))
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    line, column = _mark(event)
                    message = "a second document begins here (`---`): everything belongs in one"
                    raise UnreadableError(Fault(line, column, message))
                root = self._node(next(events), events, (), 0)
        return root

    def _noted(self, events: Iterable[Any]) -> Iterator[Any]:
        for event in events:
            self.spans.append(_span(event))
            yield event

    def _node(self, event: Any, events: Iterator[Any], place: Place, depth: int) -> Node:
        line, column = _mark(event)
        if depth > _MAX_DEPTH:
            raise UnreadableError(Fault(line, column, f"the file is nested more than {_MAX_DEPTH} levels deep", place))
        if isinstance(event, AliasEvent):
            return self._alias(event, place)
        if event.tag is not None:
            self._fault(event, place, "tags (`!...`) are not used here: write the plain value, or put it in quotes")
        node = Node(line, column)
        if isinstance(event, MappingStartEvent):
            self._mapping(node, events, place, depth)
        elif isinstance(event, SequenceStartEvent):
            self._sequence(node, events, place, depth)
        else:
            node.span = _span(event)
            self._scalar(node, event, place)
        if node.weight > _MAX_NODES:
            raise UnreadableError(Fault(line, column, f"this holds more than {_MAX_NODES} values", place))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: AliasEvent, place: Place) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            line, column = _mark(event)
            message = "what begins with `*` is an alias in YAML, and there is none of this name: put it in quotes"
            self.faults.append(Fault(line, column, message, place))
            return Node(line, column, "")
        return node

    def _mapping(self, node: Node, events: Iterator[Any], place: Place, depth: int) -> None:
        content: dict[str, Node] = {}
        node.content = content
        for event in events:
            if isinstance(event, MappingEndEvent):
                return
            key = self._key(event, events, place, depth)
            here = (*place, key)
            value = self._node(next(events), events, here, depth + 1)
            node.weight += value.weight
            plain = _PLAIN_KEY.match(key)
            if plain is None or plain[0] != key:  # `password:secret`, `password=secret`: only the word may be shown
                word = plain[0] if plain else ""
                self._fault(event, place, f"a key is one word: write `{word}: ` with a blank before its value")
            elif key == "<<" and event.style is None:
                self._fault(event, here, "merge keys (`<<`) are not used here: write the keys out, or use `defaults`")
            elif key in content:
                line = node.keys[key][0]
                self._fault(event, here, f"`{key}` stands in line {line} already: the second would hide the first")
            else:
                node.keys[key] = _mark(event)
                content[key] = value
                if value.content is None:
                    self._fault(event, here, f"`{key}` has no value: give it one, or leave the key out")

    def _key(self, event: Any, events: Iterator[Any], place: Place, depth: int) -> str:
        if isinstance(event, ScalarEvent):
            return str(event.value)
        self._fault(event, place, "a key is one word; quote a value with `{`, `[` or `*` in it")
        node = self._node(event, events, place, depth + 1)
        return f"line-{node.line}"

    def _sequence(self, node: Node, events: Iterator[Any], place: Place, depth: int) -> None:
        content: list[Node] = []
        node.content = content
        for event in events:
            if isinstance(event, SequenceEndEvent):
                return
            here = (*place, len(content))
            value = self._node(event, events, here, depth + 1)
            node.weight += value.weight
            content.append(value)
            if value.content is None:
                self._fault(event, here, "an entry without a value: give it one, or take the dash away")

    def _scalar(self, node: Node, event: ScalarEvent, place: Place) -> None:
        text = event.value
        if "${" in text:
            node.reference = text
            node.content = self._expand(text, event, place)
        else:
            node.content = _resolve(text) if event.style is None else text

    def _expand(self, text: str, event: ScalarEvent, place: Place) -> str:
        """`${NAME}` from the environment; `$${` is a plain `${`. What comes out is text and is never read as YAML again."""
        if "${" not in text.replace("$${", ""):
            return text.replace("$${", "${")

        def value(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match[1]
            if name is None:
                self._fault(event, place, "`${` without its `}`: write ${NAME}, or $${ for the characters themselves")
                return ""
            if not _VARIABLE.match(name):
                self._fault(
                    event, place, "`${...}` must hold the name of an environment variable: letters, digits and `_`"
                )
                return ""
            if name not in self._environment:
                self._fault(event, place, f"the environment variable {name} is not set")
            return self._environment.get(name, "")

        return Expanded(_REFERENCE.sub(value, text))

    def _fault(self, event: Any, place: Place, message: str) -> None:
        self.faults.append(Fault(*_mark(event), message, place))


def _resolve(text: str) -> Scalar:
    """A plain scalar by the core schema of YAML 1.2.2 section 10.3.2. Dates stay text; so does a number too long to be one."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _MAX_DIGITS:
        for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
            if pattern.match(text):
                return int(text if base == 10 else text[2:], base)
    return float(text) if _FLOAT.match(text) and not _INT.match(text) else text


def _mark(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _span(event: Any) -> tuple[int, int]:
    return event.start_mark.index, event.end_mark.index


_PLAIN = (
    ("found character '\\t'", "a tab: YAML is indented with spaces only"),
    ("cannot start any token", "a value cannot begin with this character: put the value in quotes"),
    ("mapping values are not allowed here", "a `:` that begins no value here: quote a value with a colon, or check the indentation"),
    ("found unexpected end of stream", "a quotation mark that is never closed"),
    ("but got '<stream end>'", "a `[` or `{` that is never closed"),
    ("expected alphabetic or numeric character", "a value that begins with `*` or `&`: put it in quotes"),
    ("expected ',' or", "something is missing before this: a comma, a closing bracket, or quotes around a value"),
    ("could not find expected ':'", "a key without its `:`"),
    ("expected <block end>", "this does not line up with what is above it: check the indentation"),
    ("expected the node content", "a value is missing before this"),
)  # fmt: skip


def _syntax(error: MarkedYAMLError, text: str) -> Fault:
    """ruamel.yaml's finding in plain words. Its own text quotes the line, which may hold a secret."""
    problem = error.problem or ""
    unclosed = "end of stream" in problem or "'<stream end>'" in problem
    mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    message = next(
        (plain for found, plain in _PLAIN if found in problem), "this is not YAML: check indentation and quotes"
    )
    lines = text.splitlines()
    if "expected ',' or" in problem and 0 < line <= len(lines) and "${" in lines[line - 1]:
        message = 'inside {...} or [...], write "${NAME}" with its quotes'
    return Fault(line, column, message)


def _character(error: YAMLError, text: str) -> Fault:
    position = getattr(error, "position", 0)
    before = text[: position if isinstance(position, int) else 0]
    line = before.count("\n") + 1
    return Fault(line, len(before) - before.rfind("\n"), "a control character, which no YAML file may hold")
