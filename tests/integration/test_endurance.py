"""What a process takes, however long and hard it works: connections, memory, the time until its jobs are taken up."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

import jobqueue_pg
from jobqueue import Job, Snooze
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end

NAME = "endurance"
PROGRAM = Path(__file__).with_name("endless_process.py")

JOBS = int(os.environ.get("JOBQUEUE_TEST_ENDURANCE_JOBS", "20000"))
"""How many jobs one process has to work off; 100,000 is what the promise is about."""

MEGABYTE = 1_000_000
TO_DO = "select count(*) from worker.job where stopped_at is null"


def test_thirty_two_threads_use_four_connections(workers, queue, db, registry):
    """With 32 threads of work, sampled 10 times a second, a process never has more than 4 connections."""
    registry.handler("short")(lambda number: number)
    registry.handler("long")(lambda number: threading.Event().wait(0.05) or number)
    registry.handler("snoozing")(lambda _: Snooze(timedelta(hours=1)))
    service = workers.service(application_name=NAME)
    with jobqueue_pg.connect(queue, origin="tests") as adding:
        workers.start_on(service, registry, 32)
        seen: list[int] = []
        pause = threading.Event()
        for number in range(40):
            for type in ("short", "long", "snoozing"):
                adding.add_jobs([Job.new(type, number) for _ in range(32)])
            assert not pause.wait(0.1)
            seen.append(connections_of(db, NAME))
        while fetch_all(db, "select count(*) from worker.job where run_count = 0") != [0]:
            assert not pause.wait(0.1)
            seen.append(connections_of(db, NAME))
            assert len(seen) < 600
        assert 3 <= max(seen) <= 4, seen


def test_the_job_of_a_killed_process_is_claimed_again_within_six_seconds(processes, migrated, connection):
    """With dead_for at 3 s, another process has the job of one that was killed within 6 s of that."""
    patience = {"threads": 1, "heartbeat": 1, "dead_for": 3}
    workers = [processes.start(**patience) for _ in range(2)]
    with jobqueue_pg.connect(migrated, origin="tests") as service:
        job = service.enqueue("first slow", 60)
        [pid] = wait_until(lambda: fetch_all(connection, "select pid from run where event = 'began'"))
        # Both have listened for long enough to judge the silence of others.
        assert not threading.Event().wait(4)
        [victim] = [worker for worker in workers if worker.pid == pid]
        victim.kill()
        killed_at = time.monotonic()
        began = "select pid from run where event = 'began' order by at"
        wait_until(lambda: len(fetch_all(connection, began)) == 2, 15)
        seconds = time.monotonic() - killed_at
        assert wait_for_end(service, job).rescue_count == 1
    assert seconds < 6, seconds


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read as Linux shows it")
def test_memory_does_not_grow_with_the_number_of_jobs(migrated, connection, record_property):
    """After the second half of the jobs, a process keeps less than 10 MB more than after the first."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), migrated, str(JOBS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    sizes = []
    with process, jobqueue_pg.connect(migrated, origin="tests") as service:
        for _ in range(2):
            for start in range(0, JOBS // 2, 5000):
                service.add_jobs([Job.new("t", number) for number in range(start, min(start + 5000, JOBS // 2))])
            sizes.append(int(process.stdout.readline()))
            process.stdin.write("go on\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert fetch_all(connection, TO_DO) == [0]
    assert fetch_all(connection, "select count(*) from worker.job where result = payload") == [JOBS // 2 * 2]
    record_property("megabytes after half of the jobs, and after all", [size / MEGABYTE for size in sizes])
    assert sizes[1] - sizes[0] < 10 * MEGABYTE, sizes
