"""How runs of atomic handlers end when something comes between: one step at a time, without threads."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from jobqueue import Job, JobContext, Registry, State
from jobqueue.errors import UnavailableError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue.worker.atomic import AtomicRuns, RunEnd
from jobqueue.worker.runner import Runner
from jobqueue_pg.store import PostgresStore
from tests.fixtures.parts import Parts
from tests.fixtures.stores import Clock, Connection, add, claim_one, fetch_all, make_job

EFFECTS = "select * from effect"


@pytest.fixture
def clock() -> Clock:
    """Nobody here waits for a time to come."""
    return Clock(None)


@pytest.fixture(autouse=True)
def _effects(db: Connection) -> Iterator[None]:
    db.execute("create table effect (number int)")
    yield
    db.execute("drop table effect")


class Stage:
    """A worker that runs one atomic job, whose handler does *act*, and is beaten for before that and after it."""

    def __init__(self, workers: WorkerStore, service: QueueService, registry: Registry) -> None:
        self.parts = Parts(workers)
        runs = AtomicRuns(
            workers, registry, max_rescues=3, lost_claims=self.parts.lost_claims, health=self.parts.health
        )
        self._runner = Runner(service, registry, runs, self.parts.heartbeat)
        self._workers = workers
        self.contexts: list[JobContext] = []
        self.act: Callable[[], object] = lambda: None
        registry.handler("t", atomic=True)(self._handle)

    def _handle(self, ctx: JobContext, number: int) -> int:
        self.contexts.append(ctx)
        ctx.connection.execute("insert into effect values (%s)", [number])
        self.act()
        return number

    def play(self) -> RunEnd:
        """Run the job."""
        return self._runner.run(claim_one(self._workers))[0]


@pytest.fixture
def atomic_workers(store: PostgresStore) -> Iterator[WorkerStore]:
    """The store of a worker pool with a connection for an atomic handler."""
    with closing(store.for_workers(atomic_connections=1)) as workers:
        yield workers


@pytest.fixture
def stage(atomic_workers: WorkerStore, service: QueueService, registry: Registry) -> Stage:
    """A worker, and nobody else."""
    return Stage(atomic_workers, service, registry)


@pytest.fixture
def job(store: PostgresStore) -> Job:
    """What it is to run."""
    return add(store, make_job(payload=7))[0]


def test_nothing_is_seen_before_the_commit(
    stage: Stage, job: Job, atomic_workers: WorkerStore, db: Connection, monkeypatch: pytest.MonkeyPatch
):
    """When all is done, and saved, others see neither the work nor the completion; then they see both."""
    seen = list[object]()

    def look(_: object = None) -> None:
        seen.append((fetch_all(db, EFFECTS), fetch_all(db, "select result::text from worker.job")))

    _around_the_commit(monkeypatch, atomic_workers, before=look, after=look)
    assert stage.play().outcome is None
    assert seen == [([], [None]), ([7], ["7"])]


def test_an_unnoticed_loss_rolls_all_back(stage: Stage, job: Job, store: PostgresStore, db: Connection):
    """A claim that was lost, of which no beat and nobody has told, is found by the last statement: nothing is left."""
    stage.act = lambda: store.reset_jobs([job.id])
    assert stage.play().outcome is None
    assert fetch_all(db, EFFECTS) == []
    assert store.get_job(job.id).state is State.AVAILABLE
    assert stage.parts.counts() == (1, 1)


def test_a_beat_after_the_commit_finds_no_loss(
    stage: Stage, job: Job, atomic_workers: WorkerStore, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
):
    """Between the commit of a run and the moment at which its worker hears of it, no beat looks for its claim."""
    stage.act = stage.parts.beat
    _around_the_commit(monkeypatch, atomic_workers, after=stage.parts.beat)
    assert stage.play().outcome is None
    assert store.get_job(job.id).state is State.SUCCEEDED
    assert [context.is_lost for context in stage.contexts] == [False]
    assert stage.parts.counts() == (0, 0)


def test_a_commit_whose_answer_is_lost(
    stage: Stage,
    job: Job,
    atomic_workers: WorkerStore,
    store: PostgresStore,
    db: Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    """When nobody heard of the commit, a rescue is handed in, which the row refuses: that is no lost claim."""

    def lose_the_answer() -> None:
        raise UnavailableError("the connection was lost")

    _around_the_commit(monkeypatch, atomic_workers, after=lose_the_answer)
    ran = stage.play()
    assert ran.outcome is not None
    stage.parts.dispatcher.hand_in(ran.outcome, 0.0, may_be_saved=ran.may_be_saved)
    stage.parts.dispatcher.carry_overdue(longer_than=0)
    assert stage.parts.dispatcher.kept_fences() == []
    ended = store.get_job(job.id)
    assert (ended.state, ended.run_count, ended.rescue_count) == (State.SUCCEEDED, 1, 0)
    assert fetch_all(db, EFFECTS) == [7]
    assert stage.parts.counts() == (0, 0)


def test_a_connection_that_is_lost_before_the_commit(
    stage: Stage,
    job: Job,
    atomic_workers: WorkerStore,
    store: PostgresStore,
    db: Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    """A commit that the driver did not even try to make, of which it says nothing, is not taken for one."""
    _around_the_commit(monkeypatch, atomic_workers, before=lambda opened: opened.connection.close())
    ran = stage.play()
    assert ran.outcome is not None
    stage.parts.dispatcher.hand_in(ran.outcome, 0.0, may_be_saved=ran.may_be_saved)
    stage.parts.dispatcher.carry_overdue(longer_than=0)
    waiting = store.get_job(job.id)
    assert (waiting.state, waiting.run_count, waiting.rescue_count) == (State.AVAILABLE, 0, 1)
    assert fetch_all(db, EFFECTS) == []


def _around_the_commit(
    monkeypatch: pytest.MonkeyPatch,
    workers: WorkerStore,
    *,
    before: Callable[[Any], object] = lambda _: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Have something done when the block of a handler's transaction has ended, before the commit or after it."""
    transaction = workers.handler_transaction

    @contextmanager
    def interrupted(name: str | None = None) -> Generator[Any]:
        with transaction() as opened:
            yield opened
            before(opened)
        after()

    monkeypatch.setattr(workers, "handler_transaction", interrupted)
