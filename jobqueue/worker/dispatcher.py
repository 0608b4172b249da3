"""How claims and outcomes travel: what has come together goes in one trip, made by the worker that needs it most.

There is no thread of its own for it. A worker that ends a job hands its outcome in and asks for the next job; it then
makes a trip itself, for everybody: one statement and one commit that carries all outcomes handed in so far out, and
jobs for all workers that have none in. Meanwhile the others go on, and what they hand in goes with the next trip. Idle,
that is one outcome, saved at once; busy, trips grow by themselves. docs/how-a-trip-works.md tells it at length.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Final

import attrs

from jobqueue.models import Job
from jobqueue.outcomes import Fence, Outcome, fence_of
from jobqueue.settings import WorkerSettings
from jobqueue.threads import Backoff
from jobqueue.worker.carrier import Arrival, Carrier, HandedIn, one_of_each_job
from jobqueue.worker.contact import Contact
from jobqueue.worker.demand import Demand, TripRequest

logger = logging.getLogger(__name__)

MAX_TRIPS: Final = 2
"""How many trips may be on their way at the same time; each has a connection to itself."""

_SHORTEST_WAIT: Final = 0.001


@attrs.define(eq=False)
class _Held:
    """A claimed job that waits for a worker."""

    job: Job
    since: float


class Dispatcher:
    """Gives jobs to workers and takes their outcomes, over the trips that they make."""

    def __init__(self, carrier: Carrier, demand: Demand, settings: WorkerSettings, contact: Contact) -> None:
        self._carrier = carrier
        self._demand = demand
        self._batch_size = settings.batch_size
        self._poll_seconds = settings.poll_interval.total_seconds()
        self._contact = contact

        # A signal handler that stops the pool may interrupt whoever has it.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._anything_kept = threading.Event()
        self._backoff = Backoff()

        self._held: deque[_Held] = deque()
        self._handed_in: list[HandedIn] = []
        self._on_trips: list[Sequence[HandedIn]] = []
        self._locked_out: list[HandedIn] = []  # outcomes whose rows somebody else has locked

        self._idle = 0  # workers that want a job
        self._running = set[Fence]()  # claims whose jobs were given out and have not come back as outcomes
        self._trips = 0  # trips on their way
        self._lent = 0  # lanes for trips that are kept free for maintenance
        self._asked = 0  # jobs that these may bring
        self._rings = 1  # reasons to look at the queue, so far
        self._rings_heeded = 0  # how many there were when the last look that found too little began
        self._look_at = 0.0  # when to look without a reason
        self._alarms: list[float] = []  # when those who wait will wake by themselves
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
            self._handed_in.append(HandedIn(outcome, time.monotonic(), [may_be_saved] if may_be_saved else []))
        self.call_keeper()

    def note_end(self, job: Job, seconds: float) -> None:
        """Note that a job has run for *seconds*, and nothing is left to be saved."""
        with self._lock:
            self._come_back(fence_of(job), seconds)

    def _come_back(self, fence: Fence, seconds: float) -> None:
        self._running.discard(fence)
        self._rings += self._demand.give_back(fence)
        self._demand.note_duration(seconds)
        if self._closing:
            self._changed.notify_all()

    def next_job(self) -> Job | None:
        """Wait for a job to run; None means that the worker is to end."""
        with self._lock:
            self._idle += 1
            try:
                while not self._is_over():
                    # No job is started while outcomes wait that should go: nobody knows how long it will take.
                    if self._outcomes_are_due() or self._refill_is_due():
                        self._travel()
                    elif self._may_start_job():
                        self._pass_duty_on()
                        job = self._held.popleft().job
                        self._running.add(fence_of(job))
                        return job
                    elif self._look_is_due():
                        self._travel()
                    else:
                        self._wait()
                return None
            finally:
                self._idle -= 1

    def _is_over(self) -> bool:
        return self._closing and (self._abandoned or self._contact.is_dead or not self._handed_in)

    def _may_travel(self) -> bool:
        return self._trips < MAX_TRIPS - self._lent and time.monotonic() >= self._retry_at

    def _outcomes_are_due(self) -> bool:
        if not self._handed_in or not self._may_travel():
            return False
        return not self._may_start_job() or len(self._handed_in) * 2 >= self._batch_size

    def _refill_is_due(self) -> bool:
        ahead = self._demand.ahead()
        return ahead > 0 and len(self._held) * 2 <= ahead and self._look_is_due()

    def _look_is_due(self) -> bool:
        if self._limit() < 1 or not self._may_travel():
            return False
        return self._rings > self._rings_heeded or time.monotonic() >= self._look_at

    def _may_start_job(self) -> bool:
        # When nobody has heard of us, or of a claim, for dead_for, somebody else may have it: the next beat will tell.
        may_start = bool(self._held) and not self._closing and not self._contact.is_dead
        return may_start and self._carrier.stands(self._held[0].job)

    def _pass_duty_on(self) -> None:
        """Wake a waiting worker for what there is to do besides the job that this one is about to start.

        That is to be awake in time for the next look, too: of those who wait, nobody may know of it.
        """
        if len(self._held) > 1 or self._look_is_due() or self._all_would_oversleep():
            self._changed.notify()

    def _all_would_oversleep(self) -> bool:
        return bool(self._alarms) and self._trips < MAX_TRIPS - self._lent and min(self._alarms) > self._due_at()

    def _due_at(self) -> float:
        """When there is, or was, something to do that needs a trip."""
        return max(0.0 if self._handed_in or self._rings > self._rings_heeded else self._look_at, self._retry_at)

    def _limit(self) -> int:
        """How many jobs a trip that starts now may bring."""
        wanted = 0 if self._closing else self._idle + self._demand.ahead() - len(self._held) - self._asked
        return self._demand.limit(max(0, wanted))

    def _wait(self) -> None:
        """Wait until somebody rings, or until there will be something to do. Called with the lock."""
        now = time.monotonic()
        if self._trips >= MAX_TRIPS - self._lent or (not self._handed_in and self._limit() < 1):
            alarm = now + self._poll_seconds  # whoever comes back from a trip sees to what is to be done
        else:
            alarm = self._due_at()
        self._alarms.append(alarm)
        try:
            self._changed.wait(max(_SHORTEST_WAIT, alarm - now))
        finally:
            self._alarms.remove(alarm)

    # --- trips

    def _travel(self, *, by_worker: bool = True) -> None:
        """Carry out all that was handed in, and bring jobs. Called with the lock, which is given up on the way."""
        limit, rings = self._limit(), self._rings
        if limit > 0:
            self._look_at = time.monotonic() + self._poll_seconds
        carried, self._handed_in = one_of_each_job(self._handed_in)
        self._on_trips.append(carried)
        self._trips += 1
        self._asked += limit
        request = self._demand.ask(limit)
        self._lock.release()
        arrival = Arrival(unsent=carried)
        try:
            arrival = self._carrier.travel(carried, request)
        finally:
            self._lock.acquire()
            self._trips -= 1
            self._asked -= limit
            self._rings += self._demand.receive(request, arrival.trip.claimed if arrival.trip else ())
            self._on_trips = [trip for trip in self._on_trips if trip is not carried]
            self._arrive(arrival, request, rings, carried)
            # One of the jobs is for the traveller itself, unless it has to leave again.
            # A traveller that is no worker leaves it to one of them to look again, or later.
            stays = by_worker and not self._handed_in
            self._changed.notify(max(0 if by_worker else 1, len(self._held) - stays))
            if self._lent:
                self._changed.notify_all()

    def _arrive(self, arrival: Arrival, request: TripRequest, rings: int, carried: Sequence[HandedIn]) -> None:
        self._handed_in[:0] = arrival.unsent
        self._locked_out += arrival.locked
        if self._closing:
            self._changed.notify_all()
        # A moment is known to the database only; and whoever saves a retry does not see it in the same statement.
        if any(kept.outcome.start_at is not None for kept in carried):
            self._rings += 1
        trip = arrival.trip
        if trip is None:
            self._rings += 1
            self._retry_at = time.monotonic() + self._backoff.next() if arrival.unsent or not carried else 0.0
            return
        self._backoff.reset()
        self._retry_at = 0.0
        now = time.monotonic()
        # Never later than it is: another trip, on its way at the same time, may know more.
        self._look_at = min(self._look_at, now + self._seconds_until_due(trip.next_due_in, carried))
        if trip.claimed and self._closing:
            self._hand_in_released(_Held(job, now) for job in trip.claimed)
        elif trip.claimed:
            self._held.extend(_Held(job, now) for job in trip.claimed)
            self.call_keeper()
        if len(trip.claimed) < request.limit and request.sees_all:
            self._rings_heeded = max(self._rings_heeded, rings)
        elif request.limit > 0:
            self._rings += 1

    def _seconds_until_due(self, next_due_in: timedelta | None, carried: Sequence[HandedIn]) -> float:
        """How long nothing will be due, as far as this trip knows: what it saved itself it could not see."""
        delays = [kept.outcome.delay for kept in carried if kept.outcome.delay is not None]
        if next_due_in is not None:
            delays.append(next_due_in)
        return min([self._poll_seconds, *(delay.total_seconds() for delay in delays)])

    # --- for whoever hears of jobs

    def ring(self) -> None:
        """Have the queue looked at: there may be something in it."""
        with self._lock:
            self._rings += 1
            self._changed.notify()

    def poll_every(self, seconds: float) -> None:
        """Look at the queue at least this often, from now on."""
        with self._lock:
            self._poll_seconds = min(self._poll_seconds, seconds)
            self._look_at = min(self._look_at, time.monotonic() + self._poll_seconds)
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
            if not (self._held or self._handed_in or self._on_trips or self._locked_out or self._closing):
                self._anything_kept.clear()

    def kept_fences(self) -> list[Fence]:
        """Return the claims that nobody but the keeper beats for."""
        with self._lock:
            outcomes = [*self._handed_in, *chain.from_iterable(self._on_trips), *self._locked_out]
            return [fence_of(held.job) for held in self._held] + [kept.outcome.fence for kept in outcomes]

    def drop(self, lost: Sequence[Fence]) -> list[Fence]:
        """Do not start jobs that are held with claims that were lost; return the claims of those."""
        with self._lock:
            dropped = [fence for held in self._held if (fence := fence_of(held.job)) in lost]
            self._held = deque(held for held in self._held if fence_of(held.job) not in lost)
            for fence in dropped:
                self._rings += self._demand.give_back(fence)
            return dropped

    def hand_back(self, longer_than: float) -> int:
        """Release jobs that have been held unstarted for *longer_than* seconds; return how many."""
        with self._lock:
            before = time.monotonic() - longer_than
            late = [held for held in self._held if held.since <= before]
            if late:
                self._held = deque(held for held in self._held if held.since > before)
                self._hand_in_released(late)
            return len(late)

    def _hand_in_released(self, unstarted: Iterable[_Held]) -> None:
        for held in unstarted:
            self._rings += self._demand.give_back(fence_of(held.job))
            self._handed_in.append(HandedIn(Outcome.released(held.job), held.since))

    def carry_overdue(self, longer_than: float) -> None:
        """Make a trip, if something was handed in *longer_than* seconds ago and no worker has taken it."""
        with self._lock:
            if self._handed_in and self._may_travel() and time.monotonic() - self._handed_in[0].since >= longer_than:
                self._travel(by_worker=False)

    def carry_locked_out(self) -> None:
        """Try again to save outcomes whose rows were locked: one alone, or those of one bundle, at a time."""
        with self._lock:
            if not self._locked_out or not self._may_travel():
                return
            first = self._locked_out[0].outcome
            carried = [
                kept
                for kept in self._locked_out
                if kept.outcome is first or (first.bundle_id and kept.outcome.bundle_id == first.bundle_id)
            ]
            self._locked_out = [kept for kept in self._locked_out if kept not in carried]
            self._on_trips.append(carried)
            self._trips += 1
        arrival = Arrival(locked=carried)
        try:
            arrival = self._carrier.save_apart(carried)
        finally:
            with self._lock:
                self._trips -= 1
                self._on_trips = [trip for trip in self._on_trips if trip is not carried]
                self._locked_out += [*arrival.locked, *arrival.unsent]
                self._changed.notify_all()

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
                self._changed.notify()

    # --- ending

    def close(self) -> None:
        """Claim nothing more, and hand back what is held; workers end when what was handed in is saved."""
        with self._lock:
            self._closing = True
            self._hand_in_released(self._held)
            self._held.clear()
            self._changed.notify_all()
        self.call_keeper()

    def abandon(self) -> None:
        """Have workers end although something that they handed in is not saved."""
        with self._lock:
            self._closing = self._abandoned = True
            self._changed.notify_all()

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
            return self._changed.wait_for(lambda: self._is_saved, timeout)

    @property
    def _is_saved(self) -> bool:
        return not (self._running or self._handed_in or self._on_trips or self._locked_out)

    def release(self, job: Job) -> bool:
        """Give back a job whose handler does not end; return whether it had not. The fence refuses what it leads to."""
        with self._lock:
            is_running = fence_of(job) in self._running
            if is_running:
                self._running.discard(fence_of(job))
                self._hand_in_released([_Held(job, time.monotonic())])
        self.call_keeper()
        return is_running
