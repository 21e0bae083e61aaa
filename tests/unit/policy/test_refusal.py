"""What becomes of mail that a hop refuses for good: the whole table of who sent it, who refused it, and what the connector says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from relay.config.connectors import On5xx
from relay.mail.envelope import LOCAL, Accepted
from relay.mail.outcome import Bounced
from relay.policy.refusal import is_held

REFUSED = Bounced(554, "5.7.1", "rejected", by_hop=True)
OURS = Bounced(554, "5.4.7", "not delivered within 5 days")


@pytest.mark.parametrize("on_5xx", On5xx)
@pytest.mark.parametrize("outcome", [REFUSED, OURS], ids=["by the hop", "by us"])
@pytest.mark.parametrize(
    ("protocol", "facts", "is_stranger"),
    [
        ("ESMTPS", {}, True),
        ("SMTP", {"connector": "contoso-in"}, True),  # a partner that may send to our own domains only
        ("ESMTPSA", {"auth": "joe", "may_relay": True}, False),
        ("ESMTPSA", {"auth": "joe"}, False),
        ("ESMTP", {"may_relay": True}, False),  # accept.networks, grant.relay
        (LOCAL, {}, False),
    ],
)
def test_only_a_hop_s_refusal_of_a_stranger_s_mail_is_held(
    on_5xx: On5xx, outcome: Bounced, protocol: str, facts: dict[str, Any], is_stranger: bool
) -> None:
    accepted = Accepted(datetime.now(UTC), "192.0.2.1", "a.example", "mx 0.0.0.0:25", protocol, **facts)
    expected = on_5xx is On5xx.HOLD and outcome is REFUSED and is_stranger
    assert is_held(on_5xx, accepted, outcome) is expected
