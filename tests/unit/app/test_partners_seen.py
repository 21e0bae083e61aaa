"""What is noticed of partners' certificates, and what it costs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from relay.app import partners_seen
from relay.app.partners_seen import PartnersSeen
from relay.mail.events import AttemptMade, MessageAccepted
from relay.mail.outcome import Deferred
from relay.mail.seen import Direction, SeenCertificate
from relay.mail.tls import TlsFailure
from relay.queue.store import StoreUnavailable
from tests.unit.observe.samples import DELIVERED, LEAF, MISMATCH, NOW, TLS, attempt, message


class Keeper:
    """As relay.queue.seen.SqliteSeen, in memory."""

    def __init__(self) -> None:
        self.rows: list[SeenCertificate] = []
        self.trouble = False

    async def note(self, seen: Sequence[SeenCertificate]) -> None:
        if self.trouble:
            raise StoreUnavailable("gone")
        self.rows.extend(seen)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def seen(keeper: Keeper) -> PartnersSeen:
    return PartnersSeen(keeper)  # type: ignore[arg-type]


async def test_a_hop_s_certificate_once_however_many_messages(seen: PartnersSeen, keeper: Keeper) -> None:
    for _number in range(100):
        seen.hear(AttemptMade(message(), attempt(DELIVERED)))
    await seen.flush()
    await seen.flush()
    (row,) = keeper.rows
    assert (row.spot.direction, row.spot.connector, row.spot.hop) == (
        Direction.OUTBOUND,
        "contoso-out",
        "mx.contoso.com:25",
    )
    assert (row.domain, row.address, row.leaf.sha256, row.failure) == ("contoso.com", "203.0.113.7", LEAF.sha256, "")


async def test_a_client_by_the_name_in_its_certificate(seen: PartnersSeen, keeper: Keeper) -> None:
    seen.hear(MessageAccepted(message()))
    await seen.flush()
    (row,) = keeper.rows
    assert (row.spot.direction, row.spot.connector, row.spot.hop) == (Direction.INBOUND, "a-in", "mx.contoso.com")
    assert row.address == "192.0.2.1"


@pytest.mark.parametrize(
    "made",
    [
        attempt(DELIVERED, evidence=None),
        attempt(DELIVERED, evidence=replace(TLS, chain=())),
        replace(attempt(DELIVERED), connector="default"),
        replace(attempt(DELIVERED), connector=""),
        attempt(),
    ],
)
async def test_nobodys_partner(made: object, seen: PartnersSeen, keeper: Keeper) -> None:
    seen.hear(AttemptMade(message(), made))  # type: ignore[arg-type]
    await seen.flush()
    assert not keeper.rows


async def test_what_was_refused_stands_apart(seen: PartnersSeen, keeper: Keeper) -> None:
    impostor = replace(TLS, chain=(replace(LEAF, sha256="cd" * 32),))
    seen.hear(AttemptMade(message(), attempt(DELIVERED)))
    seen.hear(AttemptMade(message(), attempt(MISMATCH, evidence=impostor)))
    unable = Deferred(451, "5.7.30", "no REQUIRETLS", TlsFailure.REQUIRETLS_NOT_SUPPORTED)
    seen.hear(AttemptMade(message(), attempt(unable)))
    await seen.flush()
    assert {(each.spot.refused, each.failure, each.leaf.sha256) for each in keeper.rows} == {
        (False, "", "ab" * 32),
        (True, "certificate-host-mismatch", "cd" * 32),
    }


async def test_that_it_is_still_shown_is_written_once_an_hour(seen: PartnersSeen, keeper: Keeper) -> None:
    for minutes in range(0, 180, 10):
        made = replace(attempt(DELIVERED), at=NOW + timedelta(minutes=minutes))
        seen.hear(AttemptMade(message(), made))
        await seen.flush()
    assert [each.last - NOW for each in keeper.rows] == [timedelta(hours=each) for each in (0, 1, 2)]


async def test_a_store_in_trouble_loses_nothing(seen: PartnersSeen, keeper: Keeper) -> None:
    seen.hear(AttemptMade(message(), attempt(DELIVERED)))
    keeper.trouble = True
    with pytest.raises(StoreUnavailable):
        await seen.flush()
    keeper.trouble = False
    await seen.flush()
    assert len(keeper.rows) == 1


async def test_memory_is_bounded(seen: PartnersSeen, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partners_seen, "MOST", 10)
    for number in range(50):
        seen.hear(AttemptMade(message(), replace(attempt(DELIVERED), hop=f"mx{number}.example:25")))
    await seen.flush()
    assert [each.spot.hop for each in keeper.rows] == [f"mx{number}.example:25" for number in range(40, 50)]


async def test_what_a_stranger_wrote_is_cut(seen: PartnersSeen, keeper: Keeper) -> None:
    long = replace(LEAF, dns_names=tuple(f"{'x' * 300}{number}" for number in range(500)))
    accepted = replace(message().accepted, tls=replace(TLS, chain=(long,)))
    seen.hear(MessageAccepted(replace(message(), accepted=accepted)))
    await seen.flush()
    (row,) = keeper.rows
    assert len(row.spot.hop) == partners_seen.WORDS
    assert len(row.names) == partners_seen.NAMES
    assert max(map(len, row.names)) == partners_seen.WORDS
