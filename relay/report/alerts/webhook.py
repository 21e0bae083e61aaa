"""An alert as a post to a webhook: JSON of a fixed shape, signed, so that the receiver can tell it from anybody else's.

    Ironpost-Timestamp: 1795766400
    Ironpost-Signature: v1=HEX       HMAC-SHA256 with the secret over "TIMESTAMP." and the body
    Ironpost-Alert: ID               the same for each try

Threat: a post that is forged, or one of ours that is played again: the receiver checks the signature and that the time is near.
"""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlsplit

from relay.mail.address import normalise_domain
from relay.mail.alerts import Notice, NoticeState, Severity
from relay.mail.codec import Json, time_text
from relay.policy.rua import Https

JSON = "application/json"
VERSION = 1


def notice_json(notice: Notice, hostname: str) -> Json:
    """What is posted. `text` is for chats that show that key; the keys are never changed, only added to."""
    told = "" if notice.severity is Severity.INFO else f"{notice.severity.value}: "
    still = "still: " if notice.state is NoticeState.REPEATED else ""
    remedy = f" {notice.remedy}" if notice.remedy else ""
    return {
        "version": VERSION,
        "id": notice.id,
        "hostname": hostname,
        "state": notice.state.value,
        "kind": notice.kind.value,
        "subject": notice.subject,
        "severity": notice.severity.value,
        "title": notice.title,
        "detail": notice.text,
        "remedy": notice.remedy or None,
        "since": time_text(notice.since),
        "at": time_text(notice.at),
        "text": f"[{hostname}] {told}{still}{notice.title}. {notice.text}{remedy}",
    }


def body(notice: Notice, hostname: str) -> bytes:
    return json.dumps(notice_json(notice, hostname), separators=(",", ":")).encode("ascii")


def signed(content: bytes, notice_id: str, secret: str, now: datetime) -> Mapping[str, str]:
    """The fields of the header that go with it."""
    timestamp = str(int(now.timestamp()))
    return {
        "Ironpost-Timestamp": timestamp,
        "Ironpost-Signature": f"v1={signature(content, secret, timestamp)}",
        "Ironpost-Alert": notice_id,
    }


def signature(content: bytes, secret: str, timestamp: str) -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + content, hashlib.sha256).hexdigest()


def destination(url: str) -> Https:
    """Of a URL that the configuration has checked."""
    parts = urlsplit(url)
    host, target = parts.hostname or "", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        host = normalise_domain(host)
    return Https(url, host, parts.port or 443, target)
