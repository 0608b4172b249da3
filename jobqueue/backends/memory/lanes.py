"""The jobs that wait to be claimed, in the order in which they are: found without a look at all of them."""

from collections.abc import Callable
from datetime import datetime
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple
from uuid import UUID

from jobqueue.models import Job

_SMALL_LANE: Final = 64
_FEW_LANES: Final = 64


class _Place(NamedTuple):
    """Where a job stands among those that are due; a lesser place comes first."""

    minus_priority: int
    due_at: datetime
    job_id: UUID


class Lanes:
    """Places of waiting jobs, a lane for each type.

    A place that was taken or given up stays where it is until it comes to the head of its lane, where it is known by
    not being the job's place any more.
    """

    def __init__(self) -> None:
        self._places: dict[UUID, _Place] = {}
        self._lanes: dict[str, _Lane] = {}
        self._sweep_at = _FEW_LANES

    def add(self, job: Job, due_at: datetime) -> None:
        """Give a waiting job its place, instead of the one that it had."""
        place = _Place(-job.priority, due_at, job.id)
        if self._places.get(job.id) != place:
            self._places[job.id] = place
            self._lane_of(job.type).add(place)

    def _lane_of(self, job_type: str) -> "_Lane":
        lane = self._lanes.get(job_type)
        if lane is None:
            self._sweep()
            lane = self._lanes[job_type] = _Lane(self._places)
        return lane

    def _sweep(self) -> None:
        """Remove the lanes that nobody is in any more, before they are more than the others."""
        if len(self._lanes) < self._sweep_at:
            return
        for lane in self._lanes.values():
            lane.sweep()
        self._remove_empty()
        self._sweep_at = 2 * len(self._lanes) + _FEW_LANES

    def _remove_empty(self) -> None:
        self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.is_empty}

    def discard(self, job_id: UUID) -> None:
        """Let a job wait no longer, if it does."""
        self._places.pop(job_id, None)

    def take(self, is_wanted: Callable[[str], bool], limit: int, now: datetime) -> list[UUID]:
        """Take up to *limit* jobs that are due, in order, of the types that are wanted."""
        heads = [(place, lane) for lane in self._wanted(is_wanted) if (place := lane.head(now)) is not None]
        heapify(heads)
        taken: list[UUID] = []
        while heads and len(taken) < limit:
            place, lane = heads[0]
            taken.append(place.job_id)
            self.discard(place.job_id)
            following = lane.head(now)
            if following is None:
                heappop(heads)
            else:
                heapreplace(heads, (following, lane))
        return taken

    def next_due_at(self, is_wanted: Callable[[str], bool], now: datetime) -> datetime | None:
        """Return when the first of the jobs will be due that are not, of the types that are wanted."""
        return min(
            (moment for lane in self._wanted(is_wanted) if (moment := lane.next_due_at(now)) is not None), default=None
        )

    def _wanted(self, is_wanted: Callable[[str], bool]) -> "list[_Lane]":
        self._remove_empty()
        return [lane for name, lane in self._lanes.items() if is_wanted(name)]


class _Lane:
    """The jobs of one type: those that were due when somebody looked, the first one on top, and those that were not."""

    def __init__(self, places: dict[UUID, _Place]) -> None:
        self._places = places
        self._due: list[_Place] = []
        self._later: list[tuple[datetime, _Place]] = []
        self._sweep_at = _SMALL_LANE

    def add(self, place: _Place) -> None:
        heappush(self._later, (place.due_at, place))
        if len(self._due) + len(self._later) > self._sweep_at:
            self.sweep()

    def sweep(self) -> None:
        """Remove the places that nobody has any more, before they are more than the others."""
        self._due = [place for place in self._due if self._stands(place)]
        self._later = [entry for entry in self._later if self._stands(entry[1])]
        heapify(self._due)
        heapify(self._later)
        self._sweep_at = 2 * (len(self._due) + len(self._later)) + _SMALL_LANE

    @property
    def is_empty(self) -> bool:
        return not self._due and not self._later

    def head(self, now: datetime) -> _Place | None:
        """Return the first place that is due."""
        while self._later and self._later[0][0] <= now:
            heappush(self._due, heappop(self._later)[1])
        while self._due:
            place = self._due[0]
            if self._stands(place) and place.due_at <= now:
                return place
            heappop(self._due)
            # The clock was put back.
            if self._stands(place):
                self.add(place)
        return None

    def next_due_at(self, now: datetime) -> datetime | None:
        """Return when the first of those that are not due will be."""
        self.head(now)
        while self._later and not self._stands(self._later[0][1]):
            heappop(self._later)
        return self._later[0][0] if self._later else None

    def _stands(self, place: _Place) -> bool:
        return self._places.get(place.job_id) is place
