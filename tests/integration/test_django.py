"""A project of Django, served by gunicorn and by its own server: requests enqueue, threads of the processes work."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing

import psycopg
import pytest

from tests.fixtures.gunicorn import PATIENCE
from tests.fixtures.shop import SHOP
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until

WORKERS = ["jobqueue-worker-0", "jobqueue-worker-1"]
LISTENERS = (
    "select pid from pg_stat_activity where datname = current_database() and starts_with(lower(query), 'listen')"
)
RUNNING = "select claimed_by from worker.job where started_at is not null and stopped_at is null"
BEGUN_BY = "select claimed_by from worker.job where id = %s and started_at is not null"
SHIPPED = "select s.pid from orders_shipment s join orders_order o on o.id = s.order_id where o.item = %s"


@pytest.fixture
def db(shop):
    with closing(psycopg.connect(shop.conninfo, autocommit=True)) as connection:
        yield connection


def processes_of(server, number=2):
    """Ask until so many processes have all their threads; return the names of the threads of each."""
    found = {}

    def have_answered():
        answer = server.get("process")
        found[answer["pid"]] = [name for name in answer["threads"] if name.startswith("jobqueue-worker-")]
        return len(found) >= number and all(len(names) >= len(WORKERS) for names in found.values())

    wait_until(have_answered, PATIENCE)
    return found


def claimant(db, held):
    """Wait until a job that was answered has begun, and return the process that runs it, or has done so."""
    [claimed_by] = wait_until(lambda: fetch_all(db, BEGUN_BY, held["job"]), message="that the job begins")
    return int(claimed_by.split(":")[1])


@pytest.mark.parametrize("preload", [False, True], ids=["load in workers", "preload"])
def test_gunicorn(shop, gunicorn, db, preload):
    """What is committed runs, what is rolled back does not; no kill loses a job; a reload doubles nothing."""
    server = gunicorn("shop.wsgi:application", chdir=SHOP, env=shop.env, preload=preload)
    assert processes_of(server) == dict.fromkeys(server.workers, WORKERS)
    # The master has no connection: each worker has one that listens.
    wait_until(lambda: len(fetch_all(db, LISTENERS)) == 2)

    ordered = server.get("order/book")
    assert ordered["pid"] in server.workers
    [shipped_by] = wait_until(lambda: fetch_all(db, SHIPPED, "book"))
    assert shipped_by in server.workers
    with pytest.raises(urllib.error.HTTPError, match="500"):
        server.get("refuse/ghost")
    assert fetch_all(db, "select item, is_shipped from orders_order") == [("book", True)]
    assert fetch_all(db, "select type from worker.job") == ["ship"]

    killed = claimant(db, server.get("hold/lamp/60"))
    os.kill(killed, signal.SIGKILL)
    [shipped_by] = wait_until(lambda: fetch_all(db, SHIPPED, "lamp"), PATIENCE)
    assert shipped_by != killed
    assert fetch_all(db, "select rescue_count from worker.job where type = 'hold'") == [1]

    wait_until(lambda: len(server.workers) == 2)
    others = server.reload()
    assert processes_of(server) == dict.fromkeys(others, WORKERS)
    wait_until(lambda: len(fetch_all(db, LISTENERS)) == 2)
    # Nor has any of them started a second pool since.
    assert processes_of(server) == dict.fromkeys(others, WORKERS)

    assert claimant(db, server.get("hold/desk/0.5")) in others
    server.ask_to_end()
    assert server.wait() == 0
    assert fetch_all(db, RUNNING) == []
    assert len(fetch_all(db, SHIPPED, "desk")) == 1
    assert "Traceback" not in server.said, server.said


def test_runserver(shop, db):
    """The development server starts threads in the process that serves, not in the one that watches files."""
    server = shop.start("runserver", "127.0.0.1:0")
    said = Said(server)
    try:
        url = wait_until(lambda: re.search(r"server at (http://[0-9.:]+)/", said.text), PATIENCE)[1]
        answer = wait_until(lambda: with_threads(ask(f"{url}/process")), PATIENCE)
        assert answer["pid"] != server.pid
        assert fetch_all(db, SHIPPED, "book") == []
        assert ask(f"{url}/order/book")["pid"] == answer["pid"]
        assert wait_until(lambda: fetch_all(db, SHIPPED, "book")) == [answer["pid"]]
        wait_until(lambda: len(fetch_all(db, LISTENERS)) == 1)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        said.close()


def with_threads(answer):
    return answer if set(WORKERS) <= set(answer["threads"]) else None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["migrate"], "No migrations to apply"),
        (["shell", "-c", "from orders.views import order; order(None, 'book')"], ""),
        (["check", "--database", "default"], "no issues"),
    ],
    ids=["migrate", "shell", "check"],
)
def test_commands_start_no_threads(shop, db, command, said):
    """A command of the project starts no worker threads, though it may enqueue."""
    told = shop.manage(*command, SHOP_TELLS_THREADS="yes")
    assert said in told
    assert "jobqueue-worker" not in told
    assert "threads: [" in told
    assert fetch_all(db, RUNNING) == []


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_test(shop, db, driver):
    """The project's own tests have the queue in their database and transactions, and leave nothing."""
    told = shop.manage("test", SHOP_TELLS_THREADS="yes", SHOP_DRIVER=driver)
    assert "Ran 5 tests" in told
    assert "OK" in told
    assert "threads: []" in told
    assert fetch_all(db, "select count(*) from worker.job") == [0]
    name = f"test_{db.info.dbname}"
    assert fetch_all(db, "select from pg_database where datname = %s", name) == []


def test_tests_in_processes(shop, db):
    """They may run in several processes, each with a database of its own."""
    told = shop.manage("test", "--parallel", "2", SHOP_TELLS_THREADS="yes")
    assert "OK" in told
    assert (
        fetch_all(db, "select datname from pg_database where starts_with(datname, %s)", f"test_{db.info.dbname}") == []
    )


class Said:
    """What a process says, as it says it."""

    def __init__(self, process):
        self.text = ""
        self._process = process
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.text += line

    def close(self):
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._process.stdout.close()


def ask(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_wrong_settings(shop):
    """A server ends at once where JOBQUEUE is wrong; a command says so in a line."""
    served = subprocess.run(
        [sys.executable, "-c", "import shop.wsgi"],
        cwd=SHOP,
        env={**shop.env, "SHOP_JOBQUEUE": '{"THREADZ": 4}'},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert served.returncode == 1
    assert "ImproperlyConfigured: JOBQUEUE['THREADZ'] is no setting of the job queue" in served.stderr
    told = shop.manage("migrate", status=1, SHOP_JOBQUEUE='{"THREADZ": 4}')
    assert "jobqueue.E001" in told
    assert "Traceback" not in told


def test_worker(shop, db):
    """Worker processes of the project have its handlers, and end when they are told to, with their jobs done."""
    worker = shop.start("jobqueue", "worker", "--processes", "2")
    said = Said(worker)
    try:
        wait_until(lambda: len(re.findall("worker process [0-9]+ is ready", said.text)) == 2, PATIENCE)
        shop.manage("shell", "-c", "from orders.views import order; order(None, 'book')")
        [shipped_by] = wait_until(lambda: fetch_all(db, SHIPPED, "book"))
        assert shipped_by != worker.pid
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
        assert fetch_all(db, RUNNING) == []
        assert "Traceback" not in said.text
    finally:
        worker.kill()
        said.close()
