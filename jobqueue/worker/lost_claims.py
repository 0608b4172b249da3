"""What a pool knows of its claims: when each was last known to stand, and which were found to be lost."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from jobqueue.errors import BackendError
from jobqueue.events import ClaimLost
from jobqueue.health import Health
from jobqueue.models import Fence, Job
from jobqueue.outcomes import claim_shown_by
from jobqueue.store import WorkerStore

logger = logging.getLogger(__name__)


class LostClaims:
    """Claims of one pool that somebody else has taken away, or may have.

    Nobody can take a claim away within *dead_for* of its making, or of its last beat. Both are counted here from when
    they were asked for, which is before the database did them, however long the answer took.
    """

    def __init__(
        self,
        health: Health,
        store: WorkerStore,
        dead_for: timedelta,
        *,
        tell: Callable[[ClaimLost], object] = lambda _: None,
    ) -> None:
        self._tell = tell
        self._health = health
        self._store = store
        self._dead_for = dead_for.total_seconds()
        self._lock = threading.Lock()
        self._alive_at: dict[Fence, float] = {}
        self._noted: set[Fence] = set()

    def watch(self, fences: Iterable[Fence], asked_at: float) -> None:
        """Remember claims that were asked for at *asked_at*, by the monotonic clock."""
        self._alive_at.update(dict.fromkeys(fences, asked_at))

    def beaten(self, fences: Iterable[Fence], asked_at: float) -> None:
        """Note that a beat for claims, asked for at *asked_at*, has found them to stand."""
        with self._lock:
            # A beat may come back when its claim has been forgotten already.
            for fence in fences:
                if fence in self._alive_at:
                    self._alive_at[fence] = asked_at

    def alive_at(self, fence: Fence) -> float:
        """When, by the monotonic clock, a claim was last known to stand; of one that is forgotten, now."""
        return self._alive_at.get(fence) or time.monotonic()

    def kept_until(self, fence: Fence) -> float:
        """Until when nobody can take a claim away, whatever becomes of the beats."""
        return self.alive_at(fence) + self._dead_for

    def note_told(self, fence: Fence) -> None:
        """Log and count a claim of which whoever took it away has told, unless that was done before."""
        if self._is_new(fence):
            self._log(fence, "the job was cancelled, reset or deleted", logging.INFO)

    def note(self, fence: Fence, how: str) -> None:
        """Log, with what the row shows by now, and count a lost claim, unless that was done before."""
        if self._is_new(fence):
            self._log(fence, f"{how}; {self._present_claim(fence)}", logging.WARNING)

    def _is_new(self, fence: Fence) -> bool:
        with self._lock:
            is_new = fence not in self._noted
            self._noted.add(fence)
        if is_new:
            self._health.count("lost_claims")
            self._tell(ClaimLost(id=fence.job_id, claim_id=fence.claim_id))
        return is_new

    def _log(self, fence: Fence, how: str, level: int) -> None:
        logger.log(
            level,
            "lost the claim %s of %s on job %s: %s; whatever this run led to is not saved",
            fence.claim_id,
            fence.started_at,
            fence.job_id,
            how,
            extra={"job_id": str(fence.job_id)},
        )

    def _present_claim(self, fence: Fence) -> str:
        try:
            return claim_shown_by(self.job_of(fence))
        except BackendError as error:
            return f"what it shows now cannot be read ({type(error).__qualname__})"

    def job_of(self, fence: Fence) -> Job | None:
        """Read the job of a claim as it is now, if it is there. Raises BackendError."""
        return next(iter(self._store.get_jobs([fence.job_id])), None)

    def forget(self, *fences: Fence) -> None:
        """Forget claims whose runs have ended and whose outcomes were dealt with."""
        with self._lock:
            for fence in fences:
                self._alive_at.pop(fence, None)
            if self._noted:
                self._noted.difference_update(fences)
