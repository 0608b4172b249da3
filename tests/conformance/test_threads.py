"""Several threads work on one queue at the same time: nothing is done twice, nothing is lost."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from jobqueue import DuplicateJobError, Job, JobDesc, State
from jobqueue.events import JobBundleStopped
from jobqueue.outcomes import Outcome
from jobqueue.store import WorkerStore
from tests.conformance.acts import DEAD_FOR, ERROR, MORTAL, SECOND
from tests.fixtures.backends import Backend
from tests.fixtures.stores import CLAIMANT, make_job

T = TypeVar("T")

THREADS = 4


def at_once(works: Iterable[Callable[[], T]]) -> list[T]:
    """Do each of *works* in a thread of its own, all begun together; return their results."""
    works = list(works)
    together = threading.Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        together.wait(10)
        return work()

    with ThreadPoolExecutor(len(works)) as executor:
        return [future.result(30) for future in [executor.submit(begin, work) for work in works]]


def each_once(results: Iterable[Iterable[Any]], expected: Iterable[Any]) -> bool:
    """Say whether all of *expected* is in *results*, and only once."""
    return Counter(item for result in results for item in result) == Counter(expected)


def test_no_job_is_claimed_twice(backend: Backend) -> None:
    """Eight threads on four pools that claim batches of all sizes get every job once."""
    jobs = backend.add(*(make_job(f"t{number % 7}", priority=number % 3) for number in range(2000)))
    pools = [backend.more_workers() for _ in range(4)]

    def work(pool: WorkerStore, size: int) -> list[Job]:
        claimed: list[Job] = []
        while got := pool.claim_jobs(["*"], size, CLAIMANT):
            claimed.extend(got)
        return claimed

    sizes = [1, 2, 5, 10, 20, 50, 7, 3]
    results = at_once(lambda n=n, size=size: work(pools[n % 4], size) for n, size in enumerate(sizes))
    assert each_once(results, jobs)


@pytest.mark.parametrize("size", [4, 40])
def test_a_bundle_completes_once(backend: Backend, size: int) -> None:
    """Four threads that finish the members of one bundle complete it exactly once."""
    bundle = backend.add_bundle(size, on_stopped=JobDesc(1, type="after"))
    hearing = backend.hear(JobBundleStopped)
    pools = [backend.more_workers() for _ in range(THREADS)]
    jobs = backend.claim(size)

    def work(number: int) -> None:
        for job in jobs[number::THREADS]:
            assert pools[number].save_outcomes([Outcome.finished(job)]) == {job.id}

    at_once(lambda number=number: work(number) for number in range(THREADS))
    assert backend.counts(bundle) == (size, size, True)
    assert hearing.heard() == [JobBundleStopped(id=bundle.id, type="b", origin="o")]
    assert backend.store.get_status().by_type["after"] == 1


def test_of_finishing_and_cancelling_one_wins(backend: Backend) -> None:
    """A running job that is finished and cancelled at the same time is one of both, as both are told."""
    bundle = backend.add_bundle(40)
    jobs = backend.claim(40)
    finished, cancelled = at_once(
        [
            lambda: {job.id for job in jobs if backend.worker_store.save_outcomes([Outcome.finished(job)])},
            lambda: {job.id for job in reversed(jobs) if backend.store.cancel_jobs([job.id])},
        ]
    )
    assert each_once([finished, cancelled], [job.id for job in jobs])
    for job in backend.store.get_job_bundle(bundle.id).jobs:
        assert job.state is (State.SUCCEEDED if job.id in finished else State.CANCELLED)
    assert backend.counts(bundle) == (40, 40, True)


def test_of_claiming_and_cancelling(backend: Backend) -> None:
    """A waiting job that is claimed and cancelled at the same time ends as cancelled, and no claim on it stands."""
    jobs = backend.add(*(make_job() for _ in range(40)))
    claimed, cancelled = at_once(
        [
            lambda: [job for _ in range(40) for job in backend.claim(1)],
            lambda: {job.id for job in reversed(jobs) if backend.store.cancel_jobs([job.id])},
        ]
    )
    assert cancelled == {job.id for job in jobs}
    assert backend.worker_store.touch_jobs([job.fence for job in claimed]) == frozenset()
    assert backend.save(*(Outcome.finished(job) for job in claimed)) == frozenset()
    assert backend.store.get_status().by_state[State.CANCELLED] == 40


def test_of_claiming_and_rescheduling(backend: Backend) -> None:
    """A job that is put off either ran already, or is not claimed."""
    jobs = backend.add(*(make_job() for _ in range(40)))
    later = backend.clock.moment + SECOND if backend.clock.moment else None
    claimed, put_off = at_once(
        [
            lambda: {job.id for _ in range(40) for job in backend.claim(1)},
            lambda: {job.id for job in reversed(jobs) if backend.store.reschedule_job(job.id, later)},
        ]
    )
    assert claimed.isdisjoint(put_off)
    assert {job.id for job in jobs} == claimed | put_off | {job.id for job in backend.claim(40)}


@pytest.mark.parametrize("act", ["replay_jobs", "cancel_jobs", "delete_jobs"])
def test_what_is_done_to_a_job_is_done_once(backend: Backend, act: str) -> None:
    """Of several threads that replay, cancel or delete the same jobs, one does it to each; counters are true."""
    bundle = backend.add_bundle(40)
    if act == "replay_jobs":
        backend.save(*(Outcome.failed(job, ERROR) for job in backend.claim(40)))
    ids = [job.id for job in bundle.jobs]

    def work(number: int) -> list[Any]:
        order = [*ids[number * 10 :], *ids[: number * 10]]
        return [id_ for start in range(0, 40, 5) for id_ in getattr(backend.store, act)(order[start : start + 5])]

    assert each_once(at_once(lambda number=number: work(number) for number in range(THREADS)), ids)


def test_resetting_while_finishing(backend: Backend) -> None:
    """Members that are finished and reset at the same time, over and over, are counted truly."""
    bundle = backend.add_bundle(8, on_stopped=JobDesc(1, type="after"))
    ids = [job.id for job in bundle.jobs]

    def work() -> None:
        for _ in range(20):
            claimed = backend.worker_store.claim_jobs(["t"], 3, CLAIMANT)
            backend.worker_store.save_outcomes([Outcome.finished(job) for job in claimed])

    def reset() -> None:
        for number in range(20):
            backend.store.reset_jobs([ids[number % 8], ids[(number * 3) % 8]])

    at_once([work, reset, work, reset])
    backend.assert_counts_true()


def test_a_claim_is_reaped_by_one(backend: Backend) -> None:
    """Of several reapers, one frees each claim: no rescue is counted twice."""
    backend.add(*(make_job() for _ in range(40)))
    jobs = backend.claim(40, claimant=MORTAL)
    backend.clock.advance(SECOND)
    pools = [backend.more_workers() for _ in range(THREADS)]
    results = at_once(lambda pool=pool: pool.reap_jobs(DEAD_FOR, 3) for pool in pools)
    # What one of them has locked, the others leave to it.
    assert each_once(([rescue.job_id for rescue in result] for result in results), [job.id for job in jobs])
    assert {job.rescue_count for job in backend.store.get_all_jobs_to_do()} == {1}


def test_a_job_is_added_once(backend: Backend) -> None:
    """Of several threads that add the same job, one succeeds, and the others are told that it is there."""
    job = make_job()

    def work() -> bool:
        try:
            backend.store.add_job(job, delay=None)
        except DuplicateJobError:
            return False
        return True

    assert sorted(at_once([work] * THREADS)) == [False, False, False, True]
    assert backend.store.get_status().num_jobs == 1


def test_an_outcome_is_saved_once(backend: Backend) -> None:
    """Of several threads that save an outcome of one claim, one succeeds."""
    bundle = backend.add_bundle(2)
    job = backend.claim_one()
    outcomes = [Outcome.finished(job), Outcome.failed(job, ERROR), Outcome.released(job), Outcome.finished(job, "1")]
    pools = [backend.more_workers() for _ in range(THREADS)]
    saved = at_once(
        lambda pool=pool, outcome=outcome: pool.save_outcomes([outcome])
        for pool, outcome in zip(pools, outcomes, strict=True)
    )
    assert each_once(saved, [job.id])
    assert backend.counts(bundle)[1] == int(backend.read(job).stopped)


def test_bundles_go_once(backend: Backend) -> None:
    """Of several threads that delete what has succeeded, together they delete each bundle once."""
    for _ in range(12):
        backend.add_bundle(2, delete_when_succeeded=True)
    backend.save(*(Outcome.finished(job) for job in backend.claim(24)))
    pools = [backend.more_workers() for _ in range(THREADS)]
    deleted = at_once(partial(pool.delete_succeeded_bundles, timedelta(0)) for pool in pools)
    assert sum(deleted) == 12
    assert backend.store.get_status().is_zero
