"""The SQLite schema and how an older one becomes the present one.

- `message`: one row a message, kept for traces after its end (`finished`). `n` is the number in the id (ids.py): rows grow in order.
  `about` is the envelope (without recipients) and the acceptance (without TLS evidence, which is `tls`, a fact) as JSON.
- `recipient`: one row a recipient. `state` as in STATES; `due` only while waiting. Times are milliseconds since 1970. `slot` says which
  process of the relay it is that delivers it (share.py). `via` is where an operator sent it instead (relay.policy.reroute), NULL for its own
  way. While it waits, no `due` means that its sender is suspended.
- `chunk`: the received bytes, gone as soon as the last recipient has ended. Those of a large message are elsewhere where `body_file` says so.
- `body_file`: large messages whose bytes are in a file of their own (bodies.py). Older versions put them into `chunk`; so does a copy of the
  queue (copies.py).
- `loose`: messages whose bytes nobody needs any more: ended and large, or taken out again. Emptied soon.
- `attempt`, `fact`: the trace. Plans and evidence repeat, so each text is in `fact` once; `refs` counts the rows that name it.
  A number is never used again, since readers remember what it stood for.
- `sts_policy`: MTA-STS policies of other domains, so that a restart forgets none (relay.dns.sts). `about` is the policy as JSON. `ends`,
  `refresh` and `used` in milliseconds since 1970; few rows, so they have no index.
- `suspension`: what operators stopped (suspended.py). Times in milliseconds since 1970, `until` NULL for no end.
- `imported`: the ids that messages had in the queue which they were exported from, so that none comes in twice.
- `tlsrpt_...`: counts for TLS reports, where reports about a day went, and reports that we received (ledger.py).
- `audit`: who changed what (audit.py).
- `certificate_seen`, `certificate_said`: partners' certificates, and the warnings about ends that were given (seen.py). Few rows.
- `alerts`: what alerts were told and are to be sent, one JSON document (alerts.py).
- `revocation`, `revocation_piece`: CRLs and OCSP answers (revocations.py), so that a restart fetches none again.
- `tally_...`, `certificate`: what traces add up to, by hour, kept long after them (tally.py). `hour` is hours since 1970, of days that were
  rolled up the day's first; `day` is days since 1970. `way` 0 is in, 1 out.

Indexes are partial: they hold what waits, not the history, so that a month of traces costs the scheduler nothing.
"""

import sqlite3

from relay.queue.store import State, StoreUnusable

APPLICATION_ID = 0x49724F6E  # "IrOn"

STATES = (State.WAITING, State.HELD, State.DELIVERED, State.BOUNCED, State.DELETED)
CODES = {state: code for code, state in enumerate(STATES)}
FINAL = CODES[State.DELIVERED]  # from here on a recipient has ended

OLDEST_SQLITE = (3, 38, 0)  # json_each built in; UPDATE ... FROM and RETURNING

_VERSION_1 = (
    """
    CREATE TABLE message (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL, size INTEGER NOT NULL, message_id TEXT NOT NULL, sender TEXT NOT NULL,
        eight_bit INTEGER NOT NULL, header BLOB NOT NULL, about TEXT NOT NULL, tls INTEGER, finished INTEGER
    )
    """,
    "CREATE INDEX message_live ON message (n) WHERE finished IS NULL",
    "CREATE INDEX message_finished ON message (finished) WHERE finished IS NOT NULL",
    """
    CREATE TABLE recipient (
        n INTEGER NOT NULL, i INTEGER NOT NULL, state INTEGER NOT NULL, domain TEXT NOT NULL, local TEXT NOT NULL,
        notify TEXT NOT NULL, orcpt TEXT NOT NULL, due INTEGER, attempts INTEGER NOT NULL, warned INTEGER NOT NULL, last TEXT,
        PRIMARY KEY (n, i)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX recipient_by_domain ON recipient (domain, due, warned) WHERE state = 0",
    "CREATE INDEX recipient_by_due ON recipient (due, domain) WHERE state = 0",
    "CREATE INDEX recipient_held ON recipient (domain) WHERE state = 1",
    "CREATE TABLE chunk (n INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (n, seq)) WITHOUT ROWID",
    "CREATE TABLE loose (n INTEGER PRIMARY KEY)",
    """
    CREATE TABLE attempt (
        k INTEGER PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL, hop TEXT NOT NULL, address TEXT NOT NULL,
        connector TEXT NOT NULL, plan INTEGER, evidence INTEGER, outcomes TEXT NOT NULL, seconds REAL NOT NULL
    )
    """,
    "CREATE INDEX attempt_of_message ON attempt (n)",
    "CREATE TABLE fact (k INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, text TEXT NOT NULL, refs INTEGER NOT NULL)",
)

_STS_POLICIES = (
    """
    CREATE TABLE sts_policy (
        domain TEXT PRIMARY KEY, about TEXT NOT NULL, fetched INTEGER NOT NULL, ends INTEGER NOT NULL,
        refresh INTEGER NOT NULL, used INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

# TLS reports (ledger.py). Days are ISO dates. `hash` stands for the policy's kind, domain, strings and mx, which may be long.
_TLS_REPORTS = (
    """
    CREATE TABLE tlsrpt_policy (
        p INTEGER PRIMARY KEY, day TEXT NOT NULL, domain TEXT NOT NULL, hash BLOB NOT NULL, kind TEXT NOT NULL, policy_domain TEXT NOT NULL,
        strings TEXT NOT NULL, mx TEXT NOT NULL, successes INTEGER NOT NULL, UNIQUE (day, domain, hash)
    )
    """,
    """
    CREATE TABLE tlsrpt_failing (
        p INTEGER NOT NULL, result TEXT NOT NULL, source TEXT NOT NULL, host TEXT NOT NULL, address TEXT NOT NULL, reason TEXT NOT NULL,
        sessions INTEGER NOT NULL, PRIMARY KEY (p, result, source, host, address, reason)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tlsrpt_posting (
        day TEXT NOT NULL, domain TEXT NOT NULL, uri TEXT NOT NULL, state TEXT NOT NULL, ends INTEGER NOT NULL, due INTEGER NOT NULL,
        until INTEGER NOT NULL, tries INTEGER NOT NULL, message TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (day, domain, uri)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tlsrpt_posting_due ON tlsrpt_posting (due) WHERE state IN ('asking', 'waiting', 'queued')",
    """
    CREATE TABLE tlsrpt_received (
        r INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, organization TEXT NOT NULL, report_id TEXT NOT NULL, signer TEXT NOT NULL,
        about TEXT NOT NULL, UNIQUE (organization, report_id, signer)
    )
    """,
    "CREATE INDEX tlsrpt_received_at ON tlsrpt_received (at)",
)

# A process reads what is due in its own slot; operators ask by domain, whatever the slot.
_SLOTS = (
    "ALTER TABLE recipient ADD COLUMN slot INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX recipient_by_domain",
    "DROP INDEX recipient_by_due",
    "CREATE INDEX recipient_by_domain ON recipient (domain, slot, due, warned) WHERE state = 0",
    "CREATE INDEX recipient_by_due ON recipient (slot, due, domain) WHERE state = 0",
)

# Who changed what (audit.py). `before` and `after` are JSON.
_AUDIT = (
    """
    CREATE TABLE audit (
        k INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, via TEXT NOT NULL, address TEXT NOT NULL,
        action TEXT NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL, before TEXT, after TEXT
    )
    """,
    "CREATE INDEX audit_at ON audit (at)",
    "CREATE INDEX audit_action ON audit (action, k)",
)

_CERTIFICATES = (
    """
    CREATE TABLE certificate_seen (
        direction TEXT NOT NULL, connector TEXT NOT NULL, hop TEXT NOT NULL, refused INTEGER NOT NULL, sha256 TEXT NOT NULL,
        about TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (direction, connector, hop, refused)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE certificate_said (
        owner TEXT NOT NULL, sha256 TEXT NOT NULL, threshold INTEGER NOT NULL, ends INTEGER NOT NULL, PRIMARY KEY (owner, sha256)
    ) WITHOUT ROWID
    """,
)

# What alerts remember (alerts.py): one document.
_ALERTS = ("CREATE TABLE alerts (one INTEGER PRIMARY KEY CHECK (one = 1), about TEXT NOT NULL)",)

# What an operator sent another way is read by where it goes now: the first index has only what goes its own way in reach (`via IS NULL`), and
# costs a message one octet more; the second holds nothing else.
_CONTROL = (
    "ALTER TABLE recipient ADD COLUMN via TEXT",
    "DROP INDEX recipient_by_domain",
    "CREATE INDEX recipient_by_domain ON recipient (domain, slot, via, due, warned) WHERE state = 0",
    "CREATE INDEX recipient_by_via ON recipient (via, slot, due, warned) WHERE state = 0 AND via IS NOT NULL",
    """
    CREATE TABLE suspension (
        s INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL,
        since INTEGER NOT NULL, until INTEGER, UNIQUE (kind, what)
    )
    """,
    "CREATE TABLE imported (origin TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX imported_as ON imported (n)",
)

# CRLs and OCSP answers (revocations.py). `certificate` and `issuer` are DER; `batch` is the `fetched` of the row whose piece it is.
_REVOCATIONS = (
    """
    CREATE TABLE revocation (
        key TEXT PRIMARY KEY, kind TEXT NOT NULL, url TEXT NOT NULL, certificate BLOB NOT NULL, issuer BLOB NOT NULL, size INTEGER NOT NULL,
        this_update INTEGER NOT NULL, ends INTEGER NOT NULL, fetched INTEGER NOT NULL, refresh INTEGER NOT NULL, used INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE revocation_piece (
        key TEXT NOT NULL, batch INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (key, batch, seq)
    ) WITHOUT ROWID
    """,
)

# What traces add up to (tally.py). A certificate's bytes are kept once, so that a chain can be checked again by the trust of a later day.
_TALLY = (
    "CREATE TABLE tally_slot (slot INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, messages INTEGER NOT NULL, open TEXT NOT NULL)",
    "CREATE TABLE tally_mark (what TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO tally_mark (what, upto) VALUES ('attempts', 0), ('messages', 0), ('rolled', 0)",
    "CREATE TABLE tally_open (n INTEGER PRIMARY KEY)",
    """
    CREATE TABLE tally_kind (
        c INTEGER PRIMARY KEY AUTOINCREMENT, way INTEGER NOT NULL, domain TEXT NOT NULL, connector TEXT NOT NULL, version TEXT NOT NULL,
        cipher TEXT NOT NULL, groups TEXT NOT NULL, verified TEXT NOT NULL, asked TEXT NOT NULL, result TEXT NOT NULL, failure TEXT NOT NULL,
        UNIQUE (way, domain, connector, version, cipher, groups, verified, asked, result, failure)
    )
    """,
    """
    CREATE TABLE tally (
        hour INTEGER NOT NULL, c INTEGER NOT NULL, messages INTEGER NOT NULL, recipients INTEGER NOT NULL, PRIMARY KEY (hour, c)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tally_of_kind ON tally (c)",
    """
    CREATE TABLE tally_refused (
        hour INTEGER NOT NULL, what TEXT NOT NULL, listener TEXT NOT NULL, command TEXT NOT NULL, connector TEXT NOT NULL,
        code INTEGER NOT NULL, status TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (hour, what, listener, command, connector, code, status)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE tally_chain (h INTEGER PRIMARY KEY AUTOINCREMENT, certificates TEXT NOT NULL UNIQUE)",
    """
    CREATE TABLE tally_seen (
        day INTEGER NOT NULL, way INTEGER NOT NULL, domain TEXT NOT NULL, host TEXT NOT NULL, h INTEGER NOT NULL, messages INTEGER NOT NULL,
        latest INTEGER NOT NULL, PRIMARY KEY (day, way, domain, host, h)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tally_seen_of_chain ON tally_seen (h)",
    "CREATE TABLE certificate (sha256 TEXT PRIMARY KEY, der BLOB NOT NULL, used INTEGER NOT NULL)",
    "CREATE INDEX certificate_used ON certificate (used)",
)

# What operators ordered of recipients that were being delivered just then, until the attempt is over (orders.py).
_ORDERED = (
    """
    CREATE TABLE ordered (
        n INTEGER NOT NULL, i INTEGER NOT NULL, reroutes INTEGER NOT NULL, command TEXT NOT NULL, reason TEXT NOT NULL, detour TEXT NOT NULL,
        PRIMARY KEY (n, i, reroutes)
    ) WITHOUT ROWID
    """,
)

# A row comes in its message's transaction, once the file is on the disk, and goes before the file does.
_BODY_FILES = ("CREATE TABLE body_file (n INTEGER PRIMARY KEY, size INTEGER NOT NULL)",)

# Entry v brings a database of version v to v + 1. Never change one that was released: add the next.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _VERSION_1,
    _STS_POLICIES,
    _TLS_REPORTS,
    _SLOTS,
    _AUDIT,
    _CERTIFICATES,
    _ALERTS,
    _CONTROL,
    _REVOCATIONS,
    _TALLY,
    _ORDERED,
    _BODY_FILES,
)


def prepare(db: sqlite3.Connection, place: str) -> None:
    """Creates the schema or brings it up to date. Raises StoreUnusable for what is not ours or is newer than this program."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StoreUnusable(f"this Python has SQLite {sqlite3.sqlite_version}; the queue needs {wanted} or newer")
    application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreUnusable(f"{place} is a database of another program; name another file under `queue`")
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"{place} was written by a newer version of this program (schema {version}, known up to {len(MIGRATIONS)}); "
            "start that version, or restore the queue's backup"
        )
    if not tables:  # later it is not heeded, and would only wait for whoever writes
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # lets it shrink again
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnusable(
            f"{place} is on a file system without shared memory (a network share?); put the queue on a local disk"
        )
    for step in range(version, len(MIGRATIONS)):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[step]:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {step + 1}")
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
