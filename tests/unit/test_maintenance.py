"""What a round of maintenance does and does not do, and when the next one comes."""

from collections import deque
from datetime import timedelta

import pytest

from jobqueue.backends.memory import MemoryQueue, MemoryStore
from jobqueue.backends.memory.worker_store import MemoryWorkerStore
from jobqueue.errors import BackendError, RefusedError, UnavailableError
from jobqueue.outcomes import Outcome
from jobqueue.store import Round, SilenceCounts, always_counts
from tests.fixtures.parts import Parts
from tests.fixtures.stores import Clock, add, claim, claim_one, make_bundle, make_job

SECOND = timedelta(seconds=1)
DEAD_FOR = timedelta(minutes=1)


class NotedWorkerStore(MemoryWorkerStore):
    """A memory backend's, which notes what maintenance calls; the next calls end with *failures*, unless None."""

    def __init__(self, *failures: BackendError | None) -> None:
        self.clock = Clock()
        self.store = MemoryStore(MemoryQueue(), now=self.clock)
        super().__init__(self.store.for_workers(lock_timeout=SECOND)._session)
        self._failures = deque(failures)
        self.calls: list[str] = []

    def make_round(
        self,
        dead_for: timedelta,
        max_rescues: int,
        *,
        kept_for: timedelta | None = None,
        if_counts: SilenceCounts = always_counts,
    ) -> Round:
        self._note("round" if kept_for else "round without bundles")
        return super().make_round(dead_for, max_rescues, kept_for=kept_for, if_counts=if_counts)

    def delete_succeeded_bundles(self, kept_for: timedelta) -> int:
        self._note("bundles")
        return super().delete_succeeded_bundles(kept_for)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self._failures and (failure := self._failures.popleft()):
            raise failure

    def complete_bundle(self) -> None:
        """Have a bundle that is to be deleted."""
        self.store.add_bundle(make_bundle(1, delete_when_succeeded=True))
        self.save_outcomes([Outcome.finished(job) for job in claim(self, 1)])
        self.clock.advance(DEAD_FOR)


class Maintained:
    """The maintenance of a pool over such a store."""

    def __init__(self, *failures: BackendError | None, dead_for: timedelta = DEAD_FOR) -> None:
        self.store = NotedWorkerStore(*failures)
        self._parts = Parts(self.store, dead_for=dead_for)

    def tick(self) -> float:
        """Make a round; return how many seconds later the next one comes, about."""
        self._parts.maintenance.tick()
        return self.interval

    @property
    def interval(self) -> float:
        return self._parts.maintenance._interval

    def state(self, part: str) -> str:
        return str(self._parts.health.report()["parts"][part]["state"])


def test_who_waits_makes_one_call_a_round() -> None:
    """When there is nothing to do, a round is one call, and the next one comes after a quarter of dead_for."""
    maintained = Maintained()
    assert [maintained.tick(), maintained.tick()] == [15, 15]
    assert maintained.store.calls == ["round", "round"]


@pytest.mark.parametrize(("dead_for", "interval"), [(3, 0.75), (40, 10), (3600, 15)])
def test_a_quarter_of_dead_for(dead_for: float, interval: float) -> None:
    """Rounds come every quarter of dead_for, and no less often than every 15 s."""
    assert Maintained(dead_for=timedelta(seconds=dead_for)).tick() == interval


def test_the_first_round_comes_soon() -> None:
    """Before the first round nobody knows what there is to do."""
    assert Maintained().interval == 4


def test_while_a_claim_is_in_doubt() -> None:
    """As long as a claim has missed beats, rounds come every 4 s."""
    maintained = Maintained()
    add(maintained.store.store, make_job())
    job = claim_one(maintained.store)
    assert maintained.tick() == 15
    maintained.store.clock.advance(DEAD_FOR * 0.7)
    assert maintained.tick() == 4
    maintained.store.touch_jobs([job.fence])
    assert maintained.tick() == 15


@pytest.mark.parametrize("error", [RefusedError("no"), UnavailableError("gone")])
def test_a_round_that_fails_is_made_again_soon(error: BackendError) -> None:
    """After an error of any kind the next round comes soon."""
    maintained = Maintained(None, error)
    assert [maintained.tick(), maintained.tick(), maintained.tick()] == [15, 4, 15]


def test_bundles_are_deleted_when_there_are_any() -> None:
    """Bundles are deleted when the round has found some, and where some were deleted, more are soon looked for."""
    maintained = Maintained()
    maintained.tick()
    maintained.store.complete_bundle()
    assert [maintained.tick(), maintained.tick()] == [4, 15]
    assert maintained.store.calls == ["round", "round", "bundles", "round"]


def test_a_round_that_fails_keeps_no_bundle() -> None:
    """A round that the database refuses keeps no bundle from being deleted, and the next round asks for none."""
    maintained = Maintained(RefusedError("no"))
    maintained.store.complete_bundle()
    for _ in range(3):
        maintained.tick()
    assert maintained.store.calls == ["round", "bundles", "round without bundles", "bundles", "round"]
    assert maintained.store.store.get_status().num_job_bundles == 0
    assert maintained.state("reaper") == "up"


def test_bundles_that_are_not_deleted_keep_no_claim() -> None:
    """A deletion that the database refuses keeps no round from being made, and is tried as long as there is need."""
    maintained = Maintained(None, RefusedError("no"))
    maintained.store.complete_bundle()
    maintained.tick()
    assert maintained.state("sweeper of bundles") == "down"
    maintained.tick()
    assert maintained.store.calls == ["round", "bundles", "round", "bundles"]
    assert maintained.store.store.get_status().num_job_bundles == 0
    assert maintained.state("sweeper of bundles") == "up"


def test_a_database_that_is_away_is_asked_once() -> None:
    """When the database does not answer a round, nothing else is asked of it."""
    maintained = Maintained(UnavailableError("gone"))
    maintained.store.complete_bundle()
    maintained.tick()
    assert maintained.store.calls == ["round"]
    assert maintained.state("workers") == "down"
