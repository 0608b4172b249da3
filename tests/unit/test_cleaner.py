"""The walk of retention: where it goes on, when it begins anew, and how it gets past what cannot go."""

from collections import deque
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from jobqueue import Retention, cleaner
from jobqueue.backends.memory import MemoryQueue, MemoryStore
from jobqueue.cleaner import Cleaner
from jobqueue.cleaning import CleanResult, Found
from jobqueue.errors import LockTimeoutError, RefusedError, UnavailableError
from jobqueue.models import Job
from jobqueue.outcomes import Outcome, RunError
from jobqueue.retention import KEEP_ALL
from tests.fixtures.stores import Clock, add, claim, make_job

DAY: Final = timedelta(days=1)
RETENTION: Final = Retention(succeeded=DAY, failed=None)
LONG: Final = 1000.0


class Time:
    """What time it is for the walk; each look takes *seconds*."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.now


class Noted:
    """The rows of a store, and what is done to them; *stuck* jobs cannot go, and the next calls end with *failures*."""

    def __init__(self, store: MemoryStore, time: Time) -> None:
        self._cleaning = store.cleaning
        self._time = time
        self.looks: list[object] = []
        self.removals: list[int] = []
        self.stuck: set[UUID] = set()
        self.failures: deque[Exception] = deque()

    def find_jobs(self, retention: Retention, **which: Any) -> Found:
        self.looks.append(which["after"])
        self._time.now += self._time.seconds
        if self.failures:
            raise self.failures.popleft()
        return self._cleaning.find_jobs(retention, **which)

    def find_bundles(self, retention: Retention, **which: Any) -> Found:
        return self._cleaning.find_bundles(retention, **which)

    def remove_jobs(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        self.removals.append(len(ids))
        if self.stuck.intersection(ids):
            raise RefusedError("referred to")
        return self._cleaning.remove_jobs(retention, ids)

    def remove_bundles(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        return self._cleaning.remove_bundles(retention, ids)


class Scene:
    """A queue in memory, and a cleaner of it, by clocks that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = Time()
        monkeypatch.setattr(cleaner, "time", self.time)
        monkeypatch.setattr(cleaner, "_JOBS_AT_A_TIME", 4)
        self.clock = Clock()
        self.store = MemoryStore(MemoryQueue(), now=self.clock)
        self.workers = self.store.for_workers(lock_timeout=DAY)
        self.cleaning = Noted(self.store, self.time)
        self.cleaner = Cleaner(self.cleaning, RETENTION, keeps_behind=True)

    def end(self, number: int = 1, *, fail: bool = False) -> list[Job]:
        """Have so many jobs that have stopped, one second after the other."""
        jobs = []
        for _ in range(number):
            self.clock.advance(timedelta(seconds=1))
            jobs += add(self.store, make_job())
            (job,) = claim(self.workers)
            error = RunError(message="e", type="E", traceback="")
            self.workers.save_outcomes([Outcome.failed(job, error) if fail else Outcome.finished(job)])
        return jobs

    def left(self) -> int:
        return self.store.get_status().num_jobs

    def go_on(self, seconds: float = LONG) -> int:
        """Make a round; return how many jobs it has removed."""
        self.cleaning.looks.clear()
        self.cleaning.removals.clear()
        return self.cleaner.go_on(seconds).jobs


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_nothing_to_do_is_one_look_in_minutes(scene: Scene) -> None:
    """When there is nothing, a process looks once, and is not due again for some minutes."""
    assert not scene.cleaner.is_due
    scene.time.now += 120
    assert scene.cleaner.is_due
    assert scene.go_on() == 0
    assert len(scene.cleaning.looks) == 1
    scene.time.now += 239
    assert not scene.cleaner.is_due
    scene.time.now += 121
    assert scene.cleaner.is_due


def test_who_keeps_all_is_never_due(scene: Scene) -> None:
    """There is nothing to look for."""
    idle = Cleaner(scene.cleaning, KEEP_ALL)
    scene.time.now += 10_000
    assert not idle.is_due
    assert idle.clean_all(None) == CleanResult()
    assert scene.cleaning.looks == [None]


def test_what_stays_is_passed_once(scene: Scene) -> None:
    """A walk goes on from where it was; what had to stay is looked at again after an hour."""
    scene.end(6, fail=True)
    scene.end(2)
    scene.clock.advance(2 * DAY)
    assert scene.go_on() == 2
    assert len(scene.cleaning.looks) == 3
    place = scene.cleaning.looks[-1]
    scene.end(1)
    scene.clock.advance(2 * DAY)
    scene.time.now += 400
    assert scene.go_on() == 1
    assert scene.cleaning.looks[0] == place
    assert len(scene.cleaning.looks) == 1
    scene.time.now += 3600
    assert scene.go_on() == 0
    assert scene.cleaning.looks[0] is None


def test_much_that_stays_is_looked_at_less_often(scene: Scene) -> None:
    """What has to stay takes half a percent of the time, and no more: the next walk comes two hundred times later."""
    scene.end(8, fail=True)
    scene.clock.advance(2 * DAY)
    scene.time.seconds = 10
    scene.go_on()
    scene.time.now += 3700
    scene.go_on()
    assert scene.cleaning.looks[0] is not None
    scene.time.now += 3000
    scene.go_on()
    assert scene.cleaning.looks[0] is None


def test_a_round_is_bounded(scene: Scene) -> None:
    """A round ends when its time is over; the next one is due at once, and goes on from there."""
    scene.end(9)
    scene.clock.advance(2 * DAY)
    scene.time.now += 120
    scene.time.seconds = 1
    assert scene.go_on(0.5) == 0
    assert scene.cleaner.is_due
    removed = 0
    for _ in range(10):
        removed += scene.go_on(0.5)
    assert (removed, scene.left()) == (9, 0)


def test_what_has_just_stopped_is_not_passed(scene: Scene) -> None:
    """A walk keeps behind, so that a job has time to stop, and to be old enough, before it is passed by."""
    scene.end(1)
    scene.clock.advance(DAY)
    scene.go_on()
    assert scene.left() == 1
    scene.clock.advance(timedelta(hours=1))
    scene.time.now += 400
    assert scene.go_on() == 1


def test_what_cannot_go_is_taken_apart(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """One of four that cannot go is found by halves, and logged once, however often it is met."""
    jobs = scene.end(4)
    scene.clock.advance(2 * DAY)
    scene.cleaning.stuck = {jobs[2].id}
    assert scene.go_on() == 3
    assert scene.cleaning.removals == [4, 2, 2, 1, 1]
    scene.time.now += 100_000
    assert scene.go_on() == 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"job {jobs[2].id} is old enough to be removed, but cannot be: referred to" in caplog.text


def test_what_is_wrong_for_a_while_is_tried_later(scene: Scene) -> None:
    """After an error that is not about a row, nothing is done for some minutes; then it goes on."""
    scene.end(1)
    scene.clock.advance(2 * DAY)
    scene.time.now += 120
    scene.cleaning.failures.append(LockTimeoutError("locked"))
    with pytest.raises(LockTimeoutError):
        scene.go_on()
    assert not scene.cleaner.is_due
    scene.time.now += 400
    assert scene.go_on() == 1


def test_what_is_away_is_tried_soon(scene: Scene) -> None:
    """When the database was away, the next round goes on."""
    scene.end(1)
    scene.clock.advance(2 * DAY)
    scene.time.now += 120
    scene.cleaning.failures.append(UnavailableError("away"))
    with pytest.raises(UnavailableError):
        scene.go_on()
    assert scene.cleaner.is_due
    assert scene.go_on() == 1


def test_progress(scene: Scene) -> None:
    """Who cleans by hand is told how much it was so far."""
    scene.end(9)
    scene.clock.advance(2 * DAY)
    told: list[int] = []
    by_hand = Cleaner(scene.store.cleaning, RETENTION)
    assert by_hand.count_all() == CleanResult(jobs=9)
    by_hand = Cleaner(scene.store.cleaning, RETENTION)
    assert by_hand.clean_all(lambda removed: told.append(removed.jobs)) == CleanResult(jobs=9)
    assert told == [4, 8, 9]
