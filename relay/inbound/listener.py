"""Opens the listeners of a configuration, follows it when it changes, and closes them without losing a message.

What happens on a connection is `relay.inbound.session`'s. A listener is one socket: "[::]:25" takes IPv6 only, so that "0.0.0.0:25"
can stand beside it.
"""

import asyncio
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relay.clients.limits import Failures, Key
from relay.clients.verifier import LoginLimits
from relay.config.models import Config, Listener, ListenerKind, Switch
from relay.config.values import HostPort
from relay.inbound.auth import Authenticator
from relay.inbound.port import Floor, Port
from relay.inbound.services import Services, TimeLimits
from relay.inbound.session import Session
from relay.inbound.sockets import BACKLOG, Door, ListenError
from relay.mail.events import ListenerReady

_TO_SESSION = 4  # turns of the loop, at most, from accept to the session's first word


@dataclass(frozen=True, slots=True)
class Bound:
    """An open listener and where it really is: port 0 in the configuration means any free one."""

    listener: Listener
    address: HostPort
    listening: socket.socket = field(repr=False)
    server: asyncio.Server = field(repr=False)


class Listeners:
    """All listeners of the configuration that `services.book` gives. Made and used in one event loop, started and closed once."""

    def __init__(self, services: Services, times: TimeLimits | None = None) -> None:
        self._services = services
        self._floor = Floor(services, times or TimeLimits())
        self._bound: tuple[Bound, ...] = ()
        self._passwords: Path | None = None

    @property
    def bound(self) -> tuple[Bound, ...]:
        """In the order of the configuration."""
        return self._bound

    @property
    def listening(self) -> tuple[socket.socket, ...]:
        """The sockets that are open."""
        return self._floor.listening

    @property
    def sessions(self) -> int:
        """Open connections, those that are not greeted yet among them."""
        return len(self._floor.sessions)

    @property
    def by_listener(self) -> dict[str, int]:
        """Open connections by listener name, those of listeners that are closed by now among them."""
        counts = dict.fromkeys((each.listener.name for each in self._bound), 0)
        for session in self._floor.sessions:
            counts[session.listener] = counts.get(session.listener, 0) + 1
        return counts

    async def start(self) -> tuple[Bound, ...]:
        """Opens every listener, or none. Raises ListenError, and PasswordFileError where submission's password file cannot be used."""
        await self._follow(self._services.book().config, claim=False)
        return self._bound

    async def reload(self) -> tuple[Bound, ...]:
        """Opens, closes and changes listeners as the present configuration says; the others stay open, and so does every session.

        Raises as `start`, and has changed nothing then.
        """
        await self._follow(self._services.book().config, claim=self._services.claims)
        return self._bound

    def login_failed(self, client: Key) -> None:
        """At another process of this relay: it counts here too."""
        if self._floor.authenticator is not None:
            self._floor.authenticator.failed_elsewhere(client)

    def failed_logins(self) -> Mapping[Key, Failures]:
        """Those that count still."""
        return {} if self._floor.authenticator is None else self._floor.authenticator.failures()

    def learn_failed_logins(self, failures: Mapping[Key, Failures]) -> None:
        """Those that another process of this relay knows of."""
        if self._floor.authenticator is not None:
            self._floor.authenticator.learn(failures)

    async def close(self, grace: float = 30.0) -> None:
        """Takes no more connections; idle sessions end at once, others after their message, all of them after `grace` seconds.

        Commits under way are waited for, however long they take: what becomes of a message is for the store to say.
        """
        floor = self._floor
        floor.stopping = True
        await self._accept_waiting()
        for each in self._bound:
            each.server.close()
        self._bound, floor.listening = (), ()
        for session in tuple(floor.sessions):
            session.stop()
        await self._emptied(grace)
        for session in tuple(floor.sessions):
            session.cut_short()
        await floor.callouts.close()
        while floor.tasks:
            await asyncio.wait(floor.tasks)
        await self._emptied(floor.times.linger)
        for session in tuple(floor.sessions):
            session.abort()
        floor.deadlines.close()
        if floor.authenticator is not None:
            floor.authenticator.close()
            floor.authenticator = None

    async def _accept_waiting(self) -> None:
        """Who has connected and is not accepted yet hears 421 like everybody else: closing the socket would reset the connection."""
        waiting = select.poll()
        for each in self._bound:
            waiting.register(each.listening, select.POLLIN)
        quiet = 0
        for _turn in range(BACKLOG):  # a flood does not keep us
            quiet = 0 if waiting.poll(0) else quiet + 1
            if quiet > _TO_SESSION:
                return
            await asyncio.sleep(0)

    async def _emptied(self, seconds: float) -> None:
        if self._floor.sessions:
            try:
                await asyncio.wait_for(self._floor.empty.wait(), seconds)
            except TimeoutError:
                return

    async def _follow(self, config: Config, *, claim: bool) -> None:
        """All that can fail comes before anything that exists is touched."""
        floor = self._floor
        self._check(config)
        passwords = config.submission.passwords if config.submission is not None else None
        authenticator = floor.authenticator
        if passwords != self._passwords:
            authenticator = None if passwords is None else self._authenticator(passwords)
        open_now = {each.listener: each for each in self._bound}
        fresh = await self._open([each for each in config.listeners if each not in open_now], claim=claim)
        if authenticator is not floor.authenticator and floor.authenticator is not None:
            floor.authenticator.close()
        floor.authenticator, self._passwords = authenticator, passwords
        for each in self._bound:
            if each.listener not in config.listeners:
                each.server.close()
        self._bound = tuple(open_now.get(each) or fresh[each] for each in config.listeners)
        floor.listening = tuple(each.listening for each in self._bound)
        if self._services.steering is not None:
            self._services.steering.opened([each.listening for each in fresh.values()])
        for each in fresh.values():
            await each.server.start_serving()
            self._services.emit(ListenerReady(each.listener.name, str(each.address)))

    def _authenticator(self, passwords: Path) -> Authenticator:
        services = self._services
        limits = LoginLimits().among(services.processes)
        return Authenticator(passwords, services.emit, limits=limits, tell=services.login_failed)

    async def _open(self, listeners: Sequence[Listener], *, claim: bool) -> dict[Listener, Bound]:
        opened: dict[Listener, Bound] = {}
        try:
            for listener in listeners:
                opened[listener] = await self._open_one(listener, claim=claim)
        except BaseException:
            for each in opened.values():
                each.server.close()
            raise
        return opened

    async def _open_one(self, listener: Listener, *, claim: bool) -> Bound:
        # Where only the rules of an address change, its socket goes on, and no connection is turned away in between.
        same = [each for each in self._bound if each.listener.address == listener.address and listener.address.port]
        door = Door(listener.name, listener.address, "listeners")
        listening = same[0].listening.dup() if same else self._services.sockets.open(door, claim=claim)
        port = Port(self._floor, listener)
        server = await self._floor.loop.create_server(
            lambda: Session(port), sock=listening, backlog=BACKLOG, start_serving=False
        )
        host, number = listening.getsockname()[:2]
        return Bound(listener, HostPort(host, number), listening, server)

    def _check(self, config: Config) -> None:
        """A listener that would have to go without its TLS, or without passwords, is a start-up error (design section 4)."""
        keyring = self._services.keyring
        for listener in config.listeners:
            if listener.starttls is Switch.ON and (keyring is None or not keyring.usable):
                problems = "; ".join(str(problem) for problem in keyring.problems) if keyring is not None else ""
                raise ListenError(
                    f"listener {listener.name} has no usable certificate{f' ({problems})' if problems else ''}: "
                    "put NAME.pem and NAME.key into the folder of `certificates`, or write `starttls: off` for kind mx"
                )
            if listener.kind is not ListenerKind.MX and config.submission is None:
                raise ListenError(
                    f"listener {listener.name} needs a password file: write `submission: {{passwords: FILE}}`"
                )
