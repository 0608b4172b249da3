"""Whatever happens to a queue, claims that go on where the last ones ended take every job once, and in time."""

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest

from jobqueue import Job
from jobqueue.outcomes import Outcome
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.watermarks import Watermarks
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.stores import CLAIMANT, START, Connection, claim, insert_job, make_job

TRUSTED = 0.25
STEPS = 150


@attrs.define
class _Waiting:
    """A job that could be claimed, and since when."""

    priority: int
    since: float


class Story:
    """Random acts on a queue; *claim* checks all that is to be true of a claim."""

    def __init__(
        self,
        seed: int,
        store: PostgresStore,
        workers: PostgresWorkerStore,
        db: Connection,
        other_db: Connection,
    ) -> None:
        self.random = random.Random(seed)
        self.store, self.workers, self.db, self.other_db = store, workers, db, other_db
        self.seconds = 1000.0
        self.types = self.random.choice([["*"], ["a", "b"], ["a*", "b"]])
        workers._watermarks = Watermarks(lambda: self.seconds, worthwhile=3)
        self.waiting: dict[UUID, _Waiting] = {}
        self.claimed: dict[UUID, Job] = {}
        self.unseen: dict[UUID, int] = {}
        self.locked: dict[UUID, _Waiting] = {}
        self.narrow_looks = 0

    def tell(self) -> None:
        """Do something at random, many times; in the end, claim all that is left."""
        acts = [self.add] * 4 + [self.claim] * 6 + [self.let_time_pass] * 2
        acts += [self.add_and_commit_late, self.lock, self.end_other, self.release, self.reset]
        for _ in range(STEPS):
            self.random.choice(acts)()
        self.end_other()
        for _ in range(1000):
            if not self.waiting:
                break
            self.claim()
        assert not self.waiting
        assert claim(self.workers, 1, self.types) == []

    def add(self) -> None:
        jobs = [make_job(**self._columns()) for _ in range(self.random.randint(2, 12))]
        self.store.add_jobs(jobs)
        self.waiting.update({job.id: _Waiting(job.priority, self.seconds) for job in jobs})

    def add_and_commit_late(self) -> None:
        if not self.unseen and not self.locked:
            self.other_db.execute("begin")
            self.unseen = dict(self._insert(self.other_db) for _ in range(3))

    def lock(self) -> None:
        if self.waiting and not self.unseen and not self.locked:
            ids = self.random.sample(list(self.waiting), min(4, len(self.waiting)))
            self.other_db.execute("begin")
            self.other_db.execute("select from worker.job where id = any(%s) for update", [ids])
            self.locked = {id: self.waiting.pop(id) for id in ids}

    def end_other(self) -> None:
        self.other_db.execute("commit") if self.unseen or self.locked else None
        self.waiting.update({id: _Waiting(priority, self.seconds) for id, priority in self.unseen.items()})
        self.waiting.update({id: _Waiting(row.priority, self.seconds) for id, row in self.locked.items()})
        self.unseen, self.locked = {}, {}

    def let_time_pass(self) -> None:
        self.seconds += self.random.choice([0.01, 0.1, 0.2])

    def release(self) -> None:
        if self.claimed:
            job = self.claimed.pop(self.random.choice(list(self.claimed)))
            # The next look is to be full.
            self.waiting[job.id] = _Waiting(job.priority, self.seconds - TRUSTED)
            if self.random.random() < 0.5:
                self.workers.save_outcomes([Outcome.released(job)])
            else:
                self.claim(job)

    def reset(self) -> None:
        if self.claimed:
            job = self.claimed.pop(self.random.choice(list(self.claimed)))
            self.store.reset_jobs([job.id])
            self.waiting[job.id] = _Waiting(job.priority, self.seconds)

    def claim(self, released: Job | None = None) -> None:
        limit = self.random.randint(1, 5)
        self.narrow_looks += not self.workers._watermarks.next_look(self.types).is_full
        outcomes = [] if released is None else [Outcome.released(released)]
        jobs = self.workers.make_trip(outcomes, self.types, limit, CLAIMANT).claimed
        for job in jobs:
            del self.waiting[job.id]  # it was there, and is taken once
            self.claimed[job.id] = job
        assert [job.priority for job in jobs] == sorted((job.priority for job in jobs), reverse=True)
        # What a trip gives back it need not see.
        left = {id: row for id, row in self.waiting.items() if released is None or id != released.id}
        if len(jobs) < limit:
            assert not left, "there was more to be claimed"
        else:
            last, long_ago = jobs[-1].priority, self.seconds - TRUSTED
            overlooked = [row for row in left.values() if row.priority > last and row.since <= long_ago]
            assert not overlooked, "a job of a higher priority has waited for too long"

    def _columns(self) -> dict[str, Any]:
        priority = self.random.choice([-1, 0, 0, 0, 1, 2, self.random.randint(-3, 30)])
        start_at = START - timedelta(seconds=self.random.randint(0, 20))
        return {"type": self.random.choice("aaab"), "priority": priority, "start_at": start_at}

    def _insert(self, connection: Connection) -> tuple[UUID, int]:
        columns = self._columns()
        return insert_job(connection, **columns), columns["priority"]


@pytest.mark.parametrize("seed", range(6))
def test_a_random_story(
    seed: int, store: PostgresStore, worker_store: PostgresWorkerStore, db: Connection, other_db: Connection
) -> None:
    """No job is taken twice, none is left, and none waits long for jobs of a lower priority."""
    story = Story(seed, store, worker_store, db, other_db)
    story.tell()
    assert story.narrow_looks > 10
