"""`relay certs list`: our certificates, and partners' as last seen. What a running relay has in use, else what the folder holds."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.certs_folder import folder_of, read_keyring
from relay.cli.common import JsonOption, print_json, read_config, spread

if TYPE_CHECKING:
    from rich.text import Text

Json = Mapping[str, Any]
FolderOption = Annotated[
    bool, typer.Option("--folder", help="Read the folder and the queue's file, without asking the relay.")
]
_SOON, _NEAR = 14, 30  # days
_LABEL = 12


@spread
def command(
    *,
    folder: FolderOption = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """List our certificates (in use, next, in trouble and why; validity, names, issuer, pin, who is shown it, which connectors use it) and
    those that partners showed last, with where and when. Asks the running relay; where none runs, reads the folder."""
    found: Json
    if folder:
        at.refuse_typed("--folder")
    if not folder and at.may_be_asked():
        with at.relay() as relay:
            found = relay.get("/certificates")
    else:
        if not folder:
            typer.echo("no relay can be reached: this is what the folder and the queue's file hold", err=True)
        found = _from_disk(at.config)
    if json:
        print_json(found)
    else:
        _print(found)


def _from_disk(config: Path) -> Json:
    import sqlite3

    from relay.mail.codec import time_text
    from relay.policy.expiry import verifies
    from relay.policy.holdings import holding_json, seen_json
    from relay.queue.seen import read_seen
    from relay.tls.inventory import holdings

    loaded, now = read_config(config), datetime.now(UTC)
    folder_of(loaded)
    ours = holdings(loaded, read_keyring(loaded, now, complain=False), now)
    try:
        seen = read_seen(loaded.queue_file)
    except sqlite3.Error as error:
        typer.echo(f"what partners showed cannot be read from {loaded.queue}: {error}", err=True)
        seen = ()
    return {
        "at": time_text(now),
        "ours": [holding_json(each, now) for each in ours],
        "partners": [
            seen_json(each, now, verified=verifies(loaded, each.spot.direction, each.spot.connector)) for each in seen
        ],
    }


def _print(found: Json) -> None:
    from rich.console import Console
    from rich.text import Text

    lines: list[Text] = []
    for each in found["ours"]:
        lines.extend(_ours(each))
        lines.append(Text())
    if not found["ours"]:
        lines.append(Text("no certificate of ours: `relay init` makes one"))
    if found["partners"]:
        lines.append(Text("Partners' certificates as last seen", style="bold"))
    for each in found["partners"]:
        lines.extend(_partner(each))
    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(line, soft_wrap=True)  # a pin that is broken cannot be copied


def _ours(each: Json) -> "Iterator[Text]":
    from rich.text import Text

    colour = {"in use": "green", "next": "cyan"}.get(each["state"], "bold red")
    yield Text.assemble((each["name"], "bold"), "  ", (each["state"], colour))
    if each["subject"] is not None:
        yield _line("ends", _end(each))
        yield _line("begins", _day(each["not_before"]))
        yield _line("names", ", ".join(each["names"]) or "none")
        yield _line("subject", each["subject"] or "(empty)")
        yield _line("issuer", each["issuer"])
        root = each["root"]
        yield _line(
            "root",
            root["subject"] + (f" (in {root['trust']})" if root["trust"] else " (not trusted here)")
            if root
            else "not known",
        )
        yield _line("key", f"{each['key']}, signed by {each['signature']}")
        yield _line("pin", each["pin"])
        yield from (_line("shown", text) for text in _shown(each))
        if each["connectors"]:
            yield _line("proves us", f"to partners of {', '.join(each['connectors'])}")
    for problem in each["problems"]:
        style = "bold red" if problem["severity"] == "error" else "yellow"
        yield _line(problem["severity"], Text(f"{problem['text']}; {problem['remedy']}", style=style))


def _shown(each: Json) -> "Iterator[str]":
    shown = each["shown"]
    if each["state"] != "in use":
        return
    if shown["names"] and shown["listeners"]:
        yield f"on {', '.join(shown['listeners'])} to who asks for {', '.join(shown['names'])}"
    if shown["otherwise"] and shown["listeners"]:
        yield f"on {', '.join(shown['listeners'])} to who asks for no name that we know"
    if shown["policies"]:
        yield f"by the policy server for {', '.join(shown['policies'])}"
    if not ((shown["listeners"] and (shown["names"] or shown["otherwise"])) or shown["policies"]):
        yield "to nobody who connects: others are for the same names"


def _partner(each: Json) -> "Iterator[Text]":
    from rich.text import Text

    refused = f"refused: {each['failure']}" if each["failure"] else ""
    arrow = "to" if each["direction"] == "outbound" else "from"
    place = f"{arrow} {each['hop']}" + (f" [{each['address']}]" if each["address"] else "")
    yield Text.assemble(
        (each["connector"], "bold"), f"  {place}  ", "verified" if each["verified"] else "any certificate passes",
        ("  " + refused if refused else "", "bold red"),
    )  # fmt: skip
    yield _line("ends", _end(each))
    yield _line("names", ", ".join(each["names"]) or "none")
    yield _line("subject", each["subject"] or "(empty)")
    yield _line("issuer", each["issuer"])
    yield _line("pin", each["pin"])
    yield _line(
        "seen",
        f"{_day(each['first_seen'])} to {_day(each['last_seen'])}" + (f", {each['domain']}" if each["domain"] else ""),
    )
    if each["sooner"]:
        text = f"its intermediate {each['sooner']['subject']} ends first, on {_day(each['sooner']['not_after'])}"
        yield _line("warning", Text(text, style="yellow"))


def _line(label: str, value: "str | Text") -> "Text":
    from rich.text import Text

    return Text.assemble("    ", f"{label:<{_LABEL}}", value)


def _end(each: Json) -> "Text":
    from rich.text import Text

    days = each["days_left"]
    left = "it has ended" if days < 0 else f"{int(days)} days left" if days >= 1 else "less than a day left"
    style = "bold red" if days < _SOON else "yellow" if days < _NEAR else ""
    return Text(f"{_day(each['not_after'])}, {left}", style=style)


def _day(text: str) -> str:
    return text[:16].replace("T", " ") + " UTC"
