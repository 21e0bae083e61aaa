"""Does the presented chain lead to somebody we trust? A path check (RFC 5280 section 6) made afresh from the evidence.

OpenSSL builds and verifies the path: signatures, dates, basic constraints, path length, name constraints. What its store context does
not do through pyOpenSSL is done here on the path it found: extended key usage, and keys and signatures too weak to count (as
OpenSSL's security level 2 has it). Names are not looked at: that is `relay.policy.verdict`'s.

Threat: a result that outlives its reason. It is kept for a short time only, never beyond the end of the path's first certificate,
and not beyond a change of the CA file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

from OpenSSL import SSL, crypto

from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, Undecided, Untrusted
from relay.tls.facts import ANY_USAGE, CLIENT_AUTH, SERVER_AUTH, SMALL, Facts, facts_of
from relay.tls.stores import Store, StoreShelf, Unusable

_MAX_KEPT = 4096
_Codes = SSL.X509VerificationCodes
_FAILURES = {
    _Codes.ERR_CERT_HAS_EXPIRED: TlsFailure.CERTIFICATE_EXPIRED,
    _Codes.ERR_CERT_NOT_YET_VALID: TlsFailure.CERTIFICATE_EXPIRED,
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: TlsFailure.CERTIFICATE_NOT_TRUSTED,
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: TlsFailure.CERTIFICATE_NOT_TRUSTED,
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: TlsFailure.CERTIFICATE_NOT_TRUSTED,
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: TlsFailure.CERTIFICATE_NOT_TRUSTED,
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: TlsFailure.CERTIFICATE_NOT_TRUSTED,
    _Codes.ERR_CERT_UNTRUSTED: TlsFailure.CERTIFICATE_NOT_TRUSTED,
    _Codes.ERR_CERT_REJECTED: TlsFailure.CERTIFICATE_NOT_TRUSTED,
}


class Purpose(Enum):
    """Whose certificate it is. The values are the extended key usages of which one must be allowed.

    A client's may say serverAuth only: since public CAs stopped issuing clientAuth, a mail server has no other (design section 5).
    """

    SERVER = frozenset({ANY_USAGE, SERVER_AUTH})
    CLIENT = frozenset({ANY_USAGE, SERVER_AUTH, CLIENT_AUTH})


@dataclass(frozen=True, slots=True)
class _Kept:
    result: PathResult
    version: int
    checked: datetime
    until: datetime


_Key = tuple[tuple[str, ...], str, Purpose]


class TrustStores:
    """Path checks against "system", PEM files and folders of them. Synchronous: 0.1 to 0.5 ms by length of the path, 5 us where kept.

    `keep` bounds how long a result is used again, `interval` how often the disk is asked whether a file changed.
    """

    def __init__(self, *, keep: timedelta = timedelta(seconds=60), interval: timedelta = timedelta(seconds=1)) -> None:
        self._keep = keep
        self._shelf = StoreShelf(interval=interval)
        self._kept: dict[_Key, _Kept] = {}

    def check(self, evidence: TlsEvidence, trusts: Iterable[str], purpose: Purpose, now: datetime) -> TlsEvidence:
        """The evidence with a result in `paths` for each of `trusts`, as of `now` (aware). Never raises for what was presented."""
        paths = dict(evidence.paths)
        for trust in trusts:
            paths[trust] = self._result(evidence, trust, purpose, now)
        return replace(evidence, paths=MappingProxyType(paths))

    def problem(self, trust: str, now: datetime) -> str:
        """Why this trust data can not be used, "" where it can: for `relay check`."""
        store = self._shelf.get(trust, now)
        return store.text if isinstance(store, Unusable) else ""

    def _result(self, evidence: TlsEvidence, trust: str, purpose: Purpose, now: datetime) -> PathResult:
        if not evidence.chain:
            return Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "no certificate was shown")
        store = self._shelf.get(trust, now)
        if isinstance(store, Unusable):
            return Undecided(store.text)
        key = (tuple(each.sha256 for each in evidence.chain), trust, purpose)
        kept = self._kept.get(key)
        if kept is not None and kept.version == store.version and kept.checked <= now < kept.until:
            return kept.result
        result = check_path(store, tuple(each.der for each in evidence.chain), purpose, now)
        until = now + self._keep
        if isinstance(result, Trusted):
            until = min(until, result.until)
        if len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = _Kept(result, store.version, now, until)
        return result


def check_path(
    store: Store, chain: Sequence[bytes], purpose: Purpose, now: datetime
) -> Trusted | Untrusted | Undecided:
    """One check of a DER chain, leaf first, at `now` (aware)."""
    if not all(chain):
        return Undecided("this is the record of a connection, its certificates are not at hand")
    try:
        leaf, *rest = (_remembered(der) if len(der) <= SMALL else _load(der) for der in chain)
    except crypto.Error:
        return Untrusted(TlsFailure.VALIDATION_FAILURE, "a certificate of the chain cannot be read")
    try:
        path = crypto.X509StoreContext(store.at(now), leaf, rest).get_verified_chain()
    except crypto.X509StoreContextError as error:
        return _untrusted(error)
    finally:
        _forget_errors()
    return _accepted([facts_of(crypto.dump_certificate(crypto.FILETYPE_ASN1, each)) for each in path], purpose)


def verified_path(store: Store, chain: Sequence[bytes], now: datetime) -> tuple[bytes, ...]:
    """DER from leaf to anchor, as OpenSSL finds and verifies it at `now`; empty where there is none. Says nothing about usage and strength."""
    try:
        leaf, *rest = (_load(der) for der in chain)
        path = crypto.X509StoreContext(store.at(now), leaf, rest).get_verified_chain()
    except (crypto.Error, crypto.X509StoreContextError):
        return ()
    finally:
        _forget_errors()
    return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, each) for each in path)


def _load(der: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


_remembered = lru_cache(maxsize=256)(_load)  # intermediates come again and again, and OpenSSL keeps their decoded keys


def _accepted(path: Sequence[Facts], purpose: Purpose) -> Trusted | Untrusted:
    """The checks that are ours, on a path from leaf to anchor that OpenSSL has verified."""
    trouble = next((f"{_who(path, index)}: {each.trouble}" for index, each in enumerate(path) if each.trouble), "")
    if trouble:
        return Untrusted(TlsFailure.VALIDATION_FAILURE, trouble)
    if not path[0].signs:
        return Untrusted(TlsFailure.VALIDATION_FAILURE, f"{_who(path, 0)}: its key usage does not allow TLS")
    for index, facts in enumerate(path):
        # Usage restricts issuers too, as OpenSSL and browsers have it, though RFC 5280 speaks of the leaf only.
        if not facts.usages & purpose.value:
            return Untrusted(
                TlsFailure.VALIDATION_FAILURE, f"{_who(path, index)}: its extended key usage does not allow TLS"
            )
        # Nobody relies on the anchor's own signature, so only that of the others counts.
        weakness = facts.weak_key or (facts.weak_signature if index < len(path) - 1 else "")
        if weakness:
            return Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, f"{_who(path, index)}: too weak, {weakness}")
    ends = min(facts.certificate.not_after for facts in path)
    return Trusted(_subject(path[-1]), ends, tuple(facts.certificate.der for facts in path))


def _who(path: Sequence[Facts], index: int) -> str:
    subject = _subject(path[index])
    return subject if index else f"leaf {subject}"


def _subject(facts: Facts) -> str:
    return facts.certificate.subject or "a certificate without a subject"


def _untrusted(error: crypto.X509StoreContextError) -> Untrusted:
    """OpenSSL's words, and the certificate they are about."""
    code, depth, text = error.errors
    failure = _FAILURES.get(code, TlsFailure.VALIDATION_FAILURE)
    return Untrusted(failure, f"{text} (certificate {depth + 1} of the path)" if depth else text)


def _forget_errors() -> None:
    """Empties OpenSSL's error queue, in which a check leaves what the next TLS error of any connection would then show.

    pyOpenSSL empties it when it raises, and this is a call that raises.
    """
    try:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    except crypto.Error:
        return
