"""Programs that end without a word to their worker threads."""

import subprocess
import sys
import textwrap
import time

import pytest
from psycopg.conninfo import make_conninfo

from jobqueue import Registry, State
from tests.fixtures.frozen import frozen
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, wait_for_end

PATIENCE = 60
CLAIMED = "select id from worker.job where started_at is not null and stopped_at is null"


@pytest.fixture
def service(workers):
    return workers.service()


PROGRAM = """
import os, sys, threading
from datetime import timedelta
import jobqueue, jobqueue_pg
from jobqueue import WorkerSettings

settings = WorkerSettings(
    poll_interval=timedelta(seconds=30), heartbeat_interval=timedelta(seconds=0.3), dead_for=timedelta(seconds=1)
)
service = jobqueue_pg.init_job_queue(sys.argv[1], settings=settings)
began = threading.Semaphore(0)

@jobqueue.handler("short")
def short(n: int) -> int:
    began.release()
    threading.Event().wait(0.5)
    return n

@jobqueue.handler("hung")
def hung(n: int) -> int:
    began.release()
    threading.Event().wait(60)
    return n

over = threading.Event()

@jobqueue.handler("last")
def last(n: int) -> int:
    over.wait(60)
    return n

pool = jobqueue.start_threads(2)
"""


def run_program(conninfo, body):
    """Run PROGRAM and *body* to their end; return that, and how many seconds it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(body), conninfo],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize(
    ("end", "status", "last_words"),
    [
        ("", 0, ""),
        ("raise ValueError('the end')", 1, "ValueError: the end\n"),
        ("service.add_job_stopped_listener(lambda job, will_retry: None); jobqueue.stop_threads(); sys.exit(3)", 3, ""),
    ],
)
def test_a_program_that_ends_saves_its_jobs(workers, queue, service, db, end, status, last_words):
    """However the main thread ends, running jobs are waited for, and saved."""
    job = service.enqueue("short", 3)
    done, _ = run_program(queue, f"began.acquire()\n{end}")
    assert done.returncode == status
    assert done.stderr.endswith(last_words)
    assert bool(done.stderr) == bool(last_words)
    assert service.get_job(job.id).result == 3
    assert fetch_all(db, CLAIMED) == []


def test_a_program_that_ends_releases_what_hangs(workers, queue, service, db):
    """At the end of the interpreter all pools are waited for, for 5 s together; jobs that hang are released."""
    hung, other, short = service.enqueue("hung", 1), service.enqueue("hung", 2), service.enqueue("short", 3)
    done, seconds = run_program(
        queue,
        """
        from jobqueue import WorkerPool
        WorkerPool(service, threads=1).start()
        for _ in range(3):
            began.acquire()
        """,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert service.get_job(short.id).result == 3
    for job in (hung, other):
        released = service.get_job(job.id)
        assert (released.state, released.run_count, released.rescue_count) == (State.AVAILABLE, 0, 0)
        assert f"job {job.id} (hung) is still running" in done.stderr
    assert fetch_all(db, CLAIMED) == []
    assert seconds < 40


def test_a_program_that_ends_releases_what_it_claimed_by_hand(workers, queue, service, db):
    """Claims by hand that are open at the end of the interpreter are released, in its own process alone."""
    jobs = [service.enqueue("by hand", number) for number in range(3)]
    done, _ = run_program(
        queue,
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        claims = service.claim("by hand", 3)
        claims[0].finish("in time")
        child = os.fork()
        if child == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert all(jobqueue.get_job(claim.job.id).started for claim in claims)
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert service.get_job(jobs[0].id).result == "in time"
    assert {service.get_job(job.id).state for job in jobs[1:]} == {State.AVAILABLE}
    assert fetch_all(db, CLAIMED) == []


@pytest.mark.parametrize(
    "end", ["os._exit(0)", "os.execv(sys.executable, [sys.executable, '-c', 'print(\"another\")'])"]
)
def test_a_program_that_is_gone_at_once_leaves_its_job_to_the_reaper(workers, queue, service, db, end):
    """A program that skips the end of its interpreter, or becomes another one, has crashed: its claims fall silent."""
    job = service.enqueue("hung", 3)
    name = f"gone-{job.id}"  # of its sessions, and of no other test's
    done, _ = run_program(make_conninfo(queue, application_name=name), f"began.acquire()\n{end}")
    assert (done.returncode, done.stderr) == (0, "")
    assert service.get_job(job.id).state is State.RUNNING
    sessions = f"select pid from pg_stat_activity where application_name = '{name}'"
    wait_until(lambda: fetch_all(db, sessions) == [])
    registry = Registry()
    registry.register_func_for_job_type("hung", lambda number: number + 1)
    workers.start(registry, 1, **FAST_DEATH)
    ended = wait_for_end(service, job)
    assert (ended.result, ended.rescue_count, ended.run_count) == (4, 1, 1)


# --- without a database


def start_program(conninfo):
    """Start PROGRAM; it ends when it is told so."""
    program = subprocess.Popen(
        [sys.executable, "-c", f"{PROGRAM}\nprint('ready', flush=True)\nsys.stdin.read()\nover.set()", conninfo],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    return program


def end_program(program):
    """Have it end; return its status, what it said, and how many seconds that took."""
    began = time.monotonic()
    _, said = program.communicate(timeout=PATIENCE)
    return program.returncode, said, time.monotonic() - began


def test_a_program_that_ends_when_its_database_has_gone(exposed, server):
    """A program whose jobs cannot be saved ends in bounded time, says so, and shows no traceback."""
    service = exposed.service()
    job = service.enqueue("last", 1)
    program = start_program(server.conninfo)
    wait_until(lambda: service.get_job(job.id).started)
    server.stop()
    status, said, seconds = end_program(program)
    assert status == 0
    assert "the database did not answer in time" in said
    assert "Traceback" not in said
    assert seconds < 30


def test_a_program_that_ends_when_its_database_is_frozen(exposed, server):
    """A server that hangs cannot keep a program from ending, though one of its jobs hangs, too."""
    service = exposed.service()
    job = service.enqueue("hung", 1)
    program = start_program(server.conninfo)
    wait_until(lambda: service.get_job(job.id).started)
    with frozen(server.pid):
        status, said, seconds = end_program(program)
    assert status == 0
    assert f"job {job.id} (hung) is still running" in said
    assert "Traceback" not in said
    assert seconds < 30
