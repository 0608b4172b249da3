"""The threads of a process started and stopped again and again, polling, and several services in one process."""

import threading
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta

import pytest

import jobqueue
import jobqueue_pg
from jobqueue import JobContext, Registry, RegistryFrozenError, State, WorkerSettings
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import QUIET, wait_for_end

PATIENCE = 10
TYPE = "test_starting_and_stopping"
SOON = timedelta(seconds=0.05)
A_WHILE = 0.4
"""Longer than a job takes that is found, and shorter than a poll."""


@pytest.fixture
def hearing(workers):
    """The current service, whose workers listen and do not poll."""
    with jobqueue.use_service(workers.service()) as service:
        yield service
        jobqueue.finish_threads(PATIENCE)


@pytest.fixture
def deaf(workers):
    """The current service, whose workers neither listen nor poll."""
    with jobqueue.use_service(workers.service(poll_only=True)) as service:
        yield service
        jobqueue.finish_threads(PATIENCE)


@pytest.fixture
def ran():
    """The payloads with which jobs of TYPE were run, by the default registry."""
    payloads: list[int] = []
    jobqueue.register_func_for_job_type(TYPE, payloads.append)
    yield payloads
    jobqueue.finish_threads(PATIENCE)
    jobqueue.unregister(TYPE)


class Stage:
    """A handler of TYPE that plays until it is let go."""

    def __init__(self):
        self.is_on = threading.Event()
        self.may_end = threading.Event()
        self.at_the_end = lambda: None
        self.raised: list[BaseException] = []

    def play(self, _: int) -> None:
        self.is_on.set()
        self.may_end.wait(PATIENCE)
        try:
            self.at_the_end()
        except Exception as error:  # noqa: BLE001 - whatever it is, is what the test is about
            self.raised.append(error)


@pytest.fixture
def stage():
    made = Stage()
    jobqueue.register_func_for_job_type(TYPE, made.play)
    yield made
    made.may_end.set()
    jobqueue.finish_threads(PATIENCE)
    jobqueue.unregister(TYPE)


def connect_to(conninfo, **options):
    return jobqueue_pg.connect(conninfo, settings=WorkerSettings(poll_interval=QUIET), **options)


def threads_of_pools():
    kinds = {"worker", "heartbeat", "keeper", "maintenance"}
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("jobqueue-") and thread.name.split("-")[1] in kinds
    ]


# --- again and again


@pytest.mark.parametrize("end", [jobqueue.finish_threads, jobqueue.stop_threads])
def test_ten_times(hearing, ran, end):
    """Threads may be started after they were finished, or only stopped, as often as one likes; none piles up."""
    for number in range(10):
        jobqueue.start_threads(2)
        wait_for_end(hearing, jobqueue.enqueue(TYPE, number))
        assert len(threads_of_pools()) == 6
        end()
    assert jobqueue.finish_threads(PATIENCE)
    assert ran == [*range(10)]
    assert threads_of_pools() == []


def test_start_right_after_stop(hearing, stage):
    """Starting waits for what a stop has left running, and then works on."""
    jobqueue.start_threads(1)
    job = jobqueue.enqueue(TYPE, 1)
    assert stage.is_on.wait(PATIENCE)
    jobqueue.stop_threads()
    starting = threading.Thread(target=lambda: started.append(start_on(hearing)))
    started: list[jobqueue.WorkerPool] = []
    starting.start()
    starting.join(A_WHILE)
    assert not started
    stage.may_end.set()
    starting.join(PATIENCE)
    assert started[0].is_running
    assert hearing.get_job(job.id).state is State.SUCCEEDED
    wait_for_end(hearing, jobqueue.enqueue(TYPE, 2))


def start_on(service):
    with jobqueue.use_service(service):
        return jobqueue.start_threads(1)


@pytest.mark.parametrize("call", ["stop_threads", "start_polling_available_jobs", "start_threads"])
def test_a_handler_that_manages_threads_while_it_is_waited_for(hearing, stage, call):
    """What a handler does to the threads of the process cannot block the start that waits for that handler."""
    stage.at_the_end = {
        "stop_threads": jobqueue.stop_threads,
        "start_polling_available_jobs": lambda: jobqueue.start_polling_available_jobs(SOON),
        "start_threads": lambda: jobqueue.start_threads(1),
    }[call]
    jobqueue.start_threads(1)
    jobqueue.enqueue(TYPE, 1)
    assert stage.is_on.wait(PATIENCE)
    jobqueue.stop_threads()
    starting = threading.Thread(target=start_on, args=[hearing])
    starting.start()
    stage.may_end.set()
    starting.join(PATIENCE)
    assert not starting.is_alive()
    # Its own pool cannot be waited for by a handler.
    assert [type(error) for error in stage.raised] == ([RuntimeError] if call == "start_threads" else [])


def test_threads_in_a_block(hearing, ran):
    """The block ends when running jobs have; handlers can come and go, and threads can be started, after it."""
    with jobqueue.start_threads(2) as pool:
        assert pool.is_running
        job = jobqueue.enqueue(TYPE, 1)
        wait_until(lambda: ran)
        with pytest.raises(RegistryFrozenError):
            jobqueue.unregister("some type")
    assert hearing.get_job(job.id).state is State.SUCCEEDED
    assert not pool.is_running
    jobqueue.unregister("some type")
    with jobqueue.start_threads(1):
        wait_for_end(hearing, jobqueue.enqueue(TYPE, 2))


def test_threads_of_a_service_that_was_closed(queue, ran):
    """Closing the service ends its threads; they can be started on the next one."""
    for number in range(2):
        with (
            connect_to(queue) as service,
            jobqueue.use_service(service),
        ):
            pool = jobqueue.start_threads(1)
            jobqueue.enqueue(TYPE, number)
            wait_until(lambda number=number: number in ran)
        assert not pool.is_running
        assert threads_of_pools() == []


# --- polling


def is_found(service, payload, timeout=A_WHILE):
    """Add a job of which nobody is told, and say whether it is run within *timeout*."""
    job = service.enqueue(TYPE, payload)
    try:
        wait_for_end(service, job, timeout)
    except AssertionError:
        return False
    return True


def start_and_sleep(service):
    """Start threads that have looked at the queue, found nothing more, and sleep."""
    first = service.enqueue(TYPE, -1)
    dispatcher = jobqueue.start_threads(2)._crew._dispatcher
    wait_for_end(service, first)
    wait_until(lambda: len(dispatcher.desks[0].alarms) == 2 and not dispatcher._trips)


def test_without_polling(deaf, ran):
    """A job of which nobody is told is not found before the poll interval of the settings is over."""
    start_and_sleep(deaf)
    assert not is_found(deaf, 1)


@pytest.mark.parametrize("before", [True, False], ids=["before the start", "after the start"])
@pytest.mark.parametrize("interval", [SOON, 0.05], ids=["timedelta", "seconds"])
def test_polling(deaf, ran, before, interval):
    """Polling has idle threads look often, again and again, whether it is begun before or after they start."""
    if before:
        jobqueue.start_polling_available_jobs(interval)
    start_and_sleep(deaf)
    if not before:
        jobqueue.start_polling_available_jobs(interval)
    assert [is_found(deaf, number, PATIENCE) for number in range(5)] == [True] * 5


@pytest.mark.parametrize("before", [True, False], ids=["before the start", "after the start"])
def test_the_shortest_interval_counts(deaf, ran, before):
    """Of several intervals, also that of the settings, the shortest one holds, in whichever order they come."""
    if not before:
        start_and_sleep(deaf)
    for seconds in (3600, SOON.total_seconds(), 20):
        jobqueue.start_polling_available_jobs(seconds)
    if before:
        start_and_sleep(deaf)
    assert is_found(deaf, 1, PATIENCE)


@pytest.mark.parametrize("end", ["stop", "finish", "block", "pool"])
@pytest.mark.parametrize("before", [True, False], ids=["before the start", "after the start"])
def test_polling_ends_with_the_threads(deaf, ran, end, before):
    """However threads end, the next ones do not poll."""
    if before:
        jobqueue.start_polling_available_jobs(SOON)
    pool = jobqueue.start_threads(1)
    if not before:
        jobqueue.start_polling_available_jobs(SOON)
    if end == "stop":
        jobqueue.stop_threads()
    elif end == "finish":
        jobqueue.finish_threads(PATIENCE)
    elif end == "block":
        with pool:
            pass
    else:
        pool.finish(PATIENCE)
    start_and_sleep(deaf)
    assert not is_found(deaf, 1)


@pytest.mark.parametrize("forget", [jobqueue.stop_threads, jobqueue.finish_threads])
def test_polling_is_forgotten_without_threads(deaf, ran, forget):
    """Stopping threads that never ran takes back what was asked for them."""
    jobqueue.start_polling_available_jobs(SOON)
    forget()
    start_and_sleep(deaf)
    assert not is_found(deaf, 1)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (0, "zero"),
        (timedelta(0), "zero"),
        (-1, "negative"),
        (timedelta(microseconds=-1), "negative"),
        (-0.5, "negative"),
    ],
)
def test_what_is_no_interval(interval, words):
    """Zero would be a busy loop, and a negative interval is none: two errors."""
    with pytest.raises(ValueError, match=words):
        jobqueue.start_polling_available_jobs(interval)


# --- several services in one process


def test_services_on_several_schemas(workers, migrated):
    """Pools on two schemas, and two on the same one, run their own jobs, each once, and hear of nothing else."""
    jobqueue_pg.migrate(migrated, schema="second")
    schemas = {"first": "worker", "again": "worker", "second": "second"}
    runs: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def registry_of(name: str) -> Registry:
        def work(ctx: JobContext, _: int) -> str:
            with lock:
                runs[schemas[name], ctx.job.origin] += 1
            return name

        registry = Registry()
        registry.register_func_for_job_type("t", work)
        return registry

    with ExitStack() as stack:
        services = {
            name: stack.enter_context(connect_to(migrated, schema=schema, origin=name))
            for name, schema in schemas.items()
        }
        for name, service in services.items():
            workers.start_on(service, registry_of(name), 2)
        jobs = [(service, service.enqueue("t", number)) for number in range(20) for service in services.values()]
        ended = [wait_for_end(service, job) for service, job in jobs]
        assert {(schemas[job.result], job.origin) for job in ended} == {(schemas[name], name) for name in schemas}
        assert runs == {("worker", "first"): 20, ("worker", "again"): 20, ("second", "second"): 20}


def test_registries_that_share_a_type(workers, hearing, registry):
    """When two pools of one service serve the same type, each job is run once, by the handlers of one of them."""
    other = Registry()
    registry.register_func_for_job_type("t", lambda _: "one")
    other.register_func_for_job_type("t", lambda _: "other")
    other.register_func_for_job_type("only", lambda _: "other")
    for each in (registry, other):
        workers.start_on(hearing, each, 2)
    jobs = [hearing.enqueue("t", number) for number in range(30)]
    ended = [wait_for_end(hearing, job) for job in jobs]
    assert {job.run_count for job in ended} == {1}
    assert {job.result for job in ended} <= {"one", "other"}
    assert wait_for_end(hearing, hearing.enqueue("only", 1)).result == "other"
