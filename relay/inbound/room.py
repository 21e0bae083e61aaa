"""How much memory transactions may take. No I/O."""

ROOM = 256 * 2**20


class Room:
    """Memory for the recipients and header sections of all transactions under way, in bytes (message bodies are the intake's).

    Threat: ten thousand sessions that each stay within their own limits. Beyond `most`, nobody gets more than `share`, which is as
    much as ordinary mail ever needs: whoever holds more is asked to come again later.
    """

    __slots__ = ("_most", "_share", "taken")

    def __init__(self, most: int = ROOM, share: int = 32 * 1024) -> None:
        self._most, self._share = most, share
        self.taken = 0

    def take(self, has: int, more: int) -> bool:
        """`more` for a transaction that `has` so much already. False: not now, and nothing was taken."""
        if self.taken + more > self._most and has + more > self._share:
            return False
        self.taken += more
        return True

    def give_back(self, size: int) -> None:
        self.taken -= size
