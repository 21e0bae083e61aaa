"""Mail that we write ourselves goes through the queue's intake like any other: TLS reports, alerts, test messages."""

from datetime import datetime

from relay.mail.envelope import LOCAL, Accepted
from relay.queue.intake import Intake
from relay.queue.store import CHUNK
from relay.report.tlsrpt.mail import Mail


async def put_mail(intake: Intake, mail: Mail, listener: str, at: datetime) -> str:
    """The message's id, once it is durable. `listener` says in the trace what kind of our own it is. Raises what the store raises."""
    incoming = intake.begin()
    content = mail.content
    for start in range(0, len(content), CHUNK):
        incoming.write(content[start : start + CHUNK])
    accepted = Accepted(at, client="", helo="", listener=listener, protocol=LOCAL)
    eight_bit = not content.isascii()
    message = await incoming.commit(mail.envelope, accepted, message_id=mail.message_id, eight_bit=eight_bit)
    return message.id
