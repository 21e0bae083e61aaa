"""What we publish about our own domains, as connectors.yaml says it under `publish`: MTA-STS (RFC 8461), TLSA (RFC 7672), where reports
about us go (RFC 8460).

One set of words for all domains, and a domain's own where it differs. What records and files follow is `relay.policy.publish`.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from relay.config.connectors import Model
from relay.config.values import Bind, Domain, Duration, Flag, NonEmpty, parse_pattern, refuse_twins
from relay.mail.address import Address, AddressError, parse_mailbox
from relay.mail.published import StsMode

_WHAT = "write mailto:ADDRESS or https://HOST/PATH"
# RFC 8460 section 3: these end or separate URIs in the record, so they are written as %2C, %21 and %3B. A quote would end the string.
_NOT_IN_A_RECORD = re.compile(r"[^\x21-\x7e]|[,!;\"\\]")


def parse_report_uri(value: Any) -> str:
    """Where a sender's reports about us go: a `rua` of RFC 8460 section 3."""
    if not isinstance(value, str):
        raise ValueError(_WHAT)
    uri = value.strip()
    if _NOT_IN_A_RECORD.search(uri):
        raise ValueError(f"{_WHAT}; blanks, quotes, commas, `!` and `;` as %20, %22, %2C, %21 and %3B")
    scheme, _colon, rest = uri.partition(":")
    if scheme.lower() == "mailto":
        try:
            parse_mailbox(rest)
        except AddressError as error:
            raise ValueError(f"{_WHAT}: {error}") from None
        return f"mailto:{rest}"
    try:
        parts = urlsplit(uri)
        if parts.scheme == "https" and parts.hostname:
            return uri
    except ValueError:
        pass
    raise ValueError(f"{uri[:80]!r}: {_WHAT}")


def _other_mx(value: Any) -> str:
    pattern = parse_pattern(value)
    if pattern == "*":
        raise ValueError('"*" would let mail for us go to any host: name the hosts, or "*.domain"')
    return pattern


ReportUri = Annotated[
    str,
    BeforeValidator(parse_report_uri),
    WithJsonSchema({"type": "string", "examples": ["mailto:tls-reports@example.com"]}),
]
MxPattern = Annotated[
    str,
    BeforeValidator(_other_mx),
    WithJsonSchema({"type": "string", "examples": ["backup.example.net", "*.example.net"]}),
]
MaxAge = Annotated[Duration, Field(gt=timedelta(0))]


class DomainPublication(Model):
    """One domain's own words; what it leaves out is as for all."""

    mode: StsMode | None = None
    """As `publish.mode`, for this domain."""
    mx: Annotated[tuple[Domain, ...], NonEmpty] | None = None
    """As `publish.mx`, for this domain."""
    other_mx: Annotated[tuple[MxPattern, ...], NonEmpty] | None = None
    """As `publish.other_mx`, for this domain."""
    max_age: MaxAge | None = None
    """As `publish.max_age`, for this domain."""
    reports: Annotated[tuple[ReportUri, ...], NonEmpty] | None = None
    """As `publish.reports`, for this domain."""


class Publication(Model):
    mode: StsMode = StsMode.TESTING
    """MTA-STS: `enforce` keeps mail of senders who know it from any host that cannot prove its name, `testing` only has them report,
    `none` takes a policy back."""
    mx: Annotated[tuple[Domain, ...], NonEmpty] | None = None
    """The hosts of your MX records that are this relay. Default: `hostname`."""
    other_mx: Annotated[tuple[MxPattern, ...], NonEmpty] | None = None
    """Hosts of your MX records that are other machines: they stand in the policy, their TLSA records come from there."""
    max_age: MaxAge = timedelta(weeks=1)
    """How long senders keep the policy."""
    reports: Annotated[tuple[ReportUri, ...], NonEmpty] | None = None
    """Where senders report who could not reach us safely (TLSRPT): `mailto:` or `https:`. Default: `tlsrpt.mailbox`; without
    either, no such record."""
    tlsa: Flag = True
    """TLSA records for the hosts in `mx`. They count only where DNSSEC signs the hosts' zone."""
    domains: dict[Domain, DomainPublication] = Field(default_factory=dict)
    """Domains with words of their own, and those that only a wildcard of `accept.domains` takes in."""
    https: Annotated[tuple[Bind, ...], NonEmpty] | None = None
    """Addresses and ports where https://mta-sts.DOMAIN/.well-known/mta-sts.txt is served, with a certificate for that name."""

    @field_validator("domains", mode="before")
    @classmethod
    def _one_entry_each(cls, domains: Any) -> Any:
        return refuse_twins(domains)


@dataclass(frozen=True, slots=True)
class DomainWords:
    """What acts for one domain. `mx` are ours, `other_mx` other machines."""

    mode: StsMode
    mx: tuple[str, ...]
    other_mx: tuple[str, ...]
    max_age: timedelta
    reports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What stands elsewhere in the file and acts where `publish` does not say: `hostname`, and `tlsrpt.mailbox`."""

    hostname: str
    mailbox: tuple[Address, ...] = ()

    @property
    def reports(self) -> tuple[str, ...]:
        """RFC 6068 section 2: what is no plain letter in an address is percent-encoded in its URI."""
        return tuple(f"mailto:{quote(str(address), safe='@')}" for address in self.mailbox)


def words_for(publication: Publication, domain: str, ourselves: Ourselves) -> DomainWords:
    """A domain's own words, then those for all domains, then what stands elsewhere in the file."""
    own = publication.domains.get(domain, DomainPublication())
    return DomainWords(
        mode=own.mode or publication.mode,
        mx=own.mx or publication.mx or (ourselves.hostname,),
        other_mx=own.other_mx or publication.other_mx or (),
        max_age=own.max_age or publication.max_age,
        reports=own.reports or publication.reports or ourselves.reports,
    )
