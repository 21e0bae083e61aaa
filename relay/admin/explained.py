"""The shapes of an explanation: what would be said to a client, and what a delivery must satisfy, as `relay.policy.explain_json` writes them."""

from typing import Literal

from relay.admin.endpoint import Shape
from relay.admin.trace import Plan

_Step = Literal["tls", "plaintext", "refuse"]


class WouldBe(Shape):
    """What would become of mail before any host is spoken to."""

    state: Literal["delivered", "deferred", "bounced"]
    code: int
    status: str
    text: str
    failure: str | None


class ExplainedClient(Shape):
    address: str | None
    tls: str | None
    """The version; null in clear."""


class ExplainedCallout(Shape):
    on_failure: Literal["defer", "accept"]


class ExplainedRequirement(Shape):
    name: str
    required: str
    found: str
    met: bool


class ConsideredConnector(Shape):
    connector: str
    satisfied: bool
    requirements: list[ExplainedRequirement]


class ExplainedInbound(Shape):
    sender: str
    """"" for the null sender."""
    client: ExplainedClient
    connector: str | None
    accepted: bool
    stage: Literal["MAIL", "RCPT", "DATA"]
    """The command that `reply` answers."""
    reply: str
    may_relay: str | None
    """Why the client may send anywhere; null where it may not."""
    needs_header_from: bool
    callout: ExplainedCallout | None
    """The recipient counts only if the mail server inside says that it exists."""
    requirements: list[ExplainedRequirement]
    """Of the connector that decided."""
    considered: list[ConsideredConnector]


class ExplainedException(Shape):
    allow: str
    until: str
    reason: str


class ExplainedAuth(Shape):
    user: str


class UnusedAddress(Shape):
    address: str
    reason: str


class ExplainedSays(Shape):
    """What a published policy says of a host."""

    reason: str | None
    details: list[str]
    withheld: WouldBe | None
    """Why it keeps mail from the host."""


class ExplainedHop(Shape):
    host: str
    port: int
    addresses: list[str]
    unused: list[UnusedAddress]
    trouble: str | None
    """Why it cannot be tried."""
    mx_secure: bool
    dane: ExplainedSays
    mta_sts: ExplainedSays
    plan: Plan
    without_starttls: _Step
    """What happens where the host offers no STARTTLS."""
    with_broken_tls: _Step


class ExplainedOutbound(Shape):
    recipient: str
    connector: str
    pattern: str | None
    """The one that chose the connector; null where the defaults act."""
    exception: ExplainedException | None
    route: Literal["mx", "smart-hosts"]
    auth: ExplainedAuth | None
    forward_client: str
    on_5xx: str
    unroutable: WouldBe | None
    plan: Plan
    """Without what is published about a host."""
    hops: list[ExplainedHop]
