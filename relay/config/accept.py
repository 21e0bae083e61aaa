"""`accept` in connectors.yaml: whose mail is taken, and who exists among its recipients."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from relay.config.connectors import Model
from relay.config.files import RecipientList
from relay.config.values import Domain, Duration, Net, Pattern, refuse_twins
from relay.mail.address import AddressError, parse_mailbox


class OnFailure(StrEnum):
    DEFER = "defer"
    ACCEPT = "accept"


class Callout(Model):
    timeout: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0), le=timedelta(minutes=2))
    """For one question, from connecting to the answer."""
    positive: Duration = Field(default=timedelta(hours=1), gt=timedelta(0))
    """How long a recipient that exists is not asked about again."""
    negative: Duration = Field(default=timedelta(minutes=5), gt=timedelta(0))
    """And one that does not."""
    on_failure: OnFailure = OnFailure.DEFER
    """Where nobody can be asked: `defer` has the client come again (450), `accept` takes the recipient, who may turn out not to exist."""


class Asked(Model):
    callout: Callout
    """Ask the mail server that this domain's connector leads to. `callout` alone is the same with every default."""


CALLOUT = "callout"


def _how_known(value: Any) -> str:
    if isinstance(value, dict | Asked | Callout):
        return "asked"
    return "word" if value == CALLOUT else "list"


Recipients = Annotated[
    Annotated[Literal["callout"], Tag("word")] | Annotated[Asked, Tag("asked")] | Annotated[RecipientList, Tag("list")],
    Discriminator(_how_known),
]


class Accept(Model):
    domains: tuple[Pattern, ...] = ()
    """Domains that we are the front door of. Each needs an outbound connector that says where its mail goes."""
    recipients: dict[Domain, Recipients] = Field(default_factory=dict)
    """Per domain, `file:` with the recipients that exist, or `callout`: the mail server inside is asked. Others get 550 5.1.1 at RCPT."""
    networks: tuple[Net, ...] = ()
    """Clients in these networks may send anywhere."""

    @field_validator("recipients", mode="before")
    @classmethod
    def _one_list_each(cls, lists: Any) -> Any:
        return refuse_twins(lists)

    @field_validator("recipients", mode="after")
    @classmethod
    def _own_domain_only(cls, known: dict[str, Recipients]) -> dict[str, Recipients]:
        """Entries become bare local parts, lower case. An address of another domain in a domain's list is an error."""
        return {
            domain: frozenset(_local_part(entry, domain) for entry in each) if isinstance(each, frozenset) else each
            for domain, each in known.items()
        }

    @cached_property
    def lists(self) -> Mapping[str, frozenset[str]]:
        """Domains whose recipients a file names: local parts, lower case."""
        return {domain: each for domain, each in self.recipients.items() if isinstance(each, frozenset)}

    @cached_property
    def callouts(self) -> Mapping[str, Callout]:
        """Domains of whose recipients the mail server inside is asked."""
        found = ((domain, each) for domain, each in self.recipients.items() if not isinstance(each, frozenset))
        return {domain: each.callout if isinstance(each, Asked) else Callout() for domain, each in found}


def _local_part(entry: str, domain: str) -> str:
    local, at, _ = entry.rpartition("@")
    quoted = entry.startswith('"') and entry.endswith('"')
    try:
        address = parse_mailbox(entry if at and local and not quoted else f"{entry}@{domain}")
    except AddressError as error:
        raise ValueError(f"the recipient list of {domain}: {error}") from None
    if address.domain != domain:
        raise ValueError(f"{entry!r} stands in the recipient list of {domain}, where it can never match")
    return address.local.lower()
