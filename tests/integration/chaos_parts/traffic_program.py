"""The applications of a chaos run: they add jobs in transactions, and manage jobs, types and schedules.

They go on until stdin is closed; then they lift all pauses, and remove the schedules when these have ticked up to now.

Arguments: the conninfo, and a JSON object with ``directory``, ``seed`` and ``enqueuers`` (how many threads add jobs).
"""

import json
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import Schedule, Service
from jobqueue.errors import BackendError
from tests.fixtures.waiting import wait_until
from tests.integration.chaos_parts.enqueuers import Enqueuer, GoEnqueuer
from tests.integration.chaos_parts.managers import (
    Cleaner,
    Gauge,
    JobManager,
    PauseManager,
    ScheduleManager,
    Ticker,
)
from tests.integration.chaos_parts.plan import EVERY, SCHEDULES
from tests.integration.chaos_parts.recorder import Recorder
from tests.integration.chaos_parts.settings import RETENTION
from tests.integration.chaos_parts.traffic import Traffic

_PATIENCE = 30.0


def connect(conninfo: str) -> Service:
    """Connect as soon as there is a server."""
    while True:
        try:
            return jobqueue_pg.connect(conninfo, origin="traffic", retention=RETENTION)
        except BackendError:
            threading.Event().wait(0.2)


def everybody(traffic: Traffic, seed: int, enqueuers: int) -> list[Callable[[], None]]:
    """Return what the threads run."""

    def chance(name: object) -> random.Random:
        return random.Random(f"{seed}-{name}")

    return [
        *(Enqueuer(traffic, chance(number)).run for number in range(enqueuers)),
        GoEnqueuer(traffic, chance("go")).run,
        JobManager(traffic, chance("manager")).run,
        PauseManager(traffic, chance("pauses")).run,
        ScheduleManager(traffic, chance("schedules")).run,
        Ticker(traffic, chance("a ticker")).run,
        Ticker(traffic, chance("another ticker")).run,
        Cleaner(traffic, chance("cleaner")).run,
        Gauge(traffic).run,
    ]


def has_wound_up(service: Service) -> bool:
    """Leave nothing that keeps jobs from being done, or adds more of them; return whether that was possible."""
    # Connections may be broken that were made while there were faults.
    with suppress(BackendError):
        for paused in service.paused_types():
            service.resume(paused.type)
        if all(_is_up_to_date(schedule) for schedule in service.get_schedules()):
            for name in SCHEDULES:
                service.remove_schedule(name)
            return True
    return False


def _is_up_to_date(schedule: Schedule) -> bool:
    if schedule.paused:
        return True
    assert schedule.next_tick_at is not None
    return schedule.next_tick_at > datetime.now(UTC) - EVERY


def main() -> None:
    conninfo, options = make_conninfo(sys.argv[1], connect_timeout=2), json.loads(sys.argv[2])
    with closing(connect(conninfo)) as service:
        traffic = Traffic(conninfo, service, Recorder(Path(options["directory"]), "traffic"))
        runs = everybody(traffic, options["seed"], options["enqueuers"])
        with ThreadPoolExecutor(len(runs)) as threads:
            running = [threads.submit(run) for run in runs]
            sys.stdin.read()
            traffic.stopping.set()
        for ended in running:
            ended.result()
        wait_until(lambda: has_wound_up(service), _PATIENCE, message="the end of all pauses and schedules")


if __name__ == "__main__":
    main()
