"""The Received header that goes in front of an accepted message (RFC 5321 section 4.4).

Threat: HELO names, certificate subjects and recipients are the peer's words. None of them may end a line, close a comment or bring in
octets that a header must not have, so whatever is not plain is replaced or quoted.
"""

import re
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

from relay.mail.envelope import Accepted, Envelope
from relay.mail.tls import TlsEvidence

NOT_ASKED = "client certificate not asked for"
NONE_SHOWN = "no client certificate"

_WIDTH = 77
_NOT_HOST = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_SPECIAL = re.compile(r'([()\\"])')
_SPACES = re.compile(r" +")


def received_header(accepted: Accepted, hostname: str, message: str, envelope: Envelope, certificate: str) -> bytes:
    """The header, folded, CRLF at its end. `message` is our id; `certificate` says what became of the client's (`certificate_words`)."""
    lines = [_from(accepted.helo, accepted.client), f"by {hostname} with {accepted.protocol} id {message}"]
    tls = accepted.tls
    if tls is not None:
        lines.append(_tls(tls.version, tls.cipher, tls.group, certificate))
    # RFC 5321 section 7.6: `for` with several recipients would show blind copies to everyone.
    if len(envelope.recipients) == 1 and envelope.recipients[0].address.local.isascii():
        lines.append(f"for <{envelope.recipients[0].address}>")
    if any(len(line) >= _WIDTH for line in lines):
        lines = [_fold(line) for line in lines]
    return ("\r\n\t".join(lines) + ";\r\n\t" + _date(accepted.at.replace(microsecond=0)) + "\r\n").encode("ascii")


# One connection's messages have these in common, and one second's messages their date.


@lru_cache(maxsize=1024)
def _from(helo: str, client: str) -> str:
    return f"Received: from {_NOT_HOST.sub('?', helo[:255]) or 'unknown'} ({_literal(client)})"


@lru_cache(maxsize=1024)
def _tls(version: str, cipher: str, group: str, certificate: str) -> str:
    facts = ", ".join(_comment(fact) for fact in (version, cipher, group) if fact)
    return f"({facts}, {certificate})"


@lru_cache(maxsize=4)
def _date(at: datetime) -> str:
    return format_datetime(at)


def certificate_words(evidence: TlsEvidence, *, asked: bool, connector: str) -> str:
    """For the comment. `connector` is the one whose demands on the certificate hold, "" where none spoke of it."""
    leaf = evidence.leaf
    if leaf is None:
        return NONE_SHOWN if asked else NOT_ASKED
    subject = _comment(leaf.subject[:200]) or "without a subject"
    judged = f"satisfies connector {connector}" if connector else "not judged"
    return f'client certificate "{subject}" {judged}'


def _literal(client: str) -> str:
    """RFC 5321 section 4.1.3. Without an address (PROXY LOCAL) there is a comment in its place."""
    if ":" in client:
        return f"[IPv6:{client}]"
    return f"[{client}]" if client[:1].isdigit() else "unknown"


def _comment(text: str) -> str:
    plain = _NOT_PRINTABLE.sub("?", text)
    return _SPECIAL.sub(r"\\\1", _SPACES.sub(" ", plain))


def _fold(line: str) -> str:
    """Folded at spaces below 78 characters where that is possible (RFC 5322 section 2.1.1), never before the first word."""
    if len(line) < _WIDTH:
        return line
    lines, words = [], line.split(" ")
    current = words[0]
    for word in words[1:]:
        if len(current) + 1 + len(word) >= _WIDTH:
            lines.append(current)
            current = word
        else:
            current += " " + word
    return "\r\n\t".join([*lines, current])
