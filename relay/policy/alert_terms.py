"""What `alerts` of the configuration says about telling, and what of a change there is weaker: the part of `relay.policy.compare` about it.

Threat: somebody who can write the file has the alarm turned off, or sent elsewhere, before the burglary.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from relay.config.connectors import PrivateAddresses
from relay.config.models import Alerts, Config, Webhook
from relay.config.values import duration_text
from relay.policy.alerts import Terms
from relay.policy.difference import unknown

ALERTS_HARMLESS: Mapping[str, str] = {"hourly": "more or fewer at once; what is left out is summed up"}


def terms_of(config: Config) -> Terms:
    """Without `alerts`, what is active is kept for whoever looks, and nobody is told."""
    alerts = config.alerts or Alerts()
    return Terms(alerts.repeat, alerts.withheld_after, alerts.hourly)


def weakened_alerts(old: Config, new: Config) -> Iterator[str]:
    """What nobody would be told of any more, and whom we would tell instead."""
    if new.alerts is None:
        if old.alerts is not None:
            yield "alerts is gone"
        return
    before, after = old.alerts or Alerts(), new.alerts
    for address in before.mail or ():
        if address not in (after.mail or ()):
            yield f"alerts.mail has {address} no more"
    yield from _webhook(before.webhook, after.webhook)
    yield from _times(before, after)
    known = ALERTS_HARMLESS.keys() | {"mail", "webhook", "queue_age", "withheld_after", "repeat"}
    yield from unknown(before, after, known, "alerts.")


def _webhook(before: Webhook | None, after: Webhook | None) -> Iterator[str]:
    if after is None:
        if before is not None:
            yield "alerts.webhook is gone"
        return
    if before is not None and before.url != after.url:  # not shown: a token may stand in it
        yield "alerts.webhook.url changes"
    was = before.private if before is not None else PrivateAddresses.REFUSE
    if after.private is PrivateAddresses.ALLOW and was is PrivateAddresses.REFUSE:
        yield "alerts.webhook.private lets posts go to private addresses"
    if before is not None:  # a new secret is nothing weaker: it is how one is rotated
        yield from unknown(before, after, {"url", "secret", "private"}, "alerts.webhook.")


def _times(before: Alerts, after: Alerts) -> Iterator[str]:
    if after.queue_age == timedelta(0) < before.queue_age:
        yield "alerts.queue_age is turned off"
    elif timedelta(0) < before.queue_age < after.queue_age:
        yield f"alerts.queue_age goes from {duration_text(before.queue_age)} to {duration_text(after.queue_age)}"
    if after.withheld_after > before.withheld_after:
        was_after, now_after = duration_text(before.withheld_after), duration_text(after.withheld_after)
        yield f"alerts.withheld_after goes from {was_after} to {now_after}"
    if after.repeat == timedelta(0) < before.repeat:
        yield "alerts.repeat is turned off"
