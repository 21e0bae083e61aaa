"""The promise of the design: combining is union, so nothing that is added to a plan ever lets more through."""

from hypothesis import given
from hypothesis import strategies as st

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
from relay.mail.published import TlsaRecord
from relay.mail.tls import (
    TLS_VERSIONS,
    PathResult,
    TlsEvidence,
    TlsFailure,
    Trusted,
    TrustedLeaf,
    Undecided,
    Untrusted,
)
from relay.policy.plan import Step, after_broken_tls, after_ehlo, as_strong
from relay.policy.verdict import Failed, Satisfied, judge
from tests.unit.policy.builders import NEVER, OTHER_PIN, PIN, certificate, evidence

TRUSTS = ("system", "/etc/partner.pem")
NAMES = ("mail.contoso.com", "*.contoso.com", "mx.example.net", "192.0.2.1")

TLSA = [
    Tlsa("dane", "mx.example.net", (TlsaRecord(usage, 1, 1, "ab" * 32),), ("mx.example.net", "example.net"))
    for usage in (2, 3)
]

sources = st.sampled_from(["connector a", "default", "exception", "dane", "mta-sts"])
demands = st.one_of(
    st.builds(Encryption, sources),
    st.builds(Pkix, sources, st.sampled_from(TRUSTS), st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)),
    st.builds(Pins, sources, st.lists(st.sampled_from([PIN, OTHER_PIN]), min_size=1, max_size=2).map(tuple)),
    st.builds(TlsVersion, sources, st.sampled_from(TLS_VERSIONS)),
    st.builds(RequireTls, st.just("requiretls"), st.sampled_from(["", "dnssec", "connector a"])),
    st.builds(StsMx, sources, st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)),
    st.sampled_from(TLSA),
)
plans = st.builds(TlsPlan, st.sampled_from(Level), st.sampled_from(Plaintext), st.frozensets(demands, max_size=4))
paths: st.SearchStrategy[PathResult] = st.sampled_from(
    [
        Trusted("CN=ca", NEVER),
        TrustedLeaf("3 1 1", NEVER),
        Untrusted(TlsFailure.CERTIFICATE_EXPIRED, "expired"),
        Undecided("unreadable"),
    ]
)
connections: st.SearchStrategy[TlsEvidence | None] = st.none() | st.builds(
    lambda names, pin, version, found: evidence(
        certificate(*names, pin=pin) if names else None, version=version, paths=found
    ),
    st.lists(st.sampled_from(NAMES), max_size=2),
    st.sampled_from([PIN, OTHER_PIN]),
    st.sampled_from([*TLS_VERSIONS, "SSLv3"]),
    st.dictionaries(st.sampled_from([*TRUSTS, *(each.trust for each in TLSA)]), paths),
)


class Unheard(Demand):
    """A demand that no rule knows, as a newer release might write one."""


@given(plans, st.lists(demands, max_size=3), connections, st.booleans())
def test_a_stronger_plan_accepts_no_connection_that_the_weaker_refuses(
    plan: TlsPlan, more: list[Demand], connection: TlsEvidence | None, requiretls: bool
) -> None:
    if isinstance(judge(plan, connection, requiretls_offered=requiretls), Failed):
        assert isinstance(judge(plan.adding(more), connection, requiretls_offered=requiretls), Failed)
    # What a hop offers can only be missed.
    if isinstance(judge(plan, connection, requiretls_offered=True), Failed):
        assert isinstance(judge(plan, connection, requiretls_offered=False), Failed)


@given(plans, st.lists(demands, max_size=3), st.booleans())
def test_a_stronger_plan_goes_in_clear_only_where_the_weaker_does(
    plan: TlsPlan, more: list[Demand], offered: bool
) -> None:
    stronger = plan.adding(more)
    if after_ehlo(stronger, starttls_offered=offered) is Step.SEND_IN_CLEAR:
        assert after_ehlo(plan, starttls_offered=offered) is Step.SEND_IN_CLEAR
    if after_broken_tls(stronger) is Step.SEND_IN_CLEAR:
        assert after_broken_tls(plan) is Step.SEND_IN_CLEAR


@given(plans)
def test_the_step_taken_in_clear_and_the_verdict_on_it_agree(plan: TlsPlan) -> None:
    clear = isinstance(judge(plan, None), Satisfied)
    assert clear == (after_ehlo(plan, starttls_offered=False) is Step.SEND_IN_CLEAR)
    if after_broken_tls(plan) is Step.SEND_IN_CLEAR:
        assert clear


@given(plans, connections)
def test_an_unknown_demand_fails_closed(plan: TlsPlan, connection: TlsEvidence | None) -> None:
    stronger = plan.adding([Unheard("future")])
    assert stronger.requires_tls
    assert isinstance(judge(stronger, connection), Failed)


@given(plans, plans, st.lists(demands, max_size=3))
def test_a_way_back_that_asks_more_stays_strong_enough(back: TlsPlan, out: TlsPlan, more: list[Demand]) -> None:
    if as_strong(back, out):
        assert as_strong(back.adding(more), out)


@given(plans)
def test_a_plan_is_as_strong_as_itself_and_one_that_asks_nothing_is_matched_by_all(plan: TlsPlan) -> None:
    assert as_strong(plan, plan)
    assert as_strong(plan, TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED))
