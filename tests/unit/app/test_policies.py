"""MTA-STS policies in a running relay: found again after a restart, renewed without mail, and kept for the next one."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.app import Relay
from relay.app.relay import Times
from relay.config.models import PrivateAddresses
from relay.dns.stsfetch import FetchSettings
from relay.mail.events import Event, StsFetchFailed, StsPolicyChanged, StsPolicyFetched
from relay.mail.published import StsFetched, StsKept, StsMode
from relay.policy.stsfile import read_policy
from relay.queue.keepers import SqlitePolicies
from relay.queue.sqlite import SqliteStore
from relay.testing import Pki
from tests.fakes import FakeResolver
from tests.policyhost import PolicyHost, answer, policy

CONFIG = """
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{address: "127.0.0.1:0", starttls: off}]
queue: sqlite:queue.db
"""
HOST = "mta-sts.b.example"
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


async def kept(path: Path) -> StsKept:
    store = await SqliteStore.open(path, emit=lambda _event: None, clock=now)
    found = await SqlitePolicies(store).load_sts("b.example")
    await store.close()
    assert isinstance(found, StsKept)
    return found


async def keep(path: Path, what: StsKept) -> None:
    store = await SqliteStore.open(path, emit=lambda _event: None, clock=now)
    SqlitePolicies(store).save_sts(what)
    await store.close()


async def running(file: Path, host: PolicyHost, *kinds: type[Event]) -> list[Event]:
    """A relay that runs until it has told of each of `kinds`, and what it told of them."""
    heard: list[Event] = []
    enough = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, kinds):
            heard.append(event)
            if {type(each) for each in heard} == set(kinds):
                enough.set()

    resolver = FakeResolver(hosts={HOST: ["127.0.0.1"]}, texts={"_mta-sts.b.example": ["v=STSv1; id=2"]})
    settings = FetchSettings(host.port, 30, PrivateAddresses.ALLOW)
    async with Relay(file, observers=[hear], resolver=resolver, policy_hosts=settings, times=Times(watch=0.01)):
        await enough.wait()
    return heard


async def test_a_relay_renews_what_an_earlier_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))
    file, database = tmp_path / "connectors.yaml", tmp_path / "queue.db"
    file.write_text(CONFIG)
    old = StsFetched(read_policy(policy("enforce", "mx.b.example", max_age=30 * 86400), "1"), now() - 2 * DAY)
    await keep(database, StsKept("b.example", old, now() - DAY, now() - DAY))

    async with PolicyHost(pki.issue(tmp_path / "expired", HOST, expired=True), answer(policy("none"))) as host:
        (failed,) = await running(file, host, StsFetchFailed)
    assert isinstance(failed, StsFetchFailed)
    assert (failed.failure, failed.held) == ("sts-webpki-invalid", "enforce")
    after = await kept(database)
    assert (after.fetched.policy, after.refresh > now()) == (old.policy, True), (
        "a policy outlives what cannot be believed"
    )

    await keep(database, replace(after, refresh=now() - DAY))
    async with PolicyHost(pki.issue(tmp_path, HOST), answer(policy("testing", "new.b.example"))) as host:
        heard = await running(file, host, StsPolicyFetched, StsPolicyChanged)
    assert heard == [
        StsPolicyFetched("b.example", StsMode.TESTING, "2", 86400),
        StsPolicyChanged("b.example", StsMode.ENFORCE, StsMode.TESTING, ("new.b.example",)),
    ]
    found = await kept(database)
    assert (found.fetched.policy.mode, found.fetched.policy.id) == (StsMode.TESTING, "2")
    assert found.fetched.at > now() - timedelta(minutes=1)
