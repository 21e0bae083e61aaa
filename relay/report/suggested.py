"""Suggested connectors as YAML to paste, each with a comment that says what it rests on. Pure.

Threat: subjects, names and hosts are strangers' text in a file that somebody pastes. Each comment is one line, and values are JSON strings,
which are YAML strings too.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from relay.report.text import one_line

_MOST = 5  # certificates and hosts in a comment
_WIDTH = 140

Json = Mapping[str, Any]


def yaml_of(answer: Json) -> str:
    """Entries for the list under `connectors`, all suggestions; those that ask for a change of a connector that is there are comments only."""
    fresh = [each for each in answer["suggestions"] if each["how"] == "new"]
    edits = [each for each in answer["suggestions"] if each["how"] == "edit"]
    lines = [
        f"# From what was recorded from {answer['since'][:16]}Z to {answer['until'][:16]}Z.",
    ]
    if fresh or edits:
        lines += [
            "# No message that was sent or taken then would have been kept back by this. Whatever fails a level from now on waits, and",
            "# does not go: ask the partner before you raise it, then run `relay check` and `relay reload`.",
        ]
    for each in edits:
        lines += [
            "",
            *_about(each),
            f"# In connector {each['connector']}: write `tls: {each['suggested']}`{_names_words(each)}{_drop_words(each)}.",
        ]
    if fresh:
        lines += ["", "# Paste under `connectors:` of connectors.yaml:"]
        for each in fresh:
            lines += ["", *(f"  {line}" for line in (*_about(each), *_entry(each)))]
    if not fresh and not edits:
        lines += ["", "# Nothing can be suggested."]
    return "\n".join(lines) + "\n"


def _names_words(each: Json) -> str:
    return f" and `names: {_list(each['names'])}`" if each["names"] else ""


def _drop_words(each: Json) -> str:
    return f", and take {', '.join(f'`{key}`' for key in each['drop'])} away" if each["drop"] else ""


def _about(each: Json) -> list[str]:
    way = "to" if each["direction"] == "out" else "from"
    lines = [f"{way} {each['domain']}: {each['why']}"]
    if each["limit"]:
        lines.append(f"no higher: {each['limit']}")
    if each["hosts"]:
        more = f" and {len(each['hosts']) - _MOST} more" if len(each["hosts"]) > _MOST else ""
        lines.append(f"{'over' if way == 'to' else 'out of'} {', '.join(each['hosts'][:_MOST])}{more}")
    for one in each["certificates"][:_MOST]:
        state = {True: "trusted", False: f"not trusted ({one['text']})", None: "not kept"}[one["trusted"]]
        lines.append(
            f"certificate {one['subject']}, issued by {one['issuer']}, names {', '.join(one['names'][:_MOST])}, until {one['not_after'][:10]}, "
            f"{one['spki_sha256']}: {state}, {one['messages']} messages"
        )
    if way == "from":
        lines.append(
            "mail of this domain that comes another way (a forwarder, a mailing list) without that would be refused"
        )
    return [f"# {one_line(line)[: _WIDTH * 3]}" for line in lines]


def _entry(each: Json) -> list[str]:
    lines = [f"- name: {_text(each['connector'])}"]
    if each["direction"] == "out":
        lines += [
            "  direction: outbound",
            f"  match: {{recipient_domains: [{_text(each['domain'])}]}}",
            f"  tls: {each['suggested']}",
        ]
        if each["names"]:
            lines.append(f"  names: {_list(each['names'])}")
        return lines
    lines += [
        "  direction: inbound",
        f"  match: {{sender_domains: [{_text(each['domain'])}]}}",
        "  require:",
        "    tls: true",
    ]
    if each["tls_version"]:
        lines.append(f"    tls_version: {each['tls_version']}")
    if each["names"]:
        lines.append(f"    certificate: {{names: {_list(each['names'])}}}")
    return lines


def _text(value: str) -> str:
    return json.dumps(value)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
