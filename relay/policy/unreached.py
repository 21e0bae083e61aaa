"""What an admin can do about a partner whose hosts cannot be found, have no address, or do not answer: for `relay connectors validate`.

By the status of RFC 3463 that mail would get (`relay.policy.route`, `relay.outbound.lookup`). Each remedy names the thing, the place and,
where there is one, the command.
"""

from collections.abc import Mapping

_HOSTS: Mapping[str, str] = {
    "5.1.2": (
        "Is it spelt as its owner spells it? Mend `match.recipient_domains` of {connector}, or ask the owner (dig NS {domain} shows whether "
        "anybody has it)."
    ),
    "5.1.10": "It takes no mail at all: ask its owner which domain does, and take this one out of `match.recipient_domains` of {connector}.",
    "5.4.4": "Tell its owner: an MX record must name a host that has an address (dig MX {domain}).",
    "5.4.6": "Its MX is this relay: say which server its mail goes on to, as `route: {{smart_hosts: [HOST:25]}}` of {connector}.",
    "4.4.3": (
        "Is it our resolver (relay doctor; `dns.resolver` names it) or their name servers? Ask both: dig MX {domain}, here and elsewhere. "
        "Mail waits meanwhile."
    ),
}
_BY_MX = (
    "The MX record names this host, and mail cannot go there (dig {host} A AAAA): tell {domain}. Where it is in your own network, write "
    "`private: allow` under `route` of {connector}, or name it as a smart host there."
)
_SMART_HOST = (
    "Is it spelt right under `route.smart_hosts` of {connector}, and does this machine know it (getent ahosts {host})? Where the connector "
    "has a `source`, the host needs an address of that family."
)
_LOOPS = "It is a listener of this relay: name the server behind it under `route.smart_hosts` of {connector}."
_LOOK_UP = "Is it our resolver (relay doctor; `dns.resolver` names it) or their name servers? Ask both: dig {host}, here and elsewhere."


def no_hosts(status: str, *, domain: str, connector: str) -> str:
    """No host was found that mail for the domain could go to."""
    how = _HOSTS.get(status, "Ask its owner what its MX records should be (dig MX {domain}).")
    return how.format(domain=domain, connector=f"connector {connector}")


def no_address(status: str, *, host: str, domain: str, connector: str, by_mx: bool) -> str:
    """A host is known, and no address of it that mail may go to."""
    other = _BY_MX if by_mx else _SMART_HOST
    how = {"5.4.6": _LOOPS, "4.4.3": _LOOK_UP, "4.7.5": _LOOK_UP}.get(status, other)
    return how.format(host=host, domain=domain, connector=f"connector {connector}")


def no_connection(host: str, port: int) -> str:
    """There is an address, and no connection to it."""
    return (
        f"Refused: nobody listens at port {port} there, or a firewall says no. No answer: a firewall on either side drops it (many providers "
        f"block outgoing port 25), or the host is down. Try nc -vz {host} {port} on this machine and elsewhere."
    )
