"""The thread that shows that a claimed job is alive, one for each worker thread."""

import threading
import time
from datetime import timedelta

import attrs

from jobqueue.errors import BackendError
from jobqueue.job_context import JobContext
from jobqueue.models import Fence
from jobqueue.store import WorkerStore
from jobqueue.threads import StoppableThread
from jobqueue.worker.contact import Contact
from jobqueue.worker.lost_claims import LostClaims


@attrs.define(eq=False)
class _Run:
    """The run that is beaten for."""

    fence: Fence
    context: JobContext
    beaten_at: float
    is_lost: bool = False


class Heartbeat(StoppableThread):
    """Beats for the job that its worker thread runs, if any.

    The thread lives as long as its worker and looks twice per interval whether there is something to beat for, so that
    arming and disarming it is an assignment: starting a thread per job would cost more than most claims do.
    """

    def __init__(
        self,
        name: str,
        *,
        interval: timedelta,
        dead_for: timedelta,
        store: WorkerStore,
        contact: Contact,
        lost_claims: LostClaims,
    ) -> None:
        super().__init__(name)
        self._look_every = interval.total_seconds() / 2
        self._dead_for = dead_for.total_seconds()
        self._store = store
        self._contact = contact
        self._lost_claims = lost_claims
        self._run: _Run | None = None
        self._woken = threading.Event()
        self._is_asked = False

    def begin(self, fence: Fence, context: JobContext) -> None:
        """Beat for a claim from now on; tell *context* when it is lost."""
        # Somebody else has claimed it, or beaten for it last.
        alive_at = self._lost_claims.alive_at(fence)
        context.keep_until(alive_at + self._dead_for)
        self._run = _Run(fence, context, alive_at)

    def end(self) -> None:
        """Beat for it no more."""
        self._run = None

    def beat_now(self) -> None:
        """Beat at once, if there is something to beat for: its claim may have been lost without a word."""
        self._is_asked = True
        self._woken.set()

    def stop(self) -> None:
        """Ask the thread to end."""
        super().stop()
        self._woken.set()

    def run(self) -> None:
        """Beat until stopped."""
        while not self._stopping.is_set():
            self._woken.wait(self._look_every)
            self._woken.clear()
            if not self._stopping.is_set():
                self._attempt(self.tick)

    def tick(self) -> None:
        """Beat, if there is something to beat for and it has not been done just now, or somebody asks for it."""
        is_asked, self._is_asked = self._is_asked, False
        run = self._run
        asked_at = time.monotonic()
        if run is None or run.is_lost or (not is_asked and asked_at - run.beaten_at < self._look_every):
            return
        try:
            with self._contact.watched():
                owned = self._store.touch_jobs([run.fence])
        except BackendError:
            return  # if this goes on, the context runs out by itself, as it does while an answer is awaited
        if run.fence.job_id in owned:
            self._lost_claims.beaten([run.fence], asked_at)
            run.beaten_at = asked_at
            run.context.keep_until(asked_at + self._dead_for)
        elif self._run is run:
            # Not when the run has ended meanwhile: then the row may show its saved outcome.
            run.is_lost = True
            run.context.lose()
            self._lost_claims.note(run.fence, "its row no longer shows this claim")
