"""What is added: checked, and completed with what its maker has left open. No I/O."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from jobqueue.bundle import JobBundle
from jobqueue.clock import present
from jobqueue.errors import InvalidJobError
from jobqueue.limits import BIGINT, COUNT, MAX_NAME_LENGTH, check_id, check_int, check_moment, check_name, check_size
from jobqueue.models import FreshJob, Job
from jobqueue.payload import job_type_of
from jobqueue.retry import RetryPolicy, Waits
from jobqueue.service import JobType
from jobqueue.store import duplicate_of
from jobqueue.uniqueness import OnConflict, check_held


def program_name() -> str:
    """Name the program that runs, as a default for where jobs come from."""
    return (Path(sys.argv[0] if sys.argv else "").name or "python")[:MAX_NAME_LENGTH]


def complete_job(job: object, origin: str, max_payload_bytes: int) -> Job:
    """Return *job* with an origin. Raises InvalidJobError when it is none, or a member of a bundle."""
    if not isinstance(job, Job):
        raise InvalidJobError(f"a Job is needed, not {type(job).__qualname__}: make one with Job.new()", field="job")
    if job.bundle_id is not None:
        raise InvalidJobError(
            f"job {job.id} is a member of bundle {job.bundle_id}: use add_bundle()", field="bundle_id"
        )
    return _checked(_with_origin(job, origin), max_payload_bytes)


def complete_jobs(jobs: Iterable[Job], origin: str, max_payload_bytes: int) -> list[Job]:
    """Return *jobs* with origins. Raises InvalidJobError as ``complete_job`` does, and for a single job."""
    if isinstance(jobs, Job):
        raise InvalidJobError("add_jobs takes several jobs: add_job() is for one", field="jobs")
    return [complete_job(job, origin, max_payload_bytes) for job in jobs]


def complete_bundle(bundle: object, origin: str, max_payload_bytes: int) -> JobBundle:
    """Return *bundle* with origins, its members' too. Raises InvalidJobError when it could not complete."""
    if not isinstance(bundle, JobBundle):
        raise InvalidJobError(f"add_bundle takes a JobBundle, not {type(bundle).__qualname__}", field="bundle")
    if not bundle.jobs:
        raise InvalidJobError(f"bundle {bundle.id} has no jobs: it could never complete", field="jobs")
    if bundle.num_jobs != len(bundle.jobs) or any(job.bundle_id != bundle.id for job in bundle.jobs):
        raise InvalidJobError(f"bundle {bundle.id} does not hold its {bundle.num_jobs} members", field="jobs")
    if any(job.unique_key is not None for job in bundle.jobs):
        raise InvalidJobError(
            f"a member of bundle {bundle.id} has a unique key: a bundle counts its members, and would wait for ever "
            "for one that is left out as a duplicate",
            field="unique_key",
        )
    origin = bundle.origin if bundle.origin is not None else origin
    on_stopped = bundle.on_stopped
    if on_stopped is not None and on_stopped.origin is None:
        on_stopped = attrs.evolve(on_stopped, origin=origin)
    check_name("type", bundle.type)
    check_name("origin", origin)
    jobs = tuple(_checked(_with_origin(job, origin), max_payload_bytes) for job in bundle.jobs)
    return attrs.evolve(bundle, origin=origin, jobs=jobs, on_stopped=on_stopped)


def types_of(bundle: JobBundle) -> Iterable[str]:
    """Return the types of the jobs that a bundle has, and of the one that it adds when it has stopped."""
    yield from (job.type for job in bundle.jobs)
    if (desc := bundle.on_stopped) is not None:
        yield job_type_of(desc.payload) if desc.type is None else desc.type


def _checked(job: Job, max_payload_bytes: int) -> Job:
    """Return *job*, which need not be made by Job.new. Raises InvalidJobError."""
    check_id(job.id)
    check_name("type", job.type)
    check_name("origin", job.origin)
    check_int("priority", job.priority, BIGINT)
    check_int("max_retry_count", job.max_retry_count, COUNT)
    check_moment("start_at", job.start_at)
    check_size("payload", job.payload_json, max_payload_bytes)
    if job.unique_key is not None:
        check_held(job.unique_key, job.unique_for)
    return job


def _with_origin(job: Job, origin: str) -> Job:
    """Return *job*, or what is stored of it, with an origin."""
    if job.origin is not None:
        return job
    # Not by evolve(), which costs more than all the rest of what is done here for a job.
    return FreshJob(
        id=job.id,
        bundle_id=job.bundle_id,
        type=job.type,
        payload_json=job.payload_json,
        origin=origin,
        priority=job.priority,
        start_at=job.start_at,
        max_retry_count=job.max_retry_count,
        retry_policy_json=job.retry_policy_json,
        unique_key=job.unique_key,
        unique_for=job.unique_for,
    )


@attrs.frozen
class Distinct:
    """Jobs to add together, without those whose unique keys others of them have that come before."""

    jobs: Sequence[Job]
    places: Sequence[int]
    """For each of the jobs that there were: where among *jobs* it is, or else the one that has its key.

    None at all when none has a key.
    """
    firsts: frozenset[int]
    """Which of those that there were are among *jobs*."""

    @classmethod
    def of(cls, jobs: Sequence[Job], on_conflict: OnConflict) -> "Distinct":
        """Take the duplicates out of *jobs*. Raises DuplicateJobError when *on_conflict* says so.

        What comes of it is what adding one after the other would lead to.
        """
        if all(job.unique_key is None for job in jobs):
            return cls(jobs, (), frozenset())
        kept: list[Job] = []
        places: list[int] = []
        firsts: list[int] = []
        place_of: dict[tuple[str, str], int] = {}
        for number, job in enumerate(jobs):
            wanted = len(kept)
            place = wanted if job.unique_key is None else place_of.setdefault((job.type, job.unique_key), wanted)
            places.append(place)
            if place == wanted:
                firsts.append(number)
                kept.append(job)
            elif on_conflict == "raise":
                raise duplicate_of(kept[place].id, job)
            elif on_conflict == "replace_payload":
                kept[place] = attrs.evolve(kept[place], payload_json=job.payload_json)
        return cls(kept, places, frozenset(firsts))

    def spread(self, stored: Sequence[Job]) -> list[Job]:
        """Return what *stored* has for *jobs*, for each of those that there were; later ones are duplicates."""
        if not self.places:
            return list(stored)
        return [
            stored[place] if number in self.firsts else attrs.evolve(stored[place], is_duplicate=True)
            for number, place in enumerate(self.places)
        ]


def job_type_named(type_or_handler: str | JobType) -> str:
    """Return the job type that is meant. Raises InvalidJobError when none is, or many."""
    if isinstance(type_or_handler, str):
        return type_or_handler
    job_type = getattr(type_or_handler, "type", None)
    if not isinstance(job_type, str):
        raise InvalidJobError(
            f"a job type or a handler is needed, not {type(type_or_handler).__qualname__} {type_or_handler!r:.60}",
            field="type",
        )
    if job_type.endswith("*"):
        raise InvalidJobError(f"the handler is for all types {job_type!r}: name the one of this job", field="type")
    return job_type


def retries_of(handler: JobType | None, retry: RetryPolicy | None) -> int | None:
    """Return how often jobs are run again when nobody says so: as their handler does, if it is known here.

    None leaves it to the waits that *retry* lists.
    """
    if isinstance(retry, Waits):
        return None
    return 0 if handler is None else handler.max_retry_count


def moment_after(start_at: datetime | None, delay: object) -> datetime | None:
    """Return *start_at*, or else the moment after *delay*. Raises InvalidJobError when both are given."""
    if delay is None:
        return start_at
    if start_at is not None:
        raise InvalidJobError("give start_at or delay, not both", field="delay")
    if not isinstance(delay, timedelta):
        raise InvalidJobError(f"delay must be a timedelta, not {type(delay).__qualname__}", field="delay")
    try:
        return present() + delay
    except OverflowError:
        raise InvalidJobError(f"a delay of {delay} leads out of the calendar", field="delay") from None
