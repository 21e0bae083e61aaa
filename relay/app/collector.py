"""Python's cyclic garbage collector, for a process that serves.

Almost everything here is freed by its last reference, and no session or message is part of a cycle when it ends; what is there after the
start stays. At its usual thresholds the collector looks at all of that again and again: 3 to 4 % of the CPU time of a busy relay.
"""

import gc

_YOUNG = 20_000  # more objects made than freed before the young ones are looked at (700 by default)


def calm_collector() -> None:
    """Called once the relay serves. What exists now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
