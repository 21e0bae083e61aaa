"""`relay certs request`: a new key in the folder and a request (CSR) for the CA, so that a key never has to be made or copied by hand."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from relay.cli import values
from relay.cli.certs_folder import check_name, folder_of, no_such, read_keyring
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, print_json, read_config, stop

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The certificate's file without .pem.", autocompletion=values.certificate)
]
ForOption = Annotated[
    list[str] | None,
    typer.Option(
        "--for",
        metavar="HOST",
        help="A DNS name or address; may be repeated. Default: those of NAME.",
        show_default=False,
    ),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="KIND",
        help="ec-p256, ec-p384, rsa-2048, rsa-3072 or rsa-4096. Default: as the present one.",
        show_default=False,
    ),
]


def command(
    name: NameArgument,
    names: ForOption = None,
    key: KeyOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Make NAME.next.key (mode 0600) and NAME.next.csr in the certificates folder. Send the request to the CA; what comes back goes in with
    `relay certs next NAME CERT.pem`. The pin of the new key is printed: partners can be told before the certificate is there.

    Goes by local files, and asks no running relay.
    """
    from relay.tls.staging import KINDS, StagingError, kind_of, request

    if key and key not in KINDS:
        raise typer.BadParameter(f"{key!r} is none of {', '.join(KINDS)}", param_hint="--key")
    loaded, name = read_config(config), check_name(name)
    keyring = read_keyring(loaded, datetime.now(UTC), complain=False)
    present = next((each for each in keyring.certificates if each.name == name), None)
    if present is None and not names:
        stop(f"{no_such(name, keyring)}; for a new one, say its names: --for HOST")
    wanted = tuple(_host(each) for each in names) if names else present.names if present is not None else ()
    if not wanted:
        stop(f"{name} has no subject alternative names: say them, --for HOST")
    kind = key or (kind_of(present.key) if present is not None else KINDS[0])
    try:
        made = request(folder_of(loaded), name, wanted, kind)
    except StagingError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or folder_of(loaded)}: {error.strerror or error}")
    text, pin = made.request.read_text(encoding="ascii"), _pin(made.request.read_bytes())
    if json:
        found = {"name": name, "names": list(wanted), "kind": kind, "key": str(made.key)}
        print_json({**found, "request": str(made.request), "pin": pin, "csr": text})
        return
    typer.echo(text, nl=False)
    typer.echo(f"{made.key}: the key, {kind}, mode {made.key.stat().st_mode & 0o777:04o}; it stays here", err=True)
    typer.echo(f"{made.request}: the request above, for {', '.join(wanted)}; send it to the CA", err=True)
    typer.echo(f"pin of the new key: {pin}", err=True)
    typer.echo(f"then: relay certs next {name} CERT.pem", err=True)


def _host(text: str) -> str:
    import ipaddress

    from relay.config.values import parse_domain

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    star, domain = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        return star + parse_domain(domain)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None


def _pin(request: bytes) -> str:
    import base64
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = x509.load_pem_x509_csr(request).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + base64.b64encode(hashlib.sha256(spki).digest()).decode()
