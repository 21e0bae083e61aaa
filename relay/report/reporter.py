"""From what the queue says of recipients to the reports it stores: who is told what, how much of the message goes back, what TLS was asked.

Reads the original's bytes within bounds and writes nothing. Composing is in `relay.report.dsn`, NOTIFY in `relay.report.notify`.

Threat: a bounce of a message that had to be protected must not carry its content over a worse protected way back (design section 8).
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from relay.mail.address import Address
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message, Ret
from relay.mail.outcome import Bounced
from relay.mail.plan import Encryption, Pins, Pkix, RequireTls, TlsPlan, TlsVersion, Unrevoked
from relay.policy.book import RuleBook
from relay.policy.plan import as_strong, choose_plan
from relay.policy.requiretls import SOURCE as REQUIRETLS
from relay.report.dsn import Issuer, Report, Returned, Stamp, compose, header_section
from relay.report.human import Item
from relay.report.notify import Ended, Kind, due

MAX_WHOLE = 2**20  # octets; a larger message goes back as its header section
MAX_HEADER = 2**16


class Reporter:
    """`await reporter(message, body, ended)` gives the reports that are due, none where nobody asked. Raises what reading `body` raises.

    `book` gives the configuration in force, `clock` UTC, `new_word` a word that is unique and cannot be guessed.
    """

    def __init__(
        self, book: Callable[[], RuleBook], *, clock: Callable[[], datetime], new_word: Callable[[], str]
    ) -> None:
        self._book = book
        self._clock = clock
        self._new_word = new_word

    async def __call__(self, message: Message, body: MessageBytes, ended: Sequence[Ended]) -> Sequence[Report]:
        book, now = self._book(), self._clock()
        # Threat: a report mailbox takes mail from anybody, so what it says back would reach whoever the sender claims to be.
        recipients = message.envelope.recipients
        told = due(message, (each for each in ended if not book.is_report_mailbox(recipients[each.index].address)))
        if not told:
            return ()
        issuer = Issuer(book.config.hostname, book.config.postmaster)
        reports = []
        for kind, each in told.items():
            whole = _goes_back_whole(book, message, kind, each, now)
            returned = Returned(await read_whole(body), True) if whole else Returned(await read_header(body), False)
            items = [_item(book, message, one, now) for one in each]
            reports.append(compose(issuer, message, kind, items, returned, Stamp(self._new_word(), now)))
        return reports


def _goes_back_whole(book: RuleBook, message: Message, kind: Kind, ended: Iterable[Ended], now: datetime) -> bool:
    """RFC 3461 section 4.3: only where the sender asked for it, and never with a report that tells of no failure."""
    wanted = message.envelope.ret is Ret.FULL and kind is Kind.FAILURE and message.size <= MAX_WHOLE
    if message.envelope.requiretls:
        return False  # RFC 8689 section 5: RET=FULL is disregarded, even though the report goes with REQUIRETLS too
    sender, every = message.envelope.sender, tuple(ended)
    recipients = (message.envelope.recipients[each.index].address for each in every)
    if not wanted or not may_return_content(book, sender, recipients, now):
        return False
    back = _way_back(book, sender, now)
    return all(_needed_no_more(each, back) for each in every)


def _needed_no_more(ended: Ended, back: TlsPlan) -> bool:
    """What a domain publishes protects content too, and is in no connector. Where it is not known what was published, nothing is enough;
    but a domain without any host publishes nothing.
    """
    if ended.plan is not None:
        return as_strong(back, ended.plan)
    return not ended.hop and isinstance(ended.last, Bounced)


def may_return_content(book: RuleBook, sender: Address, recipients: Iterable[Address], now: datetime) -> bool:
    """True where the way back to the sender is protected as well as the way to every one of the recipients had to be."""
    back = _way_back(book, sender, now)
    return all(as_strong(back, _plan(book, each.domain, now)) for each in recipients)


def _way_back(book: RuleBook, sender: Address, now: datetime) -> TlsPlan:
    return _plan(book, sender.domain or book.config.postmaster.domain, now)


def _plan(book: RuleBook, domain: str, now: datetime) -> TlsPlan:
    """The plan for a domain's first host. Which host is of no matter here: it only stands for a name where none is configured."""
    connector = book.outbound_for(domain)
    hosts = connector.route.hosts
    return choose_plan(book, connector, domain, hosts[0].host if hosts else domain, now)


def _item(book: RuleBook, message: Message, ended: Ended, now: datetime) -> Item:
    recipient = message.envelope.recipients[ended.index]
    domain = recipient.address.domain
    plan = _plan(book, domain, now)
    if message.envelope.requiretls:
        plan = plan.adding({RequireTls(REQUIRETLS, "")})
    return Item(
        recipient=recipient,
        outcome=ended.outcome,
        said=ended.last,
        hop=ended.hop,
        at=ended.at,
        attempts=ended.attempts,
        until=ended.until,
        connector=book.outbound_for(domain).name,
        required=required_words(plan),
    )


def required_words(plan: TlsPlan) -> str:
    """What a plan asks of the hop, for people outside: no file names. "" where clear text would do."""
    if not plan.requires_tls:
        return ""
    version, words = "TLS", []
    for demand in sorted(plan.demands, key=lambda each: type(each).__name__, reverse=True):
        match demand:
            case TlsVersion(_, minimum):
                version = f"{minimum} or newer"
            case Pkix(_, _, names):
                words.append(f"a trusted certificate for {' or '.join(names)}" if names else "a trusted certificate")
            case Pins():
                words.append("a key known beforehand")
            case Unrevoked():
                words.append("none of its certificates revoked")
            case RequireTls():
                words.append("the promise of TLS all the way (REQUIRETLS)")
            case Encryption():
                pass
            case _:
                words.append("what the domain itself publishes")
    return f"{version} with {' and '.join(words)}" if words else version


async def read_header(body: MessageBytes) -> bytes:
    """The header section, cut at a line's end where it is longer than MAX_HEADER."""
    found = bytearray()
    async for chunk in body.chunks():
        found += chunk
        if found.startswith(b"\r\n") or b"\r\n\r\n" in found or len(found) > MAX_HEADER:
            break
    header = header_section(bytes(found))
    if len(header) <= MAX_HEADER:
        return header
    return header[: header.rfind(b"\r\n", 0, MAX_HEADER) + 2]


async def read_whole(body: MessageBytes) -> bytes:
    """All of it; the caller knows that it is small."""
    return b"".join([chunk async for chunk in body.chunks()])
