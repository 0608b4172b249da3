"""Adds jobs with unique keys, and writes down what was said to that."""

import random
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from jobqueue import Job
from jobqueue.errors import DuplicateJobError
from jobqueue.uniqueness import OnConflict
from tests.integration.chaos_parts.history import Answer
from tests.integration.chaos_parts.plan import KEYED_TYPES, KEYS, RETRIES, SCOPES, random_payload
from tests.integration.chaos_parts.traffic import Traffic

# Of many that are added together, one that raised would leave out those that have no key.
_WAYS_TOGETHER: Final[Sequence[OnConflict]] = ("ignore", "replace_payload")
_WAYS: Final[Sequence[OnConflict]] = (*_WAYS_TOGETHER, "raise")

Connection = psycopg.Connection[Any]


class KeyedAdder:
    """Adds jobs with keys out of a few, of all scopes, alone or beside others."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._chance = chance

    def job(self) -> Job:
        """Make a job that wants a key."""
        job_type = self._chance.choice(KEYED_TYPES)
        return Job.new(
            job_type,
            random_payload(self._chance),
            origin="traffic",
            max_retry_count=RETRIES.get(job_type, 0),
            unique_key=self._chance.choice(KEYS),
            unique_for=self._chance.choice(SCOPES),
        )

    def add(self, transaction: UUID, connection: Connection | None = None) -> list[UUID]:
        """Add one job, however conflicts are to be met; return its id, if it was added."""
        job = self.job()
        self._ask(transaction, [job])
        on_conflict = self._chance.choice(_WAYS)
        try:
            stored = self._traffic.service.add_job(job, on_conflict=on_conflict, connection=connection)
        except DuplicateJobError as error:
            self._answer(job, Answer.PENDING if error.pending else Answer.DUPLICATE, error.existing_id)
            return []
        return self._heard([job], [stored])

    def add_all(self, transaction: UUID, jobs: Sequence[Job], connection: Connection) -> list[UUID]:
        """Add jobs with keys and others together; return the ids of those with keys that were added.

        Raises DuplicateJobError when nothing was added, as another transaction has not ended.
        """
        keyed = [job for job in jobs if job.unique_key is not None]
        self._ask(transaction, keyed)
        on_conflict = self._chance.choice(_WAYS_TOGETHER)
        stored = self._traffic.service.add_jobs(jobs, on_conflict=on_conflict, connection=connection)
        pairs = [(job, other) for job, other in zip(jobs, stored, strict=True) if job.unique_key is not None]
        return self._heard([job for job, _ in pairs], [other for _, other in pairs])

    def _ask(self, transaction: UUID, jobs: Sequence[Job]) -> None:
        for job in jobs:
            facts = {"job": job.id, "type": job.type, "key": job.unique_key}
            self._traffic.recorder.note("key asked", transaction=transaction, **facts)

    def _heard(self, jobs: Sequence[Job], stored: Sequence[Job]) -> list[UUID]:
        for job, other in zip(jobs, stored, strict=True):
            self._answer(job, Answer.DUPLICATE if other.is_duplicate else Answer.ADDED, other.id)
        return [job.id for job, other in zip(jobs, stored, strict=True) if not other.is_duplicate]

    def _answer(self, job: Job, answer: Answer, holder: UUID | None) -> None:
        self._traffic.recorder.note("key answered", job=job.id, answer=answer, holder=holder)
