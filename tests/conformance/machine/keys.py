"""Unique keys in the model: who holds one, and who may have one again."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from tests.conformance.machine.rows import ModelJob


def holder_of(jobs: Iterable[ModelJob], type: str, unique_key: str | None) -> ModelJob | None:
    """Return which of all *jobs* holds a key: no two of them do."""
    holders = [job for job in jobs if unique_key is not None and (job.type, job.unique_key) == (type, unique_key)]
    assert len(holders) <= 1, f"one key is held by several: {holders}"
    return holders[0] if holders else None


def takers(reset: Iterable[ModelJob], jobs: Iterable[ModelJob], now: datetime) -> set[UUID | None]:
    """Return which of those that are *reset* take their keys back: the first of each key that none of *jobs* holds."""
    found: dict[tuple[str, str], UUID | None] = {}
    everybody = list(jobs)
    for job in sorted(reset, key=lambda job: str(job.id)):
        key = job.unique_key_spent
        wants_it = job.unique_key is None and key is not None and not job.is_over(now)
        if wants_it and holder_of(everybody, job.type, key) is None:
            found.setdefault((job.type, str(key)), job.id)
    return set(found.values())
