"""What a pool does, and does not do, when the database is not heard: who must not be wronged meanwhile."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest
from psycopg.conninfo import conninfo_to_dict

from jobqueue import Job, JobContext, Registry
from jobqueue.outcomes import Outcome
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.parts import Parts, hold_ahead, wanted_job
from tests.fixtures.stores import Clock, Connection, add, claim_one, fetch_all, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, Workers

PATIENCE = 20
WAITING = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
DEAD_FOR = timedelta(seconds=2)
SHORT = timedelta(seconds=1)
LONG = timedelta(hours=1)
STARTED = "select count(*) from worker.job where started_at is not null"
UP_FOR_DEAD_FOR = "select pg_postmaster_start_time() < now() - interval '1.1 seconds'"


@pytest.fixture
def clock() -> Clock:
    """Contact is judged by the time of this machine, and so is all else here."""
    return Clock(None)


@pytest.fixture
def proxy(queue: str) -> Iterator[FaultProxy]:
    """The network between a pool and the server of `queue`."""
    place = conninfo_to_dict(queue)
    with FaultProxy(str(place["host"]), int(place["port"])) as proxy:
        yield proxy
        proxy.heal()


@pytest.fixture
def distant(queue: str, proxy: FaultProxy) -> Iterator[Workers]:
    """Worker pools beyond that network."""
    made = Workers(proxy.route(queue))
    yield made
    proxy.heal()
    made.end()


@pytest.fixture
def distant_store(queue: str, proxy: FaultProxy) -> Iterator[WorkerStore]:
    """The store of a worker pool beyond that network."""
    with closing(PostgresStore(proxy.route(queue))) as store, closing(store.for_workers()) as workers:
        yield workers


@contextmanager
def frozen(proxy: FaultProxy, *, answers_only: bool = False) -> Generator[None]:
    """Have nothing pass, or no answer, within the block."""
    proxy.freeze(answers_only=answers_only)
    try:
        yield
    finally:
        proxy.thaw()


# --- who gives up


def test_a_run_whose_first_beat_gets_no_answer_gives_its_claim_up(
    distant: Workers, proxy: FaultProxy, registry: Registry
):
    """A network that goes away before the first beat leaves the run no longer than dead_for in its belief."""
    seen = list[bool]()

    @registry.handler("t")
    def work(ctx: JobContext, number: int) -> int:
        seen.append(ctx.is_lost)
        with frozen(proxy):
            wait_until(lambda: ctx.is_lost, PATIENCE)
        return number

    service = distant.service(poll_only=True, **FAST_DEATH)
    job = service.enqueue("t", 1)
    distant.start_on(service, registry, 1)
    # Nobody has taken it away meanwhile: the row decides.
    assert service.wait_for_job(job.id, PATIENCE).result == 1
    assert seen == [False]


def test_a_claim_is_safe_from_the_question_on(
    store: PostgresStore, worker_store: WorkerStore, distant_store: WorkerStore, proxy: FaultProxy
):
    """An answer that comes late tells of when it was asked for: others may have taken the claim away since then."""
    add(store, make_job())
    job = claim_one(worker_store)
    parts = Parts(distant_store, dead_for=DEAD_FOR)
    context = JobContext(job)
    parts.heartbeat.begin(job.fence, context)
    with ThreadPoolExecutor(1) as executor:
        parts.beat()
        assert not context.is_lost
        with frozen(proxy, answers_only=True):
            late = executor.submit(parts.beat)
            wait_until(lambda: parts.contact._asked_at, PATIENCE)
            asked_at = time.monotonic()
            wait_until(lambda: time.monotonic() > asked_at + DEAD_FOR.total_seconds(), PATIENCE)
            assert context.is_lost
        late.result(PATIENCE)
        assert context.is_lost


def test_nothing_held_is_started_while_nobody_hears(
    store: PostgresStore, distant_store: WorkerStore, proxy: FaultProxy
):
    """What a process holds, and has not been heard of for dead_for, may be somebody else's: it waits for an answer."""
    add(store, *(make_job() for _ in range(8)))
    parts = Parts(distant_store, dead_for=DEAD_FOR)
    dispatcher = parts.dispatcher
    assert len(hold_ahead(dispatcher)) == 6
    with ThreadPoolExecutor(2) as executor:
        with frozen(proxy):
            dispatcher.ring()
            looking = executor.submit(dispatcher.next_job)
            wait_until(lambda: dispatcher._trips == 1, PATIENCE)
            wait_until(lambda: parts.contact.is_dead, PATIENCE)
            asking = executor.submit(dispatcher.next_job)
            with pytest.raises(TimeoutError):
                asking.result(0.3)
        # Its claims are too old by then: the keeper hands them back, and whoever listens is told of it.
        parts.keeper.tick()
        wait_until(lambda: dispatcher.ring() or (looking.done() and asking.done()), PATIENCE)
        assert all(isinstance(worker.result(PATIENCE), Job) for worker in (looking, asking))


def test_what_is_held_unheard_is_not_started(store: PostgresStore, worker_store: WorkerStore):
    """A job whose claim was not beaten for within dead_for waits for a beat, although the database is there."""
    add(store, *(make_job() for _ in range(8)))
    parts = Parts(worker_store, dead_for=DEAD_FOR)
    held = hold_ahead(parts.dispatcher)
    held_at = time.monotonic()
    wait_until(lambda: time.monotonic() > held_at + DEAD_FOR.total_seconds(), PATIENCE)
    with ThreadPoolExecutor(1) as executor:
        asking = executor.submit(parts.dispatcher.next_job)
        with pytest.raises(TimeoutError):
            asking.result(0.3)
        assert parts.dispatcher.kept_fences() == held
        parts.keeper.tick()
        parts.dispatcher.ring()
        assert isinstance(asking.result(PATIENCE), Job)


# --- who wrongs nobody


def test_who_was_cut_off_reaps_nobody(store: PostgresStore, worker_store: WorkerStore, db: Connection):
    """Who has been in contact for less than dead_for leaves silent claims alone; then it takes them away."""
    add(store, make_job())
    claim_one(worker_store)
    db.execute("update worker.job set worker_alive_at = now() - interval '1 day', lease = '1 second'")
    # Before that, nobody would reap anything.
    wait_until(lambda: fetch_all(db, UP_FOR_DEAD_FOR) == [True], PATIENCE)
    parts = Parts(worker_store, dead_for=SHORT, steady_after=LONG)
    began_at = time.monotonic()

    def maintained() -> bool:
        parts.maintenance.tick()
        return time.monotonic() - began_at > 1.5 * SHORT.total_seconds()

    wait_until(maintained, PATIENCE)
    assert fetch_all(db, STARTED) == [1]
    parts = Parts(worker_store, dead_for=SHORT)

    def reaped() -> bool:
        parts.maintenance.tick()
        return fetch_all(db, STARTED) == [0]

    wait_until(reaped, PATIENCE)


def test_who_has_not_watched_the_clock_reaps_nobody(store: PostgresStore, worker_store: WorkerStore, db: Connection):
    """The first look of a process at the clock is not the moment at which silence is over."""
    add(store, make_job())
    claim_one(worker_store)
    db.execute("update worker.job set worker_alive_at = now() - interval '1 day', lease = '1 second'")
    wait_until(lambda: fetch_all(db, UP_FOR_DEAD_FOR) == [True], PATIENCE)
    parts = Parts(worker_store, dead_for=SHORT)
    wait_until(lambda: parts.contact.is_steady, PATIENCE)
    parts.maintenance.tick()
    assert fetch_all(db, STARTED) == [1]


def test_an_outcome_that_was_saved_unheard_is_no_lost_claim(
    distant: Workers, proxy: FaultProxy, registry: Registry, db: Connection, caplog: pytest.LogCaptureFixture
):
    """A trip whose answer is cut off after its commit is made again, saves nothing, and nobody is told of a loss."""

    @registry.handler("t")
    def work(number: int) -> int:
        proxy.cut_answer(b'"kind":"finished"')
        return number

    service = distant.service(poll_only=True)
    service.enqueue("t", 1)
    pool = distant.start_on(service, registry, 1)
    wait_until(lambda: proxy.num_cut_answers == 1, PATIENCE)
    assert pool.finish(PATIENCE)
    assert fetch_all(db, "select result::text, run_count from worker.job") == [("1", 1)]
    health = service.health()
    assert (health["lost_claims"], health["refused_outcomes"]) == (0, 0)
    assert "lost the claim" not in caplog.text


def test_an_outcome_that_was_sent_in_vain_can_be_lost(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, other_db: Connection
):
    """A trip that was cut off before it had saved anything does not hide that its claim was taken away then."""
    [job] = add(store, make_job())
    parts = Parts(worker_store)
    dispatcher = parts.dispatcher
    dispatcher.hand_in(Outcome.finished(wanted_job(dispatcher)), seconds=60)
    with ThreadPoolExecutor(1) as executor, other_db.transaction():
        other_db.execute("select from worker.job for update")
        trip = executor.submit(dispatcher.carry_overdue, longer_than=0)
        [pid] = wait_until(lambda: fetch_all(db, WAITING), PATIENCE)
        db.execute("select pg_terminate_backend(%s)", [pid])
        trip.result(PATIENCE)
    assert parts.counts() == (0, 0)
    store.reset_jobs([job.id])
    dispatcher._retry_at = 0.0
    dispatcher.carry_overdue(longer_than=0)
    assert dispatcher.kept_fences() == []
    assert parts.counts() == (1, 1)
