"""Whatever deletes more than what it is given the id of: how it is called, and what it means."""

from collections.abc import Callable, Sized
from typing import Final

from tests.conformance.machine.model import Model
from tests.conformance.machine.values import AFTER
from tests.fixtures.backends import Backend

Deletion = tuple[Callable[[Backend], int | None], Callable[[Model], Sized | None]]

DELETIONS: Final[dict[str, Deletion]] = {
    "jobs from p": (
        lambda backend: backend.store.delete_jobs_from_origin("p"),
        lambda model: model.delete(lambda job: job.origin == "p"),
    ),
    "jobs of type a": (
        lambda backend: backend.store.delete_jobs_of_type("a"),
        lambda model: model.delete(lambda job: job.type == "a"),
    ),
    "jobs of completions": (
        lambda backend: backend.store.delete_jobs_of_type(AFTER),
        lambda model: model.delete(lambda job: job.type == AFTER),
    ),
    "finished jobs": (
        lambda backend: backend.store.delete_finished_jobs(),
        lambda model: model.delete(lambda job: job.has_succeeded and job.bundle_id is None),
    ),
    "bundles from p": (
        lambda backend: backend.store.delete_job_bundles_from_origin("p"),
        lambda model: model.delete_bundles(lambda bundle: bundle.origin == "p"),
    ),
    "bundles of type h": (
        lambda backend: backend.store.delete_job_bundles_of_type("h"),
        lambda model: model.delete_bundles(lambda bundle: bundle.type == "h"),
    ),
    "everything": (lambda backend: backend.store.delete_all_jobs_and_bundles(), lambda model: model.delete_all()),
}
