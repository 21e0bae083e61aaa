"""A test message on the real way: through the queue's intake to an attempt, with its trace, as any other mail."""

import secrets
from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from relay.admin.endpoint import Unavailable
from relay.app.own_mail import put_mail
from relay.config.connectors import DEFAULT
from relay.mail.address import Address
from relay.mail.envelope import TRIALS, Body, Envelope, Notify, Recipient
from relay.policy.book import RuleBook
from relay.queue.intake import Intake
from relay.report.text import Part, ascii_line, field, paragraph
from relay.report.tlsrpt.mail import Mail

Json = dict[str, Any]


async def send_trial(
    book: Callable[[], RuleBook],
    intake: Callable[[], Intake],
    clock: Callable[[], datetime],
    connector: str,
    to: Address,
) -> Json:
    """{message: id, connector}. Raises Unavailable where the configuration in force does not send mail for `to` by that connector."""
    rules = book()
    governing = rules.outbound_for(to.domain).name
    if governing != connector:
        whose = "the defaults" if governing == DEFAULT else f"connector {governing}"
        raise Unavailable(
            f"in the configuration in force mail for {to.domain} is governed by {whose}, not by connector {connector}"
        )
    config, now = rules.config, clock()
    mail = compose(config.hostname, config.postmaster, to, connector, now)
    message = await put_mail(intake(), mail, TRIALS, now)
    return {"message": message, "connector": connector}


def compose(hostname: str, postmaster: Address, to: Address, connector: str, at: datetime) -> Mail:
    """From the postmaster; nobody is told where it fails, since whoever asked for it looks at its trace."""
    message_id = f"<{secrets.token_hex(10)}@{hostname}>"
    words = (
        f"This is a test message from the mail relay {hostname}. Its operators are trying whether mail to you is delivered as safely as "
        "it has to be. There is nothing that you need to do."
    )
    part = Part("text/plain; charset=us-ascii", "Test message", paragraph(words).encode("ascii", "replace")).encode()
    head = "".join(
        (
            field("From", f"<{postmaster}>"),
            field("To", f"<{to}>"),
            field("Subject", ascii_line(f"Test message from {hostname}")),
            field("Date", format_datetime(at)),
            field("Message-ID", message_id),
            field("Auto-Submitted", "auto-generated"),
            field("MIME-Version", "1.0"),
        )
    )
    wide = to.needs_smtputf8 or postmaster.needs_smtputf8
    recipient = Recipient(to, frozenset({Notify.NEVER}))
    envelope = Envelope(postmaster, (recipient,), Body.SEVEN_BIT, smtputf8=wide)
    return Mail(envelope, head.encode() + part, message_id)
