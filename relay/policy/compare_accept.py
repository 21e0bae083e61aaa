"""Whose mail a new configuration takes that the old one did not, and whose it refuses; the part of `relay.policy.compare` about `accept`."""

from collections.abc import Iterator, Mapping

from relay.config.accept import Accept, Callout, OnFailure
from relay.config.models import Config
from relay.policy.difference import few, from_to, more_networks, unknown

HARMLESS_IN_CALLOUTS: Mapping[str, str] = {
    "timeout": "patience",
    "positive": "how often the same is asked",
    "negative": "how often the same is asked",
}


def weakened_acceptance(old: Config, new: Config) -> Iterator[str]:
    before, after = old.accept, new.accept
    for domain in after.domains:
        if domain not in before.domains:
            yield f"accept.domains has {domain} in addition"
    for domain in before.domains:
        if domain not in after.domains:
            yield f"accept.domains has {domain} no more: mail for it is refused"
    added = more_networks(before.networks, after.networks)
    if added:
        yield f"accept.networks has {added} in addition"
    yield from _recipients(before, after)
    yield from unknown(before, after, {"domains", "networks", "recipients"}, "accept.")


def _recipients(before: Accept, after: Accept) -> Iterator[str]:
    for domain, known in before.lists.items():
        now = after.lists.get(domain)
        if domain in after.callouts:
            yield f"accept.recipients for {domain} is no list any more: the mail server inside is asked"
        elif now is None:
            yield f"accept.recipients has no list for {domain} any more: any recipient is taken"
        elif not known <= now:
            yield f"accept.recipients for {domain} lacks {few(known - now)}: mail for them is refused"
    for domain, asked in before.callouts.items():
        asks = after.callouts.get(domain)
        if asks is None and domain in after.lists:
            yield f"accept.recipients for {domain} is a list: mail for those who are not in it is refused"
        elif asks is None:
            yield f"accept.recipients asks nobody about {domain} any more: any recipient is taken"
        else:
            yield from _callout(asked, asks, f"accept.recipients for {domain}: callout.")


def _callout(before: Callout, after: Callout, where: str) -> Iterator[str]:
    if after.on_failure is OnFailure.ACCEPT:
        yield from (f"{where}{each}" for each in from_to(before, after, "on_failure"))
    yield from unknown(before, after, HARMLESS_IN_CALLOUTS.keys() | {"on_failure"}, where)
