"""What middleware may make of the jobs of ticks, on every backend."""

from collections.abc import Callable
from datetime import timedelta

import attrs
import pytest

from jobqueue import AddMiddleware, Job, Skipped, UnavailableError
from jobqueue.service import Service
from tests.fixtures.scheduling import HOUR, MINUTE, SECOND, Scheduling, minutes


class Makes(AddMiddleware):
    """Makes something else of each job, and adds that; of None nothing."""

    def __init__(self, make: Callable[[Job], Job | None]) -> None:
        self.make = make
        self.number_of_calls = 0

    def add_job(self, service: Service, job: Job, add: Callable[[Job], Job]) -> Job:
        self.number_of_calls += 1
        made = self.make(job)
        return job if made is None else add(made)


def keyed(unique_for: object) -> Makes:
    return Makes(lambda job: attrs.evolve(job, unique_key="k", unique_for=unique_for))


def noted(at: Scheduling) -> list[tuple[object, object]]:
    return [(tick.skipped, tick.job_id) for tick in reversed(at.service.get_schedule_ticks("s", 2000))]


def test_payloads_that_grow(at: Scheduling) -> None:
    """What does not fit into one statement any more is next; each tick's job is enqueued, and passes through once."""
    enlarging = Makes(lambda job: attrs.evolve(job, payload_json=f'"{"x" * 1_000_000}"'))
    at.service.use(enlarging)
    at.add(missed="all")
    assert at.tick_after(40 * MINUTE) == minutes(*range(1, 41))
    jobs = {job.id for job in at.backend.store.get_all_jobs_to_do()}
    assert {job_id for _, job_id in noted(at)} == jobs
    assert (len(jobs), enlarging.number_of_calls) == (40, 40)
    assert at.service.get_schedule("s").version == 1 + 8  # each time five, with which 4 MiB are exceeded


def test_a_plan_is_done_whole_however_large(at: Scheduling) -> None:
    """A store leaves nothing of a plan out."""
    at.add(missed="all")
    at.backend.clock.advance(40 * MINUTE)
    plan = at.plan()
    large = [attrs.evolve(job, payload_json=f'"{"x" * 1_000_000}"') for job in plan.jobs]
    assert at.backend.store.schedules.tick(attrs.evolve(plan, jobs=large)) == {job.id for job in large}
    assert len(at.backend.store.get_all_jobs_to_do()) == len(large) == 40


def test_a_tick_whose_job_is_a_duplicate(at: Scheduling) -> None:
    """It enqueues nothing and is noted as such; the schedule goes on, and enqueues again when the key is free."""
    at.service.use(keyed("waiting_and_running"))
    at.add()
    assert at.tick_after(MINUTE) == minutes(1)
    assert at.tick_after(MINUTE) == []
    (job,) = at.backend.store.get_all_jobs_to_do()
    assert (job.unique_key, job.unique_for, job.start_at) == ("k", "waiting_and_running", minutes(1)[0])
    at.stop(job)
    assert at.tick_after(MINUTE) == minutes(3)
    (again,) = at.backend.store.get_all_jobs_to_do()
    assert noted(at) == [(None, job.id), (Skipped.DUPLICATE, None), (None, again.id)]


def test_ticks_that_are_due_at_once_and_share_a_key(at: Scheduling) -> None:
    """The first one leads to a job."""
    at.service.use(keyed("waiting"))
    at.add(every=SECOND)
    assert len(at.tick_after(3 * SECOND)) == 1
    (job,) = at.backend.store.get_all_jobs_to_do()
    assert noted(at) == [(None, job.id), (Skipped.DUPLICATE, None), (Skipped.DUPLICATE, None)]


@pytest.mark.parametrize(("period", "number"), [(90 * SECOND, 1), (MINUTE, 2)])
def test_a_key_for_a_time(at: Scheduling, period: timedelta, number: int) -> None:
    """The job that holds it gives it up to a tick when its time is over, and not before."""
    at.service.use(keyed(period))
    at.add()
    at.tick_after(MINUTE)
    at.tick_after(MINUTE)
    jobs = at.backend.store.get_all_jobs_to_do()
    assert len(jobs) == number
    assert [job.unique_until for job in jobs if job.unique_key] == [minutes(number)[0] + period]


def test_by_hand_a_duplicate_is_returned(at: Scheduling) -> None:
    """Who has a job enqueued that is there already is given that one, and nothing is noted."""
    at.service.use(keyed("waiting"))
    at.add()
    first = at.service.run_schedule_now("s")
    second = at.service.run_schedule_now("s")
    assert (first.is_duplicate, second.is_duplicate, second.id) == (False, True, first.id)
    assert noted(at) == [(None, first.id)]


def test_a_job_by_hand_takes_a_key_whose_time_is_over(at: Scheduling) -> None:
    """It is not the duplicate of one that holds its key no longer."""
    at.service.use(keyed(HOUR))
    at.add()
    first = at.service.run_schedule_now("s")
    at.backend.clock.advance(HOUR)
    assert at.service.run_schedule_now("s").id != first.id


def test_a_job_that_middleware_keeps(at: Scheduling) -> None:
    """What is not passed on is in no table: its tick is noted as dropped, and the schedule goes on."""
    at.service.use(Makes(lambda job: None if job.start_at in minutes(1) else job))
    at.add()
    at.tick_after(MINUTE)
    assert at.tick_after(MINUTE) == minutes(2)
    (job,) = at.backend.store.get_all_jobs_to_do()
    assert noted(at) == [(Skipped.DROPPED, None), (None, job.id)]


@pytest.mark.parametrize("error", [UnavailableError("another server is away"), RuntimeError("a bug")])
def test_middleware_that_cannot_reach_its_own_server(at: Scheduling, error: Exception) -> None:
    """Whatever it raises about the job of one schedule, the others tick."""

    def fail(job: Job) -> Job:
        if job.priority == 0:
            return job
        raise error

    at.service.use(Makes(fail))
    at.add("a", priority=1)
    at.add("b")
    at.backend.clock.advance(MINUTE)
    with pytest.raises(type(error)):
        at.service.tick_schedules()
    assert [job.priority for job in at.backend.store.get_all_jobs_to_do()] == [0]
    assert at.service.get_schedule("a").next_tick_at == minutes(1)[0]
