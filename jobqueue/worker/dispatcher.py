"""How claims and outcomes travel: what has come together goes in one trip, made by the worker that needs it most.

There is no thread of its own for it. A worker that ends a job hands its outcome in and asks for the next job; it then
makes a trip itself, for everybody: one statement and one commit that carries all outcomes handed in so far out, and
jobs for all workers that have none in. Meanwhile the others go on, and what they hand in goes with the next trip. Idle,
that is one outcome, saved at once; busy, trips grow by themselves. docs/how-a-trip-works.md tells it at length.
"""

import logging
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from math import inf
from typing import Final

from jobqueue.models import Fence, Job
from jobqueue.outcomes import Outcome
from jobqueue.settings import WorkerSettings
from jobqueue.threads import Backoff
from jobqueue.worker.carrier import Arrival, Carrier
from jobqueue.worker.contact import Contact
from jobqueue.worker.demand import Demand, TripRequest
from jobqueue.worker.held_jobs import HeldJob, HeldJobs
from jobqueue.worker.looks import Looks
from jobqueue.worker.outbox import HandedIn, Outbox, shortest_delay

logger = logging.getLogger(__name__)

MAX_TRIPS: Final = 2
"""How many trips may be on their way at the same time; each has a connection to itself."""

_SHORTEST_WAIT: Final = 0.001
_SECONDS_TO_COMBINE: Final = 0.005


class Dispatcher:
    """Gives jobs to workers and takes their outcomes, over the trips that they make."""

    def __init__(self, carrier: Carrier, demand: Demand, settings: WorkerSettings, contact: Contact) -> None:
        self._carrier = carrier
        self._demand = demand
        self._batch_size = settings.batch_size
        self._contact = contact
        # A signal handler that stops the pool may interrupt whoever has it.
        self._lock = threading.RLock()
        self._worker_wanted = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)  # for those who wait for the workers
        self._anything_kept = threading.Event()
        self._backoff = Backoff()
        self._held = HeldJobs()
        self._outbox = Outbox()
        self._idle = 0  # workers that want a job
        self._running = set[Fence]()  # claims whose jobs were given out and have not come back as outcomes
        self._suspects = set[Fence]()  # those, and of held jobs, whose earlier runs may have killed their processes
        self._brings_suspects = False  # whether the last trip that brought jobs brought such
        self._trips = 0  # trips on their way
        self._lent = 0  # lanes for trips that are kept free for maintenance
        self._asked = 0  # jobs that these may bring
        self._looks = Looks(settings.poll_interval.total_seconds())
        self._alarms: list[float] = []  # when those who wait will wake by themselves
        self._is_waking = False  # whether one of them was woken, and has not come to look what for
        self._retry_at = 0.0  # when to travel again after the database did not answer
        self._closing = False
        self._abandoned = False
        self._ended = False

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
        self._running.discard(fence)
        self._give_back(fence)
        self._demand.note_duration(seconds)
        if self._closing:
            self._tell_all()

    def _give_back(self, fence: Fence) -> None:
        self._suspects.discard(fence)
        self._looks.add_reasons(self._demand.give_back(fence))

    def next_job(self) -> Job | None:
        """Wait for a job to run; None means that the worker is to end."""
        with self._lock:
            self._idle += 1
            try:
                while not (self._closing and self._is_over()):
                    now = time.monotonic()
                    may_start = self._may_start_job(now)
                    if self._may_travel(now) and self._trip_is_due(now, may_start=may_start):
                        self._travel()
                    elif may_start:
                        self._pass_duty_on(now)
                        return self._give_out()
                    else:
                        self._wait(now)
                return None
            finally:
                self._idle -= 1

    def _is_over(self) -> bool:
        return self._abandoned or self._contact.is_dead or not self._outbox.waiting

    def _may_travel(self, now: float) -> bool:
        return self._trips < MAX_TRIPS - self._lent and now >= self._retry_at

    def _trip_is_due(self, now: float, *, may_start: bool) -> bool:
        """Whether to travel rather than to start a job, if there is one: nobody knows how long that will take."""
        if self._is_enough_handed_in:
            return True
        if may_start and not 0 < self._ahead >= 2 * len(self._held):
            return False
        if self._is_enough_wanted and self._looks.is_due(now):
            return True
        return not may_start and now >= self._small_trip_due_at()

    @property
    def _is_enough_handed_in(self) -> bool:
        return 0 < len(self._outbox.waiting) * 2 >= (1 if self._suspects else self._batch_size)

    @property
    def _is_enough_wanted(self) -> bool:
        limit = self._limit()
        return limit > 0 and (limit * 2 >= self._ahead or self._idle > len(self._held) + self._asked)

    def _small_trip_due_at(self) -> float:
        """When to travel for little. What comes while somebody else is on the way goes with the next trip, but soon."""
        waiting = self._outbox.waiting
        if self._trips:
            return waiting[0].since + _SECONDS_TO_COMBINE if waiting else inf
        if waiting:
            return 0.0
        return self._looks.due_at if self._limit() > 0 else inf

    def _may_start_job(self, now: float) -> bool:
        if not self._held or self._closing:
            return False
        first = self._held.first
        if first.job.rescue_count and self._outbox.is_moving:
            return False
        # When nobody has heard of us, or of a claim, for dead_for, somebody else may have it: the next beat will tell.
        return now < first.kept_until or (self._carrier.stands(first.job) and not self._contact.is_dead)

    def _give_out(self) -> Job:
        job = self._held.take()
        self._running.add(job.fence)
        return job

    def _pass_duty_on(self, now: float) -> None:
        """Wake a waiting worker for what else there is to do: be it the next look, of which nobody else may know."""
        if len(self._held) > 1 or now >= self._due_at() or self._all_would_oversleep():
            self._wake_one()

    def _wake_one(self) -> None:
        """Wake a waiting worker, unless one is on its way already, who will see what there is to do, and pass it on."""
        if self._alarms and not self._is_waking:
            self._is_waking = True
            self._worker_wanted.notify()

    def _all_would_oversleep(self) -> bool:
        return bool(self._alarms) and min(self._alarms) > self._due_at()

    def _due_at(self) -> float:
        """When there is, or was, something to do that needs a trip. Whoever comes back from one sees to it, too."""
        if self._trips >= MAX_TRIPS - self._lent:
            return inf
        if self._is_enough_handed_in:
            return self._retry_at
        look_due_at = self._looks.due_at if self._is_enough_wanted else inf
        return max(min(look_due_at, self._small_trip_due_at()), self._retry_at)

    @property
    def _ahead(self) -> int:
        """How many jobs to hold besides those for idle workers: none that would share the fate of a suspect."""
        return 0 if self._suspects or self._brings_suspects else self._demand.ahead

    def _limit(self) -> int:
        """How many jobs a trip that starts now may bring: none when nobody is there to run them."""
        is_wanted = self._idle and not self._closing
        return self._demand.limit(max(0, self._idle + self._ahead - len(self._held) - self._asked)) if is_wanted else 0

    def _wait(self, now: float) -> None:
        """Wait until somebody rings, or until there will be something to do. Called with the lock."""
        alarm = min(self._due_at(), now + self._looks.poll_seconds)
        self._alarms.append(alarm)
        try:
            self._worker_wanted.wait(max(_SHORTEST_WAIT, alarm - now))
        finally:
            self._alarms.remove(alarm)
            self._is_waking = False

    def _tell_all(self) -> None:
        self._worker_wanted.notify_all()
        self._changed.notify_all()

    # --- trips

    def _travel(self, *, by_worker: bool = True) -> None:
        """Carry out all that was handed in, and bring jobs. Called with the lock, which is given up on the way."""
        limit = self._limit()
        reasons = self._looks.begin() if limit > 0 else 0
        carried = self._outbox.load()
        self._trips += 1
        self._asked += limit
        if self._held:
            self._wake_one()
        request = self._demand.ask(limit)
        self._lock.release()
        arrival = Arrival(unsent=carried)
        try:
            arrival = self._carrier.travel(carried, request)
        finally:
            self._lock.acquire()
            self._trips -= 1
            self._asked -= limit
            self._looks.add_reasons(self._demand.receive(request, arrival.trip.claimed if arrival.trip else ()))
            self._outbox.unload(carried, unsent=arrival.unsent, locked=arrival.locked)
            self._arrive(arrival, request, reasons, carried)
            # Who is no worker leaves it to them to run jobs, and to look again; a worker passes on what it leaves.
            if not by_worker:
                self._wake_one()
            if self._lent:
                self._changed.notify_all()

    def _arrive(self, arrival: Arrival, request: TripRequest, reasons: int, carried: Sequence[HandedIn]) -> None:
        if self._closing:
            self._tell_all()
        # A moment is known to the database only; and whoever saves a retry does not see it in the same statement.
        if any(kept.outcome.start_at is not None for kept in carried):
            self._looks.add_reasons()
        if (trip := arrival.trip) is None:
            self._looks.add_reasons()
            self._retry_at = time.monotonic() + self._backoff.next() if arrival.unsent or not carried else 0.0
            return
        self._backoff.reset()
        self._retry_at = 0.0
        self._looks.expect_within(trip.next_due_in)
        self._looks.expect_within(shortest_delay(carried))  # what it has put off itself, it could not see
        self._held.add(trip.claimed, arrival.kept_until)
        if trip.claimed:
            self._brings_suspects = any(job.rescue_count for job in trip.claimed)
            self._suspects.update(job.fence for job in trip.claimed if job.rescue_count)
            self.call_keeper()
        if self._closing or self._suspects:
            self._hand_back(self._held.take_all_but(0 if self._closing else self._idle))
        if len(trip.claimed) < request.limit and request.sees_all:
            self._looks.heed(reasons)
        elif request.limit > 0:
            self._looks.add_reasons()

    # --- for whoever hears of jobs

    def ring(self) -> None:
        """Have the queue looked at: there may be something in it."""
        with self._lock:
            self._looks.add_reasons()
            self._wake_one()

    def poll_every(self, seconds: float) -> None:
        """Look at the queue at least this often, from now on."""
        with self._lock:
            self._looks.poll_every(seconds)
            self._tell_all()

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
            if not self._held and self._outbox.is_empty and not self._closing:
                self._anything_kept.clear()

    def kept_fences(self) -> list[Fence]:
        """Return the claims that nobody but the keeper beats for."""
        with self._lock:
            return self._held.fences() + self._outbox.fences()

    def drop(self, lost: Sequence[Fence]) -> list[Fence]:
        """Do not start jobs that are held with claims that were lost; return the claims of those."""
        with self._lock:
            dropped = self._held.drop(lost)
            for fence in dropped:
                self._give_back(fence)
            return dropped

    def hand_back(self, longer_than: float) -> int:
        """Release jobs that have been held unstarted for *longer_than* seconds; return how many."""
        with self._lock:
            late = self._held.take_late(time.monotonic() - longer_than)
            for _ in late:
                self._demand.note_duration(longer_than)  # those that run take as long, whatever the others took
            self._hand_back(late)
            return len(late)

    def _hand_back(self, unstarted: Iterable[HeldJob]) -> None:
        for held in unstarted:
            self._give_back(held.job.fence)
            self._outbox.waiting.append(HandedIn(Outcome.released(held.job), held.since))

    def carry_overdue(self, longer_than: float) -> None:
        """Make a trip, if something was handed in *longer_than* seconds ago and no worker has taken it."""
        with self._lock:
            now = time.monotonic()
            if (waiting := self._outbox.waiting) and self._may_travel(now) and now - waiting[0].since >= longer_than:
                self._travel(by_worker=False)

    def carry_locked_out(self) -> None:
        """Try again to save outcomes whose rows were locked: one alone, or those of one bundle, at a time."""
        with self._lock:
            if not self._outbox.locked or not self._may_travel(time.monotonic()):
                return
            carried = self._outbox.load_locked()
            self._trips += 1
        arrival = Arrival(locked=carried)
        try:
            arrival = self._carrier.save_apart(carried)
        finally:
            with self._lock:
                self._trips -= 1
                self._outbox.unload(carried, unsent=(), locked=[*arrival.locked, *arrival.unsent])
                self._tell_all()

    # --- for maintenance

    @contextmanager
    def lane(self) -> Generator[None]:
        """Keep one lane for trips free within the block, for something that may take its time."""
        with self._lock:
            self._lent += 1
            self._changed.wait_for(lambda: self._trips < MAX_TRIPS or self._closing)
        try:
            yield
        finally:
            with self._lock:
                self._lent -= 1
                self._wake_one()

    # --- ending

    def close(self) -> None:
        """Claim nothing more, and hand back what is held; workers end when what was handed in is saved."""
        with self._lock:
            self._closing = True
            self._hand_back(self._held.take_all_but(0))
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
            return self._changed.wait_for(lambda: not self._running, timeout)

    def wait_until_saved(self, timeout: float | None) -> bool:
        """Wait up to *timeout* seconds until all jobs have come back, and their outcomes have reached the database."""
        with self._lock:
            return self._changed.wait_for(lambda: not self._running and self._outbox.is_empty, timeout)

    def release(self, job: Job) -> bool:
        """Give back a job whose handler does not end; return whether it had not. The fence refuses what it leads to."""
        with self._lock:
            if is_running := job.fence in self._running:
                self._running.discard(job.fence)
                self._hand_back([HeldJob(job, time.monotonic())])
        self.call_keeper()
        return is_running
