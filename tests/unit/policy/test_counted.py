"""What of plan and evidence is counted, as a table."""

from typing import Any

import pytest

from relay.mail.codec import plan_json
from relay.mail.plan import (
    Demand,
    Encryption,
    Level,
    Pins,
    Pkix,
    Plaintext,
    RequireTls,
    StsMx,
    Tlsa,
    TlsPlan,
    TlsVersion,
)
from relay.mail.tally import CLEAR, Verified
from relay.policy.counted import inbound_style, outbound_style
from tests.unit.policy.builders import NOW, PIN

EVIDENCE = {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "group": "X25519", "chain": [{"sha256": "00"}]}
ANY = TlsVersion("default", "TLSv1.2")
ENCRYPTED = Encryption("connector x")
CHAIN = Pkix("connector x", "system")
NAMED = Pkix("connector x", "system", ("mx.example",))
PINNED = Pins("connector x", (PIN,))
DANE = Tlsa("dane", "_25._tcp.mx.example", (), ("mx.example",))
STS = (StsMx("mta-sts", "mx.example", ("*.example",)), Pkix("mta-sts", "system", ("mx.example",)))


def plan(level: Level, *demands: Demand, **more: Any) -> TlsPlan:
    return TlsPlan(level, Plaintext.IF_NOT_OFFERED, frozenset((ANY, *demands)), **more)


@pytest.mark.parametrize(
    ("made", "verified", "asked"),
    [
        (plan(Level.OPPORTUNISTIC), "encrypted", "opportunistic"),
        (plan(Level.OPPORTUNISTIC, Encryption("default")), "encrypted", "encryption"),
        (plan(Level.ENCRYPTION, ENCRYPTED), "encrypted", "encryption"),
        (plan(Level.CERTIFICATE, ENCRYPTED, CHAIN), "pkix", "certificate"),
        (plan(Level.DOMAIN, ENCRYPTED, NAMED), "pkix+name", "domain"),
        (plan(Level.ENCRYPTION, ENCRYPTED, PINNED), "pins", "encryption+pins"),
        (plan(Level.DOMAIN, ENCRYPTED, NAMED, PINNED), "pins", "domain+pins"),
        (plan(Level.OPPORTUNISTIC, DANE), "dane", "opportunistic+dane"),
        (plan(Level.OPPORTUNISTIC, Encryption("dane")), "encrypted", "opportunistic+dane"),
        (plan(Level.OPPORTUNISTIC, *STS), "mta-sts", "opportunistic+mta-sts"),
        (plan(Level.DOMAIN, NAMED, *STS, DANE), "dane", "domain+dane+mta-sts"),
        (plan(Level.OPPORTUNISTIC, RequireTls("requiretls", "dane")), "encrypted", "opportunistic+requiretls"),
        (plan(Level.OPPORTUNISTIC, until=NOW), "encrypted", "exception"),
        (plan(Level.ENCRYPTION, Encryption("exception"), until=NOW), "encrypted", "exception"),
        (None, "encrypted", "(unknown)"),
    ],
)
def test_what_a_delivery_had(made: TlsPlan | None, verified: str, asked: str) -> None:
    style = outbound_style(plan_json(made), EVIDENCE)
    assert (style.verified, style.asked) == (verified, asked)
    assert (style.version, style.cipher, style.group) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519")
    clear = outbound_style(plan_json(made), None)
    assert (clear.version, clear.cipher, clear.group, clear.verified) == (CLEAR, CLEAR, CLEAR, Verified.NONE)
    assert clear.asked == asked


@pytest.mark.parametrize(
    ("evidence", "proved", "verified"),
    [
        (None, False, "none"),
        (None, True, "none"),
        (EVIDENCE, False, "encrypted"),
        (EVIDENCE, True, "client-certificate"),
        ({**EVIDENCE, "chain": []}, True, "encrypted"),
    ],
)
def test_what_a_client_had(evidence: dict[str, Any] | None, proved: bool, verified: str) -> None:
    assert inbound_style(evidence, proved=proved).verified == verified
