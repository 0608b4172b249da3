"""Processes that fork while they have services and threads: what the child may do, and what it must not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jobqueue_pg
from tests.fixtures.stores import fetch_all

PROGRAM = Path(__file__).with_name("forking.py")
PATIENCE = 120
CLAIMED = "select id from worker.job where started_at is not null and stopped_at is null"


def run(name, conninfo, errors=""):
    """Run a program that forks; return what it returned."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, conninfo], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0
    assert re.fullmatch(errors, done.stderr), done.stderr
    return json.loads(done.stdout)


def test_a_child_that_uses_what_it_inherited(queue, db):
    """Each use of a parent's service, claims and pools says "connect after the fork", or has nothing to do."""
    came_to = run("use_what_is_inherited", queue, errors=r"job \S+ \(by hand\) failed: no\n")
    refused = {name for name, (kind, _) in came_to.items() if kind == "ClosedError"}
    assert {name: outcome for name, outcome in came_to.items() if name not in refused} == {
        "WorkerPool.stop": ["returns", "None"],
        "WorkerPool.finish": ["returns", "True"],
        "WorkerPool.poll_every": ["returns", "None"],
        "WorkerPool.is_running": ["returns", "False"],
        "start_polling_available_jobs": ["returns", "None"],
        "stop_threads": ["returns", "None"],
        "finish_threads": ["returns", "True"],
    }
    for name in refused:
        assert "forked" in came_to[name][1], name
        assert "connect after" in came_to[name][1], name
    assert fetch_all(db, CLAIMED) == []


def test_the_end_of_a_child_is_not_the_end_of_its_parents_sessions(queue, db):
    """However a child ends, and whatever it collects, the parent works on over the connections that it had."""
    told = run("end_in_every_way", queue)
    assert len(told["before"]) >= 3
    assert set(told["before"]) <= set(told["after"])
    assert told["errors"] == []
    assert set(told["last_errors"]) == {None}
    assert fetch_all(db, CLAIMED) == []


def test_a_fork_while_locks_are_held(queue, db):
    """Whatever lock a thread of the parent holds at the fork, the child can connect, work and end."""
    statuses = run("fork_while_locks_are_held", queue)
    assert set(statuses.values()) == {7}, statuses
    assert fetch_all(db, CLAIMED) == []


def test_forks_among_threads_that_work(queue, db):
    """Children of a process whose threads are busy connect, work and end, again and again; the parent goes on."""
    assert run("fork_while_threads_work", queue) == 10
    assert fetch_all(db, CLAIMED) == []
    assert fetch_all(db, "select count(*) from worker.job where stopped_at is not null and error_msg is not null") == [
        0
    ]


def test_ids_after_a_fork(queue):
    """A child makes other ids than its parent, though both make them at the same time."""
    assert run("make_ids", queue) == 0


def test_processes_of_multiprocessing(queue, db):
    """Processes that were forked, spawned or begotten by a fork server work when they connect for themselves."""
    assert run("start_processes", queue) == {"fork": 0, "spawn": 0, "forkserver": 0}
    assert fetch_all(db, CLAIMED) == []


def test_imports_start_no_thread():
    """Threads start when the application says so, never because something is imported: autoreloaders import twice."""
    modules = [jobqueue_pg.__name__, "jobqueue", "jobqueue.testing", "jobqueue.cli"]
    code = f"import threading, {', '.join(modules)}; print([thread.name for thread in threading.enumerate()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['MainThread']\n", "")
