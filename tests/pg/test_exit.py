"""Programs that end, or fork, without a word to their worker threads."""

import subprocess
import sys
import textwrap
import time

import pytest

from jobqueue import State


@pytest.fixture
def service(workers):
    return workers.service()


PROGRAM = """
import os, sys, threading
from datetime import timedelta
import jobqueue, jobqueue_pg
from jobqueue import WorkerSettings

service = jobqueue_pg.init_job_queue(sys.argv[1], settings=WorkerSettings(poll_interval=timedelta(seconds=30)))
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

jobqueue.start_threads(2)
"""


def run_program(queue, body):
    program = PROGRAM + textwrap.dedent(body)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, queue], capture_output=True, text=True, timeout=60, check=False
    )
    return done, time.monotonic() - began


def test_a_program_that_just_ends_saves_its_jobs(workers, queue, service):
    """At the end of the interpreter running jobs are waited for, and saved."""
    job = service.enqueue("short", 3)
    done, seconds = run_program(queue, "began.acquire()")
    assert (done.returncode, done.stderr) == (0, "")
    assert service.get_job(job.id).result == 3
    assert seconds < 8


def test_a_program_that_just_ends_releases_what_hangs(workers, queue, service):
    """At the end of the interpreter a job that hangs is waited for no longer than 5 s, and released."""
    hung, short = service.enqueue("hung", 1), service.enqueue("short", 2)
    done, seconds = run_program(queue, "began.acquire(); began.acquire()")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert service.get_job(short.id).result == 2
    released = service.get_job(hung.id)
    assert (released.state, released.run_count) == (State.AVAILABLE, 0)
    assert seconds < 9


def test_the_end_of_a_fork_is_not_the_end_of_its_parent(workers, queue, service):
    """A process forked from one that has workers ends, and closes none of its parent's connections."""
    job = service.enqueue("short", 3)
    done, _ = run_program(
        queue,
        """
        import warnings
        began.acquire()
        warnings.simplefilter("ignore")
        child = os.fork()
        if child == 0:
            jobqueue.stop_threads()
            assert jobqueue.finish_threads(1)
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        again = jobqueue.enqueue("short", 4)
        began.acquire()
        assert jobqueue.finish_threads(10)
        assert jobqueue.get_job(again.id).result == 4
        print(jobqueue.health()["parts"]["workers"]["last_error"])
        """,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "None\n")
    assert service.get_job(job.id).result == 3


def test_a_forked_child_starts_workers_of_its_own(workers, queue, service):
    """After a fork the child connects, registers and starts threads, although its parent's go on."""
    done, _ = run_program(
        queue,
        """
        import warnings
        warnings.simplefilter("ignore")
        child = os.fork()
        if child == 0:
            jobqueue.register_func_for_job_type("in-child", lambda n: n + 1)
            jobqueue_pg.init_job_queue(sys.argv[1])
            jobqueue.start_threads(1)
            job = jobqueue.enqueue("in-child", 1)
            assert jobqueue.wait_for_job(job.id, 20).result == 2
            assert jobqueue.finish_threads(10)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
