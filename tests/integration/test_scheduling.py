"""Processes that see to the same schedules, some of which are killed."""

import math
import random
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.integration.scheduling_process import END, START, FastClock, fast_service

PROGRAM = Path(__file__).with_name("scheduling_process.py")
NAMES = [f"s{number}" for number in range(10)]
SECOND = timedelta(seconds=1)


def test_each_tick_leads_to_one_job_though_processes_are_killed(migrated, processes, connection):
    """Two processes see to over 1,000 ticks, while one of them is killed at random moments, and replaced.

    Its end comes at any point of a statement or between two: no tick is lost, none is doubled, and the history agrees.
    """
    with fast_service(migrated, math.inf) as service:
        for number, name in enumerate(NAMES):
            when = {"cron": "* * * * * *"} if number % 2 else {"every": SECOND}
            service.add_schedule(name, name, missed="all", **when)
    began_at = time.time()
    survivor = processes.start(PROGRAM, began_at=began_at)
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    kills = 0
    while FastClock(began_at)() < END:
        victim = processes.start(PROGRAM, began_at=began_at)
        dies_at = time.monotonic() + moments.uniform(0, 0.5)
        wait_until(lambda dies_at=dies_at: time.monotonic() >= dies_at)
        victim.kill()
        kills += 1
    with fast_service(migrated, began_at) as service:
        wait_until(lambda: all(schedule.next_tick_at > END for schedule in service.get_schedules()), 30)
        survivor.finish()
        notes = [(name, tick.tick_at, tick.job_id) for name in NAMES for tick in service.get_schedule_ticks(name, 1000)]
    jobs = fetch_all(connection, "select type, start_at, id from worker.job")
    ticks = [START + number * SECOND for number in range(1, (END - START) // SECOND + 1)]
    expected = {(name, tick) for name in NAMES for tick in ticks}
    assert len(expected) > 1000
    assert Counter((name, tick) for name, tick, _ in jobs) == Counter(expected), f"{kills} kills, seed {seed}"
    assert set(notes) == set(jobs)
