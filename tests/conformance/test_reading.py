"""Jobs and bundles are read: by id, in lists, in numbers."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobqueue import JobBundleNotFoundError, JobNotFoundError, State
from jobqueue.job_filter import Cursor, JobFilter
from jobqueue.outcomes import Outcome, RunError
from tests.conformance.acts import FUTURE, HOUR, PAST, SECOND
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job

ALL = JobFilter()


# --- one


def test_unknown_job(backend: Backend) -> None:
    """An unknown id is a JobNotFoundError that has it."""
    unknown = uuid4()
    with pytest.raises(JobNotFoundError) as caught:
        backend.store.get_job(unknown)
    assert caught.value.job_id == unknown


def test_unknown_bundle(backend: Backend) -> None:
    """An unknown id of a bundle is a JobBundleNotFoundError that has it; a job's id is unknown, too."""
    (job,) = backend.add(make_job())
    for unknown in (uuid4(), job.id):
        with pytest.raises(JobBundleNotFoundError) as caught:
            backend.store.get_job_bundle(unknown)
        assert caught.value.bundle_id == unknown


def test_moments_are_aware(backend: Backend) -> None:
    """All moments of a job are in UTC."""
    backend.add(make_job(start_at=PAST))
    job = backend.claim_one()
    backend.save(Outcome.discarded(job, "no"))
    read = backend.read(job)
    for moment in (
        read.created_at,
        read.updated_at,
        read.start_at,
        read.started_at,
        read.stopped_at,
        read.cancelled_at,
    ):
        assert moment is not None
        assert moment.utcoffset() == timedelta(0)


def test_what_was_read_stays(backend: Backend) -> None:
    """A job or bundle that was read is a picture of that moment: what happens later changes the queue alone."""
    bundle = backend.add_bundle(1)
    job, before = backend.read(bundle.jobs[0]), backend.store.get_job_bundle(bundle.id)
    backend.save(Outcome.finished(backend.claim_one()))
    assert (job.started, before.num_jobs_stopped, before.jobs[0].stopped) == (False, 0, False)


def test_results_and_errors(backend: Backend) -> None:
    """A result, an error, its data and the errors of all runs are read as they were saved."""
    ok, bad = backend.add(make_job(priority=1), make_job())
    error = RunError(message="brökén\n", type="app.Error", traceback="Traceback...", data_json='{"code": 7}')
    backend.save(Outcome.finished(backend.claim_one(), '{"n": [1.5]}'))
    backend.save(Outcome.failed(backend.claim_one(), error))
    assert (backend.read(ok).result, backend.read(ok).succeeded) == ({"n": [1.5]}, True)
    job = backend.read(bad)
    assert (job.error_msg, job.error_data, job.has_error) == ("brökén\n", {"code": 7}, True)
    (attempt,) = job.attempt_errors
    assert (attempt.error_msg, attempt.error_type, attempt.traceback, attempt.run, attempt.at) == (
        "brökén\n", "app.Error", "Traceback...", 1, START,
    )  # fmt: skip


def test_several_by_id(backend: Backend) -> None:
    """Of several ids, the jobs that are there are read, each once."""
    first, second, _ = backend.add(make_job(payload=1), make_job(payload=2), make_job())
    read = backend.store.get_jobs(iter([second.id, uuid4(), first.id, second.id]))
    assert sorted((job.id, job.payload) for job in read) == sorted([(first.id, 1), (second.id, 2)])


def test_several_are_read_in_full(backend: Backend) -> None:
    """A job that is read among several shows what it shows alone."""
    backend.add(make_job())
    job = backend.claim_one()
    (read,) = backend.store.get_jobs([job.id])
    assert (read.claim_id, read.started_at, read.claimed_by) == (job.claim_id, job.started_at, job.claimed_by)


def test_none_by_id(backend: Backend) -> None:
    """No ids, or unknown ones, give no jobs."""
    backend.add(make_job())
    assert backend.store.get_jobs([]) == backend.store.get_jobs([uuid4()]) == []


# --- lists


def test_jobs_to_do(backend: Backend) -> None:
    """What is to do is all that has not stopped, running and delayed jobs included, by start time and age."""
    running, done = backend.add(make_job(priority=9), make_job(priority=8))
    backend.save(*(Outcome.finished(job) for job in backend.claim(2) if job == done))
    later, sooner, unset = backend.add(make_job(start_at=FUTURE), make_job(start_at=PAST), make_job())
    assert backend.store.get_all_jobs_to_do() == [running, unset, sooner, later]


def test_jobs_started_before(backend: Backend) -> None:
    """What was started before a moment is what still runs, the oldest claim first; the moment itself is not before."""
    backend.add(make_job(), make_job(), make_job())
    first = backend.claim_one()
    backend.clock.advance(SECOND)
    second = backend.claim_one()
    assert backend.store.get_all_jobs_started_before(START) == []
    assert backend.store.get_all_jobs_started_before(START + SECOND) == [first]
    assert backend.store.get_all_jobs_started_before(FUTURE) == [first, second]
    backend.save(Outcome.finished(first))
    assert backend.store.get_all_jobs_started_before(FUTURE) == [second]


def test_jobs_with_errors(backend: Backend) -> None:
    """What has an error message is listed by when it stopped, that of an empty message too."""
    jobs = backend.add(*(make_job() for _ in range(3)))
    for number, job in enumerate(reversed(backend.claim(3))):
        backend.clock.advance(SECOND)
        backend.save(Outcome.failed(job, RunError(message="" if number else "broken")))
    backend.add(make_job())
    listed = backend.store.get_all_jobs_with_errors()
    assert listed == list(reversed(jobs))
    assert {job.has_error for job in listed} == {True}


def test_a_job_to_be_retried_has_no_error(backend: Backend) -> None:
    """A job that waits for a retry is not listed with the errors: it may yet succeed."""
    backend.add(make_job(max_retry_count=1))
    backend.save(Outcome.retry(backend.claim_one(), RunError(message="broken"), delay=HOUR))
    assert backend.store.get_all_jobs_with_errors() == []


def test_list_is_newest_first(backend: Backend) -> None:
    """The list begins with the newest job; of those of one moment, with the one made last."""
    old = backend.add(make_job(), make_job())
    backend.clock.advance(SECOND)
    new = backend.add(make_job(), make_job())
    assert backend.store.list_jobs(ALL, limit=9, after=None) == [new[1], new[0], old[1], old[0]]
    assert backend.store.list_jobs(ALL, limit=3, after=None) == [new[1], new[0], old[1]]


def test_filters(backend: Backend) -> None:
    """Filters hold together; one that fits nothing gives nothing, and no character in one has a meaning."""
    a, b, c = backend.add(make_job("a"), make_job("a", origin="x"), make_job("c", origin="x"))
    bundle = backend.add_bundle(2, member_type="a", origin="x")
    assert backend.claim(1, ["c"]) == [c]

    def found(**which: Any) -> set[Any]:
        return set(backend.store.list_jobs(JobFilter(**which), limit=100, after=None))

    assert found(type="a") == {a, b, *bundle.jobs}
    assert found(type="a", origin="x") == {b, *bundle.jobs}
    assert found(bundle_id=bundle.id) == set(bundle.jobs)
    assert found(state=State.RUNNING) == found(state=State.RUNNING, origin="x") == {c}
    for nothing in ({"bundle_id": bundle.id, "type": "c"}, {"state": State.RUNNING, "type": "a"}, {"type": "%"}):
        assert found(**nothing) == set()
    assert found(origin="'; drop table worker.job; --") == set()


@pytest.mark.parametrize("limit", [1, 3, 7, 50])
def test_pages(backend: Backend, limit: int) -> None:
    """Pages hold every job once, in order, although many have the same created_at."""
    for _ in range(4):
        backend.add(*(make_job() for _ in range(5)))
        backend.clock.advance(timedelta(microseconds=1))
    everything = [job.id for job in backend.store.list_jobs(ALL, limit=1000, after=None)]
    assert len(everything) == 20
    ids: list[UUID] = []
    after: Cursor | None = None
    while page := backend.store.list_jobs(ALL, limit=limit, after=after):
        assert len(page) <= limit
        ids += [job.id for job in page]
        assert len(ids) <= 20, "the pages never end"
        assert page[-1].created_at is not None
        after = (page[-1].created_at, page[-1].id)
    assert ids == everything


def test_pages_go_on_where_a_job_was(backend: Backend) -> None:
    """A list goes on after a place whose job is gone."""
    jobs = backend.add(*(make_job() for _ in range(5)))
    place = (START, jobs[3].id)
    rest = backend.store.list_jobs(ALL, limit=9, after=place)
    assert rest == [jobs[2], jobs[1], jobs[0]]
    backend.store.delete_jobs([jobs[3].id])
    assert backend.store.list_jobs(ALL, limit=9, after=place) == rest


def test_pages_of_a_filter(backend: Backend) -> None:
    """A list goes on by the same filter from a place that the filter does not hold."""
    jobs = backend.add(*(make_job("ab"[number % 2]) for number in range(6)))
    listed = backend.store.list_jobs(JobFilter(type="a"), limit=9, after=(START, jobs[3].id))
    assert listed == [jobs[2], jobs[0]]


# --- states and numbers


def test_states(backend: Backend) -> None:
    """The state by which jobs are filtered and counted is the one that they say they have."""
    jobs = dict(zip(State, backend.add(*(make_job(state) for state in State)), strict=True))
    backend.store.cancel_jobs([jobs[State.CANCELLED].id])
    backend.save(Outcome.failed(backend.claim_one(State.FAILED), RunError(message="")))
    backend.save(Outcome.finished(backend.claim_one(State.SUCCEEDED)))
    backend.claim_one(State.RUNNING)
    backend.save(Outcome.snoozed(backend.claim_one(State.RETRYING), HOUR))
    backend.store.reschedule_job(jobs[State.SCHEDULED].id, FUTURE)
    for state, job in jobs.items():
        assert backend.read(job).state is state
        assert backend.store.list_jobs(JobFilter(state=state), limit=9, after=None) == [job]
    assert backend.store.get_status().by_state == dict.fromkeys(State, 1)


def test_status(backend: Backend) -> None:
    """The status counts jobs by type and state, and bundles."""
    backend.add(make_job("a", priority=9), make_job("a", priority=8), make_job("b", start_at=FUTURE))
    backend.add_bundle(3, member_type="c")
    _, failing = backend.claim(2)
    backend.save(Outcome.failed(failing, RunError(message="broken")))
    status = backend.store.get_status()
    assert (status.num_jobs, status.num_job_bundles, status.is_zero) == (6, 1, False)
    assert status.by_type == {"a": 2, "b": 1, "c": 3}
    assert status.by_type_and_state["a"] == {State.RUNNING: 1, State.FAILED: 1}
    assert status.by_state == {
        State.CANCELLED: 0, State.FAILED: 1, State.SUCCEEDED: 0, State.RUNNING: 1,
        State.RETRYING: 0, State.SCHEDULED: 1, State.AVAILABLE: 3,
    }  # fmt: skip


def test_status_of_nothing(backend: Backend) -> None:
    """An empty queue counts nothing, and every list of it is empty."""
    store = backend.store
    assert store.get_status().is_zero
    assert store.get_all_jobs_to_do() == store.get_all_jobs_with_errors() == []
    assert store.get_all_jobs_started_before(FUTURE) == store.list_jobs(ALL, limit=1, after=None) == []
