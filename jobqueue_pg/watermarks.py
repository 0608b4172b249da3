"""How far into the queue a worker store has come, so that it need not walk there again from the front.

What was claimed stays in the claim index, dead, until no session can see it any more: while somebody holds an old
snapshot, each look from the front walks over all that was claimed meanwhile. So most looks are narrow: they begin where
the last ones ended. What they cannot see is found by the next full look, after a quarter of a second at the latest.
docs/how-a-trip-works.md tells it at length.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

import attrs

from jobqueue.models import Job
from jobqueue.outcomes import Outcome, OutcomeKind

_SECONDS_TRUSTED: Final = 0.25
_MOST_SECONDS_TRUSTED: Final = 1.0
_TIMES_LONGER_THAN_IT_TOOK: Final = 20
"""For how long a full look is trusted; longer where it takes longer than a narrow one: a twentieth is spent on that."""

_WORTHWHILE: Final = 100
_MOST_WORTHWHILE: Final = 6400
"""How many jobs full looks have to bring in a row before a narrow one is made; more, each time that one was in vain."""

_MOST_RUNS: Final = 64
_MOST_SEEN: Final = 16
_MOST_PRIORITIES: Final = 64
_MOST_REQUESTS: Final = 8

_GREATEST_PRIORITY: Final = 2**63 - 1
# Moments before it may be the nearest that Python can hold, and not those of the row.
_FIRST_MOMENT: Final = datetime(2, 1, 1, tzinfo=UTC)
_FIRST_ID: Final = UUID(int=0)


class Place(NamedTuple):
    """Where in the order of a priority's jobs of one type something is."""

    at: datetime
    id: UUID


_JSON_OF_NO_PLACE: Final = {"at": "-infinity", "id": str(_FIRST_ID)}


@attrs.frozen
class Seen:
    """What a full look has seen: the types, and the priorities down to the last one that it has claimed from."""

    types: Sequence[str]
    priorities: Sequence[int]

    @classmethod
    def of_json(cls, text: str) -> "Seen":
        """Read what the statement says."""
        return cls(**json.loads(text))


class Request(NamedTuple):
    """What a look is for."""

    types: tuple[str, ...]
    without: tuple[str, ...] = ()
    """What patterns among the types do not stand for."""

    @property
    def has_patterns(self) -> bool:
        """Whether there are patterns among the types."""
        return any(name.endswith("*") for name in self.types)


@attrs.frozen(kw_only=True)
class Look:
    """How one look at the queue is made."""

    request: "Request"
    began: float
    epoch: int
    runs: str | None = None
    """As JSON, where a narrow look goes on; None when the look is full."""
    gaps: str | None = None
    """As JSON, the priorities at which nothing may be due if it is to go on there."""
    is_watchful: bool = False
    """Whether a full look is to say what it has seen."""

    @property
    def is_full(self) -> bool:
        """Whether it sees everything."""
        return self.runs is None


@attrs.define
class _Level:
    """What is known of a priority: before these places, all was claimed, or held by somebody else."""

    place: Place | None = None
    """For all types that have none of their own."""
    places: dict[str, Place] = attrs.field(factory=dict[str, Place])


class Front:
    """How far the jobs of one set of types were claimed. Knows no clock."""

    def __init__(self) -> None:
        self._types: Sequence[str] = ()
        self._levels: dict[int, _Level] = {}
        self._num_seen = 0

    def begin(self, jobs: Sequence[Job], seen: Seen, began_at: datetime) -> None:
        """Take up what a full look that began at *began_at* has seen and claimed: all that it was asked for.

        Above the last priority that it has claimed from, nothing due was left. Priorities above it that it has not seen
        may have had jobs before, which are still in the index.
        """
        last = min(job.priority for job in jobs)
        passed = {priority for priority in (*seen.priorities, *self._levels) if priority > last}
        if len(passed) >= _MOST_PRIORITIES:
            passed = {max(passed)}
        before = self._levels.get(last, _Level())
        places = _last_places(job for job in jobs if job.priority == last)
        if places is None:
            level = _Level()
        else:
            known = {type: place for type, place in before.places.items() if type in seen.types}
            # Of a type that was paused, or had nothing, nobody has looked what there is before that place.
            is_common = set(seen.types) <= set(self._types)
            level = _Level(before.place if is_common else None, {**known, **places})
        self._types, self._num_seen = seen.types, len(seen.priorities)
        self._levels = {priority: _Level(Place(began_at, _FIRST_ID)) for priority in passed} | {last: level}

    def advance(self, jobs: Iterable[Job]) -> None:
        """Take up what a narrow look has claimed."""
        by_priority: dict[int, list[Job]] = {}
        for job in jobs:
            by_priority.setdefault(job.priority, []).append(job)
        for priority, claimed in by_priority.items():
            level = self._levels.setdefault(priority, _Level())
            for type, place in (_last_places(claimed) or {}).items():
                level.places[type] = max(place, level.places.get(type, place))

    def runs(self) -> list[dict[str, object]] | None:
        """Return where to go on: on which priority, with which type, and from where on; None when nobody knows."""
        levels = self._looked_at()
        if not levels or len(levels) * len(self._types) > _MOST_RUNS:
            return None
        return [
            {"type": type, "priority": priority, **_place_json(level.places.get(type, level.place))}
            for priority, level in levels.items()
            for type in self._types
        ]

    def gaps(self) -> list[dict[str, object]]:
        """Return the ranges of priorities that would come before one of those to go on with, and had nothing."""
        bounds = sorted(self._looked_at(), reverse=True)
        if self._is_crowded():
            bounds = [max(self._levels)]
        above = [_GREATEST_PRIORITY + 1, *bounds]
        ranges = [(low + 1, high - 1) for low, high in zip(bounds, above, strict=False) if low + 1 < high]
        return [{"type": type, "low": low, "high": high} for low, high in ranges for type in self._types]

    def _is_crowded(self) -> bool:
        return self._num_seen > _MOST_SEEN or len(self._levels) * len(self._types) > _MOST_RUNS

    def _looked_at(self) -> dict[int, _Level]:
        """All priorities; where they are too many, the last one: what comes up between waits for a full look."""
        if not self._is_crowded():
            return self._levels
        last = min(self._levels)
        return {last: self._levels[last]}


def _last_places(jobs: Iterable[Job]) -> dict[str, Place] | None:
    """Return where the last job of each type is, of jobs in their order; None when that cannot be told."""
    places: dict[str, Place] = {}
    for type, job in {job.type: job for job in jobs}.items():
        at = job.start_at or job.created_at
        if at is None or at < _FIRST_MOMENT:
            return None
        places[type] = Place(at, job.id)
    return places


def _place_json(place: Place | None) -> dict[str, str]:
    return _JSON_OF_NO_PLACE if place is None else {"at": place.at.isoformat(), "id": str(place.id)}


@attrs.define
class _Request:
    """What is known for one set of types that are asked for."""

    num_worthwhile: int
    num_in_row: int = 0
    trusted_until: float = 0.0
    seconds_of_narrow_look: float | None = None
    front: Front = attrs.field(factory=Front)
    gaps: str = ""

    def seconds_trusted(self, took: float) -> float:
        """Return for how long a full look is trusted that *took* so many seconds."""
        if self.seconds_of_narrow_look is None:
            return _SECONDS_TRUSTED
        more = took - self.seconds_of_narrow_look
        return min(max(_TIMES_LONGER_THAN_IT_TOOK * more, _SECONDS_TRUSTED), _MOST_SECONDS_TRUSTED)


class Watermarks:
    """Says how each look of a worker store is to be made, and learns from how it went. Safe to share by threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, worthwhile: int = _WORTHWHILE) -> None:
        self._clock = clock
        self._worthwhile = worthwhile
        self._lock = threading.Lock()
        self._requests: dict[Request, _Request] = {}
        self._epoch = 0  # looks that began in another one say nothing of this one

    def next_look(self, types: Iterable[str], limit: int = 1, without: Iterable[str] = ()) -> Look:
        """Return how to look for up to *limit* jobs of *types* next."""
        with self._lock:
            look = Look(request=Request(tuple(types), tuple(without)), began=self._clock(), epoch=self._epoch)
            request = self._requests.get(look.request)
            num_in_row, num_worthwhile = (
                (request.num_in_row, request.num_worthwhile) if request else (0, self._worthwhile)
            )
            if num_in_row + limit < num_worthwhile:
                return look
            runs = None
            if request and num_in_row >= num_worthwhile and look.began < request.trusted_until:
                runs = request.front.runs()
            if request is None or runs is None:
                return attrs.evolve(look, is_watchful=True)
            return attrs.evolve(look, runs=json.dumps(runs), gaps=request.gaps)

    def full_look(self, types: Iterable[str], without: Iterable[str] = ()) -> Look:
        """Return how to see everything."""
        with self._lock:
            return Look(request=Request(tuple(types), tuple(without)), began=self._clock(), epoch=self._epoch)

    def note_full_batch(self, look: Look, jobs: Sequence[Job], seen: Seen | None, began_at: datetime) -> None:
        """Note that *look* has brought all that it was asked for, and has *seen* more if it was watchful."""
        with self._lock:
            request = self._request(look.request)
            request.num_in_row += len(jobs)
            took = self._clock() - look.began
            if not look.is_full:
                request.num_worthwhile = self._worthwhile
                request.seconds_of_narrow_look = took
            if look.epoch != self._epoch:
                return
            if not look.is_full:
                request.front.advance(jobs)
            elif seen is not None:
                request.front.begin(jobs, seen, began_at)
                request.gaps = json.dumps(request.front.gaps())
                request.trusted_until = look.began + request.seconds_trusted(took)
                self._epoch += 1

    def note_too_few(self, look: Look) -> None:
        """Note that *look* has brought less than it was asked for."""
        with self._lock:
            request = self._request(look.request)
            request.num_in_row = 0
            if not look.is_full:
                request.num_worthwhile = min(2 * request.num_worthwhile, _MOST_WORTHWHILE)

    def note_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Note that *outcomes* were saved: those that give a job back may do so in front of where the claims are."""
        if any(_may_come_first(outcome) for outcome in outcomes):
            self.look_fully()

    def look_fully(self) -> None:
        """Have the next look be full: there may be something that a narrow one does not see."""
        with self._lock:
            self._epoch += 1
            for request in self._requests.values():
                request.trusted_until = 0.0

    def _request(self, request: Request) -> _Request:
        if request not in self._requests and len(self._requests) >= _MOST_REQUESTS:
            self._requests.clear()
        return self._requests.setdefault(request, _Request(self._worthwhile))


def _may_come_first(outcome: Outcome) -> bool:
    # What is put off is due after all that was due when it was claimed.
    return outcome.kind in {OutcomeKind.RELEASED, OutcomeKind.RESCUED} or outcome.start_at is not None
