"""What an attempt means for its recipients, as far as reports hear of it."""

from datetime import timedelta

from relay.config.models import Retry
from relay.mail.attempt import Attempt
from relay.mail.outcome import Bounced, Outcome
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan
from relay.queue.results import Terms, last_outcomes, settle
from relay.queue.store import Standing
from tests.unit.report.builders import GONE, LATER, NOW, message

PLAN = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED, frozenset({Encryption("mta-sts")}))


def test_whoever_writes_reports_hears_what_the_last_host_had_to_satisfy() -> None:
    """It says whether content may go back: what a domain publishes is in no connector."""
    about = message()
    outcomes: list[tuple[TlsPlan | None, Outcome]] = [(None, LATER), (PLAN, GONE)]
    tried = [
        Attempt(about.id, NOW, f"mx{place}.contoso.com:25", "192.0.2.1", "default", plan, None, ((0, outcome),))
        for place, (plan, outcome) in enumerate(outcomes)
    ]
    terms = Terms(Retry(expire=timedelta(days=5)), NOW, lambda: 0.0)
    (ended,) = settle(about, {0: Standing()}, last_outcomes(tried), terms, {}).ended
    assert isinstance(ended.outcome, Bounced)
    assert (ended.hop, ended.plan) == ("mx1.contoso.com:25", PLAN)
