"""Stores are closed, each for itself, and whatever they did stays."""

from datetime import timedelta

import pytest

from jobqueue import ClosedError
from jobqueue.outcomes import Outcome
from tests.fixtures.backends import Backend
from tests.fixtures.stores import CLAIMANT, make_job


def test_closing_twice(backend: Backend) -> None:
    """Stores can be closed twice, also those that were never used."""
    workers = backend.more_workers()
    for store in (workers, backend.worker_store, backend.store):
        store.close()
        store.close()


def test_a_closed_store(backend: Backend) -> None:
    """A closed store does nothing more, and says so."""
    (job,) = backend.add(make_job())
    workers = backend.more_workers()
    workers.close()
    with pytest.raises(ClosedError):
        workers.claim_jobs(["*"], 1, CLAIMANT)
    assert backend.claim() == [job]
    unused = backend.store.for_workers(lock_timeout=timedelta(seconds=1))
    unused.close()
    with pytest.raises(ClosedError):
        unused.touch_jobs([backend.read(job).fence])


def test_a_pool_that_closes_leaves_its_claims(backend: Backend) -> None:
    """The claims of a worker pool outlive its store, and can be saved through another one: the fence alone decides."""
    (job,) = backend.add(make_job())
    workers = backend.more_workers()
    (claimed,) = workers.claim_jobs(["*"], 1, CLAIMANT)
    workers.close()
    assert backend.claim() == []
    assert backend.save(Outcome.finished(claimed)) == {job.id}
