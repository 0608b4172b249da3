"""Jobs and bundles are deleted, in whatever state they are; claims on them are lost, counters follow."""

from typing import Any
from uuid import uuid4

import pytest

from jobqueue import JobBundle, JobBundleNotFoundError, JobDesc, JobNotFoundError
from jobqueue.outcomes import Outcome, RunError
from tests.conformance.acts import FATES, FUTURE, WAITING, Act, succeeded, with_fate
from tests.fixtures.backends import Backend
from tests.fixtures.stores import make_job


@pytest.mark.parametrize("fate", FATES)
def test_delete(backend: Backend, fate: Act) -> None:
    """A job in any state can be deleted."""
    job = with_fate(backend, fate)
    assert backend.store.delete_jobs([job.id, uuid4(), job.id]) == {job.id}
    assert backend.store.delete_jobs([job.id]) == frozenset()
    assert backend.store.get_status().is_zero
    with pytest.raises(JobNotFoundError):
        backend.read(job)


@pytest.mark.parametrize("by", ["origin", "type"])
def test_delete_by_origin_or_type(backend: Backend, by: str) -> None:
    """All jobs of an origin or type go, in whatever state, out of all bundles; how many is returned."""
    gone: dict[str, Any] = {by: "gone"}
    backend.add(make_job(**gone), make_job(**gone, priority=9), make_job(), make_job(**{by: "gone%"}))
    desc = JobDesc(1, **{"type": "t", "origin": "o", **gone})
    mixed = backend.add_bundle(JobBundle.new("b", [desc, JobDesc(2, type="t", origin="o"), desc], origin="o"))
    whole = backend.add_bundle(JobBundle.new("b", [desc], origin="o", on_stopped=JobDesc(1, type="after")))
    job = backend.claim_one()
    store = backend.store
    delete = store.delete_jobs_from_origin if by == "origin" else store.delete_jobs_of_type
    assert delete("gone") == 5
    assert delete("gone") == delete("nothing") == 0
    assert backend.worker_store.touch_jobs([job.fence]) == frozenset()
    assert (backend.counts(mixed), backend.counts(whole)) == ((1, 0, False), (0, 0, True))
    assert store.get_status().by_type["after"] == 1
    assert store.get_status().num_jobs == 4


def test_delete_finished(backend: Backend) -> None:
    """What succeeded outside of bundles goes; what failed, was cancelled, is in a bundle or open stays."""
    jobs = {fate: with_fate(backend, fate, type=fate.__name__) for fate in FATES if fate not in WAITING}
    bundle = backend.add_bundle(1, member_type="bundled")
    (future, empty) = backend.add(make_job("future", start_at=FUTURE), make_job("empty"))
    succeeded(backend, backend.claim_one("bundled"))
    backend.save(Outcome.failed(backend.claim_one("empty"), RunError(message="")))
    assert backend.store.delete_finished_jobs() == 1
    assert backend.store.delete_finished_jobs() == 0
    del jobs[succeeded]
    expected = {job.id for job in (*jobs.values(), *bundle.jobs, future, empty)}
    assert {job.id for job in backend.store.get_jobs([*expected, uuid4()])} == expected
    assert backend.store.get_status().num_jobs == len(expected)


def test_delete_bundle(backend: Backend) -> None:
    """A bundle goes with its members, the running ones too, whose claims are lost; nothing completes."""
    bundle = backend.add_bundle(3, on_stopped=JobDesc(1, type="after"))
    kept = backend.add_bundle(1)
    job, other, *_ = backend.claim(3)
    succeeded(backend, other)
    assert backend.store.delete_job_bundles([bundle.id, uuid4()]) == {bundle.id}
    assert backend.save(Outcome.finished(job)) == frozenset()
    assert backend.store.get_status().by_type == {"t": 1}
    assert backend.read(kept.jobs[0]) == kept.jobs[0]
    with pytest.raises(JobBundleNotFoundError):
        backend.store.get_job_bundle(bundle.id)
    assert backend.store.delete_job_bundles([bundle.id]) == frozenset()


@pytest.mark.parametrize("by", ["origin", "type"])
def test_delete_bundles_by_origin_or_type(backend: Backend, by: str) -> None:
    """All bundles of an origin or type go with their members, whatever those members' are; loose jobs stay."""
    for _ in range(2):
        backend.add_bundle(2, **{by: "gone"})
    kept = backend.add_bundle(2)
    backend.add(make_job(**{by: "gone"}))
    store = backend.store
    delete = store.delete_job_bundles_from_origin if by == "origin" else store.delete_job_bundles_of_type
    assert delete("gone") == 2
    assert delete("gone") == 0
    assert (store.get_status().num_jobs, store.get_status().num_job_bundles) == (3, 1)
    assert store.get_job_bundle(kept.id).jobs == kept.jobs


def test_delete_everything(backend: Backend) -> None:
    """Everything goes, the claims of what runs are lost, and it is no error when there is nothing."""
    backend.store.delete_all_jobs_and_bundles()
    backend.add(*(make_job() for _ in range(3)))
    backend.add_bundle(2, on_stopped=JobDesc(1, type="after"))
    job = backend.claim_one()
    backend.store.delete_all_jobs_and_bundles()
    assert backend.store.get_status().is_zero
    assert backend.save(Outcome.finished(job)) == frozenset()
