"""Pauses that other processes set."""

import time

import pytest

import jobqueue_pg
from jobqueue import Job
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until


@pytest.fixture
def service(migrated):
    with jobqueue_pg.connect(migrated, origin="tests") as service:
        yield service


def test_other_processes_obey_within_a_second(processes, service, connection):
    """Two busy processes, which hold jobs ahead, start nothing of a paused type a second after the pause is committed.

    They go on with others, and with that one when it is resumed.
    """
    for _ in range(2):
        processes.start(threads=2, heartbeat=0.3, dead_for=2.0, batch_size=64)

    def runs() -> int:
        return fetch_all(connection, "select count(*) from run")[0]

    service.add_jobs([Job.new("quick", number) for number in range(20_000)])
    wait_until(runs, 20)
    service.pause("quick", reason="too much of it")
    paused_at = time.monotonic()
    wait_until(lambda: time.monotonic() - paused_at >= 1)
    before = runs()
    slow = service.enqueue("slow", 0.5)
    assert service.wait_for_job(slow.id, 20).succeeded
    assert runs() == before + 2
    assert before < 20_000
    assert service.resume("quick")
    wait_until(lambda: runs() > before + 2)
