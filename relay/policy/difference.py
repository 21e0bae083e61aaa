"""Small questions that comparing two configurations asks: does a key differ, does a list take in more than before?"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from relay.config.connectors import Model
from relay.config.values import Network


def unknown(old: Model, new: Model, known: Collection[str], place: str = "") -> Iterator[str]:
    """The keys that differ and that no rule knows."""
    for key in type(new).model_fields:
        if key not in known:
            yield from changes(old, new, key, place)


def changes(old: Model, new: Model, key: str, place: str = "") -> Iterator[str]:
    """That the key differs. Nothing where it does not."""
    if getattr(old, key) != getattr(new, key):
        yield f"{place}{key} changes"


def from_to(old: Model, new: Model, key: str) -> Iterator[str]:
    """How the key differs. Nothing where it does not."""
    before, after = getattr(old, key), getattr(new, key)
    if before != after:
        yield f"{key} goes from {_word(before)} to {_word(after)}"


def _word(value: object) -> str:
    return "none" if value is None else str(getattr(value, "value", value))


def more_networks(old: Iterable[Network], new: Iterable[Network]) -> str:
    """Those of `new` that `old` does not take in altogether, "" where there are none."""
    before = _collapsed(old)
    added = [each for each in new if not any(_within(each, wide) for wide in before)]
    return ", ".join(str(each) for each in added)


def _collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    every = tuple(networks)
    v4 = ipaddress.collapse_addresses(each for each in every if isinstance(each, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(each for each in every if isinstance(each, ipaddress.IPv6Network))
    return (*v4, *v6)


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def more_names(old: Iterable[str], new: Iterable[str]) -> str:
    """Those of `new` that a certificate could have and satisfy none of `old`; "" where there are none."""
    before = set(old)
    added = [each for each in new if each not in before and f"*.{each.partition('.')[2]}" not in before]
    return ", ".join(added)


def few(names: Iterable[str]) -> str:
    """The first names and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
