"""gunicorn with --preload and two workers: the application is imported once, and forked."""

from pathlib import Path
from uuid import UUID

import pytest

import jobqueue_pg
from tests.fixtures.gunicorn import PATIENCE
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

HERE = Path(__file__).parent
CLAIMED = "select claimed_by from worker.job where started_at is not null and stopped_at is null"


@pytest.fixture
def serve(gunicorn, queue):
    """Serve the application, which connects in one of its ways."""

    def start(connect):
        settings = ("--config", str(HERE / "gunicorn_settings.py"))
        env = {"CONNINFO": queue, "CONNECT": connect}
        return gunicorn("gunicorn_app:app", chdir=HERE, env=env, preload=True, options=settings)

    return start


@pytest.fixture
def service(queue):
    with jobqueue_pg.connect(queue, origin="tests") as service:
        yield service


@pytest.mark.parametrize("connect", ["post_fork", "first request"])
def test_workers_that_connect_for_themselves(serve, service, db, connect):
    """Workers of a preloaded application enqueue in requests and do jobs in threads; SIGTERM lets running jobs end."""
    server = serve(connect)
    answers = []

    def both_have_answered():
        answers.append(server.get("0"))
        return len({answer["pid"] for answer in answers}) == 2

    wait_until(both_have_answered, PATIENCE, message="that each worker answers")
    requesters = {answer["pid"] for answer in answers}
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


def test_workers_that_inherit_a_connection(serve, service, db):
    """A request to a worker whose master had connected is told why that cannot be; the master's threads go on."""
    server = serve("preload")
    answer = server.get("0")
    assert answer["error"] == "ClosedError"
    assert f"belongs to process {server.pid}" in answer["message"]
    assert "connect after the fork" in answer["message"]
    assert wait_for_end(service, service.enqueue("pid", 0)).result == server.pid
    server.ask_to_end()
    assert server.wait() == 0
    assert fetch_all(db, CLAIMED) == []
    assert "Traceback" not in server.said
