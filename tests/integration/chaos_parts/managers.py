"""Those in a chaos run who look after the queue: they cancel and reset jobs, pause types, and change a schedule."""

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

from jobqueue import JobNotFoundError
from jobqueue.errors import DuplicateScheduleError, ScheduleNotFoundError
from tests.integration.chaos_parts.plan import EVERY, MANAGED_SCHEDULE, PAUSED, SCHEDULES
from tests.integration.chaos_parts.traffic import Traffic

Act = Callable[[UUID], object]

_LOOK_EVERY = 0.5
_MOST_TO_DO = 200
_MOST_PAUSES = 2
_LONGEST_BETWEEN_PAUSES = 1.5
_LONGEST_PAUSE = 2.0
_LONGEST_PAUSE_OF_ALL = 0.6
_LONGEST_BETWEEN_CHANGES = 3.0
_LONGEST_BETWEEN_CLEANINGS = 4.0
_LONGEST_BETWEEN_LOOKS = 0.1


class Gauge:
    """Looks how much waits to be done, so that the workers keep up whatever is done to them."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._look)

    def _look(self) -> None:
        self._traffic.stopping.wait(_LOOK_EVERY)
        self._traffic.is_jammed = len(self._traffic.service.get_all_jobs_to_do()) > _MOST_TO_DO


class JobManager:
    """Cancels, resets, replays and reschedules jobs that were added a moment ago."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance
        service = traffic.service
        self._acts: dict[str, Act] = {
            "cancel": service.cancel_job,
            "reset": service.reset_job,
            "replay": service.replay_job,
            "reschedule": lambda job: service.reschedule_job(job, None),
        }

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._act_once)

    def _act_once(self) -> None:
        self._traffic.pause(self._chance)
        if not self._traffic.added:
            return
        job = self._chance.choice(list(self._traffic.added))
        act = self._chance.choice(list(self._acts))
        request = uuid4()
        self._traffic.recorder.note("request began", request=request, act=act, job=job)
        with suppress(JobNotFoundError):
            answer = self._acts[act](job)
            self._traffic.recorder.note("request ended", request=request, answer=answer is not False)


class PauseManager:
    """Pauses types, for a while or until they are resumed, a few at a time."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance
        self._paused: list[str] = []

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._act_once)

    def _act_once(self) -> None:
        self._traffic.pause(self._chance, _LONGEST_BETWEEN_PAUSES)
        while len(self._paused) >= _MOST_PAUSES:
            self._traffic.service.resume(self._paused[0])
            del self._paused[0]
        pattern = self._chance.choice(PAUSED)
        if self._chance.random() < 0.1:
            self._pause_for_a_while("*", _LONGEST_PAUSE_OF_ALL)
        elif self._chance.random() < 0.5:
            self._pause_for_a_while(pattern, _LONGEST_PAUSE)
        else:
            self._paused.append(pattern)  # although nobody knows, if this fails, whether it is
            self._traffic.service.pause(pattern)

    def _pause_for_a_while(self, pattern: str, longest: float) -> None:
        until = timedelta(seconds=self._chance.uniform(0.2, longest))
        self._traffic.service.pause(pattern, until=until, reason="for a while")


class ScheduleManager:
    """Adds the schedules, and changes one of them again and again."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance
        self._missing = set(SCHEDULES)
        service = traffic.service
        self._acts = [
            service.pause_schedule,
            service.resume_schedule,
            service.run_schedule_now,
            self._replace,
        ]

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._act_once)

    def _act_once(self) -> None:
        for name in sorted(self._missing):
            self._add(name)
            self._missing.discard(name)
        self._traffic.pause(self._chance, _LONGEST_BETWEEN_CHANGES)
        with suppress(ScheduleNotFoundError):
            self._chance.choice(self._acts)(MANAGED_SCHEDULE)

    def _add(self, name: str) -> None:
        # Sometimes longer than it takes until the next tick, where a tick is to be skipped then.
        payload = {"seconds": 1.2 if SCHEDULES[name] == "skip" else 0.05, "times": 0}
        with suppress(DuplicateScheduleError):
            self._traffic.service.add_schedule(
                name, name, payload, every=EVERY, missed="all", overlap=SCHEDULES[name], origin="traffic"
            )

    def _replace(self, name: str) -> None:
        self._missing.add(name)
        self._traffic.service.remove_schedule(name)
        self._traffic.pause(self._chance)


class Cleaner:
    """Has what was kept for long enough removed at once, beside the workers, which take their time."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._clean)

    def _clean(self) -> None:
        self._traffic.pause(self._chance, _LONGEST_BETWEEN_CLEANINGS)
        self._traffic.service.clean()


class Ticker:
    """Sees to ticks beside the workers, so often that several do so at the same moment."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance

    def run(self) -> None:
        """Go on until the traffic stops."""
        self._traffic.repeat(self._tick)

    def _tick(self) -> None:
        self._traffic.pause(self._chance, _LONGEST_BETWEEN_LOOKS)
        self._traffic.service.tick_schedules()
