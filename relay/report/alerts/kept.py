"""What alerts have to remember over a restart: the board, and what is still to be sent. One JSON document, a few kilobytes mostly.

An alert is noted here before it is sent and taken out once it is there: a crash between the two sends it again, under the same id.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from relay.mail.alerts import AlertKind, Concern, Notice, NoticeState, Severity
from relay.mail.codec import Json, time_from, time_text
from relay.policy.alerts import FLAPS, Board, Ended, Room, Standing
from relay.policy.concerns import Deaths

GIVE_UP = timedelta(hours=24)
_FIRST_WAIT = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(minutes=15)
MOST_POSTINGS = 2000


class Way(StrEnum):
    MAIL = "mail"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Posting:
    """A notice on its way. `due`: when it is tried next."""

    notice: Notice
    way: Way
    due: datetime
    tries: int = 0

    @property
    def key(self) -> tuple[str, Way]:
        return self.notice.id, self.way

    def later(self, now: datetime) -> "Posting | None":
        """After a try that failed; twice as long each time. None once it is given up."""
        wait = min(_FIRST_WAIT * 2 ** min(self.tries, 10), _LONGEST_WAIT)
        if now + wait - self.notice.at >= GIVE_UP:
            return None
        return replace(self, due=now + wait, tries=self.tries + 1)


@dataclass(frozen=True, slots=True)
class Kept:
    """`hostname` of whom is not kept: it is the relay's that sends it."""

    board: Board = field(default_factory=Board)
    deaths: Deaths = field(default_factory=Deaths)
    postings: tuple[Posting, ...] = ()

    def with_postings(self, notices: Sequence[Notice], ways: Sequence[Way], now: datetime) -> "Kept":
        """More are not remembered than somebody could read."""
        added = tuple(Posting(notice, way, now) for notice in notices for way in ways)
        return replace(self, postings=(*self.postings, *added)[-MOST_POSTINGS:])

    def without(self, posting: Posting, instead: Posting | None = None) -> "Kept":
        others = tuple(instead if each.key == posting.key else each for each in self.postings)
        return replace(self, postings=tuple(each for each in others if each is not None))


def encoded(kept: Kept) -> str:
    board = kept.board
    return json.dumps(
        {
            "standing": [_standing(each) for each in board.standing.values()],
            "ended": [
                [kind.value, subject, time_text(each.quiet), time_text(each.at), each.returns]
                for (kind, subject), each in board.ended.items()
            ],
            **_room(board.strange),  # where the only room was before there were two
            "own": _room(board.own),
            "deaths": [kept.deaths.ended, [time_text(each) for each in kept.deaths.at]],
            "postings": [_posting(each) for each in kept.postings],
        },
        separators=(",", ":"),
    )


def decoded(text: str) -> Kept:
    """Raises ValueError, KeyError or TypeError for what another version has written in another way."""
    found = json.loads(text)
    standing = [_standing_from(each) for each in found["standing"]]
    board = Board(
        {each.concern.key: each for each in standing},
        {(AlertKind(kind), subject): _ended_from(*rest) for kind, subject, *rest in found["ended"]},
        _room_from(found),
        _room_from(found["own"]) if "own" in found else Room(),
    )
    ended, at = found["deaths"]
    postings = tuple(map(_posting_from, found["postings"]))
    return Kept(board, Deaths(ended, tuple(map(time_from, at))), postings)


def _maybe(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(moment)


def _maybe_from(text: str | None) -> datetime | None:
    return None if text is None else time_from(text)


def _room(room: Room) -> Json:
    return {"sent": [time_text(each) for each in room.sent], "unshown": [list(room.unshown), room.unshown_count]}


def _room_from(found: Json) -> Room:
    titles, count = found["unshown"]
    return Room(tuple(map(time_from, found["sent"])), tuple(titles), count)


def _ended_from(quiet: str, at: str = "", returns: int = 0) -> Ended:
    """Before there were returns, only `quiet` was kept, which is when it was told and a while."""
    return Ended(time_from(at) if at else time_from(quiet) - FLAPS, time_from(quiet), returns)


def _standing(each: Standing) -> Json:
    return {
        "concern": asdict(each.concern),
        "since": time_text(each.since),
        "seen": time_text(each.seen),
        "told": _maybe(each.told),
        "shown": each.shown,
        "quiet": _maybe(each.quiet),
        "summed": each.summed,
        "returns": each.returns,
        "away": _maybe(each.away),
        "over": each.over,
    }


def _standing_from(found: Json) -> Standing:
    return Standing(
        Concern(**_typed(found["concern"])),
        time_from(found["since"]),
        time_from(found["seen"]),
        _maybe_from(found["told"]),
        found["shown"],
        _maybe_from(found["quiet"]),
        found.get("summed", False),
        found.get("returns", 0),
        _maybe_from(found.get("away")),
        found.get("over", ""),
    )


def _typed(values: Json) -> dict[str, Any]:
    return {**values, "kind": AlertKind(values["kind"]), "severity": Severity(values["severity"])}


def _posting(each: Posting) -> Json:
    notice = asdict(each.notice) | {"since": time_text(each.notice.since), "at": time_text(each.notice.at)}
    return {"notice": notice, "way": each.way.value, "due": time_text(each.due), "tries": each.tries}


def _posting_from(found: Json) -> Posting:
    values = _typed(found["notice"])
    notice = Notice(
        **{
            **values,
            "state": NoticeState(values["state"]),
            "since": time_from(values["since"]),
            "at": time_from(values["at"]),
        }
    )
    return Posting(notice, Way(found["way"]), time_from(found["due"]), found["tries"])


def active(kept: Kept) -> list[Json]:
    """What `relay alerts list` shows, the worst and oldest first."""
    order = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
    standing = sorted(kept.board.standing.values(), key=lambda each: (order[each.concern.severity], each.since))
    return [
        {
            "kind": each.concern.kind.value,
            "subject": each.concern.subject,
            "severity": each.concern.severity.value,
            "title": each.concern.title,
            "detail": each.concern.text,
            "remedy": each.concern.remedy or None,
            "message": each.concern.about or None,
            "since": time_text(each.since),
            "seen": time_text(each.seen),
            "told": _maybe(each.told),
            "away": _maybe(each.away),
        }
        for each in standing
    ]
