"""Jobs and bundles are added: what is kept of them, and that all or nothing of it is there."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import DuplicateJobError, Job, JobBundle, JobDesc, RawJSON, Waits
from tests.conformance.acts import CALENDAR, FUTURE
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_bundle, make_job

MINUTES = timedelta(minutes=5)


def add_one(backend: Backend, job: Job) -> None:
    backend.store.add_job(job, delay=None)


def add_several(backend: Backend, job: Job) -> None:
    backend.store.add_jobs([job])


# --- jobs


@pytest.mark.parametrize("add", [add_one, add_several])
def test_every_value_is_kept(backend: Backend, add: Any) -> None:
    """A job holds what it was made of, when it was added, and nothing of a run."""
    job = Job.new(
        "type é %s",
        {"to": ["ä", 1.5, None, True]},
        origin="x" * 100,
        priority=-(2**63),
        start_at=datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        max_retry_count=2**31 - 1,
        retry=Waits([MINUTES, 2 * MINUTES], never_for=KeyError),
    )
    add(backend, job)
    shown = backend.shown(job)
    given = {"id", "type", "payload", "origin", "priority", "start_at", "max_retry_count", "retry_policy"}
    assert {name: shown.pop(name) for name in given} == {name: getattr(job, name) for name in given}
    assert (shown.pop("created_at"), shown.pop("updated_at")) == (START, START)
    assert {name for name, value in shown.items() if value not in {None, 0, ()}} == set()


PAYLOADS: list[Any] = ["text", "", 0, False, [], {}, [[{"a": [None]}]], "é\u2028\\u0041", 10**30, 1e-7]


@pytest.mark.parametrize("add", [add_one, add_several])
def test_payloads_come_back(backend: Backend, add: Any) -> None:
    """A payload is read as it was given, with its type, whichever way it was added."""
    for payload in PAYLOADS:
        job = make_job(payload=payload)
        add(backend, job)
        read = backend.read(job).payload
        assert (read, type(read)) == (payload, type(payload))


def test_payloads_of_members_come_back(backend: Backend) -> None:
    """The same holds for members of a bundle, and for a payload that was JSON text before."""
    raw = RawJSON(' {"a" : 1} ')
    bundle = backend.add_bundle(
        JobBundle.new("b", [JobDesc(payload, type="t") for payload in (*PAYLOADS, raw)], origin="o")
    )
    assert [job.payload for job in backend.store.get_job_bundle(bundle.id).jobs] == [*PAYLOADS, {"a": 1}]


def test_delay_counts_by_the_clock_of_the_queue(backend: Backend) -> None:
    """A delay is added to the queue's time, whatever the caller's clock says."""
    backend.clock.advance(MINUTES)
    job = make_job()
    backend.store.add_job(job, delay=MINUTES)
    assert backend.read(job).start_at == START + 2 * MINUTES


def test_no_delay(backend: Backend) -> None:
    """A job without delay and start time has no start time: it is due since it was added."""
    job = make_job()
    add_one(backend, job)
    assert backend.read(job).start_at is None


def test_start_at_is_a_moment(backend: Backend) -> None:
    """start_at is kept as the moment that it is, in whichever time zone it was given."""
    tokyo = datetime.fromisoformat("2100-01-01T09:00:00+09:00")
    (job,) = backend.add(make_job(start_at=tokyo))
    assert backend.read(job).start_at == FUTURE
    descs = [JobDesc(1, type="t"), JobDesc(2, type="t", start_at=START)]
    bundle = backend.add_bundle(JobBundle.new("b", descs, origin="o", start_at=tokyo))
    assert [member.start_at for member in backend.store.get_job_bundle(bundle.id).jobs] == [FUTURE, START]


@pytest.mark.parametrize("moment", CALENDAR, ids=str)
def test_moments_at_the_ends_of_the_calendar(backend: Backend, moment: datetime) -> None:
    """The earliest and latest moments of Python are start times like others."""
    one, two = make_job(start_at=moment), make_job(start_at=moment)
    add_one(backend, one)
    add_several(backend, two)
    for job in (one, two):
        read = backend.read(job).start_at
        assert read is not None
        assert abs(read - moment) < timedelta(days=2)


def test_no_jobs(backend: Backend) -> None:
    """Adding no jobs does nothing."""
    backend.store.add_jobs([])
    assert backend.store.get_status().is_zero


# --- bundles


def test_a_bundle_is_kept(backend: Backend) -> None:
    """A bundle is read with all it was made of, its members in the order in which they were described."""
    descs = [
        JobDesc(number, type=f"t{number}", origin=f"o{number}", priority=-number, max_retry_count=number)
        for number in range(5)
    ]
    made = backend.add_bundle(JobBundle.new("b", descs, origin="mine", delete_when_succeeded=True))
    read = backend.store.get_job_bundle(made.id)
    assert (read.type, read.origin, read.num_jobs, read.num_jobs_stopped) == ("b", "mine", 5, 0)
    assert (read.delete_when_succeeded, read.on_stopped, read.stopped_at) == (True, None, None)
    assert (read.created_at, read.updated_at) == (START, START)
    assert read.jobs == made.jobs
    assert [(job.payload, job.type, job.origin, job.priority, job.max_retry_count) for job in read.jobs] == [
        (number, f"t{number}", f"o{number}", -number, number) for number in range(5)
    ]
    assert {job.bundle_id for job in read.jobs} == {made.id}


def test_members_keep_their_order(backend: Backend) -> None:
    """The members of a large bundle, added at one moment, are read in their order whatever became of some of them."""
    bundle = backend.add_bundle(100)
    backend.store.cancel_jobs(job.id for job in bundle.jobs[::3])
    assert [job.payload for job in backend.store.get_job_bundle(bundle.id).jobs] == list(range(100))


def test_on_stopped_is_kept(backend: Backend) -> None:
    """The job that a bundle adds at its end is described in the bundle, completely."""
    desc = JobDesc({"a": [1]}, type="after", priority=7, max_retry_count=2, start_at=FUTURE)
    bundle = backend.add_bundle(1, origin="ours", on_stopped=desc)
    on_stopped = backend.store.get_job_bundle(bundle.id).on_stopped
    assert on_stopped == JobDesc(
        {"a": [1]}, type="after", origin="ours", priority=7, max_retry_count=2, start_at=FUTURE
    )


def test_the_job_for_the_end_is_not_there_before(backend: Backend) -> None:
    """Adding a bundle adds its members, and not the job for its end."""
    bundle = backend.add_bundle(2, on_stopped=JobDesc(1, type="after"))
    assert {job.id for job in backend.store.get_all_jobs_to_do()} == {job.id for job in bundle.jobs}


# --- duplicates


@pytest.mark.parametrize("add", [add_one, add_several])
def test_duplicate_job(backend: Backend, add: Any) -> None:
    """An id that is in the queue already is a DuplicateJobError that names it; the job there is left alone."""
    (job,) = backend.add(make_job(payload="first"))
    before = backend.shown(job)
    with pytest.raises(DuplicateJobError, match=str(job.id)) as caught:
        add(backend, make_job(payload="second", id=job.id))
    assert caught.value.existing_id == job.id
    assert backend.shown(job) == before


def test_duplicate_of_a_stopped_job(backend: Backend) -> None:
    """The id of a job that has stopped is taken, too."""
    (job,) = backend.add(make_job())
    backend.store.cancel_jobs([job.id])
    with pytest.raises(DuplicateJobError):
        add_one(backend, job)
    assert backend.read(job).stopped


def test_duplicate_among_jobs(backend: Backend) -> None:
    """When one of several jobs is there already, it is named, and none of the others is added."""
    (job,) = backend.add(make_job())
    with pytest.raises(DuplicateJobError) as caught:
        backend.store.add_jobs([make_job(), make_job(id=job.id), make_job()])
    assert caught.value.existing_id == job.id
    assert backend.store.get_status().num_jobs == 1


def test_the_same_job_twice(backend: Backend) -> None:
    """When several jobs have one id, it is named, and none of them is added."""
    twice = make_job()
    with pytest.raises(DuplicateJobError) as caught:
        backend.store.add_jobs([make_job(), twice, twice])
    assert caught.value.existing_id == twice.id
    assert backend.store.get_status().is_zero


def test_duplicate_bundle(backend: Backend) -> None:
    """A bundle that is there already is named, and neither it nor a member of it is added anew."""
    bundle = backend.add_bundle(2)
    with pytest.raises(DuplicateJobError) as caught:
        backend.store.add_bundle(bundle)
    assert caught.value.existing_id in {bundle.id, *(job.id for job in bundle.jobs)}
    assert (backend.store.get_status().num_jobs, backend.store.get_status().num_job_bundles) == (2, 1)


def test_duplicate_member(backend: Backend) -> None:
    """When a member's id is taken, it is named, and the bundle is not there either."""
    bundle = make_bundle(2)
    backend.add(make_job(id=bundle.jobs[1].id))
    with pytest.raises(DuplicateJobError) as caught:
        backend.store.add_bundle(bundle)
    assert caught.value.existing_id == bundle.jobs[1].id
    assert (backend.store.get_status().num_jobs, backend.store.get_status().num_job_bundles) == (1, 0)


def test_an_id_can_be_used_again(backend: Backend) -> None:
    """The id of a job that was deleted is free."""
    (job,) = backend.add(make_job(payload="first"))
    backend.store.delete_jobs([job.id])
    add_one(backend, make_job(payload="second", id=job.id))
    assert backend.read(job).payload == "second"
