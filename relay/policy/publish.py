"""What we publish, so that others reach us safely: from configuration and certificates to the exact records and files.

MTA-STS (RFC 8461): the TXT record, whose id changes exactly when the policy does, and the policy file. DANE (RFC 7672): TLSA `3 1 1` for
every key that a host of ours shows or is about to show. TLSRPT (RFC 8460). What DNS and HTTPS really say is compared with it in
`relay.policy.publish_check`; printing is the command line's.

Threat: a TLSA record that lags behind the certificate stops all mail from senders who hold to DANE. So the next key is among them
before it is used.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from relay.config.models import Config, DomainPublication
from relay.config.values import duration_text
from relay.mail.published import StsMode, StsPolicy, TlsaRecord
from relay.mail.tls import Certificate
from relay.policy.difference import unknown
from relay.policy.stsfile import HOST, PATH

SMTP_PORT = 25
_ID_LENGTH = 20  # RFC 8461 section 3.1: at most 32 letters and digits
_STRING = 255  # octets in one string of a TXT record (RFC 1035 section 3.3)


@dataclass(frozen=True, slots=True)
class Record:
    """One DNS record. `name` without the last dot; `value` as one text, which a TXT record may need in several strings."""

    name: str
    type: str
    value: str
    note: str = ""

    @property
    def line(self) -> str:
        """As it stands in a zone file."""
        value = self.value
        if self.type == "TXT":
            pieces = (value[begin : begin + _STRING] for begin in range(0, len(value), _STRING))
            value = " ".join(f'"{piece}"' for piece in pieces)
        return f"{self.name}. IN {self.type} {value}"


@dataclass(frozen=True, slots=True)
class OurKey:
    """A certificate of ours. `name` is its file's; `is_next` where it is shown to nobody yet. `chain` as shown, DER, leaf first."""

    name: str
    certificate: Certificate
    is_next: bool = False
    chain: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class DomainRecords:
    """`alias` leads senders to the policy that this relay serves, None where it serves none; `tlsrpt` is None where no reports are wanted."""

    domain: str
    policy: StsPolicy
    sts: Record
    tlsrpt: Record | None
    alias: Record | None

    @property
    def url(self) -> str:
        return f"https://{HOST}{self.domain}{PATH}"


@dataclass(frozen=True, slots=True)
class HostRecords:
    """A host in MX records that is this relay, and the keys that it shows or is about to show: a TLSA record for each."""

    host: str
    keys: tuple[OurKey, ...]

    @property
    def name(self) -> str:
        return f"_{SMTP_PORT}._tcp.{self.host}"  # RFC 6698 section 3

    @property
    def tlsa(self) -> tuple[Record, ...]:
        """Two certificates with one key need one record."""
        by_value: dict[str, list[OurKey]] = {}
        for key in self.keys:
            by_value.setdefault(str(tlsa_of(key)), []).append(key)
        return tuple(Record(self.name, "TLSA", value, "; ".join(map(_note, keys))) for value, keys in by_value.items())


@dataclass(frozen=True, slots=True)
class OurRecords:
    """Everything that is to be published. `keys` are all of ours, for partners who pin; `elsewhere` MX hosts that are other machines."""

    domains: tuple[DomainRecords, ...]
    hosts: tuple[HostRecords, ...]
    keys: tuple[OurKey, ...]
    elsewhere: tuple[str, ...] = ()


def our_hosts(config: Config, domains: Iterable[str]) -> tuple[str, ...]:
    """The MX hosts of these domains that are this relay."""
    return tuple(dict.fromkeys(host for domain in domains for host in config.publication_for(domain).mx))


def our_records(
    config: Config, domains: Iterable[str], shown: Mapping[str, tuple[OurKey, ...]], keys: Iterable[OurKey]
) -> OurRecords:
    """`shown` is what each of `our_hosts` shows a peer who asks for it, now or next."""
    wanted = tuple(domains)
    hosts = our_hosts(config, wanted) if config.publish.tlsa else ()
    others = (host for domain in wanted for host in config.publication_for(domain).other_mx)
    return OurRecords(
        domains=tuple(_domain(config, domain) for domain in wanted),
        hosts=tuple(HostRecords(host, shown.get(host, ())) for host in hosts),
        keys=tuple(keys),
        elsewhere=tuple(dict.fromkeys(others)),
    )


def _domain(config: Config, domain: str) -> DomainRecords:
    policy, reports = our_policy(config, domain), config.publication_for(domain).reports
    served = config.publish.https is not None
    return DomainRecords(
        domain=domain,
        policy=policy,
        sts=Record(f"_mta-sts.{domain}", "TXT", f"v=STSv1; id={policy.id};"),
        # RFC 8460 section 3
        tlsrpt=Record(f"_smtp._tls.{domain}", "TXT", f"v=TLSRPTv1; rua={','.join(reports)}") if reports else None,
        alias=Record(f"{HOST}{domain}", "CNAME", f"{config.hostname}.") if served else None,
    )


def _note(key: OurKey) -> str:
    if key.is_next:
        return f"{key.name}: not in use yet"
    return f"{key.name}: ends {key.certificate.not_after:%Y-%m-%d}"


def tlsa_of(key: OurKey) -> TlsaRecord:
    """DANE-EE(3) SPKI(1) SHA2-256(1), as RFC 7672 section 3.1.1 advises: it outlives a renewal that keeps the key."""
    digest = base64.b64decode(key.certificate.spki_sha256.removeprefix("sha256:"))
    return TlsaRecord(3, 1, 1, digest.hex())


def our_policy(config: Config, domain: str) -> StsPolicy:
    """The policy that a domain publishes. Its id is made from its text, so it changes exactly when the policy does."""
    words = config.publication_for(domain)
    patterns = tuple(dict.fromkeys((*words.mx, *words.other_mx)))
    seconds = int(words.max_age.total_seconds())
    # RFC 8461 section 3.2. `none` needs no hosts.
    hosts = () if words.mode is StsMode.NONE else tuple(f"mx: {pattern}" for pattern in patterns)
    text = ("version: STSv1", f"mode: {words.mode.value}", *hosts, f"max_age: {seconds}")
    digest = hashlib.sha256("\n".join(text).encode()).hexdigest()
    return StsPolicy(words.mode, patterns, seconds, digest[:_ID_LENGTH], text)


def policy_file(policy: StsPolicy) -> bytes:
    """The file to the byte: CRLF after each line."""
    return "".join(f"{line}\r\n" for line in policy.text).encode()


def policy_served_at(config: Config, host: str) -> bytes | None:
    """What https://HOST/.well-known/mta-sts.txt answers; None where it is no policy host of ours. `host` in lower case."""
    domain = host.removeprefix(HOST)
    if domain == host or domain not in config.published_domains:
        return None
    return policy_file(our_policy(config, domain))


# What a change of the configuration publishes less of, for `relay.policy.compare`.


def weakened_publication(old: Config, new: Config) -> Iterator[str]:
    """Others protect mail to us by what we publish: less of it, for a shorter time, or more hosts are weaker. Domain by domain, as it acts."""
    before, after = old.publish, new.publish
    for address in before.https or ():
        if address not in (after.https or ()):
            yield f"publish.https has {address} no more: policies are not served there"
    if before.tlsa and not after.tlsa:
        yield "publish.tlsa goes from true to false: no TLSA records are to be published"
    for domain in old.published_domains:
        if domain in new.published_domains:
            yield from (f"publish, {domain}: {text}" for text in _less_published(old, new, domain))
        elif domain not in old.accept.domains:  # else the rule about those has told it
            yield f"publish: there is no policy of {domain} any more"
    yield from unknown(before, after, {"https", "tlsa", "domains", *DomainPublication.model_fields}, "publish.")


def _less_published(old: Config, new: Config, domain: str) -> Iterator[str]:
    before, after = old.publication_for(domain), new.publication_for(domain)
    ranks = (StsMode.NONE, StsMode.TESTING, StsMode.ENFORCE)
    if ranks.index(after.mode) < ranks.index(before.mode):
        yield f"mode goes from {before.mode.value} to {after.mode.value}"
    if after.max_age < before.max_age:
        yield f"max_age goes from {duration_text(before.max_age)} to {duration_text(after.max_age)}"
    for key in ("mx", "other_mx"):
        hosts, now = getattr(before, key), getattr(after, key)
        yield from (f"{key} has {host} in addition" for host in now if host not in hosts)
        yield from (f"{key} has {host} no more: senders may not use it" for host in hosts if host not in now)
    yield from (f"reports go to {uri} no more" for uri in before.reports if uri not in after.reports)
