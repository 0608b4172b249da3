"""The supervisor of worker processes, where something in itself fails that nobody has thought of."""

import signal
from contextlib import closing

import pytest

import jobqueue
import jobqueue_pg
from jobqueue import State
from jobqueue.cli.child import Child
from jobqueue.cli.plan import Plan
from jobqueue.cli.supervising import run_workers
from jobqueue.cli.supervisor import Supervisor
from jobqueue.cli.worker_process import OK, WRONG
from tests.fixtures.waiting import wait_until

APP = """
import threading
from pathlib import Path
import jobqueue

@jobqueue.handler("short")
def short(number: int) -> None:
    Path("began").touch()
    threading.Event().wait(0.5)
"""

HOLDING_APP = """
import os, sys, threading
from pathlib import Path
import jobqueue, jobqueue_pg
from jobqueue.cli.plan import Plan
from jobqueue.cli.supervising import run_workers

began = threading.Event()

@jobqueue.handler("hold")
def hold(ctx: jobqueue.JobContext, number: int) -> None:
    began.set()
    while not ctx.is_cancelled:
        threading.Event().wait(0.01)
    Path("told").touch()
    threading.Event().wait(60)

if __name__ == "__main__":
    jobqueue_pg.init_job_queue(os.environ["JOBQUEUE_DSN"])
    jobqueue.start_threads(1)
    assert began.wait(20)
    sys.exit(run_workers(Plan(set_up="nobody.gets:here")))
"""
PATIENT_APP = """
import os, sys
from jobqueue.cli.plan import Plan
from jobqueue.cli.supervising import run_workers

if __name__ == "__main__":
    arguments = {"target": "app", "dsn": os.environ["JOBQUEUE_DSN"], "schema": "worker"}
    sys.exit(run_workers(Plan(set_up="jobqueue.cli.target:load", arguments=arguments, threads=1, finish_within=None)))
"""
PATIENCE = 20


@pytest.mark.parametrize("failures", [1, 100])
def test_a_supervisor_that_fails_leaves_jobs_their_time(command_line, migrated, monkeypatch, caplog, failures):
    """What runs is finished, however often it fails; then it ends with a code that is not 0, and the log says why."""
    monkeypatch.chdir(command_line.directory)
    command_line.write("short_app", APP)
    arguments = {"target": "short_app", "dsn": migrated, "schema": "worker"}
    child = Child(Plan(set_up="jobqueue.cli.target:load", arguments=arguments, threads=1))

    class Failing(Supervisor):
        left = failures

        def _patience(self) -> float | None:
            if child.has_been_ready and self.left:
                self.left -= 1
                wait_until((command_line.directory / "began").exists, 20)
                raise RuntimeError("out of order")
            return super()._patience()

    with closing(jobqueue_pg.connect(migrated, origin="tests")) as service:
        job = service.enqueue("short", 1)
        if failures == 1:
            assert Failing([child], lambda _: None).run() == WRONG
        else:
            with pytest.raises(RuntimeError, match="out of order"):
                Failing([child], lambda _: None).run()
        assert service.get_job(job.id).state is State.SUCCEEDED
    assert "the supervisor has failed: worker processes are ending" in caplog.text


def test_jobs_may_take_as_long_as_they_like(command_line, migrated):
    """Where a plan sets no limit, a supervisor that is to end waits for what runs."""
    command_line.write("patient_app", PATIENT_APP)
    with closing(jobqueue_pg.connect(migrated, origin="tests", unknown_types="allow")) as service:
        job = service.enqueue("hold", "one")
        command = command_line.run("patient_app.py")
        wait_until(lambda: list(command_line.directory.glob("one.began.*")), PATIENCE)
        command.signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM" in command.said)
        (command_line.directory / "one.may-end").touch()
        assert command.wait() == OK, command.said
        assert service.get_job(job.id).state is State.SUCCEEDED
    assert "Traceback" not in command.said


def test_a_supervisor_runs_no_jobs(migrated, capfd):
    """Threads that an application has started where it was loaded for the command have ended before that begins."""
    with closing(jobqueue_pg.connect(migrated, origin="tests")) as service, jobqueue.use_service(service):
        pool = jobqueue.start_threads(1)
        assert run_workers(Plan(set_up="there_is_no_such_module:load")) == WRONG
        assert not pool.is_running
    assert "No module named 'there_is_no_such_module'" in capfd.readouterr().err


def test_a_supervisor_that_is_to_end_before_it_begins(command_line, migrated):
    """It waits for no job of the application's own threads, which is released, and ends as asked."""
    command_line.write("holding_app", HOLDING_APP)
    with closing(jobqueue_pg.connect(migrated, origin="tests", unknown_types="allow")) as service:
        job = service.enqueue("hold", 1)
        command = command_line.run("holding_app.py")
        wait_until((command_line.directory / "told").exists, PATIENCE)
        command.signal(signal.SIGTERM)
        assert command.wait() == OK, command.said
        released = service.get_job(job.id)
    assert (released.state, released.run_count, released.claim_id) == (State.AVAILABLE, 0, None)
    assert "were ended: jobs run in the worker processes" in command.said
    assert "SIGTERM: worker processes are ending" in command.said
    assert command.lives == []
