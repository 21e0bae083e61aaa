"""What the API answers in these tests: ordinary values, with a hostile text wherever strangers may have put one."""

from typing import Any

from tests.unit.admin.console.fake import HOSTILE
from tests.unit.admin.fake import LAST, message, recipient, trace

AT = "2026-11-27T07:00:00.000Z"
EVIDENCE = {
    "version": "TLSv1.3",
    "cipher": "TLS_AES_256_GCM_SHA384",
    "group": "X25519MLKEM768",
    "sni": "mx.contoso.com",
    "resumed": False,
    "chain": [
        {
            "subject": f"CN={HOSTILE}",
            "issuer": "CN=Contoso CA",
            "names": [HOSTILE],
            "not_before": AT,
            "not_after": "2027-01-01T00:00:00.000Z",
            "sha256": "ab" * 32,
            "spki_sha256": "sha256:QQ=",
        }
    ],
    "errors": [HOSTILE],
    "revocation": {"ca.pem": [{"subject": "CN=mx", "status": "revoked", "reason": HOSTILE, "by": "CRL"}]},
    "verified_by": {
        "system": {"failure": "certificate-not-trusted", "text": HOSTILE},
        "ca.pem": {"anchor": "CN=Contoso CA"},
    },
}
PLAN = {
    "level": "domain",
    "plaintext": "never",
    "demands": [
        {"demand": "encryption", "source": "connector contoso-out"},
        {"demand": "pkix", "source": "connector contoso-out", "trust": "ca.pem", "names": ["*.contoso.com"]},
        {
            "demand": "tlsa",
            "source": "dane",
            "base": "mx.contoso.com",
            "records": ["3 1 1 ab"],
            "names": ["contoso.com"],
        },
    ],
    "client_certificate": "relay.example.com",
    "until": None,
    "published": [],
}


def hostile_message(number: int = 1, state: str = "waiting") -> dict[str, Any]:
    last = {**LAST, "text": HOSTILE, "hop": HOSTILE}
    return message(number, recipient(f"{HOSTILE}@contoso.com", state, last=last), sender=HOSTILE, message_id=HOSTILE)


def told_trace(number: int = 1) -> dict[str, Any]:
    """A life of two attempts: one deferred without TLS, one delivered."""
    found = trace(number)
    found["sender"] = HOSTILE
    found["accepted"] |= {"helo": HOSTILE, "at": AT, "tls": EVIDENCE}
    deferred = {"recipient": HOSTILE, "state": "deferred", "code": 451, "status": "4.7.4", "text": HOSTILE}
    delivered = {"recipient": "bob@contoso.com", "state": "delivered", "code": 250, "status": "2.0.0", "text": "OK"}
    common = {"hop": HOSTILE, "address": "203.0.113.9", "connector": "contoso-out", "plan": PLAN, "seconds": 0.25}
    found["attempts"] = [
        {**common, "at": AT, "evidence": None, "outcomes": [{**deferred, "failure": "starttls-not-supported"}]},
        {
            **common,
            "at": "2026-11-27T07:30:00.000Z",
            "evidence": EVIDENCE,
            "outcomes": [{**delivered, "failure": None}],
        },
    ]
    return found


def shares(direction: str) -> dict[str, Any]:
    def of(**counts: int) -> list[dict[str, Any]]:
        return [
            {"name": name.replace("_name", "+name"), "messages": number, "share": 0.0}
            for name, number in counts.items()
        ]

    return {
        "direction": direction,
        "messages": 10,
        "version": [*of(none=1), {"name": "TLSv1.3", "messages": 9, "share": 0.9}],
        "cipher": of(TLS_AES_256_GCM_SHA384=9, none=1),
        "group": of(X25519MLKEM768=9, none=1),
        "verified": of(pkix_name=7, encrypted=2, none=1),
        "since": AT,
        "until": AT,
        "counted_to": AT,
    }


TROUBLE = {
    "domain": HOSTILE,
    "connector": "contoso-out",
    "failure": "starttls-not-supported",
    "reason": "tls",
    "since": AT,
    "recipients": 3,
    "hop": "mx.contoso.com:25",
    "text": HOSTILE,
    "remedy": "Ask them.",
}


def partner(domain: str = "=cmd|'/c calc'!A1", messages: int = 10) -> dict[str, Any]:
    return {
        "domain": domain,
        "direction": "out",
        "connectors": ["contoso-out"],
        "messages": messages,
        "recipients": messages,
        "clear": 1,
        "versions": {"TLSv1.3": messages - 1, "none": 1},
        "verified": {"pkix+name": messages - 1, "none": 1},
        "asked": {"domain+pins": messages},
        "weakest": {"version": "none", "cipher": "none", "group": "none", "verified": "none"},
        "deferred": 2,
        "bounced": 1,
        "failures": {"starttls-not-supported": 2},
        "first_seen": AT,
        "last_seen": AT,
    }


def report(partners: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "hostname": "relay.example.com",
        "version": "0.1.0",
        "made_at": AT,
        "time_zone": "UTC",
        "since": AT,
        "until": AT,
        "counted_to": AT,
        "domain": None,
        "totals": {
            "in": {"messages": 10, "clear": 0, "tls": 10},
            "out": {"messages": 10, "clear": 1, "tls": 9, "deferred": 2, "bounced": 1},
            "refused": 4,
        },
        "shares": {"in": shares("in"), "out": shares("out")},
        "partners": partners,
        "demands": [
            {
                "connector": "contoso-out",
                "direction": "out",
                "asked": "domain+pins",
                "domains": 1,
                "messages": 10,
                "clear": 0,
                "verified": {"pkix+name": 10},
                "failures": {},
            }
        ],
        "exceptions": [
            {
                "recipient_domain": "legacy.example",
                "allow": "plaintext",
                "until": "2027-03-31",
                "reason": HOSTILE,
                "running": True,
            }
        ],
        "clear": [
            {"domain": HOSTILE, "direction": "out", "connector": "default", "messages": 1, "why": "it was not offered"}
        ],
        "refusals": [
            {
                "what": "command",
                "listener": "mx",
                "command": "RCPT",
                "connector": "",
                "code": 550,
                "status": "5.7.1",
                "count": 4,
            }
        ],
        "troubled": [TROUBLE],
        "left_out": ["Counts are of messages."],
    }


OURS = {
    "name": "relay.example.com",
    "state": "in use",
    "subject": "CN=relay.example.com",
    "names": ["relay.example.com"],
    "issuer": "CN=Example CA",
    "key": "EC P-256",
    "signature": "ECDSA-SHA256",
    "serial": "01",
    "pin": "sha256:QQ=",
    "sha256": "ab" * 32,
    "sha1": "cd" * 20,
    "not_before": AT,
    "not_after": "2026-12-10T00:00:00.000Z",
    "days_left": 12.7,
    "crl": [],
    "ocsp": [],
    "chain": [],
    "root": None,
    "shown": {"listeners": ["mx"], "policies": [], "names": ["relay.example.com"], "otherwise": True},
    "connectors": [],
    "problems": [],
}
UNREADABLE = {
    **dict.fromkeys(OURS),
    "name": "broken",
    "state": "in trouble",
    "chain": [],
    "shown": {"listeners": [], "policies": [], "names": [], "otherwise": False},
    "connectors": [],
    "problems": [
        {"severity": "error", "file": "broken.pem", "text": "the key does not fit", "remedy": "Put the right one."}
    ],
}
SEEN = {
    "connector": "contoso-out",
    "direction": "outbound",
    "hop": HOSTILE,
    "address": "203.0.113.9",
    "domain": "contoso.com",
    "verified": True,
    "failure": None,
    "subject": HOSTILE,
    "names": [HOSTILE],
    "issuer": HOSTILE,
    "pin": "sha256:QQ=",
    "sha256": "ab" * 32,
    "not_before": AT,
    "not_after": "2026-11-20T00:00:00.000Z",
    "days_left": -7.3,
    "sooner": None,
    "first_seen": AT,
    "last_seen": AT,
}
PAPER = {
    **{key: OURS[key] for key in ("subject", "names", "issuer", "key", "signature", "pin", "not_before", "not_after")},
    **{key: OURS[key] for key in ("serial", "sha256", "sha1", "crl", "ocsp")},
    "intermediates": [{"subject": "CN=Issuing CA", "sha256": "ab" * 32, "pin": "sha256:QQ=", "not_after": AT}],
    "root": None,
    "tlsa": [{"name": "_25._tcp.mx", "value": "3 1 1 ab", "line": "_25._tcp.mx. IN TLSA 3 1 1 ab", "note": ""}],
    "server": True,
    "client": True,
}
SHEET = {
    "name": "relay.example.com",
    "hostname": "relay.example.com",
    "contact": "postmaster@example.com",
    "made_at": AT,
    "change_on": None,
    "server": True,
    "client": True,
    "present": PAPER,
    "coming": None,
    "changes": [],
    "tasks": [{"who": "Who pins the key", "act": True, "text": "Add the next pin."}],
}
POINT = {"accepted": 5, "delivered": 4, "deferred": 1, "bounced": 0, "refused": 2}

CONNECTOR = {
    "name": "contoso-out",
    "direction": "outbound",
    "level": "domain",
    "plaintext": "never",
    "domains": ["contoso.com", HOSTILE],
    "waiting": 3,
    "held": 1,
    "last": {"at": AT, "hop": HOSTILE, "state": "delivered", "failure": None, "evidence": EVIDENCE},
}
PARTNER_IN = {
    **dict.fromkeys(("level", "plaintext", "waiting", "held", "last")),
    "name": "contoso-in",
    "direction": "inbound",
    "domains": ["contoso.com"],
}
CHANGE = {
    "waiting": ["connector contoso-out: tls goes from domain to encryption"],
    "differs": True,
    "diff": f"--- in force\n+++ on disk\n@@ -1 +1 @@\n-tls: domain\n+tls: encryption\n+reason: {HOSTILE}\n",
    "weaker": ["connector contoso-out: tls goes from domain to encryption"],
    "restart": [],
    "errors": [],
    "last": {"at": AT, "who": "carol", "via": "console", "what": HOSTILE},
}
SAYS = {"reason": None, "details": [HOSTILE], "withheld": None}
EXPLAINED = {
    "inbound": {
        "sender": HOSTILE,
        "connector": "contoso-in",
        "accepted": False,
        "stage": "mail",
        "reply": "550 5.7.1 no",
        "may_relay": None,
        "needs_header_from": True,
        "requirements": [{"name": "tls", "required": "TLS", "found": HOSTILE, "met": False}],
        "considered": [{"connector": "other-in", "satisfied": False, "requirements": []}],
    },
    "outbound": [
        {
            "recipient": "bob@contoso.com",
            "connector": "contoso-out",
            "pattern": "contoso.com",
            "exception": {"allow": "plaintext", "until": "2027-03-31", "reason": HOSTILE},
            "auth": None,
            "unroutable": None,
            "hops": [
                {
                    "host": "mx.contoso.com",
                    "port": 25,
                    "addresses": ["203.0.113.9"],
                    "unused": [{"address": "127.0.0.1", "reason": HOSTILE}],
                    "trouble": None,
                    "mx_secure": True,
                    "dane": SAYS,
                    "mta_sts": SAYS,
                    "plan": PLAN,
                    "without_starttls": "refuse",
                    "with_broken_tls": "refuse",
                }
            ],
        }
    ],
}
PROBED = {
    "domain": "contoso.com",
    "connector": "contoso-out",
    "passes": False,
    "unroutable": None,
    "hops": [
        {
            "host": "mx.contoso.com",
            "port": 25,
            "trouble": None,
            "mx_secure": True,
            "dane": SAYS,
            "mta_sts": SAYS,
            "plan": PLAN,
            "withheld": None,
            "left_out": ["203.0.113.10"],
            "addresses": [
                {
                    "address": "203.0.113.9",
                    "seconds": 0.21,
                    "trouble": HOSTILE,
                    "offers": ["STARTTLS", HOSTILE],
                    "evidence": EVIDENCE,
                    "verdicts": [
                        {
                            "level": "in force",
                            "standing": "fails",
                            "text": HOSTILE,
                            "failure": "certificate-not-trusted",
                        },
                        {"level": "encryption", "standing": "passes", "text": None, "failure": None},
                        {"level": "dane", "standing": "absent", "text": None, "failure": None},
                    ],
                }
            ],
        }
    ],
}

ANSWERS: dict[str, Any] = {
    "GET /connectors": {"connectors": [CONNECTOR, PARTNER_IN]},
    "GET /connectors/{name}": {
        **CONNECTOR,
        "settings": {
            "tls": "domain",
            "match": {"recipient_domains": [HOSTILE]},
            "ca": None,
            "route": {"smart_hosts": []},
        },
    },
    "GET /change": CHANGE,
    "POST /explain": EXPLAINED,
    "POST /probe": PROBED,
    "GET /suspensions": {
        "suspensions": [
            {"id": 7, "to": "legacy.example", "reason": HOSTILE, "who": "carol", "since": AT, "until": None}
        ]
    },
    "POST /suspensions": {"id": 8},
    "POST /queue/reroute": {
        "changed": 3,
        "running": 0,
        "unknown": [],
        "before": {},
        "after": {},
        "via": "connector spare",
        "weaker": [],
    },
    "POST /suspensions/resume": {"ended": [{"id": 7, "to": "legacy.example"}]},
    "GET /security/overview": {
        "since": AT,
        "until": AT,
        "step": "hour",
        "points": [{"at": AT, **POINT}],
        "totals": POINT,
        "counted_to": AT,
    },
    "GET /security/shares": shares("out"),
    "GET /security/troubled": {"at": AT, "troubled": [TROUBLE], "more": False},
    "GET /security/report": report([partner()]),
    "GET /security/partners": {"partners": [partner()], "more": False},
    "GET /certificates": {"at": AT, "ours": [OURS, UNREADABLE], "partners": [SEEN]},
    "GET /certificates/sheet": {"sheets": [SHEET]},
    "GET /audit": {
        "entries": [
            {
                "n": 3,
                "at": AT,
                "who": "carol",
                "via": "console",
                "address": "203.0.113.1",
                "action": "hold",
                "what": HOSTILE,
                "count": 1,
                "before": {"state": HOSTILE},
                "after": None,
            }
        ],
        "next": 3,
    },
}
