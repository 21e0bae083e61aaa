"""Deliveries under published policy: hosts that it keeps mail from, what it adds to a plan, and a policy that is replaced meanwhile."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from relay.config.values import HostPort
from relay.mail.attempt import SessionEnd
from relay.mail.events import TlsWithheld
from relay.mail.outcome import Deferred, Delivered
from relay.mail.plan import Encryption, PolicyApplied
from relay.mail.published import PolicyKind, StsFetched, StsFound, StsMode, StsPolicy, StsTrouble, StsUnknown, Use
from relay.mail.tls import TlsFailure
from relay.outbound.publications import LookedUp, Way
from relay.policy.published import UNPUBLISHED, Published, Says, Uses
from relay.policy.tlsrpt import judge_session
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, HostileServer, Pki
from tests.unit.outbound.builders import world
from tests.unit.policy.builders import NOW, book

WITHHELD = Says(withheld=Deferred(451, "4.7.5", "the TLSA look-up failed", TlsFailure.DNSSEC_INVALID))
NOT_LISTED = Says(withheld=Deferred(451, "4.7.5", "the policy does not list the host", TlsFailure.VALIDATION_FAILURE))
ENCRYPTED = Says(
    frozenset({Encryption("mta-sts")}),
    PolicyApplied(PolicyKind.STS, "b.example", demands=frozenset({Encryption("mta-sts")})),
)


@dataclass
class Fake:
    """What is published by port; `anew` is what it becomes once somebody asks anew."""

    by_port: dict[int, Published] = field(default_factory=dict)
    anew: dict[int, Published] = field(default_factory=dict)
    asked: list[tuple[Way, Uses]] = field(default_factory=list)
    rechecked: list[Way] = field(default_factory=list)

    async def find(self, way: Way, uses: Uses) -> Published:
        self.asked.append((way, uses))
        return self.by_port.get(way.hop.port, UNPUBLISHED)

    async def recheck(self, way: Way, _published: Published) -> bool:
        self.rechecked.append(way)
        changed = bool(self.anew)
        self.by_port |= self.anew
        return changed


async def test_a_host_that_policy_withholds_is_not_connected_to() -> None:
    async with HostileServer() as one, HostileServer() as two:
        published = Fake({one.port: Published(dane=WITHHELD)})
        async with world(one.port, two.port, publications=published) as mail:
            first, second = await mail.deliver("bob@b.example")
            assert (first.address, first.plan, first.outcomes[0][1]) == ("", None, WITHHELD.withheld)
        assert first.session is not None
        assert (first.session.end, first.session.failure) == (SessionEnd.WITHHELD, TlsFailure.DNSSEC_INVALID)
        assert isinstance(second.outcomes[0][1], Delivered)
        assert not one.sessions
        assert not mail.events


async def test_a_host_that_policy_withholds_counts_in_tls_reports() -> None:
    """As a failed session with the policy that stood against it, though nobody connected (RFC 8460 section 4.3.2)."""
    applied = PolicyApplied(PolicyKind.STS, "b.example", mx=("mx.b.example",))
    says = replace(NOT_LISTED, applied=applied)
    async with HostileServer() as one, world(one.port, publications=Fake({one.port: Published(sts=says)})) as mail:
        (attempt,) = await mail.deliver("bob@b.example")
    (judged,) = judge_session("b.example", attempt)
    assert (judged.policy.kind, judged.policy.mx) == (PolicyKind.STS, ("mx.b.example",))
    assert judged.failing is not None
    assert judged.failing.result is TlsFailure.VALIDATION_FAILURE


async def test_where_policy_withholds_every_host_the_mail_waits_and_somebody_is_told() -> None:
    async with HostileServer() as one:
        published = Fake({one.port: Published(dane=WITHHELD)})
        async with world(one.port, publications=published) as mail:
            outcome = await mail.outcome("bob@b.example")
        assert outcome == WITHHELD.withheld
        (told,) = mail.events
        assert isinstance(told, TlsWithheld)
        assert told.failure is TlsFailure.DNSSEC_INVALID
        assert not one.sessions
        assert not published.rechecked, "no MTA-STS policy keeps it from there"


async def test_what_is_published_joins_the_plan(pki: Pki) -> None:
    async with HostileServer() as clear, HostileServer(Behaviour(tls=pki.wrong_ca)) as secured:
        published = Fake({clear.port: Published(sts=ENCRYPTED), secured.port: Published(sts=ENCRYPTED)})
        async with world(clear.port, secured.port, publications=published) as mail:
            first, second = await mail.deliver("bob@b.example")
        assert isinstance(first.outcomes[0][1], Deferred)
        assert first.outcomes[0][1].failure is TlsFailure.STARTTLS_NOT_SUPPORTED
        assert isinstance(second.outcomes[0][1], Delivered)
        assert second.plan is not None
        assert second.plan.published == (ENCRYPTED.applied,)
        assert b"MAIL" not in clear.clear
        assert not published.rechecked, "it arrived"


async def test_a_policy_that_is_replaced_meanwhile_is_tried_at_once() -> None:
    async with HostileServer() as server:
        published = Fake({server.port: Published(sts=NOT_LISTED)}, anew={server.port: UNPUBLISHED})
        async with world(server.port, publications=published) as mail:
            attempts = await mail.deliver("bob@b.example")
        assert [type(each.outcomes[0][1]) for each in attempts] == [Deferred, Delivered]
        assert [way.domain for way in published.rechecked] == ["b.example"]
        assert not mail.events


async def test_a_policy_that_stays_is_not_tried_twice() -> None:
    async with HostileServer() as server:
        published = Fake({server.port: Published(sts=NOT_LISTED)})
        async with world(server.port, publications=published) as mail:
            (attempt,) = await mail.deliver("bob@b.example")
        assert attempt.outcomes[0][1] == NOT_LISTED.withheld
        assert len(published.rechecked) == 1
        assert not server.sessions


async def test_who_may_say_so_gets_mail_out_past_what_is_published() -> None:
    async with HostileServer() as server:
        published = Fake()
        async with world(server.port, publications=published) as mail:
            await mail.deliver("bob@b.example")
            await mail.deliver("bob@b.example", tls_optional=True)
    assert [uses for _, uses in published.asked] == [Uses(Use.AUTO, Use.AUTO), Uses(Use.OFF, Use.OFF)]
    assert all(way.secure for way, _ in published.asked), "a smart host is the admin's word"


def fetched(mode: StsMode, *mx: str, at: datetime = NOW) -> StsFetched:
    text = ("version: STSv1", f"mode: {mode.value}", *(f"mx: {each}" for each in mx), "max_age: 86400")
    return StsFetched(StsPolicy(mode, mx, 86400, "1", text), at)


OLD = fetched(StsMode.ENFORCE, "mx.other.example")


@dataclass
class Policies:
    """`known` is what the first question gets, `anew` what asking anew gives; nothing is held by then."""

    known: StsFound
    anew: StsFound | StsUnknown

    def held(self, _domain: str) -> StsFound | None:
        return None

    async def get(self, _domain: str) -> StsFound:
        return self.known

    async def recheck(self, _domain: str) -> StsFound | StsUnknown:
        return self.anew


@pytest.mark.parametrize(
    ("anew", "another"),
    [
        (StsFound(fetched(StsMode.ENFORCE, "mx.b.example")), True),
        (StsFound(fetched(StsMode.TESTING, "mx.other.example")), True),
        (StsFound(fetched(StsMode.NONE)), True),
        (StsFound(), True),
        (StsFound(fetched(StsMode.ENFORCE, "mx.other.example", at=NOW - timedelta(days=2))), True),
        (StsFound(OLD), False),
        (StsFound(fetched(StsMode.ENFORCE, "mx.other.example", at=NOW - timedelta(hours=1))), False),
        (StsUnknown("disk I/O error"), False),
    ],
    ids=["hosts", "testing", "none", "gone", "ended", "same", "same-text", "unknown"],
)
async def test_a_policy_is_compared_with_the_one_that_the_mail_went_by(
    anew: StsFound | StsUnknown, another: bool
) -> None:
    """Hosts that do not answer take minutes: by then nothing may be held any more, or the newer one already is."""
    looked_up = LookedUp(FakeResolver(), Policies(StsFound(OLD), anew), lambda: NOW)
    way = Way(book().config.default, "b.example", HostPort("mx.b.example", 25), secure=False)
    published = await looked_up.find(way, Uses(Use.AUTO, Use.AUTO))
    assert published.sts.withheld is not None
    assert await looked_up.recheck(way, published) is another


@pytest.mark.parametrize(
    ("before", "anew", "another"),
    [
        (StsFound(), StsFound(), False),
        (StsFound(trouble=StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, "blocked")), StsFound(), False),
        (StsFound(fetched(StsMode.NONE)), StsFound(fetched(StsMode.NONE, at=NOW - timedelta(hours=1))), False),
        (StsFound(), StsFound(fetched(StsMode.ENFORCE, "mx.b.example")), True),
    ],
    ids=["nothing", "blocked", "none", "found"],
)
async def test_a_policy_that_is_required_and_missing(before: StsFound, anew: StsFound, another: bool) -> None:
    looked_up = LookedUp(FakeResolver(), Policies(before, anew), lambda: NOW)
    way = Way(book().config.default, "b.example", HostPort("mx.b.example", 25), secure=False)
    published = await looked_up.find(way, Uses(Use.AUTO, Use.REQUIRE))
    assert published.sts.withheld is not None
    assert await looked_up.recheck(way, published) is another


async def test_a_session_of_a_requiretls_message_counts_like_any_other() -> None:
    """Its own demand comes first in the outcome; the policy that was not kept either is for the report."""
    async with HostileServer() as clear:
        published = Fake({clear.port: Published(sts=ENCRYPTED)})
        async with world(clear.port, publications=published) as mail:
            (attempt,) = await mail.deliver("bob@b.example", requiretls=True)
        assert b"MAIL" not in clear.clear
    assert attempt.session is not None
    assert attempt.session.end is SessionEnd.NOT_OFFERED
    assert attempt.plan is not None
    assert attempt.plan.published == (ENCRYPTED.applied,)
