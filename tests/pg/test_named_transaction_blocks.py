"""What applications may give as a transaction for atomic handlers, and under which names."""

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
import psycopg2
import pytest

import jobqueue
import jobqueue_pg
from jobqueue import Job, JobContext, RegistrationError, Registry, State, WorkerPool
from jobqueue.queue_service import QueueService
from tests.fixtures.effects import EFFECTS
from tests.fixtures.named_transactions import WAYS, Opens, affect, execute, psycopg2_block
from tests.fixtures.stores import Connection, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

pytestmark = pytest.mark.usefixtures("effects")


@pytest.fixture
def opens(queue: str, workers: Workers) -> Iterator[Opens]:
    """Services, closed when no pool works on them any more."""
    made = Opens(queue)
    yield made
    workers.end()
    made.close()


@contextmanager
def _autocommit(conninfo: str) -> Generator[Any]:
    with closing(psycopg2.connect(conninfo)) as connection:
        connection.autocommit = True
        yield connection


@contextmanager
def _nothing(_: str) -> Generator[Any]:
    yield None


@contextmanager
def _failing(_: str) -> Generator[Any]:
    raise KeyError("no such tenant")
    yield


@pytest.mark.parametrize(
    ("opening", "words"), [(_autocommit, "autocommit"), (_nothing, "NoneType"), (_failing, "no such tenant")]
)
def test_what_is_no_transaction_fails_the_run(queue, opens, workers, registry, db, opening, words):
    """A handler is not begun where nothing could be rolled back; the error says what is wrong."""
    service = opens(lambda: opening(queue))
    begun: list[int] = []

    @registry.handler("t", atomic="own")
    def work(number: int) -> None:
        begun.append(number)

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert ended.state is State.FAILED
    assert words in (ended.error_msg or "")
    assert begun == []


def test_a_block_that_does_not_commit(queue, opens, workers, registry, db):
    """A block that takes back what was done in it, and says nothing of that, fails the run: nothing hangs."""

    @contextmanager
    def begin() -> Generator[Any]:
        with closing(psycopg2.connect(queue)) as connection:
            yield connection

    service = opens(begin)

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert ended.state is State.FAILED
    # The server may not have heard yet that the connection was closed.
    assert re.search(r"did not commit \(its transaction is (aborted|in progress)\)", ended.error_msg or "")
    assert fetch_all(db, EFFECTS) == []


@pytest.mark.parametrize("way", list(WAYS))
def test_where_there_is_no_connection_the_job_waits(opens, workers, registry, way):
    """That no transaction can be begun costs the job nothing; it runs when one can."""
    is_up = threading.Event()
    asked: list[bool] = []

    with WAYS[way]("host=127.0.0.1 port=9 dbname=none connect_timeout=2") as down:

        @contextmanager
        def begin() -> Generator[Any]:
            asked.append(is_up.is_set())
            if not is_up.is_set():
                with down() as connection:
                    execute(connection, "select 1")
            with psycopg.connect(opens._conninfo) as connection:
                yield connection

        service = opens(begin)

        @registry.handler("t", atomic="own")
        def work(number: int) -> int:
            return number

        job = service.enqueue("t", 1)
        workers.start_on(service, registry, 1)
        wait_until(lambda: asked)
        is_up.set()
        ended = wait_for_end(service, job)
    assert (ended.state, ended.run_count, ended.rescue_count) == (State.SUCCEEDED, 1, 0)


def test_a_block_that_swallows_errors(queue, opens, workers, registry, db):
    """Neither is an error of ours lost in the application's block, nor a run saved that was none."""

    @contextmanager
    def begin() -> Generator[Any]:
        with closing(psycopg2.connect(queue)) as connection, suppress(Exception), connection:
            yield connection

    service = opens(begin)

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        execute(ctx.connection, "set transaction read only")

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert ended.state is State.FAILED
    assert "read only" in (ended.error_msg or "")
    assert fetch_all(db, EFFECTS) == []


# --- names


def test_a_name_that_there_is_not(service: QueueService, opens: Opens, registry: Registry) -> None:
    """Threads do not start for a handler whose transaction nobody has named; the error lists those that there are."""
    registry.handler("t", atomic="other")(lambda number: number)
    for each, known in ((service, "none"), (opens(threading.Lock), "'own'")):
        with pytest.raises(RegistrationError, match=f"atomic='other'.* names {known}"):
            WorkerPool(each, registry, threads=1).start()


def test_memory_has_none(registry: Registry) -> None:
    """The memory backend, which has nothing that could be rolled back, refuses when threads start."""
    registry.handler("t", atomic="own")(lambda number: number)
    with (
        closing(jobqueue.connect("memory://")) as service,
        pytest.raises(RegistrationError, match="memory:// cannot run atomic handlers"),
    ):
        WorkerPool(service, registry, threads=1).start()


@pytest.mark.parametrize("transactions", [["own"], {"own": None}, {1: threading.Lock}, None])
def test_transactions_are_named_functions(queue: str, transactions: Any) -> None:
    """Anything else is refused before there is a service."""
    with pytest.raises(TypeError, match="transactions must be a mapping"):
        jobqueue_pg.connect(queue, transactions=transactions)


def test_they_need_no_connection_of_ours(opens, workers, registry, queue, db: Connection) -> None:
    """As many run at a time as there are threads, whatever the settings say of connections for atomic handlers."""
    with psycopg2_block(queue) as begin:
        service = opens(begin, atomic_connections=1)
        all_of_them = threading.Barrier(4, timeout=10)

        @registry.handler("t", atomic="own")
        def work(ctx: JobContext, number: int) -> None:
            affect(ctx, number)
            all_of_them.wait()

        service.add_jobs([Job.new("t", number) for number in range(4)])
        workers.start_on(service, registry, 4)
        wait_until(lambda: fetch_all(db, EFFECTS) == [0, 1, 2, 3])


def test_do_job_lends_a_connection(registry: Registry, db: Connection) -> None:
    """A test of a handler gives it whatever its block would."""

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> object:
        return ctx.connection

    assert jobqueue.do_job(Job.new("t", 1), registry, connection=db) is db
