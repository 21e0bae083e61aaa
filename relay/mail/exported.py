"""An envelope as a document beside an exported message, and back. What comes back is judged: it may have been written by anybody.

    {"ironpost": 1, "id": ..., "size": ..., "sender": ..., "recipients": [{"address": ..., "state": ..., "notify": [...], "orcpt": ...}],
     "body": "7BIT", "smtputf8": false, "ret": "", "envid": "", "requiretls": false, "tls_optional": false, "header": ..., "accepted": {...}}

Only `sender` and `recipients` have to be there. A key that is not known is an error: it may ask for protection that would be lost.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.mail.address import Address, AddressError, parse_path
from relay.mail.codec import Json, accepted_json, envelope_json
from relay.mail.envelope import LOCAL, Body, Envelope, Message, Notify, Recipient, Ret

VERSION = 1
WAITS = ("waiting", "suspended", "delivering", "held")
"""States of recipients that an import takes up."""

_ID = re.compile(r"[0-9A-V]{20}\Z")
# RFC 3461 section 4, of graphic characters and spaces only: encoded control characters would end up in a report's header.
_TEXT = r"(?:[!-*,-<>-~]|\+[2-6][0-9A-F]|\+7[0-9A-E])"
_XTEXT = re.compile(rf"{_TEXT}*\Z")
_ORCPT = re.compile(rf"(?:[A-Za-z0-9-]+;{_TEXT}+|utf-8;[!-~\u00a0-\ud7ff\ue000-\U0010ffff]+)\Z")
_HEADER = re.compile(r"(?:Received: [\x20-\x7e]+\r\n(?:[ \t][\x20-\x7e]+\r\n)*)*\Z")
_MOST_HEADER = 16 * 1024
_KEYS = frozenset(
    "ironpost id size message_id sender recipients body smtputf8 ret envid requiretls tls_optional header accepted".split()  # noqa: SIM905
)
_OF_RECIPIENT = frozenset("address state notify orcpt attempts next_attempt last connector via suspended".split())  # noqa: SIM905
"""Those from `attempts` on are for people."""


@dataclass(frozen=True, slots=True)
class Exported:
    """`id` is what the message was called where it came from, "" if that is not told; `header` what that relay put in front of it.
    `is_strangers`: it came from a client that nobody there knew, and its sender may be forged."""

    envelope: Envelope
    id: str = ""
    header: bytes = b""
    is_own_report: bool = False
    is_strangers: bool = False


def document(message: Message, states: Sequence[Mapping[str, Any]]) -> Json:
    """`states`: of each recipient in turn, as `relay queue show` has them."""
    envelope = message.envelope
    about = envelope_json(envelope)
    recipients = [
        {**state, "notify": sorted(word.value for word in each.notify), "orcpt": each.orcpt}
        for each, state in zip(envelope.recipients, states, strict=True)
    ]
    return {
        "ironpost": VERSION,
        "id": message.id,
        "size": message.size,
        "message_id": message.message_id,
        **about,
        "sender": str(envelope.sender),
        "recipients": recipients,
        "header": message.header.decode("latin-1"),
        "accepted": accepted_json(message.accepted),
    }


def read(text: bytes) -> Exported:
    """Raises ValueError, which names the key and what it may be."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the envelope is not JSON") from None
    if not isinstance(data, dict):
        raise ValueError('the envelope is a JSON object, such as {"sender": "a@b.example", "recipients": [...]}')
    if data.get("ironpost", VERSION) != VERSION:
        raise ValueError(f"ironpost: this is a document of another version, and {VERSION} is known here")
    _only(data, _KEYS, "")
    sender = _path(data.get("sender"), "sender")
    recipients = _recipients(data.get("recipients"))
    header = _string(data, "header")
    if len(header) > _MOST_HEADER or not _HEADER.match(header):
        raise ValueError("header: only Received fields stand there")
    name = _string(data, "id")
    if name and not _ID.match(name):
        raise ValueError(f"id: {name[:40]!r} is not a message id")
    utf8 = any(each.needs_smtputf8 for each in (sender, *(each.address for each in recipients)))
    envelope = Envelope(
        sender,
        recipients,
        Body(_one_of(data, "body", list(Body), Body.SEVEN_BIT)),
        _flag(data, "smtputf8") or utf8,
        Ret(_one_of(data, "ret", list(Ret), Ret.UNSET)),
        _xtext(data, "envid"),
        _flag(data, "requiretls"),
        _flag(data, "tls_optional"),
    )
    if envelope.requiretls and envelope.tls_optional:
        raise ValueError("tls_optional: not together with requiretls")
    accepted = data.get("accepted", {})
    if not isinstance(accepted, dict):
        raise ValueError("accepted: an object")
    local = accepted.get("protocol") == LOCAL
    strangers = not local and not accepted.get("auth") and accepted.get("may_relay", True) is not True
    return Exported(envelope, name, header.encode("ascii"), local and sender.is_null, strangers)


def _recipients(data: Any) -> tuple[Recipient, ...]:
    if not isinstance(data, list) or not data:
        raise ValueError("recipients: a list of objects with an address")
    found: dict[Address, Recipient] = {}
    for number, each in enumerate(data):
        place = f"recipients[{number}]"
        if not isinstance(each, dict):
            raise ValueError(f"{place}: an object with an address")
        _only(each, _OF_RECIPIENT, f"{place}.")
        address = _path(each.get("address"), f"{place}.address")
        if address.is_null:
            raise ValueError(f"{place}.address: the null path is no recipient")
        if each.get("state", "waiting") not in WAITS:
            continue  # it was delivered or given up
        words = each.get("notify", [])
        if not isinstance(words, list) or any(word not in list(Notify) for word in words):
            raise ValueError(f"{place}.notify: a list of {', '.join(Notify)}")
        notify = frozenset(Notify(word) for word in words)
        if Notify.NEVER in notify and len(notify) > 1:
            raise ValueError(f"{place}.notify: NEVER stands alone (RFC 3461 section 4.1)")
        orcpt = each.get("orcpt", "")
        if not isinstance(orcpt, str) or len(orcpt) > 500 or (orcpt and not _ORCPT.match(orcpt)):
            raise ValueError(f"{place}.orcpt: a type, a semicolon, an address in xtext (RFC 3461 section 4.2)")
        found.setdefault(address, Recipient(address, notify, orcpt))
    if not found:
        raise ValueError("recipients: none of them waits any more")
    return tuple(found.values())


def _only(data: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    for name in data:
        if name not in known:
            raise ValueError(f"{place}{str(name)[:80]}: there is no such key in an envelope")


def _path(value: Any, place: str) -> Address:
    if not isinstance(value, str):
        raise ValueError(f"{place}: an address")
    try:
        return parse_path(value or "<>")
    except AddressError as error:
        raise ValueError(f"{place}: {error}") from None


def _string(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name}: a string")
    return value


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: true or false")
    return value


def _one_of(data: Mapping[str, Any], name: str, known: Sequence[str], default: str) -> str:
    value = data.get(name, default)
    if value not in known:
        raise ValueError(f"{name}: one of {', '.join(map(repr, map(str, known)))}")
    return str(value)


def _xtext(data: Mapping[str, Any], name: str) -> str:
    value = _string(data, name)
    if len(value) > 300 or not _XTEXT.match(value):  # RFC 3461 section 4.4
        raise ValueError(f"{name}: at most 300 characters of xtext (RFC 3461 section 4)")
    return value
