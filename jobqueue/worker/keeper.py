"""The thread that looks after claims that no worker is running: held ahead, handed in, waiting for the database."""

import time
from datetime import timedelta
from typing import Final

from jobqueue.errors import BackendError
from jobqueue.models import Fence
from jobqueue.store import WorkerStore
from jobqueue.threads import StoppableThread
from jobqueue.worker.contact import Contact
from jobqueue.worker.dispatcher import Dispatcher
from jobqueue.worker.lost_claims import LostClaims

_TICK: Final = 0.1
_TICKS_UNTIL_REST: Final = 10
_OVERDUE: Final = 0.1
_HELD_TOO_LONG: Final = 1.0
_PAUSE_AFTER_ERROR: Final = 1.0


class Keeper(StoppableThread):
    """Beats for what is kept, and is the second line behind the workers: carries what waits, hands back what is stuck.

    It ticks while there is something to keep, and sleeps otherwise.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        store: WorkerStore,
        interval: timedelta | None,
        contact: Contact,
        lost_claims: LostClaims,
    ) -> None:
        super().__init__("jobqueue-keeper")
        self._dispatcher = dispatcher
        self._store = store
        self._interval = None if interval is None else interval.total_seconds()
        self._contact = contact
        self._lost_claims = lost_claims
        self._idle_ticks = 0
        self._beat_again_at = 0.0

    def stop(self) -> None:
        """Ask the thread to end."""
        super().stop()
        self._dispatcher.call_keeper()

    def run(self) -> None:
        """Keep until stopped."""
        while not self._stopping.is_set():
            self._dispatcher.wait_for_keeping()
            self._attempt(self.tick)
            if self._idle_ticks >= _TICKS_UNTIL_REST:
                self._dispatcher.rest()
            self._stopping.wait(_TICK)

    def tick(self) -> None:
        """Do what is due."""
        fences = self._dispatcher.kept_fences()
        self._idle_ticks = 0 if fences else self._idle_ticks + 1
        if self._interval is not None:
            self._beat(fences, self._interval)
        self._dispatcher.hand_back(longer_than=_HELD_TOO_LONG)
        self._dispatcher.carry_overdue(longer_than=_OVERDUE)
        self._dispatcher.carry_locked_out()

    def _beat(self, fences: list[Fence], interval: float) -> None:
        now = time.monotonic()
        due = [fence for fence in fences if now - self._lost_claims.alive_at(fence) >= interval / 2]
        if not due or now < self._beat_again_at:
            return
        try:
            with self._contact.watched():
                owned = self._store.touch_jobs(due)
        except BackendError:
            self._beat_again_at = now + min(interval / 2, _PAUSE_AFTER_ERROR)
            return
        self._lost_claims.beaten([fence for fence in due if fence.job_id in owned], now)
        lost = [fence for fence in due if fence.job_id not in owned]
        for fence in self._dispatcher.drop(lost):
            self._lost_claims.note(fence, "its row no longer shows this claim, and it had not been started")
            self._lost_claims.forget(fence)
