"""What of a recorded plan and its evidence the tally counts: TLS version, cipher, group, how the other side was verified, what was asked.

Pure, on the JSON of `relay.mail.codec`: the tally is made from what the store keeps. Everything said of a delivery holds because no mail is
sent before every demand of its plan was judged satisfied (relay.policy.verdict); so how the hop was verified follows from the demands.
"""

from collections.abc import Mapping
from typing import Any

from relay.mail.plan import Level
from relay.mail.tally import CLEAR, Style, Verified

Json = Mapping[str, Any]

_UNKNOWN = "(unknown)"


def outbound_style(plan: Json | None, evidence: Json | None) -> Style:
    """Of an attempt. `plan` None: none could be made."""
    asked = _asked(plan)
    if evidence is None:
        return Style(CLEAR, CLEAR, CLEAR, Verified.NONE, asked)
    return _style(evidence, _verified(plan), asked)


def inbound_style(evidence: Json | None, *, proved: bool) -> Style:
    """Of a message that came in. `proved`: its connector requires a certificate, so the client showed one that satisfies it."""
    if evidence is None:
        return Style(CLEAR, CLEAR, CLEAR, Verified.NONE)
    shown = proved and bool(evidence.get("chain"))
    return _style(evidence, Verified.CLIENT_CERTIFICATE if shown else Verified.ENCRYPTED, "")


def _style(evidence: Json, verified: Verified, asked: str) -> Style:
    version, cipher, group = (evidence.get(key) or _UNKNOWN for key in ("version", "cipher", "group"))
    return Style(version, cipher, group, verified, asked)


def _demands(plan: Json | None) -> list[Json]:
    return list(plan["demands"]) if plan is not None else []


def _verified(plan: Json | None) -> Verified:
    """The strongest that a demand asked; all of them held."""
    found = Verified.ENCRYPTED
    for demand in _demands(plan):
        match demand["demand"]:
            case "pins":
                one = Verified.PINS
            case "tlsa":
                one = Verified.DANE
            case "pkix" if demand["source"] == "mta-sts":
                one = Verified.MTA_STS
            case "pkix":
                one = Verified.PKIX_NAME if demand.get("names") else Verified.PKIX
            case _:
                continue
        found = max(found, one, key=lambda each: each.rank)
    return found


def _asked(plan: Json | None) -> str:
    if plan is None:
        return _UNKNOWN
    demands = _demands(plan)
    first = "exception" if plan.get("until") else str(plan["level"])
    if first == Level.OPPORTUNISTIC and any(each["demand"] == "encryption" and _ours(each) for each in demands):
        first = Level.ENCRYPTION  # `plaintext: never` asks the same
    extras = {
        "pins": any(each["demand"] == "pins" for each in demands),
        "dane": any(each["source"] == "dane" for each in demands),
        "mta-sts": any(each["source"] == "mta-sts" for each in demands),
        "requiretls": any(each["source"] == "requiretls" for each in demands),
    }
    return "+".join([first, *(name for name, there in extras.items() if there)])


def _ours(demand: Json) -> bool:
    return demand["source"] not in ("dane", "mta-sts", "requiretls")
