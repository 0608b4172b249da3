"""Where workers wait who take the same jobs: what is held for them, what is on its way, when they look again."""

import threading
from typing import Final

from jobqueue.worker.demand import Demand
from jobqueue.worker.held_jobs import HeldJobs
from jobqueue.worker.looks import Looks

_SHORTEST_WAIT: Final = 0.001


class Desk:
    """The workers of one lane, or those without one. Called under the dispatcher's lock."""

    def __init__(self, demand: Demand, lock: threading.RLock, poll_seconds: float) -> None:
        self.demand = demand
        self.looks = Looks(poll_seconds)
        self.held = HeldJobs()
        self.idle = 0
        """Workers that want a job."""
        self.asked = 0
        """Jobs that trips on their way may bring."""
        self.alarms: list[float] = []
        """When those who wait will wake by themselves."""
        self.worker_wanted = threading.Condition(lock)
        self._is_waking = False  # whether one of them was woken, and has not come to look what for

    def wait_until(self, alarm: float, now: float) -> None:
        """Have a worker wait until somebody wakes it, or until *alarm*."""
        self.alarms.append(alarm)
        try:
            self.worker_wanted.wait(max(_SHORTEST_WAIT, alarm - now))
        finally:
            self.alarms.remove(alarm)
            self._is_waking = False

    def wake_one(self) -> None:
        """Wake a waiting worker, unless one is on its way already, who will see what there is to do, and pass it on."""
        if self.alarms and not self._is_waking:
            self._is_waking = True
            self.worker_wanted.notify()

    def all_oversleep(self, moment: float) -> bool:
        """Whether workers wait, and all of them until after *moment*."""
        return bool(self.alarms) and min(self.alarms) > moment
