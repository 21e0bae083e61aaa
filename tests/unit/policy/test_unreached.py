"""What the admin is told where a partner's hosts cannot be found: each remedy names the thing and the place, and most of them a command."""

import pytest

from relay.policy.unreached import no_address, no_connection, no_hosts


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("5.1.2", "`match.recipient_domains` of connector contoso-out"),
        ("5.1.10", "take this one out of `match.recipient_domains` of connector contoso-out"),
        ("5.4.4", "dig MX contoso.com"),
        ("5.4.6", "`route: {smart_hosts: [HOST:25]}` of connector contoso-out"),
        ("4.4.3", "dig MX contoso.com"),
        ("5.0.0", "dig MX contoso.com"),
    ],
)
def test_no_hosts(status: str, says: str) -> None:
    assert says in no_hosts(status, domain="contoso.com", connector="contoso-out")


@pytest.mark.parametrize(
    ("status", "by_mx", "says"),
    [
        ("5.4.4", True, "`private: allow` under `route` of connector contoso-out"),
        ("4.3.5", False, "getent ahosts mail.contoso.com"),
        ("5.4.6", False, "the server behind it under `route.smart_hosts` of connector contoso-out"),
        ("4.4.3", True, "dig mail.contoso.com"),
        ("4.4.3", False, "relay doctor"),
        ("4.7.5", True, "relay doctor"),
    ],
)
def test_no_address(status: str, by_mx: bool, says: str) -> None:
    found = no_address(status, host="mail.contoso.com", domain="contoso.com", connector="contoso-out", by_mx=by_mx)
    assert says in found
    assert "{host}" not in found


def test_no_connection() -> None:
    assert "nc -vz mail.contoso.com 25" in no_connection("mail.contoso.com", 25)
