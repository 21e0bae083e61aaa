"""The shape of `alerts` in connectors.yaml: whom the relay tells, without being asked, of what somebody should see to."""

import ipaddress
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from relay.config.connectors import Model, PrivateAddresses
from relay.config.files import Secret
from relay.config.values import Count, Duration, Mailbox, NonEmpty, parse_domain

_LONGEST_URL = 2000
_SHORTEST_SECRET = 16
_SHORTEST_REPEAT = timedelta(minutes=5)


def parse_webhook(value: Any) -> str:
    """An https URL without user, password and fragment, its host a name or an address. Raises ValueError."""
    what = "write an https URL, such as https://hooks.example.com/ironpost"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(what)
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(what) from None
    if parts.scheme != "https" or not host or port == 0 or len(value) > _LONGEST_URL:
        raise ValueError(what)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError(f"{what}, without user, password and fragment: `secret` proves who we are")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            parse_domain(host)
    return value


WebhookUrl = Annotated[
    str,
    BeforeValidator(parse_webhook),
    WithJsonSchema({"type": "string", "pattern": "^https://", "examples": ["https://hooks.example.com/ironpost"]}),
]


class Webhook(Model):
    url: WebhookUrl
    """Where alerts are posted, as JSON. Part of a secret may stand in it: write ${NAME} then."""
    secret: Secret
    """The key of the signature over each post (HMAC-SHA256), so that the receiver knows that it is from us."""
    private: PrivateAddresses = PrivateAddresses.REFUSE
    """`allow` lets the URL lead to a private address, such as a receiver of your own."""

    @field_validator("secret", mode="after")
    @classmethod
    def _long_enough(cls, secret: Secret) -> Secret:
        if len(secret.reveal()) < _SHORTEST_SECRET:
            raise ValueError(
                f"the secret is shorter than {_SHORTEST_SECRET} characters, so it could be guessed: openssl rand -hex 32"
            )
        return secret


class Alerts(Model):
    mail: Annotated[tuple[Mailbox, ...], NonEmpty] | None = None
    """Who gets alerts by mail, which goes through the queue as any other."""
    webhook: Webhook | None = None
    """Where alerts are posted. Unlike mail it works while the queue does not."""
    repeat: Duration = timedelta(days=1)
    """How often an alert is told again while it lasts. `0s`: once."""
    withheld_after: Duration = timedelta(0)
    """How long mail must wait for a partner that cannot be reached safely. `0s`: at its first failure."""
    queue_age: Duration = timedelta(hours=4)
    """Age of the oldest message that waits at which the queue is told to be too old. `0s`: never."""
    hourly: Count = Field(default=20, ge=2)
    """Alerts in one hour, by each way: so many about others (partners, MTA-STS), and so many of other kinds. One sums up what is beyond."""

    @model_validator(mode="after")
    def _sense(self) -> "Alerts":
        if timedelta(0) < self.repeat < _SHORTEST_REPEAT:
            raise ValueError("`repeat` is at least 5m, or 0s for once")
        return self
