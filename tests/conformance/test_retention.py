"""What has been kept for long enough is removed, and nothing else."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest

from jobqueue import Job, JobBundle, JobBundleNotFoundError, JobDesc, State
from jobqueue.cleaner import Cleaner
from jobqueue.cleaning import CleanResult
from jobqueue.events import JobStopped
from jobqueue.job_filter import JobFilter
from jobqueue.outcomes import Outcome, RunError
from jobqueue.retention import Retention
from tests.fixtures.backends import Backend
from tests.fixtures.stores import CLAIMANT, make_job

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
ERROR = RunError(message="broken", type="E", traceback="")
NEVER: dict[str, Any] = {"succeeded": None, "failed": None, "cancelled": None}


def end(backend: Backend, how: str, job: Job) -> None:
    """Have *job*, which is the only one of its type that waits, stop."""
    if how == "cancelled":
        assert backend.store.cancel_jobs([job.id])
        return
    claimed = backend.claim_one(job.type)
    outcomes = {"succeeded": Outcome.finished, "failed": lambda job: Outcome.failed(job, ERROR)}
    assert backend.save(outcomes[how](claimed)) == {job.id}


def stopped(backend: Backend, how: str = "succeeded", type: str = "t") -> Job:
    (job,) = backend.add(make_job(type))
    end(backend, how, job)
    return job


def clean(backend: Backend, **ages: Any) -> CleanResult:
    return Cleaner(backend.store.cleaning, Retention(**{**NEVER, **ages})).clean_all(None)


def left(backend: Backend) -> set[UUID]:
    return {job.id for job in backend.store.list_jobs(JobFilter(), limit=1000, after=None)}


@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled"])
def test_each_state_has_its_age(backend: Backend, how: str) -> None:
    """A job goes when it has been stopped for the age of its state, and not before; other ages are not its own."""
    stopped(backend, how)
    others = dict.fromkeys({*NEVER} - {how}, timedelta(0))
    backend.clock.advance(DAY - SECOND)
    assert clean(backend, **{how: DAY}, **others) == CleanResult()
    backend.clock.advance(SECOND)
    assert clean(backend, **others) == CleanResult()
    assert clean(backend, **{how: DAY}) == CleanResult(jobs=1)
    assert left(backend) == set()


def test_age_counts_from_the_end(backend: Backend) -> None:
    """A job that waited or ran for long is kept as long as any other after it has stopped."""
    (job,) = backend.add(make_job())
    backend.clock.advance(10 * DAY)
    end(backend, "succeeded", job)
    backend.clock.advance(DAY - SECOND)
    assert clean(backend, succeeded=DAY) == CleanResult()
    backend.clock.advance(SECOND)
    assert clean(backend, succeeded=DAY) == CleanResult(jobs=1)


def test_what_has_not_stopped_stays(backend: Backend) -> None:
    """Jobs that wait, run, or wait for a retry are kept, however old they are."""
    backend.add(make_job("waits"), make_job("runs"), make_job("retried", max_retry_count=3))
    backend.claim_one("runs")
    backend.save(Outcome.retry(backend.claim_one("retried"), ERROR, delay=timedelta(0)))
    backend.clock.advance(1000 * DAY)
    assert clean(backend, succeeded=timedelta(0), failed=timedelta(0), cancelled=timedelta(0)) == CleanResult()
    assert len(left(backend)) == 3


def test_types_have_ages_of_their_own(backend: Backend) -> None:
    """A type comes before a pattern, a longer pattern before a shorter one; what is left open is as for all."""
    ages = {
        "mail:bulk:*": {"succeeded": None},
        "mail:*": {"succeeded": DAY},
        "mail:bulk:now": {"succeeded": 2 * DAY},
        "other": {"failed": DAY},
    }
    kept = {stopped(backend, type=name).id for name in ("mail:bulk:x", "other", "mail", "mailing")}
    for name in ("mail:one", "mail:bulk:now"):
        stopped(backend, type=name)
    backend.clock.advance(5 * DAY)
    assert clean(backend, by_type=ages) == CleanResult(jobs=2)
    assert left(backend) == kept
    assert clean(backend, succeeded=4 * DAY, by_type=ages) == CleanResult(jobs=3)


def test_a_bundle_goes_as_a_whole(backend: Backend) -> None:
    """Members stay until the bundle has been complete for the longest age that one of them has; then all go."""
    descs = [JobDesc(1, type="fast"), JobDesc(2, type="slow")]
    bundle = backend.add_bundle(JobBundle.new("b", descs, origin="o"))
    end(backend, "succeeded", bundle.jobs[0])
    backend.clock.advance(10 * DAY)
    ages: dict[str, Any] = {"succeeded": DAY, "failed": 5 * DAY}
    assert clean(backend, **ages) == CleanResult()
    end(backend, "failed", bundle.jobs[1])
    backend.clock.advance(5 * DAY - SECOND)
    assert clean(backend, **ages) == CleanResult()
    backend.clock.advance(SECOND)
    assert clean(backend, succeeded=DAY) == CleanResult()
    assert clean(backend, **ages) == CleanResult(jobs=2, bundles=1)
    with pytest.raises(JobBundleNotFoundError):
        backend.store.get_job_bundle(bundle.id)


def test_a_bundle_waits_for_the_job_that_it_asked_for(backend: Backend) -> None:
    """As long as the job that a complete bundle has added may want to read it, it stays."""
    after = JobDesc(1, type="after", origin="o")
    bundle = backend.add_bundle(1, on_stopped=after)
    end(backend, "succeeded", bundle.jobs[0])
    backend.clock.advance(10 * DAY)
    assert clean(backend, succeeded=DAY) == CleanResult()
    backend.save(Outcome.finished(backend.claim_one("after")))
    assert clean(backend, succeeded=DAY) == CleanResult(jobs=1, bundles=1)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_failed_completion_stays_with_its_bundle(backend: Backend, *, at_once: bool) -> None:
    """The job that a complete bundle has added is kept, if it fails, while that is there: it has not succeeded."""
    if at_once:
        backend.keep(succeeded=timedelta(0), failed=timedelta(0))
    after = JobDesc(1, type="after", origin="o")
    bundle = backend.add_bundle(1, on_stopped=after, delete_when_succeeded=True)
    end(backend, "succeeded", bundle.jobs[0])
    completion = backend.claim_one("after")
    backend.save(Outcome.failed(completion, ERROR))
    backend.clock.advance(10 * DAY)
    assert clean(backend, failed=DAY) == CleanResult()
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    assert left(backend) == {bundle.jobs[0].id, completion.id}
    backend.store.delete_job_bundles([bundle.id])
    assert clean(backend, failed=DAY) == CleanResult(jobs=1)


def test_a_completion_that_succeeds_is_not_needed(backend: Backend) -> None:
    """The job that a complete bundle has added is removed, if it succeeds, like any other."""
    backend.keep(succeeded=timedelta(0))
    bundle = backend.add_bundle(1, on_stopped=JobDesc(1, type="after", origin="o"))
    end(backend, "succeeded", bundle.jobs[0])
    backend.save(Outcome.finished(backend.claim_one("after")))
    assert left(backend) == {bundle.jobs[0].id}


def test_a_bundle_without_members_goes(backend: Backend) -> None:
    """A bundle that all members have left is kept like a job that has succeeded."""
    bundle = backend.add_bundle(1)
    backend.store.delete_jobs([bundle.jobs[0].id])
    backend.clock.advance(DAY)
    assert clean(backend, failed=DAY) == CleanResult()
    assert clean(backend, succeeded=DAY) == CleanResult(bundles=1)


def test_what_is_found_is_judged_again(backend: Backend) -> None:
    """A job or bundle that was replayed or reset since it was found is not removed."""
    job = stopped(backend, "failed")
    bundle = backend.add_bundle(1)
    end(backend, "succeeded", bundle.jobs[0])
    backend.clock.advance(10 * DAY)
    retention = Retention(succeeded=DAY, failed=DAY)
    cleaning = backend.store.cleaning
    jobs = cleaning.find_jobs(retention, after=None, limit=10).ids
    bundles = cleaning.find_bundles(retention, after=None, limit=10).ids
    assert (jobs, bundles) == ((job.id,), (bundle.id,))
    backend.store.replay_jobs([job.id])
    backend.store.reset_jobs([bundle.jobs[0].id])
    assert cleaning.remove_jobs(retention, jobs) == CleanResult()
    assert cleaning.remove_bundles(retention, bundles) == CleanResult()
    assert len(left(backend)) == 2


@pytest.mark.parametrize("mode", ["delete", "archive"])
@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled"])
def test_no_age_at_all(backend: Backend, how: str, mode: str) -> None:
    """A job that is not to be kept is gone when it is saved, and that is told; members of bundles stay."""
    backend.keep(**{how: timedelta(0)}, mode=mode)
    bundle = backend.add_bundle(1, member_type="member")
    (job,) = backend.add(make_job("single"))
    save = {
        "succeeded": Outcome.finished,
        "failed": lambda job: Outcome.failed(job, ERROR),
        "cancelled": lambda job: Outcome.discarded(job, "broken"),
    }[how]
    ears = backend.hear()
    claimed = [backend.claim_one("member"), backend.claim_one("single")]
    trip = backend.worker_store.make_trip([save(job) for job in claimed], ["*"], 1, CLAIMANT)
    assert trip.saved == {job.id for job in claimed}
    assert left(backend) == {bundle.jobs[0].id}
    assert backend.counts(bundle) == (1, 1, True)
    told = [event for event in ears.heard() if isinstance(event, JobStopped)]
    assert {(event.id, event.will_retry) for event in told} == {(each.id, False) for each in claimed}
    assert {job.id for job in archived(backend)} == ({job.id} if mode == "archive" else set())


def test_no_age_at_all_in_one_statement_with_others(backend: Backend) -> None:
    """Of the outcomes that are saved together, only those go that stop, and are of a type that is not kept."""
    backend.keep(by_type={"gone": {"succeeded": timedelta(0)}})
    kept = backend.add(make_job("kept"), make_job("gone", max_retry_count=1), make_job("gone"))
    claimed = {job.id: job for job in backend.claim(3)}
    first, second, third = (claimed[job.id] for job in kept)
    outcomes = [Outcome.finished(first), Outcome.retry(second, ERROR, delay=timedelta(0)), Outcome.finished(third)]
    assert backend.save(*outcomes) == {first.id, second.id, third.id}
    assert backend.save(*outcomes) == frozenset()
    assert left(backend) == {first.id, second.id}


@pytest.mark.parametrize("at_once", [True, False])
def test_the_archive_shows_jobs_as_they_were(backend: Backend, at_once: bool) -> None:
    """What is moved to the archive is there as it was in the end, but for its claim, and can be listed."""
    made = make_job("t", {"a": [1]}, priority=5, max_retry_count=2)
    backend.add(made, make_job("t"))
    failing = backend.claim_one()
    backend.save(Outcome.retry(failing, ERROR, delay=timedelta(0)))
    again = backend.claim_one()
    kept = backend.keep(failed=timedelta(0) if at_once else DAY, mode="archive")
    backend.save(Outcome.failed(again, ERROR))
    shown = {
        **({} if at_once else backend.shown(again)),
    }
    if not at_once:
        backend.clock.advance(2 * DAY)
        assert Cleaner(backend.store.cleaning, kept).clean_all(None) == CleanResult(jobs=1)
    (job,) = archived(backend)
    assert (job.id, job.payload, job.priority, job.run_count, job.state) == (made.id, {"a": [1]}, 5, 2, State.FAILED)
    assert [attempt.error_msg for attempt in job.attempt_errors] == ["broken", "broken"]
    if shown:
        gone = {"claim_id": None, "worker_alive_at": None}
        now = attrs.asdict(job, recurse=False)
        same = {name: value for name, value in now.items() if name in shown}
        assert same == {**{name: shown[name] for name in same}, **gone}
    else:
        assert (job.error_msg, job.stopped, job.current_retry_count) == ("broken", True, 2)


def test_archived_twice(backend: Backend) -> None:
    """A job that is added again with the same id takes its own place in the archive."""
    job = make_job("t", 1)
    for payload in (1, 2):
        backend.add(attrs.evolve(job, payload_json=str(payload)))
        end(backend, "succeeded", job)
        backend.clock.advance(2 * DAY)
        assert clean(backend, succeeded=DAY, mode="archive") == CleanResult(jobs=1)
    assert [(job.id, job.payload) for job in archived(backend)] == [(job.id, 2)]


def test_a_bundle_is_archived_with_its_members(backend: Backend) -> None:
    """The members of a bundle can still be found in the archive by its id."""
    bundle = backend.add_bundle(3)
    backend.save(*map(Outcome.finished, backend.claim(3)))
    backend.clock.advance(DAY)
    assert clean(backend, succeeded=DAY, mode="archive") == CleanResult(jobs=3, bundles=1)
    assert left(backend) == set()
    members = backend.store.list_jobs(JobFilter(bundle_id=bundle.id, archived=True), limit=10, after=None)
    assert {job.id for job in members} == {job.id for job in bundle.jobs}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_key_is_held_as_long_as_it_was_to_be(backend: Backend, at_once: bool) -> None:
    """A job that holds its unique key for some time is not removed before; one whose key ends with it is."""
    if at_once:
        backend.keep(succeeded=timedelta(0))
    held = make_job("held", unique_key="k", unique_for=10 * DAY)
    (job, over) = backend.add(held, make_job("over", unique_key="k", unique_for="until_succeeded"))
    end(backend, "succeeded", job)
    end(backend, "succeeded", over)
    assert clean(backend, succeeded=timedelta(0)) == CleanResult(jobs=0 if at_once else 1)
    assert left(backend) == {job.id}
    backend.clock.advance(11 * DAY)
    assert clean(backend, succeeded=timedelta(0)) == CleanResult(jobs=1)


def archived(backend: Backend) -> list[Job]:
    return backend.store.list_jobs(JobFilter(archived=True), limit=1000, after=None)
