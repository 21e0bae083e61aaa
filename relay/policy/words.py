"""Plans and path checks in words, from their JSON (design section 11): for `relay trace`, `relay probe` and the console alike. Pure.

What peers said stands in these words: whoever shows them takes control characters out and escapes them.
"""

from collections.abc import Mapping
from typing import Any

from relay.mail.envelope import LOCAL

Json = Mapping[str, Any]

_CLEAR = {
    "never": "never in clear",
    "if-not-offered": "in clear if TLS is not offered",
    "if-tls-fails": "in clear if TLS fails",
}


def clear_words(plan: Json) -> str:
    """When a plan lets mail go in clear."""
    said = str(plan["plaintext"])
    return _CLEAR.get(said, said)


def client_words(accepted: Json) -> str:
    """Who gave us a message, from a trace's `accepted`."""
    if accepted["protocol"] == LOCAL:
        return "none: this relay wrote the message itself"
    return f"{accepted['client']}, which called itself {accepted['helo'] or 'nothing'}"


def listener_words(accepted: Json) -> str:
    """ "" where no listener had a part in it."""
    return f"{accepted['listener']}, {accepted['protocol']}" if accepted["listener"] else ""


def demand_words(demand: Json) -> str:
    """What one demand of a plan asks for."""
    match demand["demand"]:
        case "encryption":
            return "TLS"
        case "tls-version":
            return f"{demand['minimum']} or newer, where there is TLS"
        case "pkix":
            names = " or ".join(demand.get("names") or ()) or "any name"
            return f"a certificate issued under {demand['trust']}, for {names}"
        case "pins":
            return f"the key {' or '.join(demand['pins'])}"
        case "revocation":
            unknown = "passes" if demand["mode"] == "prefer" else "fails"
            return f"no certificate of the chain to {demand['trust']} revoked; what cannot be found out {unknown}"
        case "requiretls":
            vouched = demand.get("vouched")
            return (
                f"REQUIRETLS, {f'the host vouched for by {vouched}' if vouched else 'and nobody vouches for the host'}"
            )
    rest = ", ".join(f"{key} {_listed(value)}" for key, value in demand.items() if key not in ("demand", "source"))
    return f"{demand['demand']} {rest}"


def path_words(result: Json) -> str:
    """What came of a path check of the chain: one entry of `verified_by` in evidence."""
    if "anchor" in result:
        return f"trusted, anchor {result['anchor']}"
    if "failure" in result:
        return f"{result['failure']}, {result['text']}"
    return f"could not be checked, {result.get('undecided', '')}"


def revocation_words(status: Json) -> str:
    """A certificate's status in one line. `relay certs check` says it so too."""
    by = f", by {status['by']}" if status.get("by") else ""
    until = f", counts until {status['next_update']}" if status.get("next_update") else ""
    if status["status"] == "revoked":
        when = f" on {status['revoked_at']}" if status.get("revoked_at") else ""
        reason = f" ({status['reason']})" if status.get("reason") else ""
        return f"revoked{when}{reason}{by}{until}"
    if status["status"] == "unknown":
        return f"not checked: {status.get('why') or 'it is not known why'}"
    return f"good{by}{until}" if by else f"good: {status.get('why') or ''}"


def _listed(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
