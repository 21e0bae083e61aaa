"""`relay explain`: which connector governs a message, what each delivery must satisfy and why, what would be refused. Sends nothing.

The look-ups are `relay.outbound.asking`'s, what follows from them `relay.policy.explain`'s.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config

if TYPE_CHECKING:
    from relay.outbound.asking import Words
    from relay.policy.book import RuleBook
    from relay.policy.explain import Arrival, Explanation

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


def command(
    to: ToOption,
    sender: FromOption = None,
    client_ip: ClientOption = None,
    client_certificate: CertificateOption = None,
    tls_version: VersionOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Say which connector governs a message, what its delivery must satisfy and why, and what would be refused.

    Nothing is sent: only DNS is asked. With any of --from, --client-ip, --client-certificate or --tls-version, it also says whether
    the message would be let in. Exit code 1 where it would be refused, or could be delivered nowhere.
    """
    from relay.outbound.asking import Words
    from relay.policy.book import RuleBook
    from relay.policy.explain_json import explanation_json

    book = RuleBook.of(read_config(config))
    certificate = None if client_certificate is None else _pem(client_certificate, tls_version)
    explanation, arrival = asyncio.run(_explain(book, Words(to, sender, client_ip, certificate, tls_version)))
    if json:
        print_json(explanation_json(explanation))
    else:
        from relay.cli.explain_text import print_explanation

        print_explanation(explanation, arrival)
    inbound, outbound = explanation.inbound, explanation.outbound
    if (inbound is not None and not inbound.accepted) or not any(hop.addresses for hop in outbound.hops):
        raise typer.Exit(ExitCode.NO)


async def _explain(book: "RuleBook", words: "Words") -> "tuple[Explanation, Arrival | None]":
    from relay.cli.outside import outside
    from relay.outbound.asking import WrongWordError, explain_message, question_of

    async with outside(book.config) as world:
        try:
            question = await question_of(book, words, datetime.now(UTC), world.revocations)
        except WrongWordError as error:
            raise typer.BadParameter(str(error), param_hint="--" + error.name.replace("_", "-")) from None
        return await explain_message(world.means(book), question), question.arrival


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
