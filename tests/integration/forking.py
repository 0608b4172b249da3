"""Programs that fork: ``python forking.py NAME CONNINFO`` runs the function called NAME, and prints what it returns.

In all of them the parent has what a preloaded application has: a default service and threads that work. The parent's
end is an assertion, too: it goes on, and finishes its jobs.
"""

import faulthandler
import gc
import json
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

# Run by its path, it finds this directory on sys.path, and not the packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psycopg

import jobqueue
import jobqueue_pg
from jobqueue import WorkerPool, WorkerSettings
from jobqueue.models import new_id
from jobqueue.registry import default_registry
from jobqueue.worker import process
from tests.fixtures.waiting import wait_until

PATIENCE = 20
NUM_FORKS = 10
NUM_IDS = 3000
SETTINGS = WorkerSettings(
    poll_interval=timedelta(seconds=30), heartbeat_interval=timedelta(seconds=0.3), dead_for=timedelta(seconds=20)
)

# Python warns of forks among threads since 3.12; they are what this is about.
warnings.filterwarnings("ignore", category=DeprecationWarning)


@jobqueue.handler("of the parent")
def of_the_parent(number: int) -> int:
    threading.Event().wait(0.005)
    return number


@jobqueue.handler("pid")
def pid(_: int) -> int:
    return os.getpid()


def in_child(work: Callable[[], object], *, end: Callable[[int], NoReturn] = os._exit) -> int:
    """Do *work* in a forked child, which then ends by *end*; return its exit status: 7, if all was well."""
    child = os.fork()
    if child == 0:
        be_child(work, end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def be_child(work: Callable[[], object], end: Callable[[int], NoReturn]) -> NoReturn:
    faulthandler.dump_traceback_later(PATIENCE, exit=True)  # a deadlock shows where
    status = 7
    try:
        work()
    except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
        traceback.print_exc()
        status = 1
    faulthandler.cancel_dump_traceback_later()
    end(status)


def work_in_child(conninfo: str) -> None:
    """Connect, start threads and have a job done in this process, whatever its parent has."""
    job_type = f"of {os.getpid()}"
    jobqueue.register_func_for_job_type(job_type, lambda number: number + 1)
    service = jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS)
    jobqueue.start_threads(1)
    job = jobqueue.enqueue(job_type, 1)
    assert jobqueue.wait_for_job(job.id, PATIENCE).result == 2
    assert jobqueue.finish_threads(PATIENCE)
    service.close()


def use_what_is_inherited(conninfo: str) -> dict[str, list[str]]:
    """Try in a child all that its parent has; return what each call came to."""
    service = jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS)
    pool = jobqueue.start_threads(1)
    unstarted = WorkerPool(service)
    claims = [jobqueue.enqueue("by hand", number) and service.claim("by hand")[0] for number in range(4)]
    listener: Callable[..., None] = lambda job, will_retry: None  # noqa: E731
    service.add_job_stopped_listener(listener)
    job = jobqueue.enqueue("of the parent", 1)

    def leave_block() -> None:
        with claims[3]:
            pass

    calls: dict[str, Callable[[], object]] = {
        "enqueue": lambda: jobqueue.enqueue("of the parent", 1),
        "get_job": lambda: jobqueue.get_job(job.id),
        "wait_for_job": lambda: jobqueue.wait_for_job(job.id, 1),
        "health": jobqueue.health,
        "add_job_stopped_listener": lambda: jobqueue.add_job_stopped_listener(lambda job, will_retry: None),
        "remove_job_stopped_listener": lambda: jobqueue.remove_job_stopped_listener(listener),
        "claim": lambda: jobqueue.claim("by hand"),
        "Claim.finish": claims[0].finish,
        "Claim.fail": lambda: claims[1].fail("no"),
        "Claim.release": claims[2].release,
        "with claim": leave_block,
        "close": jobqueue.close,
        "WorkerPool.start": pool.start,
        "WorkerPool.start of a new one": WorkerPool(service).start,
        "WorkerPool.start of one that was not started": unstarted.start,
        "WorkerPool.stop": pool.stop,
        "WorkerPool.finish": pool.finish,
        "WorkerPool.poll_every": lambda: pool.poll_every(timedelta(seconds=1)),
        "WorkerPool.is_running": lambda: pool.is_running,
        "start_polling_available_jobs": lambda: jobqueue.start_polling_available_jobs(1),
        "stop_threads": jobqueue.stop_threads,
        "finish_threads": jobqueue.finish_threads,
        "start_threads": lambda: jobqueue.start_threads(1),
    }
    reading, writing = os.pipe()

    def try_all() -> None:
        came_to = {name: outcome_of(call) for name, call in calls.items()}
        with os.fdopen(writing, "w") as told:
            json.dump(came_to, told)

    status = in_child(try_all)
    os.close(writing)
    with os.fdopen(reading) as told:
        came_to: dict[str, list[str]] = json.load(told)
    assert status == 7
    for claim in claims:
        claim.finish()
    assert pool.is_running
    assert jobqueue.wait_for_job(job.id, PATIENCE).result == 1
    assert jobqueue.finish_threads(PATIENCE)
    service.close()
    return came_to


def outcome_of(call: Callable[[], object]) -> list[str]:
    try:
        return ["returns", repr(call())]
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return [type(error).__name__, str(error)]


def end_in_every_way(conninfo: str) -> dict[str, Any]:
    """Have children end in every way there is, after they have let go of all that they inherited."""
    service = jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS)
    errors: list[str] = []
    service.set_on_error(lambda error: errors.append(repr(error)))
    service.add_job_stopped_listener(lambda job, will_retry: None)
    jobqueue.start_threads(2)
    before = sessions_after_work(conninfo)
    ends: list[Callable[[int], NoReturn]] = [os._exit, sys.exit]
    for end in ends:
        assert in_child(lambda: let_go_of_everything(conninfo), end=end) == 7
        assert in_child(lambda: None, end=end) == 7
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=let_go_of_everything, args=(conninfo,))
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0
    after = sessions_after_work(conninfo)
    state = service.health()["parts"]
    assert jobqueue.finish_threads(PATIENCE)
    return {
        "before": before,
        "after": after,
        "errors": errors,
        "last_errors": [part["last_error"] for part in state.values()],
    }


def let_go_of_everything(conninfo: str) -> None:
    """Replace what was inherited, and collect it."""
    jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS).close()
    gc.collect()


def sessions_after_work(conninfo: str) -> list[int]:
    """Have the parent's threads do a job; return the server's processes for our connections.

    These are those of the calls, of the trips, and of the listener, which may have come last.
    """
    job = jobqueue.enqueue("pid", 1)
    assert jobqueue.wait_for_job(job.id, PATIENCE).result == os.getpid()
    with psycopg.connect(conninfo, application_name="looking on", autocommit=True) as connection:

        def sessions() -> list[int]:
            rows = connection.execute(
                "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
                "and backend_type = 'client backend' and application_name = 'jobqueue' order by pid"
            )
            return [row[0] for row in rows.fetchall()]

        wait_until(lambda: len(sessions()) >= 3, PATIENCE)
        return sessions()


def fork_while_locks_are_held(conninfo: str) -> dict[str, int]:
    """Fork while another thread holds a lock that a child may have use for; return how the child ended, for each."""
    jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS)
    pool = jobqueue.start_threads(1)
    # Only these are garbage in a child: a pool that runs is kept to be finished at the end.
    inherited = [jobqueue_pg.connect(conninfo, settings=SETTINGS), jobqueue.connect("memory://")]
    inherited[0].enqueue("by hand", 1)
    statuses = {}
    for name, lock in locks_of(*inherited, pool).items():
        with held_by_another_thread(lock):
            statuses[name] = in_child(lambda: work_and_end(conninfo, inherited))
    for service in inherited:
        service.close()
    assert jobqueue.finish_threads(PATIENCE)
    return statuses


def locks_of(service: Any, in_memory: Any, pool: Any) -> dict[str, Any]:
    connections = service.store._database.pool
    return {
        "threads of the process": process._lock,
        "registry": default_registry._lock,
        "dispatcher": pool._crew._dispatcher._lock,
        "running pool": pool._changing,
        "service": service._lock,
        "health": service.vitals._lock,
        "notifier": service.notifier._lock,
        "delivery": service._delivery._lock,
        "waiting": service._waiting._lock,
        "claims": service._claims._lock,
        "memory": in_memory.store._session.queue._lock,
        "connections": connections._lock,
        "schedule of connections": connections._sched._lock,
        "tasks of connections": connections._tasks.mutex,
    }


@contextmanager
def held_by_another_thread(lock: Any) -> Generator[None]:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    try:
        yield
    finally:
        over.set()
        holder.join()


def work_and_end(conninfo: str, inherited: list[Any]) -> None:
    """Do what an application does in a new process, and what its exit does to what was inherited."""
    for service in inherited:
        assert outcome_of(service.close)[0] == "ClosedError"
        assert outcome_of(service.health)[0] == "ClosedError"
        assert outcome_of(lambda service=service: service.remove_job_stopped_listener(print))[0] == "ClosedError"
    inherited.clear()
    del service
    work_in_child(conninfo)
    with jobqueue.connect("memory://") as own:
        own.enqueue("t", 1)
    gc.collect()


def fork_while_threads_work(conninfo: str) -> int:
    """Fork again and again while threads of the parent add, work, listen, register and log."""
    service = jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS)
    jobqueue.start_threads(4)
    over = threading.Event()

    def keep_busy() -> None:
        while not over.is_set():
            jobqueue.enqueue("of the parent", 1)
            service.health()
            listener: Callable[..., None] = lambda job, will_retry: None  # noqa: E731
            service.add_job_stopped_listener(listener)
            service.remove_job_stopped_listener(listener)
            with WorkerPool(service, threads=1):
                over.wait(0.05)

    with ExitStack() as stack:
        busy = [threading.Thread(target=keep_busy) for _ in range(2)]
        for thread in busy:
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        well = sum(in_child(lambda: work_in_child(conninfo), end=sys.exit) == 7 for _ in range(NUM_FORKS))
    assert jobqueue.finish_threads(PATIENCE)
    service.close()
    return well


def make_ids(_: str) -> int:
    """Make ids in the parent and in children at the same time; return how many of them are there twice."""
    new_id()
    ids: list[str] = []
    for _ in range(4):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writing, "w") as told:
                told.writelines(f"{new_id()}\n" for _ in range(NUM_IDS))
            os._exit(0)
        os.close(writing)
        ids += [str(new_id()) for _ in range(NUM_IDS)]
        with os.fdopen(reading) as told:
            ids += told.read().split()
        os.waitpid(child, 0)
    assert len(ids) == 8 * NUM_IDS
    return len(ids) - len(set(ids))


def start_processes(conninfo: str) -> dict[str, int]:
    """Have processes that multiprocessing starts in each way work, beside threads of the parent."""
    jobqueue_pg.init_job_queue(conninfo, settings=SETTINGS)
    jobqueue.start_threads(1)
    statuses = {}
    for method in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=work_in_child, args=(conninfo,))
        child.start()
        child.join(PATIENCE)
        assert child.exitcode is not None, method
        statuses[method] = child.exitcode
    job = jobqueue.enqueue("pid", 1)
    assert jobqueue.wait_for_job(job.id, PATIENCE).result == os.getpid()
    assert jobqueue.finish_threads(PATIENCE)
    return statuses


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](sys.argv[2])))
    sys.stdout.flush()
