"""What becomes of mail that a hop refuses for good after we have taken it: a bounce, or held for the postmaster (`on_5xx`).

RFC 5321 section 6.1 asks for a bounce. Threat: backscatter. Whoever may send here without proof of who they are may have forged the
sender, and the bounce would go to somebody who never wrote. So `hold` is for strangers' mail only: a client that we know (it logged in, is
in `accept.networks`, or has `grant.relay`) hears what became of its mail in any case.
"""

from relay.config.connectors import On5xx
from relay.mail.envelope import LOCAL, Accepted
from relay.mail.outcome import Bounced


def is_stranger(accepted: Accepted) -> bool:
    """A client that only sent to our own domains, as anybody may."""
    return accepted.protocol != LOCAL and not accepted.auth and not accepted.may_relay


def is_held(on_5xx: On5xx, accepted: Accepted, outcome: Bounced) -> bool:
    """True where it is kept instead of bounced. What we gave up ourselves (too old, unroutable, an operator's word) is no refusal."""
    return on_5xx is On5xx.HOLD and outcome.by_hop and is_stranger(accepted)
