"""`relay doctor` about CRLs and OCSP: which hosts it looks at, and what is a failure and what a warning."""

from dataclasses import replace
from pathlib import Path

import pytest

from relay.cli.certs_check import Shown
from relay.cli.doctor_revocation import _asking, judged, revocation
from relay.mail.revocation import By, CertificateStatus, Kind, Revocation, State
from relay.policy.surroundings import State as Condition
from relay.tls.revocation.reach import Examined, Reached
from tests.fakes import FakeResolver
from tests.unit.policy.builders import config

SHOWN = Shown("mail.example:25", anchored=True)
GOOD = CertificateStatus("CN=a", "1", State.GOOD, By.CRL)
UNKNOWN = CertificateStatus("CN=a", "1", State.UNKNOWN, why="no connection")
REVOKED = CertificateStatus("CN=a", "1", State.REVOKED, By.CRL)
HAD = Reached(Kind.CRL, "http://crl.example/", 0.1, found=GOOD)
NOT_HAD = Reached(Kind.OCSP, "http://ocsp.example/", 0.1, "no connection", "open the firewall")


@pytest.mark.parametrize(
    ("mode", "examined", "states"),
    [
        (Revocation.REQUIRE, Examined(GOOD, (HAD,)), [Condition.FINE]),
        (Revocation.REQUIRE, Examined(GOOD, (HAD, NOT_HAD)), [Condition.WARNING]),
        (Revocation.REQUIRE, Examined(UNKNOWN, (NOT_HAD,)), [Condition.FAILED]),
        (Revocation.PREFER, Examined(UNKNOWN, (NOT_HAD,)), [Condition.WARNING]),
        (Revocation.REQUIRE, Examined(UNKNOWN), [Condition.FAILED]),
        (Revocation.PREFER, Examined(UNKNOWN), [Condition.WARNING]),
        (Revocation.PREFER, Examined(REVOKED, (HAD,)), [Condition.FAILED]),
    ],
)
def test_what_is_a_failure(mode: Revocation, examined: Examined, states: list[Condition]) -> None:
    found = list(judged(mode, "mail.example:25", SHOWN, (examined,)))
    assert [each.state for each in found] == states
    assert all(each.remedy or each.state is Condition.FINE for each in found)


def test_a_host_that_shows_nothing() -> None:
    (found,) = judged(Revocation.REQUIRE, "mail.example:25", replace(SHOWN, trouble="cannot connect"), ())
    assert (found.state, found.remedy) == (Condition.UNKNOWN, "relay probe mail.example:25 says more")


async def test_which_hosts_are_looked_at() -> None:
    def connector(number: int, **more: object) -> dict[str, object]:
        return {
            "name": f"out-{number}",
            "direction": "outbound",
            "match": {"recipient_domains": [f"{number}.example"]},
            "tls": "certificate",
            "route": {"smart_hosts": [f"mail{number}.example:25"]},
            **more,
        }

    made = config(
        connectors=[
            connector(1, revocation="prefer"),
            connector(2),
            connector(3, revocation="require", route="mx"),
            connector(4, revocation="require"),
        ]
    )
    assert [str(hop) for _connector, hop in _asking(made)] == ["mail1.example:25", "mail4.example:25"]
    found = await revocation(made, FakeResolver())
    assert [each.state for each in found] == [Condition.UNKNOWN] * 2
    assert not await revocation(config(trust=str(Path(__file__))), FakeResolver())
