"""The thread that sees to schedules. Every process runs it; there is no leader, and no handler is needed."""

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from jobqueue.errors import BackendError, UnavailableError
from jobqueue.health import Health
from jobqueue.schedule_store import ScheduleStore
from jobqueue.schedules import Schedule
from jobqueue.service import Service
from jobqueue.threads import Backoff, StoppableThread
from jobqueue.ticking import declare, tick_all
from jobqueue.worker.contact import Contact
from jobqueue.worker.dispatcher import Dispatcher

logger = logging.getLogger(__name__)

_LONGEST_PAUSE: Final = 60.0
# Whoever adds the first schedule is heard.
_LONGEST_REST: Final = 900.0
_SHORTEST_PAUSE: Final = 0.01
# Who comes second finds nothing to do, which costs less than to try at the same time.
_SPREAD: Final = 0.05


class Scheduler(StoppableThread):
    """Sleeps until the next tick of any schedule, or until schedules are changed.

    *declared* is what the code says of schedules, which is brought to the database first.
    """

    def __init__(
        self,
        service: Service,
        store: ScheduleStore,
        declared: Sequence[Schedule],
        *,
        contact: Contact,
        dispatcher: Dispatcher,
        health: Health,
    ) -> None:
        super().__init__("jobqueue-scheduler")
        self._service = service
        self._store = store
        self._declared = list(declared)
        self._contact = contact
        self._dispatcher = dispatcher
        self._vital = health.vital("scheduler")
        self._woken = threading.Event()
        self._failing = frozenset[str]()
        self._delays = Backoff(first=1.0, cap=_LONGEST_PAUSE)
        self._outage_delays = Backoff()
        self._pause = 0.0

    def wake(self) -> None:
        """Have schedules looked at now: they were changed, or may have been."""
        self._woken.set()

    def stop(self) -> None:
        """Ask the thread to end."""
        super().stop()
        self.wake()

    def run(self) -> None:
        """See to ticks until stopped."""
        while not self._stopping.is_set():
            # Before the look, so that what is changed after it is looked at, too.
            self._woken.clear()
            self._attempt(self.tick)
            if not self._stopping.is_set():
                self._woken.wait(self._pause)

    def tick(self) -> None:
        """See to all that is due, once."""
        self._pause = self._delays.next()
        with self._dispatcher.lane():
            try:
                with self._contact.watched():
                    next_in = self._see_to_all()
            except UnavailableError as error:
                logger.debug("schedules have to wait: %s", error)
                # Ticks that are late by half a minute are missed.
                poll_interval = self._service.settings.poll_interval.total_seconds()
                self._pause = min(self._outage_delays.next(), poll_interval)
                self._delays.reset()
            except BackendError as error:
                if self._vital.failed(error):
                    logger.error("schedules do not tick, which is tried again: %s", error)  # noqa: TRY400 - it says it all
            else:
                self._outage_delays.reset()
                if self._vital.succeeded():
                    logger.warning("schedules tick again")
                self._sleep_for(next_in)

    def _see_to_all(self) -> timedelta | None:
        undeclared = self._declare()
        ticked = tick_all(self._service, self._store)
        for job in ticked.jobs:
            extra = {"job_id": str(job.id), "job_type": job.type}
            logger.debug("enqueued job %s (%s), as it is scheduled", job.id, job.type, extra=extra)
        self._report({**ticked.failures, **undeclared})
        return ticked.next_in

    def _declare(self) -> Mapping[str, Exception]:
        """Bring what the code says to the database; return what has kept it from there."""
        failures = dict[str, Exception]()
        for schedule in tuple(self._declared):
            try:
                declare(self._store, schedule, self._service.origin)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the others have to tick
                failures[schedule.name] = error
            else:
                self._declared.remove(schedule)
        return failures

    def _sleep_for(self, next_in: timedelta | None) -> None:
        is_listening = self._service.notifier.is_listening
        longest = _LONGEST_PAUSE
        if next_in is None:
            seconds = longest = _LONGEST_REST if is_listening else _LONGEST_PAUSE
        else:
            if not is_listening:
                longest = min(longest, self._service.settings.poll_interval.total_seconds())
            seconds = next_in.total_seconds() + random.uniform(0, _SPREAD)  # noqa: S311 - spreads processes
        if not self._failing:
            self._delays.reset()
            self._pause = max(_SHORTEST_PAUSE, min(seconds, longest))
        else:
            self._pause = max(_SHORTEST_PAUSE, min(seconds, longest, self._pause))

    def _report(self, failures: Mapping[str, Exception]) -> None:
        for name in failures.keys() - self._failing:
            logger.error("schedule %r does not tick, which is tried again", name, exc_info=failures[name])
        for name in self._failing - failures.keys():
            logger.warning("schedule %r ticks again, or is gone", name)
        self._failing = frozenset(failures)
