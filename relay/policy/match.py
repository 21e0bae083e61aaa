"""Which rule speaks about a domain: exact beats the longest wildcard beats `*` (design section 4).

`*.contoso.com` is every subdomain at any depth, not the apex. Address literals match no rule, not even `*`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """The most specific pattern for a domain and all that was filed under it, in the file's order. No `values`: nothing matched."""

    pattern: str = ""
    values: tuple[T, ...] = ()


@dataclass(slots=True)
class PatternIndex(Generic[T]):
    """Patterns to values, looked up in time that grows with the labels of the domain only."""

    _by_pattern: dict[str, tuple[T, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[tuple[str, T]]) -> "PatternIndex[T]":
        index = cls()
        for pattern, value in entries:
            index._by_pattern[pattern] = (*index._by_pattern.get(pattern, ()), value)
        return index

    def find(self, domain: str) -> Match[T]:
        """`domain` normalised (relay.mail.address)."""
        if not self._by_pattern or not domain or domain.startswith("["):
            return Match()
        for pattern in _patterns_for(domain):
            values = self._by_pattern.get(pattern)
            if values is not None:
                return Match(pattern, values)
        return Match()


def _patterns_for(domain: str) -> Iterable[str]:
    yield domain
    rest = domain
    while "." in rest:
        rest = rest.split(".", 1)[1]
        yield f"*.{rest}"
    yield "*"
