"""`relay explain`: which connector governs a message, what each delivery must satisfy and why, what would be refused. Sends nothing.

The look-ups are `relay.outbound.asking`'s, what follows from them `relay.policy.explain`'s.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, print_json, read_config, spread

Json = Mapping[str, Any]

ToOption = Annotated[str, typer.Option("--to", metavar="ADDRESS", help="The recipient.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="ADDRESS", help="The envelope sender; <> for the null sender.")
]
ClientOption = Annotated[str | None, typer.Option("--client-ip", metavar="IP", help="Where the client comes from.")]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--client-certificate", metavar="FILE", help="What the client shows: PEM, leaf first, then its chain."
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--tls-version", metavar="VERSION", help="TLSv1.3 (default), TLSv1.2, ..., or `none` for a client in clear."
    ),
]


@spread
def command(
    *,
    to: ToOption,
    sender: FromOption = None,
    client_ip: ClientOption = None,
    client_certificate: CertificateOption = None,
    tls_version: VersionOption = None,
    json: JsonOption = False,
    at: At,
) -> None:
    """Say which connector governs a message, what its delivery must satisfy and why, and what would be refused.

    No mail server is spoken with: asked are DNS, and who publishes policies (MTA-STS) and revocations. With any of --from, --client-ip,
    --client-certificate or --tls-version, it also says whether the message would be let in. Exit code 1 where it would be refused, or could
    be delivered nowhere.

    It goes by the configuration file, and needs no running relay. With --socket or --url that relay answers, by what it has in force.
    """
    certificate = None if client_certificate is None else _pem(client_certificate, tls_version)
    asked = (to, sender, client_ip, certificate, tls_version)
    found = _by_relay(at, *asked) if at.is_named() else asyncio.run(_by_file(at.config, *asked))
    if json:
        print_json(found)
    else:
        from relay.cli.explain_text import print_explanation

        print_explanation(found)
    inbound, outbound = found["inbound"], found["outbound"]
    if (inbound is not None and not inbound["accepted"]) or not any(
        hop["addresses"] for each in outbound for hop in each["hops"]
    ):
        raise typer.Exit(ExitCode.NO)


def _by_relay(at: At, to: str, *rest: str | None) -> Json:
    names = ("from", "client_ip", "client_certificate", "tls_version")
    told = {name: value for name, value in zip(names, rest, strict=True) if value is not None}
    if not told.get("client_certificate", "-"):
        del told["client_certificate"]  # a client in clear shows none
    with at.relay() as relay:
        return relay.post("/explain", {"to": to, **told})


async def _by_file(file: Path, *asked: Any) -> Json:
    from relay.cli.outside import outside
    from relay.outbound.asking import Words, WrongWordError, explain_message, question_of
    from relay.policy.book import RuleBook
    from relay.policy.explain_json import explanation_json

    book, words = RuleBook.of(read_config(file)), Words(*asked)
    async with outside(book.config) as world:
        try:
            question = await question_of(book, words, datetime.now(UTC), world.revocations)
        except WrongWordError as error:
            raise typer.BadParameter(str(error), param_hint="--" + error.name.replace("_", "-")) from None
        return explanation_json(await explain_message(world.means(book), question))


def _pem(file: Path, version: str | None) -> str:
    """At most what a chain can be; errors in it are told like any other. A client in clear shows none, so there is nothing to read."""
    from relay.outbound.asking import IN_CLEAR

    if version == IN_CLEAR:
        return ""
    try:
        with file.open("rb") as stream:
            return stream.read(2**20).decode("ascii", "replace")
    except OSError as error:
        raise typer.BadParameter(
            f"{file} cannot be read: {error.strerror}", param_hint="--client-certificate"
        ) from None
