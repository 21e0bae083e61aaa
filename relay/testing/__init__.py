"""For integration tests, yours and ours: two relays and a sink in the running event loop, with a PKI of their own, in under a second.

from relay.testing import relay_pair

async def test_mail_goes_over_tls():
    async with relay_pair() as pair:
        await pair.send("bob@b.test")
        (message,) = await pair.received()
"""

from relay.testing.pair import RelayPair, relay_pair, submit, write_config
from relay.testing.pki import Pki
from relay.testing.sink import Received, Sink

__all__ = ["Pki", "Received", "RelayPair", "Sink", "relay_pair", "submit", "write_config"]
