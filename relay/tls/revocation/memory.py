"""What is at hand without asking anyone: a bounded number of bytes of CRLs and OCSP answers, the longest unused ones go first."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

from relay.tls.revocation.crl import Crl
from relay.tls.revocation.ocsp import Answer

_OVERHEAD = 1024


@dataclass(slots=True)
class Held:
    """`look`: when to see whether the store has a newer one; `touched`: when the store last heard that it is in use."""

    answer: Crl | Answer
    url: str
    fetched: datetime
    look: datetime
    touched: datetime


class Memory:
    def __init__(self, size: int) -> None:
        self._size, self._weight = size, 0
        self._held: OrderedDict[str, Held] = OrderedDict()

    def get(self, key: str) -> Held | None:
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
        return held

    def put(self, key: str, held: Held) -> None:
        """Takes the place of what is there."""
        self.drop(key)
        self._held[key] = held
        self._weight += _weight(held)
        while self._weight > self._size and len(self._held) > 1:
            self._weight -= _weight(self._held.popitem(last=False)[1])

    def drop(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._weight -= _weight(held)

    @property
    def weight(self) -> int:
        return self._weight

    def __len__(self) -> int:
        return len(self._held)


def _weight(held: Held) -> int:
    return len(held.answer.der) + _OVERHEAD
