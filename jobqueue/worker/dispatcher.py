"""How claims and outcomes travel: what has come together goes in one trip, made by the worker that needs it most.

There is no thread of its own for it. A worker that ends a job hands its outcome in and asks for the next job; it then
makes a trip itself, for everybody: one statement and one commit that carries all outcomes handed in so far out, and
jobs for all workers that have none in. Meanwhile the others go on, and what they hand in goes with the next trip. Idle,
that is one outcome, saved at once; busy, trips grow by themselves. docs/how-a-trip-works.md tells it at length.
"""

import logging
import time
from collections.abc import Generator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from math import inf
from typing import Final

from jobqueue.models import Job
from jobqueue.outcomes import Trip
from jobqueue.settings import WorkerSettings
from jobqueue.threads import Backoff
from jobqueue.worker.back_offs import BackOffs
from jobqueue.worker.carrier import Arrival, Carrier
from jobqueue.worker.contact import Contact
from jobqueue.worker.demand import NONE_CLOSED, Demand, TripRequest
from jobqueue.worker.desk import Desk
from jobqueue.worker.gate import Gate
from jobqueue.worker.in_hand import InHand
from jobqueue.worker.outbox import HandedIn, shortest_delay

logger = logging.getLogger(__name__)

MAX_TRIPS: Final = 2
"""How many trips may be on their way at the same time; each has a connection to itself."""

_SECONDS_TO_COMBINE: Final = 0.005


class Dispatcher(InHand):
    """Gives jobs to workers and takes their outcomes, over the trips that they make."""

    def __init__(
        self,
        carrier: Carrier,
        demands: Sequence[Demand],
        settings: WorkerSettings,
        contact: Contact,
        back_offs: BackOffs,
    ) -> None:
        super().__init__(demands, settings)
        self._carrier = carrier
        self._back_offs = back_offs
        self._gate: Gate | None = None
        self._batch_size = settings.batch_size
        self._contact = contact
        self._backoff = Backoff()
        self._brings_suspects = False  # whether the last trip that brought jobs brought such
        self._trips = 0  # trips on their way
        self._lent = 0  # lanes for trips that are kept free for maintenance
        self._retry_at = 0.0  # when to travel again after the database did not answer

    # --- for workers

    def next_job(self, desk: Desk | None = None) -> Job | None:
        """Wait at *desk*, or at that for all, for a job to run; None means that the worker is to end."""
        desk = desk or self._desks[0]
        with self._lock:
            desk.idle += 1
            try:
                while not (self._closing and self._is_over()):
                    now = time.monotonic()
                    may_start = self._may_start_job(desk, now)
                    is_to_travel = self._may_travel(now) and self._trip_is_due(desk, now, may_start=may_start)
                    if self._gate is not None and self._is_to_ask(
                        self._gate, desk, now, is_to_travel=is_to_travel, may_start=may_start
                    ):
                        self._ask(self._gate)
                    elif is_to_travel:
                        self._travel(desk)
                    elif may_start:
                        self._pass_duty_on(desk, now)
                        return self._give_out(desk)
                    else:
                        desk.wait_until(self._alarm(desk, now), now)
                return None
            finally:
                desk.idle -= 1

    def _is_over(self) -> bool:
        return self._abandoned or self._contact.is_dead or not self._outbox.waiting

    def _may_travel(self, now: float) -> bool:
        return self._trips < MAX_TRIPS - self._lent and now >= self._retry_at

    def _trip_is_due(self, desk: Desk, now: float, *, may_start: bool) -> bool:
        """Whether to travel rather than to start a job, if there is one: nobody knows how long that will take."""
        if self._is_enough_handed_in:
            return True
        if may_start and not 0 < self._ahead(desk) >= 2 * len(desk.held):
            return False
        if self._is_enough_wanted(desk) and desk.looks.is_due(now):
            return True
        return not may_start and now >= self._small_trip_due_at(desk)

    @property
    def _is_enough_handed_in(self) -> bool:
        return 0 < len(self._outbox.waiting) * 2 >= (1 if self._suspects else self._batch_size)

    def _is_enough_wanted(self, desk: Desk) -> bool:
        limit = self._limit(desk)
        return limit > 0 and (limit * 2 >= self._ahead(desk) or desk.idle > len(desk.held) + desk.asked)

    def _small_trip_due_at(self, desk: Desk) -> float:
        """When to travel for little. What comes while somebody else is on the way goes with the next trip, but soon."""
        waiting = self._outbox.waiting
        if self._trips:
            return waiting[0].since + _SECONDS_TO_COMBINE if waiting else inf
        if waiting:
            return 0.0
        return desk.looks.due_at if self._limit(desk) > 0 else inf

    def _may_start_job(self, desk: Desk, now: float) -> bool:
        if self._back_offs.is_any and (closed := self._back_offs.closed()):
            self._hand_back(desk, desk.held.take_types(closed))
        if not desk.held or self._closing:
            return False
        first = desk.held.first
        if first.job.rescue_count and self._outbox.is_moving:
            return False
        # When nobody has heard of us, or of a claim, for dead_for, somebody else may have it: the next beat will tell.
        return now < first.kept_until or (self._carrier.stands(first.job) and not self._contact.is_dead)

    def _give_out(self, desk: Desk) -> Job:
        job = desk.held.take()
        self._running[job.fence] = desk
        return job

    def _pass_duty_on(self, desk: Desk, now: float) -> None:
        """Wake a waiting worker for what else there is to do: be it the next look, of which nobody else may know."""
        if len(desk.held) > 1 or now >= (due_at := self._due_at(desk)) or desk.all_oversleep(due_at):
            desk.wake_one()
        if self._outbox.waiting and not desk.alarms:
            self._wake()

    def _due_at(self, desk: Desk) -> float:
        """When there is, or was, something to do that needs a trip. Whoever comes back from one sees to it, too."""
        if self._trips >= MAX_TRIPS - self._lent:
            return inf
        if self._is_enough_handed_in:
            return self._retry_at
        look_due_at = desk.looks.due_at if self._is_enough_wanted(desk) else inf
        return max(min(look_due_at, self._small_trip_due_at(desk)), self._retry_at)

    def _alarm(self, desk: Desk, now: float) -> float:
        """Until when a worker may wait."""
        alarm = min(self._due_at(desk), now + desk.looks.poll_seconds, self._back_offs.next_end(now))
        if self._gate is not None and not self._gate.is_being_asked and not self._closing:
            alarm = min(alarm, self._gate.ask_again_at)
        return alarm

    def _ahead(self, desk: Desk) -> int:
        """How many jobs to hold besides those for idle workers: none that would share the fate of a suspect."""
        return 0 if self._suspects or self._brings_suspects else desk.demand.ahead

    def _limit(self, desk: Desk) -> int:
        """How many jobs a trip that starts now may bring: none when nobody is there to run them."""
        if not desk.idle or self._closing or (self._gate is not None and self._gate.is_being_asked):
            return 0
        wanted = max(0, desk.idle + self._ahead(desk) - len(desk.held) - desk.asked)
        return desk.demand.limit(wanted, self._closed())

    def _closed(self) -> AbstractSet[str]:
        """Name the types to claim nothing of, for now."""
        closed = self._back_offs.closed() if self._back_offs.is_any else NONE_CLOSED
        return closed if self._gate is None else closed | self._gate.closed

    # --- trips

    def _travel(self, desk: Desk, *, by_worker: bool = True) -> None:
        """Carry out all that was handed in, and bring jobs. Called with the lock, which is given up on the way."""
        now = time.monotonic()
        limit = self._limit(desk) if self._gate is None or self._gate.is_fresh(now) else 0
        reasons = self._begin_look(desk, now) if limit > 0 else 0
        carried = self._outbox.load()
        self._trips += 1
        desk.asked += limit
        if desk.held:
            desk.wake_one()
        request = desk.demand.ask(limit, self._closed())
        if limit > 0 and self._gate is not None:
            self._gate.use()
        self._lock.release()
        arrival = Arrival(unsent=carried)
        try:
            arrival = self._carrier.travel(carried, request)
        finally:
            self._lock.acquire()
            self._trips -= 1
            desk.asked -= limit
            desk.looks.add_reasons(desk.demand.receive(request, arrival.trip.claimed if arrival.trip else ()))
            self._outbox.unload(carried, unsent=arrival.unsent, locked=arrival.locked)
            self._arrive(desk, arrival, request, reasons, carried)
            # Who is no worker leaves it to them to run jobs, and to look again; a worker passes on what it leaves.
            if not by_worker:
                self._wake()
            elif len(self._desks) > 1:
                self._wake_for_looks()
            if self._lent:
                self._changed.notify_all()

    def _begin_look(self, desk: Desk, now: float) -> int:
        reasons = desk.looks.begin()
        # What this look leaves out may be open again before it comes back.
        if self._back_offs.is_any:
            desk.looks.expect_at(self._back_offs.next_end(now))
        return reasons

    def _arrive(
        self, desk: Desk, arrival: Arrival, request: TripRequest, reasons: int, carried: Sequence[HandedIn]
    ) -> None:
        if self._closing:
            self._tell_all()
        # A moment is known to the database only; and whoever saves a retry does not see it in the same statement.
        if any(kept.outcome.start_at is not None for kept in carried):
            self._add_reasons()
        if (trip := arrival.trip) is None:
            desk.looks.add_reasons()
            self._retry_at = time.monotonic() + self._backoff.next() if arrival.unsent or not carried else 0.0
            return
        self._backoff.reset()
        self._retry_at = 0.0
        desk.looks.expect_within(trip.next_due_in)
        for each in self._desks:
            each.looks.expect_within(shortest_delay(carried))  # what it has put off itself, it could not see
        desk.held.add(trip.claimed, arrival.kept_until)
        if trip.claimed:
            self._brings_suspects = any(job.rescue_count for job in trip.claimed)
            self._suspects.update(job.fence for job in trip.claimed if job.rescue_count)
            self.call_keeper()
        if self._closing or self._suspects:
            for each in self._desks:
                self._hand_back(each, each.held.take_all_but(0 if self._closing else each.idle))
        if request.limit > 0:
            self._note_look(desk, trip, request, reasons)

    def _note_look(self, desk: Desk, trip: Trip, request: TripRequest, reasons: int) -> None:
        self._back_offs.heed(trip.backed_off)
        if len(trip.claimed) < request.limit and request.sees_all:
            desk.looks.heed(reasons)
        else:
            desk.looks.add_reasons()

    def _wake_for_looks(self) -> None:
        """Wake a worker of each desk whose next look is due before anybody there would wake for it."""
        for desk in self._desks:
            if desk.all_oversleep(desk.looks.due_at) and self._limit(desk) > 0:
                desk.wake_one()

    # --- for whoever hears of jobs

    def ring(self, job_type: str | None = None) -> None:
        """Have the queue looked at: there may be something in it, of that type or of any."""
        with self._lock:
            for desk in self._desks:
                if job_type is None or desk is self._desks[0] or desk.demand.includes(job_type):
                    desk.looks.add_reasons()
                    desk.wake_one()

    def poll_every(self, seconds: float) -> None:
        """Look at the queue at least this often, from now on."""
        with self._lock:
            for desk in self._desks:
                desk.looks.poll_every(seconds)
            self._tell_all()

    # --- what is held back

    def set_gate(self, gate: Gate | None) -> None:
        """Ask *gate* before each claim, in place of any other."""
        with self._lock:
            self._gate = gate
            self._add_reasons()
            self._wake()

    def _is_to_ask(self, gate: Gate, desk: Desk, now: float, *, is_to_travel: bool, may_start: bool) -> bool:
        if gate.is_being_asked or self._closing:
            return False
        if is_to_travel and self._limit(desk) > 0 and not gate.is_fresh(now):
            return True
        return now >= gate.ask_again_at and not may_start

    def _ask(self, gate: Gate) -> None:
        """Ask what is open. Called with the lock, which is given up meanwhile: outcomes may travel, claims may not."""
        questions = gate.questions(time.monotonic())
        answers: dict[str, bool] = {}
        self._lock.release()
        try:
            answers = gate.answers(questions)
        finally:
            self._lock.acquire()
            if gate.take(answers):
                self._add_reasons()
            self._wake()

    def admits(self, job: Job) -> bool:
        """Whether a job that was given out may start; if not, it is given back, at no cost."""
        gate = self._gate
        if gate is None or gate.knows(job.type) or gate.admits(job.type):
            return True
        with self._lock:
            gate.close(job.type)
        self.release(job)
        return False

    def note_back_off(self) -> None:
        """Look again when the first of what is backed off from may be claimed."""
        with self._lock:
            for desk in self._desks:
                desk.looks.expect_at(self._back_offs.next_end(time.monotonic()))
            self._wake_for_looks()

    def carry_overdue(self, longer_than: float) -> None:
        """Make a trip, if something was handed in *longer_than* seconds ago and no worker has taken it."""
        with self._lock:
            now = time.monotonic()
            if (waiting := self._outbox.waiting) and self._may_travel(now) and now - waiting[0].since >= longer_than:
                self._travel(self._desks[0], by_worker=False)

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

    @contextmanager
    def lane(self) -> Generator[None]:
        """Keep one lane for trips free within the block, for something that may take its time: one at a time."""
        with self._lock:
            self._changed.wait_for(lambda: not self._lent or self._closing)
            self._lent += 1
            self._changed.wait_for(lambda: self._trips < MAX_TRIPS or self._closing)
        try:
            yield
        finally:
            with self._lock:
                self._lent -= 1
                self._changed.notify_all()
                self._wake()
