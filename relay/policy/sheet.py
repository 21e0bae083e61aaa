"""The partner sheet: what the other side must be told before a certificate of ours is changed, and what each kind of partner has to do.

Values only. It is written for somebody who knows nothing of this relay, and never says who our other partners are.

Threat: a change of key or CA that nobody told the partner of stops their mail to us, or ours to them, until they have found out why.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from relay.mail.published import TlsaRecord
from relay.policy.holdings import Anchor, Details
from relay.policy.publish import Record


@dataclass(frozen=True, slots=True)
class Paper:
    """One certificate as a partner is told of it. `tlsa` are the records that let it be known by DANE: 3 1 1 of its key, and 2 1 1 of its
    issuer where that is in the chain; empty where it is shown by no host of our MX records."""

    chain: tuple[Details, ...]
    anchor: Anchor | None
    tlsa: tuple[Record, ...] = ()

    @property
    def leaf(self) -> Details:
        return self.chain[0]

    @property
    def root(self) -> Details | None:
        return self.anchor.details if self.anchor is not None else None

    @property
    def intermediates(self) -> tuple[Details, ...]:
        """Between leaf and root, as they are shown."""
        root = self.root
        return tuple(each for each in self.chain[1:] if root is None or each.sha256 != root.sha256)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that differs between the present certificate and the coming one, as text."""

    what: str
    present: str
    coming: str


@dataclass(frozen=True, slots=True)
class Task:
    """What one kind of partner has to do. `act`: something must be done, else mail stops; without it, `text` says why nothing has to."""

    who: str
    act: bool
    text: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """`present` is None for a certificate that is to be used for the first time, `coming` while none waits; one of them is there.

    `contact` is our postmaster. `server`: we show it to those who send to us; `client`: to those we send to. `on`: the day of the change.
    """

    name: str
    hostname: str
    contact: str
    made: datetime
    server: bool
    client: bool
    present: Paper | None
    coming: Paper | None
    on: date | None = None

    @property
    def newest(self) -> Paper:
        paper = self.coming or self.present
        if paper is None:
            raise ValueError("a sheet about nothing")
        return paper

    @property
    def changes(self) -> tuple[Change, ...]:
        """Empty where nothing is to come."""
        if self.present is None or self.coming is None:
            return ()
        before, after = _rows(self.present), _rows(self.coming)
        return tuple(Change(what, before[what], after[what]) for what in after if before[what] != after[what])

    @property
    def tasks(self) -> tuple[Task, ...]:
        if self.present is None or self.coming is None:
            return tuple(_as_it_is(self.newest))
        return tuple(_for_change(self.present, self.coming))


def tlsa_records(host: str, chain: tuple[Details, ...]) -> tuple[Record, ...]:
    """What a host that shows this chain may publish (RFC 7672 section 3.1)."""
    name = f"_25._tcp.{host}"
    records = [Record(name, "TLSA", str(_tlsa(3, chain[0])), "this key")]
    # RFC 7671 section 5.2.2: usage 2 holds only where the authority's certificate is in the chain that is shown.
    if len(chain) > 1 and chain[1].is_ca and chain[0].certificate.issuer == chain[1].certificate.subject:
        records.append(
            Record(name, "TLSA", str(_tlsa(2, chain[1])), "instead: any certificate of this issuer for this name")
        )
    return tuple(records)


def _tlsa(usage: int, details: Details) -> TlsaRecord:
    digest = base64.b64decode(details.certificate.spki_sha256.removeprefix("sha256:"))
    return TlsaRecord(usage, 1, 1, digest.hex())


def day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _rows(paper: Paper) -> dict[str, str]:
    leaf, certificate, root = paper.leaf, paper.leaf.certificate, paper.root
    return {
        "Subject": certificate.subject,
        "Names": ", ".join(sorted(certificate.names)),
        "Issuer": certificate.issuer,
        "Root": root.certificate.subject if root is not None else "not known",
        "Root's fingerprint (SHA-256)": root.sha256 if root is not None else "not known",
        "Key": leaf.key,
        "Key pin (SPKI, SHA-256)": certificate.spki_sha256,
        "TLSA": "; ".join(dict.fromkeys(each.value for each in paper.tlsa)),
        "Signature": leaf.signature,
        "Valid from": day(certificate.not_before),
        "Valid until": day(certificate.not_after),
        "Serial number": leaf.serial,
        "Fingerprint (SHA-256)": leaf.sha256,
        "Fingerprint (SHA-1)": leaf.sha1,
        "CRL": ", ".join(leaf.crl),
        "OCSP": ", ".join(leaf.ocsp),
    }


PINS = "You pin our key"
WHOLE = "You hold us to the certificate's fingerprint or serial number"
DANE = "You hold us to DANE (TLSA records in DNS)"
CA = "You name the CA that must have issued our certificate"
NAMES = "You match the names in our certificate"
TEXTS = "You match the subject's or issuer's text (Exchange: TlsCertificateName, TlsSenderCertificateName)"
REVOKED = "You check revocation"


def _as_it_is(paper: Paper) -> Iterator[Task]:
    """Nothing is to come: what each may hold us to."""
    leaf, certificate, root = paper.leaf, paper.leaf.certificate, paper.root
    yield Task(PINS, False, f"pin {certificate.spki_sha256}; we tell you the next one before we use it.")
    if paper.tlsa:
        yield Task(DANE, False, "nothing: the records are as below, and the next key's is published before we use it.")
    if leaf.self_issued:
        yield Task(CA, False, f"no CA issued it: trust this very certificate (SHA-256 fingerprint {leaf.sha256}).")
    elif root is not None:
        yield Task(CA, False, f"trust {root.certificate.subject or 'the root'} (SHA-256 fingerprint {root.sha256}).")
    yield Task(NAMES, False, f"expect one of {', '.join(certificate.names)}." if certificate.names else _NO_NAME)
    yield from _revocation(leaf, None)


_NO_NAME = "it has no subject alternative name: it cannot be matched by name."


def _for_change(present: Paper, coming: Paper) -> Iterator[Task]:
    before, after = present.leaf, coming.leaf
    yield _pins(before, after)
    yield Task(
        WHOLE,
        True,
        f"accept the new one too, SHA-256 {after.sha256}, serial number {after.serial}; both change with every renewal.",
    )
    if present.tlsa or coming.tlsa:
        text = "nothing, if you look the records up: we publish both keys' before the change."
        if before.certificate.spki_sha256 == after.certificate.spki_sha256:
            text = "nothing: the key stays, and so does its record."
        yield Task(DANE, False, text)
    yield _ca(present, coming)
    yield _names(before, after)
    yield _texts(before, after)
    yield from _revocation(after, before)


def _pins(before: Details, after: Details) -> Task:
    old, new = before.certificate.spki_sha256, after.certificate.spki_sha256
    if old == new:
        return Task(PINS, False, f"nothing: the key stays ({old}).")
    text = f"add {new} beside {old} before the change; take the old one out some days after it, not sooner."
    return Task(PINS, True, text)


def _ca(present: Paper, coming: Paper) -> Task:
    before, after = present.root, coming.root
    issuer = coming.leaf.certificate.issuer
    if after is None:
        return Task(CA, True, f"ask us first: where the coming chain ends is not known here; its issuer is {issuer}.")
    root = f"{after.certificate.subject} (SHA-256 fingerprint {after.sha256})"
    if before is None or _key(before) != _key(after):
        return Task(CA, True, f"trust its root for us before the change: {root}; keep the old one until then.")
    if present.leaf.certificate.issuer == issuer:
        return Task(CA, False, f"nothing: the issuer and the root stay, {root}.")
    fingerprint = coming.chain[1].sha256 if len(coming.chain) > 1 else "we send it to you"
    text = f"nothing if you trust the root, which stays. If you trust the intermediate: add {issuer} (SHA-256 fingerprint {fingerprint})."
    return Task(CA, True, text)


def _key(details: Details) -> tuple[str, str]:
    """A CA that renews its certificate with the same key and name is the same CA."""
    return details.certificate.subject, details.certificate.spki_sha256


def _names(before: Details, after: Details) -> Task:
    lost = [name for name in before.certificate.names if name not in after.certificate.names]
    added = [name for name in after.certificate.names if name not in before.certificate.names]
    more = f" New: {', '.join(added)}." if added else ""
    if lost:
        text = (
            f"no longer expect {', '.join(lost)}: expect one of {', '.join(after.certificate.names) or 'none'}.{more}"
        )
        return Task(NAMES, True, text)
    return Task(NAMES, False, f"nothing: every name stays.{more}")


def _texts(before: Details, after: Details) -> Task:
    old, new = before.certificate, after.certificate
    if (old.subject, old.issuer) == (new.subject, new.issuer):
        return Task(TEXTS, False, "nothing: both stay.")
    changed = [
        word
        for word, same in (("subject", old.subject == new.subject), ("issuer", old.issuer == new.issuer))
        if not same
    ]
    return Task(
        TEXTS,
        True,
        f"the {' and the '.join(changed)} will be another: issuer {new.issuer}, subject {new.subject or '(empty)'}.",
    )


def _revocation(leaf: Details, before: Details | None) -> Iterator[Task]:
    places = (*leaf.crl, *leaf.ocsp)
    if not places:
        return
    act = before is not None and bool(set(places) - {*before.crl, *before.ocsp})
    text = (
        f"your firewall must let these through: {', '.join(places)}."
        if act or before is None
        else "nothing: the addresses stay."
    )
    yield Task(REVOKED, act, text)
