"""A certificate, its issuer, and where it says that its revocation can be found out: CRL distribution points and OCSP responders.

RFC 5280 sections 4.2.1.13 and 4.2.2.1. Threat: a certificate that names addresses without end, or such that are none: few are looked at,
and http and https only.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from relay.tls.facts import facts_of, spki_of

MOST_ADDRESSES = 4  # of each kind, for one certificate
_LONGEST = 1000
_NO_REV_AVAIL = "2.5.29.56"  # RFC 9608
_SHORT_LIVED = timedelta(days=7)  # as long as a CRL lasts (CA/Browser Forum, Baseline Requirements section 4.9.7)


class UnusableError(Exception):
    """This answer, or this certificate, cannot be used; str() says why."""


@dataclass(frozen=True, slots=True)
class Point:
    """One distribution point: its CRL is at any of `urls`. `names` are all names that it has, as a CRL may repeat them."""

    urls: tuple[str, ...]
    names: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A certificate of a verified path and the one above it. `left_out` says of each address why it is not used.

    `exempt` says why nothing needs to be found out, "" where it does.
    """

    subject: str
    der: bytes
    issuer_der: bytes
    certificate: x509.Certificate
    issuer: x509.Certificate
    is_ca: bool
    points: tuple[Point, ...]
    responders: tuple[str, ...]
    left_out: tuple[str, ...]
    exempt: str

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:x}"

    @property
    def issuer_hash(self) -> str:
        """Name and key of the issuer: who may speak of the certificate."""
        return hashlib.sha256(self.issuer.subject.public_bytes() + spki_of(self.issuer_der)).hexdigest()

    @property
    def crl_urls(self) -> tuple[str, ...]:
        return tuple(url for point in self.points for url in point.urls)

    @property
    def ocsp_key(self) -> str:
        return hashlib.sha256(f"ocsp {self.issuer_hash} {self.serial}".encode()).hexdigest()

    def crl_key(self, url: str) -> str:
        """A CRL that two issuers name is two answers: each must have signed it."""
        return hashlib.sha256(f"crl {self.issuer_hash} {url}".encode()).hexdigest()


def load(der: bytes) -> x509.Certificate:
    """Raises UnusableError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in relay.tls.facts: oddities of a peer's certificates
        try:
            return x509.load_der_x509_certificate(der)
        except Exception as error:  # noqa: BLE001 - hostile bytes, and the library names no complete list of its errors
            raise UnusableError(f"the certificate cannot be read: {error}") from None


def link_of(certificate: bytes, issuer: bytes) -> Link:
    """Both DER. Raises UnusableError."""
    own, above = load(certificate), load(issuer)
    left_out: list[str] = []
    try:
        points, responders = _points(own, left_out), _responders(own, left_out)
        return Link(
            subject=facts_of(certificate).certificate.subject or "a certificate without a subject",
            der=certificate,
            issuer_der=issuer,
            certificate=own,
            issuer=above,
            is_ca=_is_ca(own),
            points=points,
            responders=responders,
            left_out=tuple(left_out),
            exempt=_exempt(own, has_addresses=bool(points or responders or left_out)),
        )
    except UnusableError:
        raise
    except Exception as error:  # noqa: BLE001 - the library names no complete list of its errors
        raise UnusableError(f"the certificate's extensions cannot be read: {error}") from None


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    """The extension's value; None where there is none."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and bool(constraints.ca)


def _points(certificate: x509.Certificate, left_out: list[str]) -> tuple[Point, ...]:
    found: list[Point] = []
    count = 0
    for point in _extension(certificate, x509.CRLDistributionPoints) or ():
        names = [each.value for each in point.full_name or () if isinstance(each, x509.UniformResourceIdentifier)]
        if point.crl_issuer:
            left_out.extend(f"{name[:_LONGEST]}: an indirect CRL, signed by somebody else" for name in names)
            continue
        if point.reasons:
            left_out.extend(f"{name[:_LONGEST]}: a CRL for some reasons only" for name in names)
            continue
        urls = [name for name in names if _is_fetchable(name, left_out)][: MOST_ADDRESSES - count]
        count += len(urls)
        if urls:
            found.append(Point(tuple(urls), frozenset(names)))
    return tuple(found)


def _responders(certificate: x509.Certificate, left_out: list[str]) -> tuple[str, ...]:
    described = _extension(certificate, x509.AuthorityInformationAccess) or ()
    names = (
        each.access_location.value
        for each in described
        if each.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(each.access_location, x509.UniformResourceIdentifier)
    )
    return tuple(name for name in names if _is_fetchable(name, left_out))[:MOST_ADDRESSES]


def _is_fetchable(url: str, left_out: list[str]) -> bool:
    trouble = _trouble(url)
    if trouble:
        left_out.append(f"{url[:_LONGEST]}: {trouble}")
    return not trouble


def _trouble(url: str) -> str:
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        return "not an address that can be fetched"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "not an address that can be fetched"
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme or 'what has no scheme'} is not used, only http and https"
    if not host or "@" in parts.netloc:
        return "not an address that can be fetched"
    return ""


def _exempt(certificate: x509.Certificate, *, has_addresses: bool) -> str:
    if any(each.oid.dotted_string == _NO_REV_AVAIL for each in certificate.extensions):
        return "its issuer says that nothing will be told of it (noRevAvail, RFC 9608)"
    life: timedelta = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if not has_addresses and life <= _SHORT_LIVED:
        return "it lives for seven days at most, no longer than a CRL does"
    return ""


def out_of_date(this_update: datetime, ends: datetime, now: datetime, skew: timedelta) -> str:
    """Why an answer does not count at `now`, "" where it does. `skew` is how far our clocks may differ."""
    if this_update - skew > now:
        return f"it begins on {this_update:%Y-%m-%d %H:%M} UTC: is this machine's clock right?"
    return f"it ended on {ends:%Y-%m-%d %H:%M} UTC" if ends + skew <= now else ""
