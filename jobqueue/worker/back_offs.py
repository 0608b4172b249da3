"""Types from which this pool backs off, because jobs of them have failed and asked for it."""

import logging
import threading
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import timedelta
from math import inf
from typing import Final

import attrs

from jobqueue.errors import BackendError
from jobqueue.models import Job
from jobqueue.outcomes import Outcome, OutcomeKind
from jobqueue.pauses import LONGEST_BACK_OFF, SHORTEST_BACK_OFF
from jobqueue.store import WorkerStore

logger = logging.getLogger(__name__)

_SHORTEST: Final = SHORTEST_BACK_OFF.total_seconds()
_LONGEST: Final = LONGEST_BACK_OFF.total_seconds()
_NONE: Final[AbstractSet[str]] = frozenset()


@attrs.define
class _BackOff:
    until: float
    seconds: float = 0.0
    """How long it was when it last counted; what the next one that counts doubles."""
    counted_until: float = -inf


class BackOffs:
    """What to claim nothing of for a while: twice as long after each failure that asks for it, until a job succeeds.

    A failure of a job that was started before the last time was over does not count as one more: then jobs that run at
    the same time, and fail for the same reason, count once. What is to be shared by all processes is kept in the store;
    here it is for 100 ms, until the store has been told, and for longer when that does not answer. Safe to share by
    threads.
    """

    def __init__(self, store: WorkerStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._here: dict[str, _BackOff] = {}
        self.is_any = False
        """Whether there may be any of this process's own: asked several times for each job."""
        self._everywhere: AbstractSet[str] = _NONE

    def note_end(self, job: Job, outcome: Outcome | None, seconds: float) -> bool:
        """Take note of what a run of *job* has led to, which took so many *seconds*; None: to nothing.

        Returns whether there is more to be done about it, by ``tell_others``: before, the outcome should be handed in,
        since that may take its time.
        """
        if outcome is None:
            return False
        if (error := outcome.error) is not None:
            if error.back_off:
                self._begin(job.type, seconds, counts=not error.back_off_is_shared)
            return error.back_off
        if outcome.kind is not OutcomeKind.FINISHED:
            return False
        if job.type in self._here:
            self._end(job.type)
        return job.type in self._everywhere

    def tell_others(self, job: Job, outcome: Outcome, seconds: float) -> None:
        """Have other processes back off, too, if they are to, or begin anew."""
        error = outcome.error
        try:
            if error is None:
                self._everywhere = self._everywhere - {job.type}
                self._store.end_back_off(job.type)
            elif error.back_off_is_shared:
                self._store.back_off(job.type, f"back-off: {error.message}", timedelta(seconds=seconds))
                self._everywhere = self._everywhere | {job.type}
        except BackendError as problem:
            logger.warning("other processes cannot be told to back off from jobs of type %r: %s", job.type, problem)
            if error is not None:
                self._begin(job.type, seconds, counts=True)

    def _begin(self, job_type: str, seconds: float, *, counts: bool) -> None:
        with self._lock:
            now = self._clock()
            known = self._here.get(job_type, _BackOff(-inf))
            if not counts:
                begun = attrs.evolve(known, until=max(known.until, now + _SHORTEST))
            else:
                is_next = now - seconds >= known.counted_until
                length = min(max(known.seconds * (2 if is_next else 1), _SHORTEST), _LONGEST)
                begun = _BackOff(now + length, length, now + length)
            self._here = self._here | {job_type: begun}
            self.is_any = True
        logger.info("backing off from jobs of type %r for %g s", job_type, begun.until - now)

    def _end(self, job_type: str) -> None:
        with self._lock:
            self._forget(job_type)

    def _forget(self, job_type: str) -> None:
        """Have the next one be the shortest again; what goes on now goes on to its end."""
        known = self._here.get(job_type)
        if known is None:
            return
        kept = {name: each for name, each in self._here.items() if name != job_type}
        if known.until > self._clock():
            kept[job_type] = _BackOff(known.until, counted_until=known.counted_until)
        self._here = kept
        self.is_any = bool(kept)

    def heed(self, everywhere: AbstractSet[str]) -> None:
        """Take note of what processes back off from all together, as a claim has seen it."""
        self._everywhere = everywhere

    def closed(self) -> AbstractSet[str]:
        """Return the types to claim nothing of."""
        now = self._clock()
        return {name for name, each in self._here.items() if each.until > now}

    def next_end(self, now: float) -> float:
        """Return when the first of them may be claimed again."""
        here = self._here
        return min((each.until for each in here.values() if each.until > now), default=inf) if here else inf
