"""One event of each class, with values that are easy to recognise in a log line."""

from datetime import UTC, datetime

from relay.mail import events as e
from relay.mail.address import NULL, Address
from relay.mail.attempt import Attempt
from relay.mail.envelope import Accepted, Envelope, Message, Recipient
from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan
from relay.mail.published import PolicyKind, StsMode
from relay.mail.reply import Reply
from relay.mail.tls import Certificate, TlsEvidence, TlsFailure
from relay.mail.tlsreport import Failing, Judged, Policy, PostState, Received, ReceivedFailing, ReceivedPolicy

NOW = datetime(2026, 11, 22, 3, 4, 5, 678000, UTC)

LEAF = Certificate(
    "CN=mx.contoso.com", "CN=CA", ("mx.contoso.com",), (), NOW, NOW, "ab" * 32, "sha256:" + "A" * 43 + "=", b"der"
)
TLS = TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", "mx.contoso.com", (LEAF,))
PLAN = TlsPlan(Level.DOMAIN, Plaintext.NEVER, frozenset({Encryption("connector contoso-out")}))


def message(recipients: int = 1, *, tls: TlsEvidence | None = TLS, sender: Address = NULL) -> Message:
    to = tuple(Recipient(Address(f"user{number}", "contoso.com")) for number in range(recipients))
    accepted = Accepted(
        NOW, "192.0.2.1", "client.example", "mx 0.0.0.0:25", "ESMTPS", connector="a-in", auth="joe", tls=tls
    )
    return Message("01JABCDEFGHJKMNPQRST", Envelope(sender, to), accepted, 4096, message_id="<id@example.com>")


def attempt(
    *outcomes: Delivered | Deferred | Bounced, evidence: TlsEvidence | None = TLS, plan: TlsPlan | None = PLAN
) -> Attempt:
    return Attempt(
        "01JABCDEFGHJKMNPQRST",
        NOW,
        "mx.contoso.com:25",
        "203.0.113.7",
        "contoso-out",
        plan,
        evidence,
        tuple(enumerate(outcomes)),
        0.25,
    )


DELIVERED = Delivered(250, "2.0.0", "queued as 12345")
MISMATCH = Deferred(451, "4.7.5", "the certificate is for other.example", TlsFailure.CERTIFICATE_HOST_MISMATCH)
GONE = Bounced(550, "5.1.1", "no such user")

STS = Policy(PolicyKind.STS, "contoso.com")
GOOD = Judged(STS)
EXPIRED = Judged(STS, Failing(TlsFailure.CERTIFICATE_EXPIRED))
FAILING = (ReceivedFailing("certificate-expired", 2), ReceivedFailing("a-word-of-next-year", 3))
REPORT = Received(
    *(NOW, "Contoso", "tls@contoso.com", "1@contoso.com", NOW, NOW, "contoso.com", "contoso.com"),
    (ReceivedPolicy(PolicyKind.STS, "us.example", (), (), 40, 5, FAILING),),
)

ALL: tuple[e.Event, ...] = (
    e.ListenerReady("mx 0.0.0.0:25", "0.0.0.0:25"),
    e.SessionOpened("mx 0.0.0.0:25", "192.0.2.1"),
    e.SessionClosed("mx 0.0.0.0:25", "192.0.2.1", "lost", 1.23456, "TLSv1.3"),
    e.ConnectionRefused("mx 0.0.0.0:25", "192.0.2.1", "too many connections: 192.0.2.1"),
    e.CommandRefused("mx 0.0.0.0:25", "192.0.2.1", "RCPT", Reply(550, "5.7.1", "denied"), "a@b.example", "c@d.example"),
    e.LoginFailed("submission 0.0.0.0:587", "192.0.2.1", "joe"),
    e.MessageAccepted(message()),
    e.AttemptMade(message(), attempt(DELIVERED)),
    e.RecipientEnded("01JABCDEFGHJKMNPQRST", "user0@contoso.com", "delivered", "2.0.0"),
    e.TlsWithheld("01J", "user0@contoso.com", "mx.contoso.com:25", TlsFailure.HANDSHAKE_FAILED, "tell them"),
    e.ReportQueued("01K", "01J", "failure", "a@b.example"),
    e.ReportHeld("01K", "5.1.1"),
    e.RecipientAsked("user0@contoso.com", "unknown", "mail.internal:25: no answer within 10 s", 10.0),
    e.CalloutTakesAll("contoso.com"),
    e.RefusalHeld("01J", "user0@contoso.com", "mail.internal:25", 554, "5.7.1", "message content rejected"),
    e.StsPolicyFetched("contoso.com", StsMode.ENFORCE, "20261122", 604800),
    e.StsPolicyChanged("contoso.com", StsMode.ENFORCE, StsMode.NONE, ("mx.contoso.com",)),
    e.StsFetchFailed("contoso.com", TlsFailure.STS_WEBPKI_INVALID, "the certificate has expired", "enforce"),
    e.CrlFetched("http://crl.example/a.crl", 12345, NOW),
    e.RevocationFetchFailed("http://crl.example/a.crl", "no connection", "open the firewall", NOW),
    e.RevocationUnavailable("CN=mx.contoso.com", "ab12", "it names neither a CRL nor an OCSP responder"),
    e.CertificateRevokedSeen("CN=mx.contoso.com", "ab12", NOW, "keyCompromise", "crl"),
    e.TlsSessionTried("contoso.com", "mx.contoso.com:25", "203.0.113.7", (GOOD, EXPIRED)),
    e.TlsReportSent(
        "contoso.com", NOW.date(), "https://contoso.com/r", PostState.FAILED, 12, "contoso.com answered 503"
    ),
    e.TlsReportReceived("01J", REPORT),
    e.TlsReportIgnored("01J", "a@b.example", "it is not validly signed"),
    e.ConfigurationTaken("connectors.yaml", ("contoso-out: tls",)),
    e.ConfigurationWaiting("connectors.yaml", ("line 3: no such key",)),
    e.ConfigurationSettled("connectors.yaml"),
    e.CertificatesLoaded(("relay.example.com",)),
    e.CertificateTrouble("relay.example.com", "the key does not match"),
    e.CertificateEnding("relay.example.com", "CN=relay.example.com", "ab" * 32, NOW, 13, 14),
    e.PartnerCertificateEnding(
        *("contoso-out", "outbound", "mx.contoso.com:25", "CN=mx.contoso.com", "ab" * 32, NOW, 6, 7, NOW)
    ),
    e.StoreTrouble("disk full"),
    e.StoreRecovered(),
    e.DaneUnusable("it does not validate"),
    e.DaneUsable("127.0.0.1:53"),
    e.ClockSetBack(21600.0),
    e.StoreDamaged(("1 messages whose bytes are not all there (such as 01J)",)),
    e.WorkerStarted(1, 4711),
    e.WorkerEnded(1, "killed by SIGKILL", 0.0),
    e.AdminActed("uid 1000", "socket", "retry", "all", 3),
    e.AlertRaised(
        "partner-unsafe", "contoso.com", "critical", "raised", "contoso.com cannot be reached safely", "Mail waits"
    ),
    e.AlertCleared("partner-unsafe", "contoso.com", "it has been delivered"),
    e.AlertSent("ab12", "partner-unsafe", "mail", "01J"),
    e.AlertNotSent("ab12", "partner-unsafe", "webhook", "hooks.example answered 503", 1, given_up=False),
    e.Unexpected("abc123", "session", "Traceback (most recent call last):\n  boom"),
)
