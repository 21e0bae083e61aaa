"""Asks the hosts that mail for a recipient would go to whether they would take it: MAIL FROM:<>, RCPT, RSET, never DATA.

The connection is the one that a delivery would have: same connector, same plan, judged before MAIL, and kept for deliveries where the answer
was good. What answers mean is `relay.policy.callout`'s; caching and limits are the asker's, and so is the time all of it may take.
We ask in our own name, never on behalf of a client: an answer is kept and given to others too, so it must not depend on who asked first.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime

from relay.config.models import OutboundConnector
from relay.mail.address import Address
from relay.mail.reply import Reply
from relay.outbound.client import Timeouts
from relay.outbound.commands import probe_commands
from relay.outbound.connection import ClientTls, Connection, NoCertificateError, Trouble, open_connection, open_in_clear
from relay.outbound.pool import Kept, Moment, Pool, Wish
from relay.outbound.reuse import looked_at_again
from relay.outbound.target import Target
from relay.outbound.wire import Answer as WireAnswer
from relay.policy.callout import Answer, Heard, Known, needs_postmaster, read
from relay.policy.forward import ourselves
from relay.policy.plan import Step
from relay.policy.verdict import Failed

_ADDRESSES = 4  # hosts and addresses that one question tries
OVERTAKEN = "the configuration changed meanwhile"
_NO_UTF8 = "its host does not offer SMTPUTF8, so it can not get mail"


@dataclass(frozen=True, slots=True)
class Where:
    """Who is asked about an address, in order: targets, or words for a host that cannot be. `in_force` is what it was found under."""

    connector: OutboundConnector
    generation: object
    places: AsyncIterator[Target | str]


class Questions:
    """`in_force` is the configuration, as deliveries see it."""

    def __init__(
        self,
        pool: Pool[Connection],
        tls: ClientTls,
        timeouts: Timeouts,
        clock: Callable[[], datetime],
        in_force: Callable[[], object],
    ) -> None:
        self._pool, self._tls, self._timeouts, self._clock, self._in_force = pool, tls, timeouts, clock, in_force

    async def ask(self, address: Address, where: Where) -> Answer:
        """Never raises for what hosts do. Cut short, it leaves no open connection behind."""
        trouble, tried = "no host to ask", 0
        async for place in where.places:
            if isinstance(place, str):
                trouble = place
                continue
            answer = await self._at(address, place.on_behalf_of(ourselves(where.connector)), where)
            if answer.reached:
                return answer
            trouble, tried = f"{place.hop_text}: {answer.text}", tried + 1
            if tried >= _ADDRESSES:
                break
        return Answer(Known.UNKNOWN, trouble, reached=False)

    async def _at(self, address: Address, target: Target, where: Where) -> Answer:
        if self._in_force() is not where.generation:
            return _unknown(OVERTAKEN)
        try:
            context = self._tls.context(target.plan)
        except NoCertificateError as error:
            return _unknown(str(error))
        wish = Wish(target, where.connector.limits.messages_per_connection, context)
        kept = self._pool.take(wish, Moment(self._clock(), time.monotonic(), where.generation))
        if kept is not None and kept.connection.asks_revocation:
            kept = await looked_at_again(kept, self._pool, self._tls, self._clock)
        if kept is not None:
            answer = await self._ask(address, kept, where)
            if answer.reached:
                return answer
        opened = await open_connection(target, context, self._tls, self._timeouts)
        if isinstance(opened, Trouble) and opened.step is Step.SEND_IN_CLEAR:
            opened = await open_in_clear(target, self._timeouts)
        if isinstance(opened, Trouble):
            return _unknown(opened.outcome.text)
        tick = time.monotonic()
        return await self._ask(address, Kept(opened, where.generation, tick, tick), where)

    async def _ask(self, address: Address, kept: Kept[Connection], where: Where) -> Answer:
        connection = kept.connection
        try:
            answer = await self._put(address, connection, where)
        except BaseException:
            connection.cut()
            raise
        if answer.known is not Known.EXISTS:
            # Servers count refusals, and cut who collects them: deliveries shall not suffer for questions.
            connection.reusable = False
        self._pool.put(kept)
        return answer

    async def _put(self, address: Address, connection: Connection, where: Where) -> Answer:
        commands = probe_commands(address, connection.offer)
        if commands is None:
            return Answer(Known.MISSING, _NO_UTF8)
        mail, recipient, postmaster = commands
        heard = await self._say(connection, mail, recipient, where)
        if isinstance(heard, str):
            return _unknown(heard)
        if not needs_postmaster(heard[1]):
            return read(*heard)
        again = await self._say(connection, mail, postmaster, where)
        return read(*heard, again if isinstance(again, str) else again[1])

    async def _say(
        self, connection: Connection, mail: bytes, recipient: bytes, where: Where
    ) -> tuple[Heard, Heard] | str:
        """The answers to MAIL and RCPT, or why neither was said."""
        if self._in_force() is not where.generation:
            return OVERTAKEN
        approved = connection.judge(self._clock())
        if isinstance(approved, Failed):
            return f"{approved.text} (asked by {approved.source})"
        trouble = await approved.introduce() or await approved.log_in()
        if trouble is not None:
            return trouble.outcome.text
        if self._in_force() is not where.generation:
            return OVERTAKEN
        answer, (answered,) = await approved.verify(mail, (recipient,))
        return _heard(answer), _heard(answered)


def _heard(answer: WireAnswer) -> Heard:
    return answer if isinstance(answer, Reply) else str(answer)


def _unknown(text: str) -> Answer:
    return Answer(Known.UNKNOWN, text, reached=False)
