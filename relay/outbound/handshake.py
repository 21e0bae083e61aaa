"""Our TLS as a client: a context per minimum version and client certificate, and the evidence of what a handshake gave.

The engine, the facts and the trust stores are `relay.tls`; what they must be is in the plan.
"""

import ssl
import time
from collections.abc import Callable
from datetime import datetime

from relay.config.certificates import CertificateFiles
from relay.mail.plan import TlsPlan, TlsVersion
from relay.mail.tls import TLS_VERSIONS, TlsEvidence
from relay.outbound.connection import NoCertificateError
from relay.outbound.target import Target
from relay.tls.connection import TlsConnection
from relay.tls.context import Context, client_context
from relay.tls.evidence import evidence_of
from relay.tls.revocation.checks import NotChecked, RevocationChecks, with_news, with_statuses
from relay.tls.sessions import Sessions
from relay.tls.tlsa import check_tlsa
from relay.tls.trust import Purpose, TrustStores

_USUAL = "TLSv1.2"


class TlsClient:
    """`certificate` finds one of ours by the name in a plan (`Keyring.by_name`). Sessions are kept by `Target` and context."""

    def __init__(
        self,
        certificate: Callable[[str], CertificateFiles | None],
        stores: TrustStores,
        clock: Callable[[], datetime],
        revocations: RevocationChecks = NotChecked(),  # noqa: B008 - it has no state
    ) -> None:
        self._certificate, self._stores, self._clock = certificate, stores, clock
        self._revocations = revocations
        self._contexts: dict[tuple[str, str, bool], tuple[CertificateFiles | None, Context]] = {}
        self._sessions = Sessions(time.monotonic)

    def context(self, plan: TlsPlan) -> ssl.SSLContext:
        """A certificate that was replaced gives another context. Raises NoCertificateError."""
        name = plan.client_certificate
        files = self._certificate(name) if name else None
        if name and files is None:
            raise NoCertificateError(f"the client certificate {name} is not in our certificates")
        minimum, staple = _lowest(plan), bool(plan.revocation)
        made = self._contexts.get((minimum, name, staple))
        if made is None or made[0] is not files:
            made = files, client_context(minimum=minimum, client_certificate=files, staple=staple)
            self._contexts[minimum, name, staple] = made
        return made[1]

    def resuming(self, target: Target, context: ssl.SSLContext) -> ssl.SSLContext:
        session = self._sessions.take(target, context)
        return context if session is None or not isinstance(context, Context) else context.resuming(session)

    def keep(self, target: Target, context: ssl.SSLContext, ssl_object: object) -> None:
        if not isinstance(ssl_object, TlsConnection):
            return
        if ssl_object.offered_session and not ssl_object.session_reused:
            self._sessions.refused(target, context)
        elif self._sessions.wants(target, context) and (session := ssl_object.resumable) is not None:
            self._sessions.put(target, context, session)

    def evidence(self, ssl_object: object, plan: TlsPlan) -> TlsEvidence:
        now = self._clock()
        checked = self._stores.check(evidence_of(ssl_object), plan.trusts, Purpose.SERVER, now)
        return check_tlsa(checked, plan.tlsa, now) if plan.tlsa else checked

    async def with_revocation(self, evidence: TlsEvidence, plan: TlsPlan) -> TlsEvidence:
        asked = plan.revocation
        return await with_statuses(self._revocations, evidence, {each.trust for each in asked}) if asked else evidence

    async def with_news(self, evidence: TlsEvidence) -> TlsEvidence:
        return await with_news(self._revocations, evidence)


def _lowest(plan: TlsPlan) -> str:
    """What the handshake allows: TLS 1.2, or less where the plan is content with less. A hop that is too old for a stricter plan
    is better told apart by the verdict, with evidence, than by a broken handshake."""
    wanted = [each.minimum for each in plan.demands if isinstance(each, TlsVersion)]
    return min([_USUAL, *wanted], key=TLS_VERSIONS.index)
