"""The admin API of a running relay: all its topics, and the doors that it is open at."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp

from relay.admin import (
    alerts,
    asking,
    audit,
    certificates,
    connectors,
    connectors_in_force,
    metrics,
    queue,
    reload,
    reports,
    security,
    status,
    trace,
)
from relay.admin import control as flow
from relay.admin import transfer as transfers
from relay.admin.accounts import Accounts
from relay.admin.api import Identify, application
from relay.admin.door import Door, Doorman, network_door
from relay.admin.endpoint import Endpoint
from relay.admin.unix import admin_socket, at_socket
from relay.app.audit import Audit
from relay.app.console import beside, console_of, names_of
from relay.app.control import Control
from relay.app.inquiries import Inquiries
from relay.app.operations import Operator
from relay.app.transfer import Transfer
from relay.config.models import Admin, Switch
from relay.config.values import HostPort
from relay.mail.events import Emit, ListenerReady
from relay.tls.context import server_context
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores

Look = Callable[[], Awaitable[None]]


def endpoints(
    operator: Operator, inquiries: Inquiries, log: Audit, control: Control, transfer: Transfer
) -> tuple[Endpoint[Any], ...]:
    """A topic is one file in `relay.admin`, and one line here."""
    return (
        *status.endpoints(operator),
        # Before those of the queue: there a name stands for a message.
        *flow.endpoints(control, operator),
        *transfers.endpoints(transfer),
        *queue.endpoints(operator),
        *trace.endpoints(operator),
        *reports.endpoints(operator),
        *alerts.endpoints(operator),
        *connectors.endpoints(operator),
        *reload.endpoints(operator),
        *connectors_in_force.endpoints(inquiries),
        *asking.endpoints(inquiries),
        *metrics.endpoints(inquiries),
        *audit.endpoints(log),
        *certificates.endpoints(operator),
        *security.endpoints(operator.evidence),
    )


@dataclass(frozen=True, slots=True)
class Desk:
    """`keyring` is None without certificates."""

    hostname: str
    operator: Operator
    inquiries: Inquiries
    log: Audit
    control: Control
    transfer: Transfer
    keyring: Keyring | None
    trust: TrustStores
    emit: Emit
    clock: Callable[[], datetime]

    async def open(self, stack: AsyncExitStack, admin: Admin) -> tuple[HostPort | None, tuple[Look, ...]]:
        """Opens the socket, and the network door where there is one. Where the latter really is, and what must look after it.

        Raises SocketUnusableError, AccountsFileError, OSError.
        """
        await stack.enter_async_context(admin_socket(admin.socket, self._application(at_socket)))
        if admin.listen is None:
            return None, ()
        accounts = None if admin.accounts is None else Accounts(admin.accounts, self.emit, self.log.note)
        if accounts is not None:
            stack.callback(accounts.close)
        doorman = Doorman(accounts, admin.clients, self.trust, self.clock, self.log.seen)
        door = Door(self._context(admin))
        app = self._with_console(self._application(doorman.identify), admin, accounts)
        bound = await stack.enter_async_context(network_door(admin.listen, app, door))
        self.emit(ListenerReady(f"admin {admin.listen}", str(bound)))
        return bound, () if accounts is None else (accounts.look,)

    def _application(self, identify: Identify) -> Starlette:
        return application(self._topics(), identify, self.log.note)

    def _topics(self) -> tuple[Endpoint[Any], ...]:
        return endpoints(self.operator, self.inquiries, self.log, self.control, self.transfer)

    def _with_console(self, api: ASGIApp, admin: Admin, accounts: Accounts | None) -> ASGIApp:
        """People need an account: where there are none, there is no console."""
        if accounts is None:
            return api
        names = names_of(admin, self.hostname, self.keyring)
        return beside(api, console_of(self._topics(), self.log.note, accounts, names, self.hostname, self.clock))

    def _context(self, admin: Admin) -> Any:
        if admin.tls is Switch.OFF:
            return None
        if self.keyring is None or not self.keyring.usable:
            raise OSError(
                f"the admin API cannot be served on {admin.listen} without a certificate: put NAME.pem and NAME.key into "
                "the folder of `certificates`"
            )
        return server_context(self.keyring, ask_certificate=admin.clients is not None, only=admin.certificate)
