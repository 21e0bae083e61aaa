"""Questions to the mail server inside whether a recipient exists: asked once however many wait, kept, and never too many at a time.

Knows nothing of hops and TLS: `Ask` does. What answers mean is `relay.policy.callout`'s. Each process has answers of its own.
Threat: a dictionary attack. Whoever names too many recipients that do not exist hears 421 and the server inside is not bothered; memory is
bounded, and a server that is down or slow costs each question no more than its time limit, and few of them.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from relay.clients.limits import Key, LoginFailures
from relay.config.models import Callout
from relay.dns.cache import Cache, Timed
from relay.mail.address import Address
from relay.mail.events import CalloutTakesAll, Emit, RecipientAsked
from relay.policy.callout import AGAIN, STALE, Answer, Known, seconds

Ask = Callable[[Address], Awaitable[Answer]]
"""Never raises for what hops, DNS or the network do."""

NOBODY = "no-such-recipient-"
"""So begins the name of somebody who cannot exist."""
_BUSY = Answer(Known.UNKNOWN, "too many questions are open", reached=False)


@dataclass(frozen=True, slots=True)
class CalloutLimits:
    """`entries`: answers kept for one domain. `at_once`: questions open for one domain; `waiting`: and behind these.
    `guesses`: unknown recipients of one client within `memory` seconds, beyond which it has to wait, from `first` seconds on."""

    entries: int = 10_000
    at_once: int = 10
    waiting: int = 200
    guesses: int = 20
    memory: float = 600.0
    first: float = 60.0
    longest: float = 900.0


async def nobody_to_ask(_address: Address) -> Answer:
    return Answer(Known.UNKNOWN, "this relay asks nobody", reached=False)


class Callouts:
    """`configuration` is what is in force: answers found under another are forgotten. `monotonic` in seconds."""

    def __init__(
        self,
        ask: Ask,
        configuration: Callable[[], object],
        monotonic: Callable[[], float],
        emit: Emit,
        limits: CalloutLimits = CalloutLimits(),
    ) -> None:
        self._ask, self._configuration, self._monotonic, self._emit = ask, configuration, monotonic, emit
        self._limits = limits
        self._domains: dict[str, _Domain] = {}
        self._leaving: list[_Domain] = []
        self._of: object = None
        # What holds for wrong passwords holds for wrong recipients: beyond some, each closes the door for longer.
        self._guesses = LoginFailures(limits.guesses, limits.memory, limits.first, limits.longest)

    def held(self, address: Address, callout: Callout) -> Answer | None:
        """An answer that is here; None where it has to be asked for."""
        return self._domain(address.domain, callout).held(address)

    async def answer(self, address: Address, callout: Callout) -> Answer:
        """Within the callout's time limit."""
        return await self._domain(address.domain, callout).answer(address)

    def guessed(self, client: Key) -> None:
        """A client named a recipient that does not exist."""
        self._guesses.add(client, self._monotonic())

    def is_guessing(self, client: Key) -> bool:
        """It named too many; now is not the time for more."""
        return self._guesses.wait(client, self._monotonic()) > 0

    async def close(self) -> None:
        """Ends the questions under way: nobody waits for them any more."""
        for each in (*self._leaving, *self._domains.values()):
            await each.close()

    def _domain(self, domain: str, callout: Callout) -> "_Domain":
        configuration = self._configuration()
        if self._of is not configuration:
            # A reload holds at once: another connector may lead to another server. Who waits for an answer still gets it.
            self._leaving = [each for each in (*self._leaving, *self._domains.values()) if not each.is_idle]
            self._of, self._domains = configuration, {}
        found = self._domains.get(domain)
        if found is None:
            found = self._domains[domain] = _Domain(self._ask, callout, self._monotonic, self._emit, self._limits)
        return found


class _Domain:
    """One domain's answers under one configuration."""

    def __init__(
        self, ask: Ask, callout: Callout, monotonic: Callable[[], float], emit: Emit, limits: CalloutLimits
    ) -> None:
        self._ask, self._callout, self._monotonic, self._emit = ask, callout, monotonic, emit
        self._answers: Cache[Address, Answer] = Cache(self._find, size=limits.entries, monotonic=monotonic)
        # Good answers once more, for when nobody can be asked.
        self._stale: Cache[Address, Answer] = Cache(self._find, size=limits.entries, monotonic=monotonic)
        self._slots = asyncio.Semaphore(limits.at_once)
        self._most = limits.at_once + limits.waiting
        self._open = 0
        self._test: asyncio.Task[None] | None = None
        self._down: Answer | None = None
        self._until = 0.0

    @property
    def is_idle(self) -> bool:
        return self._answers.is_idle and (self._test is None or self._test.done())

    def held(self, address: Address) -> Answer | None:
        return self._answers.held(address)

    async def answer(self, address: Address) -> Answer:
        answer = await self._answers.get(address)
        if answer.known is Known.UNKNOWN:
            return self._stale.held(address) or answer
        return answer

    async def close(self) -> None:
        await self._answers.close()
        if self._test is not None:
            self._test.cancel()
            await asyncio.gather(self._test, return_exceptions=True)

    async def _takes_all(self, domain: str) -> None:
        """Once: a server that takes a recipient who cannot exist says yes to everything, and its admin shall know."""
        nobody = Address(f"{NOBODY}{secrets.token_hex(8)}", domain)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._callout.timeout.total_seconds()), self._slots:
                if (await self._ask(nobody)).known is Known.EXISTS:
                    self._emit(CalloutTakesAll(domain))

    async def _find(self, address: Address) -> Timed[Answer]:
        answer = await self._found(address)
        if answer.known is Known.EXISTS:
            if self._test is None:
                self._test = asyncio.get_running_loop().create_task(self._takes_all(address.domain))
            self._stale.put(address, Timed(answer, STALE.total_seconds()))
        elif answer.known is Known.MISSING:
            self._stale.put(address, Timed(answer, 0.0))
        return Timed(answer, seconds(answer, self._callout))

    async def _found(self, address: Address) -> Answer:
        if self._down is not None and self._monotonic() < self._until:
            return self._down
        if self._open >= self._most:
            return _BUSY
        limit = self._callout.timeout.total_seconds()
        begun = self._monotonic()
        self._open += 1
        try:
            async with asyncio.timeout(limit), self._slots:
                answer = await self._ask(address)
        except TimeoutError:
            answer = Answer(Known.UNKNOWN, f"no answer within {limit:g} s", reached=False)
        finally:
            self._open -= 1
        now = self._monotonic()
        self._down = None if answer.reached else answer
        self._until = now + AGAIN.total_seconds()
        self._emit(RecipientAsked(str(address), answer.known.value, answer.text, now - begun))
        return answer
