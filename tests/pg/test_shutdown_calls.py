"""Who may finish a worker pool, and when: twice, from several threads, from a signal handler, right after start."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import pytest

import jobqueue
from jobqueue import Job, WorkerPool
from tests.fixtures.stores import fetch_all
from tests.fixtures.threads import names_of_threads
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end

PATIENCE = 10
NAME = "shutdown calls"
WORKERS = {"jobqueue-worker-0", "jobqueue-worker-1"}
CLAIMED = "select id from worker.job where started_at is not null and stopped_at is null"


@pytest.fixture
def service(workers):
    return workers.service(application_name=NAME)


def test_finish_twice(workers, service, registry):
    """The second call gives the answer of the first, at once."""
    pool = workers.start_on(service, registry)
    assert pool.finish(PATIENCE)
    assert pool.finish()
    assert pool.finish(0)


def test_finish_of_two_threads(workers, service, registry, stage):
    """Two threads that finish a pool both wait for it, and get the same answer; one in a hurry is told False."""
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    with ThreadPoolExecutor(2) as executor:
        finishing = [executor.submit(pool.finish) for _ in range(2)]
        wait_until(lambda: not pool.is_running)
        assert not pool.finish(0.05)
        assert not pool.finish(-1)
        stage.may_end.set()
        assert [future.result(PATIENCE) for future in finishing] == [True, True]


def test_a_finish_that_is_hurried(workers, service, registry, stage):
    """Who waits for jobs without an end waits no longer once another thread hurries; the job is for others to run."""
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    with ThreadPoolExecutor(1) as executor:
        finishing = executor.submit(pool.finish)
        wait_until(lambda: not pool.is_running)
        pool.hurry()
        assert not finishing.result(PATIENCE)
    assert not service.get_job(job.id).started
    stage.may_end.set()


def test_finish_right_after_start(workers, registry, db):
    """A pool may be finished before its threads have done anything, again and again."""
    registry.register_func_for_job_type("t", lambda _: None)
    service = workers.service()
    service.add_jobs([Job.new("t", number) for number in range(20)])
    for number in range(20):
        pool = workers.start_on(service, registry, 4)
        assert pool.finish(None if number % 2 else PATIENCE)
    assert fetch_all(db, "select count(*) from worker.job where started_at is not null and stopped_at is null") == [0]


def test_a_pool_that_was_not_started(service, registry):
    """There is nothing to stop or to finish."""
    pool = WorkerPool(service, registry)
    pool.stop()
    pool.hurry()
    assert pool.finish()
    assert not pool.is_running


def test_a_handler_cannot_finish_its_own_pool(workers, service, registry):
    """A handler that waited for its pool would wait for itself: it is told so; it may stop the pool."""

    @registry.handler("t")
    def work(_: int) -> str:
        pools[0].stop()
        with pytest.raises(RuntimeError, match="own pool"):
            pools[0].finish()
        return "stopped"

    job = service.enqueue("t", 1)
    pools = [WorkerPool(service, registry, threads=1)]
    pools[0].start()
    try:
        assert wait_for_end(service, job).result == "stopped"
    finally:
        assert pools[0].finish(PATIENCE)


def test_closing_the_service_finishes_its_pools(workers, registry, db):
    """close() waits for running jobs, ends all threads and all connections."""
    service = workers.service(application_name=NAME)
    began = threading.Event()
    registry.register_func_for_job_type("t", lambda n: (began.set(), threading.Event().wait(0.3), n)[2])
    job = service.enqueue("t", 5)
    pool = workers.start_on(service, registry, 2)
    assert began.wait(PATIENCE)
    service.close()
    assert not pool.is_running
    assert fetch_all(db, "select result::text from worker.job where id = %s", job.id) == ["5"]
    assert names_of_threads() == set()
    wait_until(lambda: connections_of(db, NAME) == 0)
    registry.register_func_for_job_type("u", lambda _: None)


def test_finish_of_the_thread_that_is_in_it(workers, service, registry, stage):
    """A signal handler that finishes the pool which its thread is finishing gets an answer, and does not wait."""
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    answers = []

    def interrupt(*_: object) -> None:
        answers.append(pool.finish())
        stage.may_end.set()

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        assert finish_interrupted(pool, PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert answers == [False]


def finish_interrupted(pool, timeout=None):
    """Finish *pool*, with SIGALRM coming to this thread when it waits for jobs."""
    caller = threading.get_ident()

    def interrupt():
        wait_until(pool._changing.locked)
        signal.pthread_kill(caller, signal.SIGALRM)

    threading.Thread(target=interrupt).start()
    return pool.finish(timeout)


def test_start_right_after_finish(workers, service, registry, db):
    """While one pool is being finished, others are started on the same service, and finished, by other threads."""
    registry.register_func_for_job_type("t", lambda number: number)
    service.add_jobs([Job.new("t", number) for number in range(60)])

    def come_and_go(_: int) -> bool:
        pool = WorkerPool(service, registry, threads=2)
        pool.start()
        return pool.finish(PATIENCE)

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(come_and_go, range(24)))
    assert fetch_all(db, CLAIMED) == []
    assert {name.rstrip("0123456789-") for name in names_of_threads()} <= {"jobqueue-listener"}


def test_start_and_finish_at_the_same_time(workers, service, registry, db):
    """A pool that one thread finishes while another starts it is finished, or has not begun: no thread is left."""
    registry.register_func_for_job_type("t", lambda number: number)
    service.add_jobs([Job.new("t", number) for number in range(60)])
    for _ in range(20):
        pool = WorkerPool(service, registry, threads=3)
        together = threading.Barrier(2)
        with ThreadPoolExecutor(2) as executor:
            starting = executor.submit(when_met, together, pool.start)
            assert executor.submit(when_met, together, partial(pool.finish, PATIENCE)).result(PATIENCE)
            starting.result(PATIENCE)
        assert pool.finish(PATIENCE)
        assert names_of_threads() <= {"jobqueue-listener"}
    assert fetch_all(db, CLAIMED) == []


def test_finish_while_another_thread_starts(workers, service, registry, monkeypatch):
    """It waits for the start, and what it says of the pool is so: nothing runs any more."""
    registry.register_func_for_job_type("t", lambda number: number)
    pool = WorkerPool(service, registry, threads=2)
    began, goes_on = threading.Event(), threading.Event()
    attach = service.attach

    def attach_slowly(attached):
        began.set()
        assert goes_on.wait(PATIENCE)
        attach(attached)

    monkeypatch.setattr(service, "attach", attach_slowly)
    with ThreadPoolExecutor(2) as executor:
        starting = executor.submit(pool.start)
        assert began.wait(PATIENCE)
        assert not pool.finish(0.05)
        finishing = executor.submit(pool.finish, PATIENCE)
        wait_until(lambda: len(pool._callers) == 2 or finishing.done())
        goes_on.set()
        starting.result(PATIENCE)
        assert finishing.result(PATIENCE)
    assert not pool.is_running
    assert names_of_threads() <= {"jobqueue-listener"}


def when_met(barrier, call):
    barrier.wait(PATIENCE)
    return call()


# --- signals


@contextmanager
def heeding(handler):
    """Have *handler* called, in the main thread, when SIGALRM comes."""
    previous = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_signal_handler_that_finishes(workers, service, registry, stage):
    """A signal handler can finish the threads while the main thread is elsewhere: jobs end, and are saved."""
    job = service.enqueue("t", 5)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    answers = []
    with heeding(lambda: answers.append(pool.finish(PATIENCE))):
        stage.may_end.set()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        wait_until(lambda: answers)
    assert answers == [True]
    assert service.get_job(job.id).result == 5
    assert pool.finish()


def test_a_flag_that_a_signal_handler_sets(workers, service, registry, stage):
    """A main thread that waits for a flag of its signal handler finishes the threads then."""
    job = service.enqueue("t", 5)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    asked = threading.Event()
    with heeding(asked.set):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert asked.wait(PATIENCE)
        stage.may_end.set()
        assert pool.finish(PATIENCE)
    assert service.get_job(job.id).result == 5


@contextmanager
def interrupted_at(function, *, called_by=None):
    """Have SIGALRM come as soon as the main thread enters the function of this name, from any other or from one."""

    def watch(frame, event, _):
        if (
            event == "call"
            and frame.f_code.co_name == function
            and (called_by is None or (frame.f_back and frame.f_back.f_code.co_name == called_by))
        ):
            sys.setprofile(None)
            signal.raise_signal(signal.SIGALRM)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("stop", "take_all_but"),
        ("finish", "take_all_but"),
        ("finish", "is_empty"),
        ("finish", "end"),
        ("finish", "thaw"),
        ("finish", "detach"),
    ],
)
def test_a_signal_handler_that_interrupts_a_call_of_the_pool(workers, service, registry, db, call, where):
    """A signal handler that finishes the pool amid a call of its own thread is told False at once: it never hangs."""
    registry.register_func_for_job_type("t", lambda number: number)
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 2)
    assert wait_for_end(service, job).succeeded
    answers = []
    with heeding(lambda: answers.append(pool.finish(PATIENCE))), interrupted_at(where):
        getattr(pool, call)()
    assert answers == [False]
    assert pool.finish(PATIENCE)
    assert names_of_threads() <= {"jobqueue-listener"}
    assert fetch_all(db, CLAIMED) == []


@pytest.mark.parametrize("where", ["attach", "freeze", "for_workers", "subscribe", "_finish_at_exit_too"])
def test_a_signal_handler_that_interrupts_start(workers, service, registry, db, where):
    """A pool that a signal handler finishes while its thread starts it has stopped when it has started."""
    registry.register_func_for_job_type("t", lambda number: number)
    pool = WorkerPool(service, registry, threads=2)
    answers = []
    with heeding(lambda: answers.append(pool.finish(PATIENCE))), interrupted_at(where):
        pool.start()
    assert answers == [False]
    assert not pool.is_running
    wait_until(lambda: not names_of_threads() & WORKERS)
    job = service.enqueue("t", 1)
    assert pool.finish(PATIENCE)
    assert not service.get_job(job.id).started
    assert names_of_threads() <= {"jobqueue-listener"}


def test_a_signal_handler_that_stops_amid_an_event(registry):
    """Where events are told by whoever causes them, a signal may come while that thread wakes a worker of the pool."""
    ran = []
    registry.register_func_for_job_type("t", ran.append)
    with jobqueue.connect("memory://") as service:
        pool = WorkerPool(service, registry, threads=2)
        pool.start()
        with heeding(pool.stop), interrupted_at("wake_one", called_by="ring"):
            service.enqueue("t", 1)
        assert not pool.is_running
        assert pool.finish(PATIENCE)
    assert ran in ([], [1])


@pytest.mark.parametrize(("where", "called_by"), [("poll_every", None), ("notify_all", "_tell_all")])
def test_a_signal_handler_that_stops_amid_poll_every(workers, service, registry, where, called_by):
    """The pool has stopped when the call returns: nothing is claimed any more, before it is finished."""
    registry.register_func_for_job_type("t", lambda number: number)
    pool = workers.start_on(service, registry, 2)
    assert wait_for_end(service, service.enqueue("t", 1)).succeeded
    with heeding(pool.stop), interrupted_at(where, called_by=called_by):
        pool.poll_every(timedelta(milliseconds=10))
    assert not pool.is_running
    wait_until(lambda: not names_of_threads() & WORKERS)
    job = service.enqueue("t", 2)
    assert pool.finish(PATIENCE)
    assert not service.get_job(job.id).started


def test_an_interrupted_finish_can_be_repeated(workers, service, registry, stage):
    """A finish that Ctrl-C breaks off leaves a pool that can be finished, and a registry that thaws then."""

    def interrupt():
        raise KeyboardInterrupt

    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    for _ in range(2):
        with heeding(interrupt), pytest.raises(KeyboardInterrupt):
            finish_interrupted(pool)
    assert not pool.is_running
    stage.may_end.set()
    assert pool.finish(PATIENCE)
    assert service.get_job(job.id).result == 1
    registry.unregister()
