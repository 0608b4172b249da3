"""What two do to one schedule at the same time: each waits for the other, and one of them finds nothing left to do."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest

from jobqueue.schedules import Schedule
from jobqueue.ticks import Plan, plan_of
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import START, Clock, Connection, fetch_all
from tests.fixtures.waiting import wait_until

MINUTE = timedelta(minutes=1)
WAITING = """
    select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


class Meeting:
    """Acts that all come to the row of a schedule while somebody holds it, in the order in which they are let in."""

    def __init__(self, db: Connection, other_db: Connection) -> None:
        self._db = db
        self._watcher = other_db
        self._executor = ThreadPoolExecutor(4)
        self._acts: list[Future[Any]] = []

    def let_come(self, act: Callable[[], object]) -> None:
        """Have *act* done until it waits for the row."""
        self._acts.append(self._executor.submit(act))
        wait_until(lambda: fetch_all(self._watcher, WAITING) == [len(self._acts)], 30)

    @contextmanager
    def holding(self) -> Iterator[list[Any]]:
        """Hold the row within the block; what acts have returned is in the list afterwards."""
        results: list[Any] = []
        with self._db.transaction():
            self._db.execute("select from worker.schedule where name = 's' for update")
            yield results
        results += [act.result(30) for act in self._acts]
        self._executor.shutdown()


@pytest.fixture
def meeting(db: Connection, other_db: Connection) -> Meeting:
    return Meeting(db, other_db)


@pytest.fixture
def due(store: PostgresStore, clock: Clock) -> Schedule:
    """A schedule that has to tick."""
    schedule = Schedule.new("s", "t", every=MINUTE, origin="o")
    store.schedules.add("s", schedule.timed_from)
    clock.advance(MINUTE)
    return store.schedules.look(1).due[0].schedule


def plan(store: PostgresStore) -> Plan:
    look = store.schedules.look(1)
    return plan_of(look.due[0].schedule, look.now, is_busy=False)


def ids(store: PostgresStore) -> list[Any]:
    return [job.id for job in store.get_all_jobs_to_do()]


@pytest.mark.usefixtures("due")
def test_two_at_the_same_tick(store: PostgresStore, meeting: Meeting) -> None:
    """Of two processes that see to the same tick at once, one enqueues a job, and the other nothing."""
    plans = [plan(store) for _ in range(2)]
    with meeting.holding() as results:
        for each in plans:
            meeting.let_come(lambda each=each: store.schedules.tick(each))
    assert results == [{plans[0].jobs[0].id}, None]
    assert ids(store) == [plans[0].jobs[0].id]
    assert [tick.tick_at for tick in store.schedules.get_ticks("s", 9)] == [START + MINUTE]


@pytest.mark.usefixtures("due")
def test_removed_while_it_ticks(store: PostgresStore, meeting: Meeting) -> None:
    """A tick that came first has enqueued its job, and goes with the history; nothing is left of the schedule."""
    seen = plan(store)
    with meeting.holding() as results:
        meeting.let_come(lambda: store.schedules.tick(seen))
        meeting.let_come(lambda: store.schedules.remove("s"))
    assert results == [{seen.jobs[0].id}, True]
    assert ids(store) == [seen.jobs[0].id]
    assert (store.schedules.get(), store.schedules.get_ticks("s", 9)) == ([], [])


@pytest.mark.usefixtures("due")
def test_a_tick_that_comes_after_the_removal(store: PostgresStore, meeting: Meeting) -> None:
    """It enqueues nothing, and raises nothing."""
    seen = plan(store)
    with meeting.holding() as results:
        meeting.let_come(lambda: store.schedules.remove("s"))
        meeting.let_come(lambda: store.schedules.tick(seen))
    assert results == [True, None]
    assert ids(store) == []


@pytest.mark.usefixtures("due")
def test_paused_while_it_ticks(store: PostgresStore, meeting: Meeting) -> None:
    """A tick that has seen the schedule before it was paused, and comes after that, enqueues nothing."""
    seen = plan(store)

    def pause(schedule: Schedule, now: datetime) -> Schedule:
        return attrs.evolve(schedule, paused_at=now, next_tick_at=None)

    with meeting.holding() as results:
        meeting.let_come(lambda: store.schedules.change("s", pause))
        meeting.let_come(lambda: store.schedules.tick(seen))
    assert results[1] is None
    assert ids(store) == []


@pytest.mark.usefixtures("due")
def test_by_hand_while_it_ticks(store: PostgresStore, meeting: Meeting) -> None:
    """Of two who have seen the same schedule, the one by hand comes second and does nothing, to look again."""
    seen = plan(store)
    with meeting.holding() as results:
        meeting.let_come(lambda: store.schedules.tick(seen))
        meeting.let_come(lambda: store.schedules.run(seen.schedule, seen.jobs[0]))
    assert results == [{seen.jobs[0].id}, None]
    assert len(ids(store)) == 1


@pytest.mark.usefixtures("due")
def test_two_changes_at_once(store: PostgresStore, meeting: Meeting) -> None:
    """Neither undoes the other: the second one changes what the first has left."""
    with meeting.holding():
        for changes in ({"priority": 3}, {"payload": [4]}):
            meeting.let_come(
                lambda changes=changes: store.schedules.change("s", lambda schedule, _: schedule.changed(changes))
            )
    (schedule,) = store.schedules.get()
    assert (schedule.priority, schedule.payload) == (3, [4])


def test_two_who_add_the_same_schedule(store: PostgresStore) -> None:
    """Of many at once, one adds it."""
    schedule = Schedule.new("s", "t", every=MINUTE, origin="o")
    with ThreadPoolExecutor(8) as executor:
        added = list(executor.map(lambda _: store.schedules.add("s", schedule.timed_from), range(8)))
    assert len([each for each in added if each]) == 1
