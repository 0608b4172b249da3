"""What a pool has in hand between its trips: jobs that are held or given out, outcomes handed in; and who waits."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence

from jobqueue.models import Fence, Job
from jobqueue.outcomes import Outcome
from jobqueue.settings import WorkerSettings
from jobqueue.worker.demand import Demand
from jobqueue.worker.desk import Desk
from jobqueue.worker.held_jobs import HeldJob
from jobqueue.worker.outbox import HandedIn, Outbox

logger = logging.getLogger(__name__)


class InHand:
    """Takes outcomes from workers, has claims kept alive that no worker is running, and knows when all has ended.

    There is a desk for each of *demands*; the first one takes every job.
    """

    def __init__(self, demands: Sequence[Demand], settings: WorkerSettings) -> None:
        # A signal handler that stops the pool may interrupt whoever has it.
        self._lock = threading.RLock()
        poll_seconds = settings.poll_interval.total_seconds()
        self._desks = tuple(Desk(demand, self._lock, poll_seconds) for demand in demands)
        self._changed = threading.Condition(self._lock)  # for those who wait for the workers
        self._anything_kept = threading.Event()
        self._outbox = Outbox()
        self._running: dict[Fence, Desk] = {}  # claims whose jobs were given out and have not come back as outcomes
        self._suspects = set[Fence]()  # those, and of held jobs, whose earlier runs may have killed their processes
        self._closing = False
        self._hurried = False
        self._abandoned = False
        self._ended = False

    @property
    def desks(self) -> Sequence[Desk]:
        """Where workers wait, in the order of their demands."""
        return self._desks

    # --- for workers

    def hand_in(self, outcome: Outcome, seconds: float, *, may_be_saved: Outcome | None = None) -> None:
        """Take the outcome of a job that ran for *seconds*; one of the next trips saves it, if it is not saved yet."""
        with self._lock:
            self._come_back(outcome.fence, seconds)
            if self._ended:
                logger.warning("job %s ended after its pool did: its outcome is dropped", outcome.fence.job_id)
                return
            self._outbox.waiting.append(HandedIn(outcome, time.monotonic(), (may_be_saved,) if may_be_saved else ()))
        self.call_keeper()

    def note_end(self, job: Job, seconds: float) -> None:
        """Note that a job has run for *seconds*, and nothing is left to be saved."""
        with self._lock:
            self._come_back(job.fence, seconds)

    def _come_back(self, fence: Fence, seconds: float) -> None:
        desk = self._running.pop(fence, self._desks[0])
        self._give_back(desk, fence)
        desk.demand.note_duration(seconds)
        if self._closing:
            self._tell_all()

    def _give_back(self, desk: Desk, fence: Fence) -> None:
        if self._suspects:
            self._suspects.discard(fence)
        if desk.demand.has_atomic and (freed := desk.demand.connections.give_back(fence)):
            desk.looks.add_reasons(freed)

    def _add_reasons(self, n: int = 1) -> None:
        for desk in self._desks:
            desk.looks.add_reasons(n)

    def _wake(self) -> None:
        """Wake a waiting worker of each desk."""
        for desk in self._desks:
            desk.wake_one()

    def _tell_all(self) -> None:
        for desk in self._desks:
            desk.worker_wanted.notify_all()
        self._changed.notify_all()

    # --- for the keeper

    def call_keeper(self) -> None:
        """Wake the keeper, if it sleeps."""
        if not self._anything_kept.is_set():
            self._anything_kept.set()

    def wait_for_keeping(self) -> None:
        """Wait until there is something that no worker is running: held, handed in, or waiting for the database."""
        self._anything_kept.wait()

    def rest(self) -> None:
        """Note that nothing is kept, unless something is."""
        with self._lock:
            if not any(desk.held for desk in self._desks) and self._outbox.is_empty and not self._closing:
                self._anything_kept.clear()

    def kept_fences(self) -> list[Fence]:
        """Return the claims that nobody but the keeper beats for."""
        with self._lock:
            return [fence for desk in self._desks for fence in desk.held.fences()] + self._outbox.fences()

    def drop(self, lost: Sequence[Fence]) -> list[Fence]:
        """Do not start jobs that are held with claims that were lost; return the claims of those."""
        with self._lock:
            dropped = [(desk, fence) for desk in self._desks for fence in desk.held.drop(lost)]
            for desk, fence in dropped:
                self._give_back(desk, fence)
            return [fence for _, fence in dropped]

    def hand_back(self, longer_than: float) -> int:
        """Release jobs that have been held unstarted for *longer_than* seconds; return how many."""
        with self._lock:
            num_late = 0
            for desk in self._desks:
                late = desk.held.take_late(time.monotonic() - longer_than)
                for _ in late:
                    desk.demand.note_duration(longer_than)  # those that run take as long, whatever the others took
                self._hand_back(desk, late)
                num_late += len(late)
            return num_late

    def _hand_back(self, desk: Desk, unstarted: Iterable[HeldJob]) -> None:
        for held in unstarted:
            self._give_back(desk, held.job.fence)
            self._outbox.waiting.append(HandedIn(Outcome.released(held.job), held.since))

    # --- ending

    def close(self) -> None:
        """Claim nothing more, and hand back what is held; workers end when what was handed in is saved."""
        with self._lock:
            self._closing = True
            for desk in self._desks:
                self._hand_back(desk, desk.held.take_all_but(0))
            self._tell_all()
        self.call_keeper()

    def abandon(self) -> None:
        """Have workers end although something that they handed in is not saved."""
        with self._lock:
            self._closing = self._abandoned = True
            self._tell_all()

    def end(self) -> None:
        """Take nothing more: nobody is left to carry it."""
        with self._lock:
            self._ended = True

    def wait_for_jobs(self, timeout: float | None) -> bool:
        """Wait up to *timeout* seconds until all jobs have come back; return whether they have."""
        with self._lock:
            self._changed.wait_for(lambda: not self._running or self._hurried, timeout)
            self._hurried = False
            return not self._running

    def hurry(self) -> None:
        """Have whoever waits for jobs to come back, or will, do so no longer; once."""
        with self._lock:
            self._hurried = True
            self._changed.notify_all()

    def wait_until_saved(self, timeout: float | None) -> bool:
        """Wait up to *timeout* seconds until all jobs have come back, and their outcomes have reached the database."""
        with self._lock:
            return self._changed.wait_for(lambda: not self._running and self._outbox.is_empty, timeout)

    def release(self, job: Job) -> bool:
        """Give back a job whose handler does not end; return whether it had not. The fence refuses what it leads to."""
        with self._lock:
            if (desk := self._running.pop(job.fence, None)) is not None:
                self._hand_back(desk, [HeldJob(job, time.monotonic())])
        self.call_keeper()
        return desk is not None
