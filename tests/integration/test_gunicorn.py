"""gunicorn with --preload and two workers: the application is imported once, and forked."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from uuid import UUID

import pytest

import jobqueue_pg
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

SETTINGS = Path(__file__).with_name("gunicorn_settings.py")
PATIENCE = 30
CLAIMED = "select claimed_by from worker.job where started_at is not null and stopped_at is null"


class Gunicorn:
    """A gunicorn that serves the application, until it is told to end."""

    def __init__(self, conninfo, connect):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", str(SETTINGS)],
            env={
                **os.environ,
                "CONNINFO": conninfo,
                "CONNECT": connect,
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line

    @property
    def pid(self):
        return self._process.pid

    def get(self, path):
        """Ask for *path*, as soon as there is somebody to ask; return the answer."""
        wait_until(lambda: "Listening at:" in self.said or self._process.poll() is not None, PATIENCE)
        found = re.search(r"Listening at: (http://[0-9.:]+)", self.said)
        assert found, self.said
        with urllib.request.urlopen(f"{found[1]}/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def ask_to_end(self):
        """Tell it to end as a service manager does."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self):
        """Wait for its end, and return its exit status."""
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def discard(self):
        """End it, whatever it does."""
        if self._process.poll() is None:
            self.ask_to_end()
        self.wait()
        self._process.stdout.close()


@pytest.fixture
def gunicorn(queue):
    started = []

    def start(connect):
        started.append(Gunicorn(queue, connect))
        return started[-1]

    yield start
    for server in started:
        server.discard()


@pytest.fixture
def service(queue):
    with jobqueue_pg.connect(queue, origin="tests") as service:
        yield service


@pytest.mark.parametrize("connect", ["post_fork", "first request"])
def test_workers_that_connect_for_themselves(gunicorn, service, db, connect):
    """Workers of a preloaded application enqueue in requests and do jobs in threads; SIGTERM lets running jobs end."""
    server = gunicorn(connect)
    answers = [server.get("0")]
    while len({answer["pid"] for answer in answers}) < 2 and len(answers) < 500:
        answers.append(server.get("0"))
    requesters = {answer["pid"] for answer in answers}
    assert len(requesters) == 2
    assert server.pid not in requesters
    assert {wait_for_end(service, UUID(answer["job"])).result for answer in answers} <= requesters
    last = service.get_job(UUID(server.get("1")["job"]))
    wait_until(lambda: service.get_job(last.id).started)
    server.ask_to_end()
    assert server.wait() == 0
    ended = service.get_job(last.id)
    assert ended.result in requesters
    assert (ended.run_count, ended.rescue_count) == (1, 0)
    assert fetch_all(db, CLAIMED) == []
    assert "Traceback" not in server.said


def test_workers_that_inherit_a_connection(gunicorn, service, db):
    """A request to a worker whose master had connected is told why that cannot be; the master's threads go on."""
    server = gunicorn("preload")
    answer = server.get("0")
    assert answer["error"] == "ClosedError"
    assert f"belongs to process {server.pid}" in answer["message"]
    assert "connect after the fork" in answer["message"]
    assert wait_for_end(service, service.enqueue("pid", 0)).result == server.pid
    server.ask_to_end()
    assert server.wait() == 0
    assert fetch_all(db, CLAIMED) == []
    assert "Traceback" not in server.said
