"""Which part of the queue is one process's, where a relay has several.

Every message belongs to a slot: that of the process which took it, which alone delivers it. A process that dies has a successor in its
slot. A slot that has nobody, because the relay has fewer processes now or because its process does not come back, is adopted: another
one makes its mail its own, step by step.
"""

from dataclasses import dataclass, field

from relay.queue.turn import Alone, Turn


@dataclass(frozen=True, slots=True)
class Share:
    """This process's `slot` among `count`, and whose `turn` it is to write. `locked`: somebody else sees to it that no other relay comes."""

    slot: int = 0
    count: int = 1
    turn: Turn = field(default_factory=Alone)
    locked: bool = False

    @property
    def leads(self) -> bool:
        """True for the one that does what only one should: purge, give room back."""
        return self.slot == 0
