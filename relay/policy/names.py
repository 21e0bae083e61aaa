"""Certificate names against wanted names (RFC 9525 section 6), on the SAN only: the common name never counts.

And host names against the patterns of an MTA-STS policy (RFC 8461 section 4.1).
"""

from collections.abc import Iterable

from relay.mail.tls import Certificate


def matching_name(wanted: Iterable[str], certificate: Certificate) -> str:
    """The first of the certificate's names that satisfies one of `wanted` (host, `*.x` or IP address); "" where none does."""
    names = tuple(wanted)
    for presented in certificate.dns_names:
        if any(_dns_matches(each, presented) for each in names):
            return presented
    return next((address for address in certificate.ip_names if address in names), "")


def is_listed(host: str, patterns: Iterable[str]) -> bool:
    """True where `host` is one of the mx patterns of an MTA-STS policy. All normalised.

    RFC 8461 section 4.1: the whole name, or "*." for exactly one left-most label.
    """
    parent = f"*.{host.partition('.')[2]}"
    return any(pattern in (host, parent) for pattern in patterns)


def _dns_matches(wanted: str, presented: str) -> bool:
    if wanted == presented:
        return True
    if wanted.startswith("*."):  # configured: any one-label name under x, never a wildcard at another depth
        return "*" not in presented and presented.split(".", 1)[1:] == [wanted[2:]]
    if not presented.startswith("*."):
        return False
    parent = presented[2:]
    # RFC 9525 section 6.3: the wildcard is the whole left-most label and stands for exactly one. "*.com" would stand for the world.
    return "." in parent and "*" not in parent and wanted.split(".", 1)[1:] == [parent]
