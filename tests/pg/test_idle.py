"""What a process costs the database that has nothing to do, counted in statements and transactions."""

import threading
import time
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from jobqueue import Job, Registry
from jobqueue_pg.database import Database
from jobqueue_pg.queries.claiming import CLAIM_JOBS, CLAIM_JOBS_OF_TYPES
from jobqueue_pg.queries.cleaning import FIND_OLD_BUNDLES, FIND_OLD_JOBS
from jobqueue_pg.queries.maintaining import LOOK_AROUND, REAP_JOBS, SWEEP_CLAIMS
from jobqueue_pg.queries.trips import MAKE_NARROW_TRIP, MAKE_TRIP, MAKE_TRIP_FOR_TYPES, MAKE_WATCHFUL_TRIP
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

PATIENCE = 30
POLL_INTERVAL = timedelta(seconds=0.3)
DEAD_FOR = timedelta(seconds=2)
ROUND = DEAD_FOR.total_seconds() / 4
TRIPS = {CLAIM_JOBS, CLAIM_JOBS_OF_TYPES, MAKE_TRIP, MAKE_TRIP_FOR_TYPES, MAKE_NARROW_TRIP, MAKE_WATCHFUL_TRIP}


class Seen:
    """The loans of connections, be it for a transaction or not, and the statements that were run in each."""

    def __init__(self) -> None:
        self._local = threading.local()
        self.clear()

    def clear(self) -> None:
        """Begin to count, with the next loan."""
        self.loans: list[list[str]] = []
        self._began_at = time.monotonic()

    def lend(self) -> None:
        """Note that the thread gets a connection."""
        self._local.loan = []
        self.loans.append(self._local.loan)

    def run(self, statement: str) -> None:
        """Note what the thread does with it."""
        self._local.loan.append(statement)

    @property
    def statements(self) -> list[str]:
        """All that was run."""
        return [statement for loan in list(self.loans) for statement in loan]

    def seconds(self) -> float:
        """For how long it has been counted."""
        return time.monotonic() - self._began_at


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """All that runs in this process from now on."""
    seen = Seen()
    execute, try_once = Database.execute, Database._try_once

    def executing(self: Database, connection: Any, statement: LiteralString, *arguments: Any) -> Any:
        seen.run(statement)
        return execute(self, connection, statement, *arguments)

    def lending(self: Database, *arguments: Any) -> Any:
        seen.lend()
        return try_once(self, *arguments)

    monkeypatch.setattr(Database, "execute", executing)
    monkeypatch.setattr(Database, "_try_once", lending)
    return seen


def test_claims_that_are_beaten_for_cost_nothing_more(workers: Workers, registry: Registry, seen: Seen) -> None:
    """While jobs run for longer than dead_for, and are beaten for, a round is one statement all the same."""
    may_end = threading.Event()
    registry.register_func_for_job_type("long", lambda _: may_end.wait(PATIENCE))
    service = workers.service(heartbeat_interval=DEAD_FOR / 10, dead_for=DEAD_FOR)
    job = service.enqueue("long", 1)
    workers.start_on(service, registry)
    try:
        wait_until(lambda: service.get_job(job.id).started)
        began_at = time.monotonic()
        wait_until(lambda: time.monotonic() - began_at > DEAD_FOR.total_seconds() + 2 * ROUND)
        seen.clear()
        wait_until(lambda: seen.statements.count(LOOK_AROUND) >= 3)
        assert REAP_JOBS not in seen.statements
    finally:
        may_end.set()


def test_who_waits_makes_one_statement_at_a_time(workers: Workers, registry: Registry, seen: Seen) -> None:
    """Eight threads without a job make a claim a poll interval, and a look a round: each a transaction of its own."""
    registry.handler("t")(lambda number: number)
    service = workers.service(poll_interval=POLL_INTERVAL, heartbeat_interval=DEAD_FOR / 4, dead_for=DEAD_FOR)
    pool = workers.start_on(service, registry, 8)
    jobs = [Job.new("t", number) for number in range(20)]
    service.add_jobs(jobs)
    for job in jobs:
        service.wait_for_job(job.id, PATIENCE)
    looks = seen.statements.count(LOOK_AROUND)
    wait_until(lambda: seen.statements.count(LOOK_AROUND) > looks, PATIENCE)
    seen.clear()
    # By then those claims are old enough to be looked at.
    wait_until(lambda: seen.seconds() > DEAD_FOR.total_seconds() and seen.statements.count(LOOK_AROUND) >= 5, PATIENCE)
    assert pool.finish(PATIENCE)
    seconds, statements = seen.seconds(), seen.statements
    assert set(statements) <= {*TRIPS, LOOK_AROUND, SWEEP_CLAIMS, FIND_OLD_JOBS, FIND_OLD_BUNDLES}
    # For what is old enough a process looks after half a minute or more, and then every few minutes.
    assert statements.count(FIND_OLD_JOBS) <= 1
    assert statements.count(FIND_OLD_BUNDLES) <= 1
    assert {len(loan) for loan in seen.loans} == {1}
    assert sum(statement in TRIPS for statement in statements) <= seconds / POLL_INTERVAL.total_seconds() + 5
    # They come at times that are spread by a fifth.
    assert statements.count(LOOK_AROUND) <= seconds / (0.8 * ROUND) + 1
    # A process begins with two; then one a minute is enough.
    assert statements.count(SWEEP_CLAIMS) <= seconds / 60 + 2
