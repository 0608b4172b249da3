"""A Flask application with Flask-SQLAlchemy, as gunicorn and Flask's own commands serve it."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
from uuid import UUID

import pytest

import jobqueue_pg
from tests.fixtures.gunicorn import ROOT
from tests.fixtures.joining import url_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

KIOSK = ROOT / "tests" / "apps" / "kiosk"
PATIENCE = 30
CLAIMED = "select claimed_by from worker.job where started_at is not null and stopped_at is null"
TABLES = """
create table "order" (id serial primary key, note text not null, shipped int not null default 0);
create table shipping (id serial primary key, order_id int not null, pid int not null);
"""


@pytest.fixture
def env(migrated, connection):
    """What the application is told by its environment."""
    connection.execute(TABLES)
    return {
        "KIOSK_DATABASE": url_of(migrated, "psycopg").render_as_string(hide_password=False),
        "FLASK_JOBQUEUE_HEARTBEAT_INTERVAL": "0.3",
        "FLASK_JOBQUEUE_DEAD_FOR": "1.5",
    }


@pytest.fixture
def service(migrated):
    with jobqueue_pg.connect(migrated, origin="tests") as service:
        yield service


def pids_of(service, number, seconds=0.2):
    """Have orders packed; return which processes have done it."""
    jobs = [service.enqueue("pack", {"order": order, "seconds": seconds}) for order in range(number)]
    return {wait_for_end(service, job, PATIENCE).result for job in jobs}


def wait_for_work_in(service, *pids):
    """Wait until jobs have run in all of these processes."""
    seen = set()
    wait_until(lambda: seen.update(pids_of(service, 8, 0.1)) or set(pids) <= seen, PATIENCE, message=f"work in {pids}")


@pytest.mark.parametrize("preload", [False, True])
def test_served_by_gunicorn(gunicorn, service, env, connection, preload):
    """Workers do jobs from their boot on; what commits is done, what does not is not, whichever workers end."""
    server = gunicorn("kiosk:create_app()", chdir=KIOSK, env=env, preload=preload)
    wait_until(lambda: len(server.workers) == 2, PATIENCE)
    # Nobody has requested anything yet.
    wait_for_work_in(service, *server.workers)
    assert_orders_are_shipped_once_if_committed(server, service, connection)
    assert_killed_workers_are_replaced(server, service, connection)
    assert_reloaded_workers_have_one_pool(server, service)
    server.ask_to_end()
    assert server.wait() == 0
    assert fetch_all(connection, CLAIMED) == []
    assert fetch_all(connection, "select id from worker.job where error_msg is not null") == []
    assert server.said.count("Traceback") == 1  # of the request that fails


def assert_orders_are_shipped_once_if_committed(server, service, connection):
    made = server.post("orders/a/commit")
    rolled_back = server.post("orders/b/rollback")
    with pytest.raises(urllib.error.HTTPError, match="500"):
        server.post("orders/c/fail")
    ended = wait_for_end(service, UUID(made["job"]), PATIENCE)
    assert (ended.error_msg, ended.origin) == (None, "kiosk")
    assert fetch_all(connection, 'select note, shipped from "order"') == [("a", 1)]
    assert fetch_all(connection, "select id from worker.job where id = %s", rolled_back["job"]) == []
    assert fetch_all(connection, "select count(*) from worker.job where type = 'ship'") == [1]


def assert_killed_workers_are_replaced(server, service, connection):
    before = server.workers
    connection.execute("truncate shipping")
    jobs = [service.enqueue("pack", {"order": order, "seconds": 2}) for order in range(4)]
    wait_until(lambda: fetch_all(connection, "select count(distinct pid) from shipping") == [2], PATIENCE)
    os.kill(before[0], signal.SIGKILL)
    ended = [wait_for_end(service, job, PATIENCE) for job in jobs]
    assert all(job.succeeded for job in ended)
    assert sum(job.rescue_count for job in ended) >= 1
    (new,) = wait_until(lambda: set(server.workers) - set(before), PATIENCE)
    wait_for_work_in(service, new)


def assert_reloaded_workers_have_one_pool(server, service):
    workers = server.reload()
    wait_for_work_in(service, *workers)
    told = {}

    def all_have_told():
        pid, threads = server.get("threads").values()
        told[pid] = [name for name in threads if re.fullmatch(r"jobqueue-worker-\d+", name)]
        return len(told) >= len(workers) and all(len(names) >= 2 for names in told.values())

    wait_until(all_have_told, PATIENCE, message=f"two worker threads in each of {workers}")
    assert {pid: len(names) for pid, names in told.items()} == dict.fromkeys(workers, 2)


def flask(env, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "kiosk:create_app", *arguments],
        cwd=KIOSK,
        env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.mark.parametrize("debug", [False, True])
def test_served_by_flask_run(service, env, debug):
    """``flask run`` does jobs without a request; with its reloader on, in the child only, never in the watcher."""
    server = flask(env, "run", "--port", "0", *(["--debug"] if debug else []), start_new_session=True)
    try:
        pids = pids_of(service, 8)
        assert len(pids) == 1
        assert (server.pid in pids) is not debug
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=PATIENCE)


def test_commands_that_serve_nothing(service, env):
    """A shell that enqueues has no worker threads, and what it has enqueued stays for those who serve."""
    code = (
        "import threading, kiosk; "
        "job = kiosk.pack.enqueue({'order': 1, 'seconds': 0}); "
        "kiosk.db.session.commit(); "
        "print('told', job.id, *[t.name for t in threading.enumerate()])\n"
    )
    said, _ = flask(env, "shell", stdin=subprocess.PIPE).communicate(code, timeout=PATIENCE)
    told = re.search("told (.*)", said)
    assert told, said
    job, *threads = told[1].split()
    assert not [name for name in threads if re.match("jobqueue-(worker|starting|keeper|reaper)", name)]
    assert service.get_job(UUID(job)).run_count == 0
    assert "/threads" in flask(env, "routes").communicate(timeout=PATIENCE)[0]
    assert not service.get_job(UUID(job)).started
