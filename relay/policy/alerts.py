"""What is told of concerns, and when: each once, again while it lasts, once more when it is over; never more than so many in an hour.

A state machine in values: the board before, what was seen, the time; the board after, what is to be told. `relay.app.alerts` keeps the
board over restarts, so that a restart tells nothing twice. What is a concern at all is `relay.policy.concerns`' business.

Threat: a stranger who makes concerns without end (many domains, each failing), perhaps so that nobody hears of something else. Boards,
texts and notices are bounded, and what is not shown one by one is counted and summed up. What strangers can make as many of as they like
(`STRANGE`) takes no room from what they cannot, neither on the board nor in the hour; and what there was no room for is told once there is.
And a stranger may make the queue old, or the disk full, and well again, as often as he likes: what comes back is held for longer each time
before it counts as over, so that it is told a few times in a day and not in an hour, and stays in sight meanwhile. But what he made come
and go must not hide what then comes for real: what is back while it is held is told again, some hours after it was told last.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b

from relay.mail.alerts import AlertKey, AlertKind, Concern, Notice, NoticeState, Relief, Severity

STRANGE = frozenset((AlertKind.PARTNER, AlertKind.MTA_STS))
"""Kinds with as many subjects as strangers have domains. Of the others, the configuration and the relay itself say how many there are."""
MOST = 500
"""Concerns that are remembered: so many that strangers can make, and so many others."""
HOUR = timedelta(hours=1)
FLAPS = timedelta(minutes=15)
"""What was over and comes back within this time after it was told is told again only then: it may go to and fro every minute."""
HOLDS = (timedelta(hours=1), timedelta(hours=2), timedelta(hours=4))
"""What has come back once, twice, more often is over only when it has been away for this long."""
MEMORY = timedelta(hours=4)
"""What comes back within this time after it was over has come back; later, it is new."""
_STEADY = frozenset((AlertKind.EXCEPTION, AlertKind.CERTIFICATE, AlertKind.CONFIGURATION))  # operators end these
_NAMED = 10  # of those that are summed up
_SUBJECT = 255
_TITLE = 200
_TEXT = 1500
_NEVER_SEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

_PATIENCE: Mapping[AlertKind, timedelta] = {
    AlertKind.CONFIGURATION: timedelta(minutes=10),  # whoever saved it is perhaps still at it
}
_FORGOTTEN: Mapping[AlertKind, timedelta] = {
    AlertKind.MTA_STS: timedelta(days=2),  # a policy that has ended and is gone is fetched no more
}
_RANK = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True)
class Terms:
    """By the configuration. `repeat` zero: once only. `hourly`: notices in any hour, of `STRANGE` kinds and of others."""

    repeat: timedelta = timedelta(days=1)
    withheld_after: timedelta = timedelta(0)
    hourly: int = 20

    def patience(self, kind: AlertKind) -> timedelta:
        """How long a concern must last before it is told."""
        return self.withheld_after if kind is AlertKind.PARTNER else _PATIENCE.get(kind, timedelta(0))


@dataclass(frozen=True, slots=True)
class Standing:
    """A concern that lasts. `seen`: the last sign of it. `told`: when last, None where not yet. `shown`: by itself, not summed up.

    `quiet`: not to be told before, None for no such time; where that is later than `told`, it was away since, and is told again then.
    `summed`: it waits for room, and has been counted in a sum.
    `returns`: how often it has come back. `away`: since when it is held, None while it lasts; `over` says what ended it.
    """

    concern: Concern
    since: datetime
    seen: datetime
    told: datetime | None = None
    shown: bool = False
    quiet: datetime | None = None
    summed: bool = False
    returns: int = 0
    away: datetime | None = None
    over: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """What was told and is over since `at`: not told again before `quiet`. `returns` as it had them."""

    at: datetime
    quiet: datetime
    returns: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """`sent`: when notices went out in the last hour. `unshown`: titles of some that are never shown, `unshown_count` of how many."""

    sent: tuple[datetime, ...] = ()
    unshown: tuple[str, ...] = ()
    unshown_count: int = 0


@dataclass(frozen=True, slots=True)
class Board:
    """`ended`: what has been over for less than MEMORY. `strange`: the room of `STRANGE` kinds, `own` that of the others."""

    standing: Mapping[AlertKey, Standing] = field(default_factory=dict)
    ended: Mapping[AlertKey, Ended] = field(default_factory=dict)
    strange: Room = Room()
    own: Room = Room()

    def of(self, *kinds: AlertKind) -> tuple[Standing, ...]:
        """Those of some kinds."""
        return tuple(each for each in self.standing.values() if each.concern.kind in kinds)


def plain(text: str, limit: int) -> str:
    """One line without anything that could leave its place, at most `limit` characters."""
    line = " ".join(_NEVER_SEEN.sub(" ", text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "\u2026"


def gone(board: Board, kinds: Iterable[AlertKind], found: Iterable[Concern], text: str) -> tuple[Relief, ...]:
    """Reliefs for every concern of these kinds that was looked for and not found."""
    still = {each.key for each in found}
    return tuple(
        Relief(*each.concern.key, text) for each in board.of(*frozenset(kinds)) if each.concern.key not in still
    )


def step(
    board: Board, terms: Terms, now: datetime, concerns: Iterable[Concern] = (), reliefs: Iterable[Relief] = ()
) -> tuple[Board, tuple[Notice, ...]]:
    """What was seen since the last step, and the time that has passed. What is in both has begun again, and goes on."""
    lasting = _by_key(concerns)
    standing = {key: _in_time(each, now) for key, each in board.standing.items()}
    ended = {key: each for key, each in board.ended.items() if each.at <= now < each.at + MEMORY}
    notices = _end((*reliefs, *_forgotten(standing, now), *_held(standing)), lasting, standing, ended, now)
    places = Counter(kind in STRANGE for kind, _subject in standing)
    left_out = Counter[bool]()
    for concern in lasting.values():
        was, strange = standing.get(concern.key), concern.kind in STRANGE
        if was is None and places[strange] >= MOST:
            left_out[strange] += 1
            continue
        places[strange] += was is None
        standing[concern.key] = _seen(was, concern, now, ended.get(concern.key))
    for each in standing.values():
        state = _due(each, terms, now)
        if state is not None:
            notices.append(_notice(each, state, now))
    ours = [each for each in notices if each.kind not in STRANGE]
    theirs = [each for each in notices if each.kind in STRANGE]
    own, own_told = _limited("own", _more(board.own, left_out[False]), ours, standing, terms, now)
    others, others_told = _limited("", _more(board.strange, left_out[True]), theirs, standing, terms, now)
    return Board(standing, ended, others, own), (*own_told, *others_told)


def _end(
    reliefs: Iterable[Relief],
    lasting: Collection[AlertKey],
    standing: dict[AlertKey, Standing],
    ended: dict[AlertKey, Ended],
    now: datetime,
) -> list[Notice]:
    """What is over leaves `standing` for `ended`, or is held there. All clears for those that were shown."""
    notices: list[Notice] = []
    for relief in reliefs:
        key = (relief.kind, plain(relief.subject, _SUBJECT))
        was = standing.get(key) if key not in lasting else None
        if was is None:
            continue
        since = was.away or now
        if now - since < _hold(was):
            standing[key] = replace(was, away=since, over=plain(relief.text, _TEXT))
            continue
        del standing[key]
        if was.shown:
            notices.append(_cleared(was, relief, now))
        strange = relief.kind in STRANGE
        if was.told is not None and sum((kind in STRANGE) is strange for kind, _subject in ended) < MOST:
            ended[key] = Ended(now, was.told + FLAPS, was.returns)
    return notices


def _hold(was: Standing) -> timedelta:
    """For how long it must be away. What nobody was told of is over at once, and so is what only operators end."""
    if not was.returns or not was.shown or was.concern.kind in _STEADY:
        return timedelta(0)
    return HOLDS[min(was.returns, len(HOLDS)) - 1]


def _held(standing: Mapping[AlertKey, Standing]) -> list[Relief]:
    return [Relief(*key, each.over) for key, each in standing.items() if each.away is not None]


def _more(room: Room, left_out: int) -> Room:
    return replace(room, unshown_count=room.unshown_count + left_out)


def _by_key(concerns: Iterable[Concern]) -> dict[AlertKey, Concern]:
    """Bounded. Of those that are alike then, the worst; else each would be worse than the other, at every look."""
    found: dict[AlertKey, Concern] = {}
    for each in map(_bounded, concerns):
        if each.key not in found or each.stage >= found[each.key].stage:
            found[each.key] = each
    return found


def _bounded(concern: Concern) -> Concern:
    return replace(
        concern,
        subject=plain(concern.subject, _SUBJECT),
        title=plain(concern.title, _TITLE),
        text=plain(concern.text, _TEXT),
        remedy=plain(concern.remedy, _TEXT),
    )


def _in_time(each: Standing, now: datetime) -> Standing:
    """After a clock that was ahead has been put right, nothing waits for it to come round again."""
    return replace(
        each,
        since=min(each.since, now),
        seen=min(each.seen, now),
        told=None if each.told is None else min(each.told, now),
        quiet=None if each.quiet is None else min(each.quiet, now + (FLAPS if each.told is None else HOLDS[-1])),
        away=None if each.away is None else min(each.away, now),
    )


def _seen(was: Standing | None, concern: Concern, now: datetime, ended: Ended | None) -> Standing:
    if was is None and ended is not None:
        return Standing(concern, now, now, quiet=ended.quiet, returns=ended.returns + 1)
    if was is None:
        return Standing(concern, now, now)
    # What got worse is told anew; what got better is not.
    worse = concern.stage > was.concern.stage
    told, summed, quiet = was.told, was.summed, was.quiet
    if told is not None and worse:
        quiet = None
    elif told is not None and was.away is not None:
        quiet = told + HOLDS[-1]
    if worse:
        told, summed = None, False
    return replace(was, concern=concern, seen=now, told=told, summed=summed, quiet=quiet, away=None, over="")


def _forgotten(standing: Mapping[AlertKey, Standing], now: datetime) -> list[Relief]:
    found = []
    for (kind, subject), each in standing.items():
        longest = _FORGOTTEN.get(kind)
        if longest is not None and now - each.seen >= longest:
            found.append(Relief(kind, subject, "nothing was seen of it any more"))
    return found


def _due(each: Standing, terms: Terms, now: datetime) -> NoticeState | None:
    if each.away is not None:
        return None
    if each.told is None:
        # A stage that got worse has waited already.
        waits = not each.shown and now - each.since < terms.patience(each.concern.kind)
        waits = waits or (each.quiet is not None and now < each.quiet)
        return None if waits else NoticeState.RAISED
    if each.quiet is not None and each.told < each.quiet <= now:
        return NoticeState.RAISED
    again = terms.repeat > timedelta(0) and each.concern.repeats and now - each.told >= terms.repeat
    return NoticeState.REPEATED if again else None


def _notice(each: Standing, state: NoticeState, now: datetime) -> Notice:
    concern = each.concern
    return Notice(
        notice_id(concern.key, state, now),
        state,
        concern.kind,
        concern.subject,
        concern.severity,
        concern.title,
        concern.text,
        concern.remedy,
        each.since,
        now,
    )


def _cleared(ended: Standing, relief: Relief, now: datetime) -> Notice:
    concern, state = ended.concern, NoticeState.CLEARED
    title = plain(f"over: {concern.title}", _TITLE)
    name = notice_id(concern.key, state, now)
    text = plain(relief.text, _TEXT)
    return Notice(name, state, concern.kind, concern.subject, Severity.INFO, title, text, "", ended.since, now)


def notice_id(key: AlertKey, state: NoticeState, at: datetime) -> str:
    """Not a secret: it tells notices apart, and a second try from a second notice."""
    kind, subject = key
    told = "\0".join((kind.value, subject, state.value, at.isoformat()))
    return blake2b(told.encode("utf-8", "replace"), digest_size=10).hexdigest()


def _limited(
    name: str, room: Room, notices: Sequence[Notice], standing: dict[AlertKey, Standing], terms: Terms, now: datetime
) -> tuple[Room, tuple[Notice, ...]]:
    """As many as the hour has room for, the worst first; the last of them sums up those that there is no room for.

    What is to be raised waits for room, and is in one sum only. `standing` is brought up to date. `name` tells sums of one moment apart.
    """
    sent = tuple(each for each in room.sent if timedelta(0) <= now - each < HOUR)
    free = max(terms.hourly - len(sent), 0)
    # What is told again has been told: it does not keep out what has not.
    ordered = sorted(notices, key=lambda each: (_RANK[each.severity], each.state is NoticeState.REPEATED))
    shown, rest = ordered[:free], ordered[free:]
    if free and (room.unshown_count or not all(_is_summed(each, standing) for each in rest)) and len(shown) == free:
        shown, rest = ordered[: free - 1], ordered[free - 1 :]
    waiting = [each for each in rest if each.state is NoticeState.RAISED]
    lost = [each for each in rest if each.state is not NoticeState.RAISED]
    fresh = [each for each in waiting if not _is_summed(each, standing)]
    titles = (*room.unshown, *(each.title for each in lost))[:_NAMED]
    count = room.unshown_count + len(lost)
    for each, is_shown in (*((each, True) for each in shown), *((each, False) for each in lost)):
        if each.state is not NoticeState.CLEARED:
            was = standing[each.kind, each.subject]
            standing[each.kind, each.subject] = replace(was, told=now, shown=was.shown or is_shown, summed=False)
    told = list(shown)
    if free > len(shown) and count + len(fresh):
        named = (*titles, *(each.title for each in fresh))[:_NAMED]
        told.append(_sum(named, count + len(fresh), now, name))
        titles, count = (), 0
        for each in fresh:
            key = (each.kind, each.subject)
            standing[key] = replace(standing[key], summed=True)
    return Room((*sent, *(now for _ in told)), titles, count), tuple(told)


def _is_summed(notice: Notice, standing: Mapping[AlertKey, Standing]) -> bool:
    return notice.state is NoticeState.RAISED and standing[notice.kind, notice.subject].summed


def _sum(titles: Sequence[str], count: int, now: datetime, name: str) -> Notice:
    named = "; ".join(titles)
    more = f", among them: {named}" if named else ""
    text = plain(f"There were too many alerts to show each: {count} are left out{more}", _TEXT)
    state, kind = NoticeState.RAISED, AlertKind.MORE
    title = f"{count} more not shown"
    remedy = "relay alerts list shows all that are active; `alerts.hourly` is how many are shown in an hour"
    return Notice(notice_id((kind, name), state, now), state, kind, "", Severity.WARNING, title, text, remedy, now, now)
