"""``flask jobqueue``, as Flask runs it: by the test's runner, and as processes."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace
from uuid import UUID
from weakref import WeakSet

import pytest
from flask_sqlalchemy import SQLAlchemy

import jobqueue
import jobqueue_pg
from jobqueue import JobQueueError, State
from jobqueue.context import set_service_source
from jobqueue.contrib.flask.worker import set_up
from tests.fixtures.gunicorn import ROOT
from tests.fixtures.joining import url_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

PATIENCE = 30
APP = """
import os, threading
from pathlib import Path
from flask import Flask, current_app
import jobqueue
from jobqueue.contrib.flask import JobQueue

queue = JobQueue()

@queue.handler("where")
def where(number: int) -> list:
    return [current_app.name, number, os.getpid()]

@queue.handler("other")
def other(number: int) -> None:
    pass

def create_app():
    app = Flask("shop")
    app.config.from_prefixed_env()
    queue.init_app(app)
    made.append(app)
    return app

def create_started_app():
    app = create_app()
    with app.app_context():
        queue.start_threads()
    return app

began = threading.Event()

@queue.handler("hold")
def hold(ctx: jobqueue.JobContext, number: int) -> None:
    began.set()
    while not ctx.is_cancelled:
        threading.Event().wait(0.01)
    Path("told").touch()
    threading.Event().wait(60)

def create_holding_app():
    app = create_started_app()
    assert began.wait(20)
    return app

bare = Flask("bare")
made = []

def close():
    for app in made:
        with app.app_context():
            queue.close()
"""


@pytest.fixture
def flask(tmp_path, queue):
    """Run ``flask`` for an application of its own in a directory."""
    (tmp_path / "shop.py").write_text(APP)

    with ExitStack() as stack:

        def run(*arguments, app="shop", dsn=queue):
            process = subprocess.Popen(
                [sys.executable, "-m", "flask", "--app", app, *arguments],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "FLASK_JOBQUEUE_DSN": json.dumps(dsn)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


def test_commands_of_operators(apps, db, queue, service):
    """Commands work on the application's queue, in transactions of their own although Flask gives them a context."""
    uri = url_of(queue, "psycopg").render_as_string(hide_password=False)
    app, queue = apps.make(db=SQLAlchemy(), SQLALCHEMY_DATABASE_URI=uri)
    queue.handler("t")(lambda number: number)
    runner = app.test_cli_runner()
    assert json.loads(runner.invoke(args=["jobqueue", "status", "--json"]).output)
    job = service.enqueue("t", 1)
    listed = runner.invoke(args=["jobqueue", "jobs", "list", "--json"])
    assert json.loads(listed.output)["id"] == str(job.id)
    with app.app_context():
        # The runner pushes none, as the program does.
        cancelled = runner.invoke(args=["jobqueue", "jobs", "cancel", str(job.id)])
    assert cancelled.exit_code == 0, cancelled.output
    assert service.get_job(job.id).cancelled_at is not None
    names = ["status", "jobs", "pause", "resume", "migrate", "worker"]
    said = runner.invoke(args=["jobqueue", "--help"]).output
    assert [name for name in names if f"  {name} " not in said] == []


def test_jobs_of_modules_are_enqueued(apps, registry, service, tmp_path, monkeypatch):
    """Commands know the handlers of the modules that JOBQUEUE_IMPORTS names, and tell of one that is not there."""
    (tmp_path / "jobs_by_command.py").write_text(
        "import shop_parts\nshop_parts.queue.handler('by-command')(lambda number: number)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("jobqueue.registry._registries", WeakSet([registry]))
    app, queue = apps.make(JOBQUEUE_IMPORTS=["jobs_by_command"], JOBQUEUE_UNKNOWN_TYPES="refuse")
    monkeypatch.setitem(sys.modules, "shop_parts", SimpleNamespace(queue=queue))
    added = app.test_cli_runner().invoke(args=["jobqueue", "jobs", "enqueue", "by-command", "1"])
    assert added.exit_code == 0, added.output
    assert sys.modules.pop("jobs_by_command")
    assert service.get_job(UUID(added.output.strip())).type == "by-command"
    app, _ = apps.make(JOBQUEUE_IMPORTS=["shop_of_nobody.jobs"])
    refused = app.test_cli_runner().invoke(args=["jobqueue", "jobs", "list"])
    assert (refused.exit_code, refused.output.startswith("Error: JOBQUEUE_IMPORTS names ")) == (1, True)


def test_migrating(apps, database):
    """The tables are created where the application says; before that, commands say what to run."""
    app, _ = apps.make(JOBQUEUE_DSN=database, JOBQUEUE_SCHEMA="shop_queue")
    runner = app.test_cli_runner()
    refused = runner.invoke(args=["jobqueue", "status"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: ")
    assert "`flask jobqueue migrate`" in refused.output
    for _ in range(2):
        checked = runner.invoke(args=["jobqueue", "migrate", "--check"])
        assert (checked.exit_code, "holds no queue yet" in checked.output) == (1, True)
    migrated = runner.invoke(args=["jobqueue", "migrate"])
    assert migrated.output.endswith('schema "shop_queue" is up to date\n')
    assert runner.invoke(args=["jobqueue", "status"]).exit_code == 0
    assert runner.invoke(args=["jobqueue", "migrate", "--check"]).output == 'schema "shop_queue" is up to date\n'


def test_what_a_user_gets_wrong(apps):
    """A database that is not there is told of in a line."""
    app, _ = apps.make(JOBQUEUE_DSN="postgresql://127.0.0.1:1/none?connect_timeout=3")
    refused = app.test_cli_runner().invoke(args=["jobqueue", "status"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: ")
    assert refused.output.count("\n") == 1


@pytest.mark.parametrize("command", ["jobqueue status", "jobqueue worker", "routes"])
def test_a_key_that_there_is_not(flask, monkeypatch, command):
    """A configuration that cannot be meant is told of in a line by whatever command loads the application."""
    monkeypatch.setenv("FLASK_JOBQUEUE_THREDS", "2")
    process = flask(*command.split(), app="shop:create_app()")
    said, _ = process.communicate(timeout=PATIENCE)
    told = "app.config has JOBQUEUE_THREDS, which is no setting of the job queue: did you mean JOBQUEUE_THREADS?"
    assert (process.returncode, said) == (1, f"Error: {told}\n")


def test_worker_processes(flask, tmp_path, db, queue):
    """Worker processes load the application as Flask does, and run its jobs in its contexts, until they are to end.

    What the application starts by itself is left out.
    """
    arguments = ["--threads", "2", "--types", "where", "--ready-file", "ready"]
    command = flask("jobqueue", "worker", *arguments, app="shop:create_started_app()")
    wait_until((tmp_path / "ready").exists, PATIENCE)
    with jobqueue_pg.connect(queue, origin="tests") as service:
        ended = wait_for_end(service, service.enqueue("where", 5), PATIENCE)
        assert ended.result[:2] == ["shop", 5]
        assert ended.result[2] != command.pid
        other = service.enqueue("other", 1)
        command.send_signal(signal.SIGTERM)
        said, _ = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0, said
        assert "Traceback" not in said
        assert "start_threads() starts nothing in this process, where `jobqueue worker` runs a pool of its own" in said
        assert not service.get_job(other.id).started
    assert fetch_all(db, "select id from worker.job where started_at is not null and stopped_at is null") == []


def test_a_worker_that_is_to_end_before_it_begins(flask, tmp_path, service):
    """It waits for no job of the threads that the application has started by itself, which is released."""
    job = service.enqueue("hold", 1)
    command = flask("jobqueue", "worker", app="shop:create_holding_app()")
    wait_until((tmp_path / "told").exists, PATIENCE)
    command.send_signal(signal.SIGTERM)
    said, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, said
    released = service.get_job(job.id)
    assert (released.state, released.run_count, released.claim_id) == (State.AVAILABLE, 0, None)
    assert "were ended: jobs run in the worker processes" in said
    assert "SIGTERM: worker processes are ending" in said


@pytest.mark.parametrize(
    ("app", "types", "message"),
    [
        (
            "shop:create_app()",
            ["wear"],
            "of type 'wear' have no handler here: there are handlers for hold, other, where",
        ),
        ("shop:make_app()", [], "'make_app' in 'shop'"),
        ("shop:bare", [], "the Flask application 'bare' has no job queue"),
    ],
)
def test_what_workers_refuse(flask, tmp_path, queue, monkeypatch, app, types, message):
    """What worker processes cannot do is said in a message, which the command shows."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FLASK_JOBQUEUE_DSN", json.dumps(queue))
    with pytest.raises(JobQueueError, match=re.escape(message)):
        set_up(app=app, threads=None, types=types, lanes={}, log_runs=False)
    shop = sys.modules.pop("shop")
    jobqueue.unregister("where", "other", "hold")
    shop.close()
    set_service_source(None)
