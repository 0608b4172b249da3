"""What is in the queue: jobs as immutable snapshots of their rows."""

import enum
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import attrs

from jobqueue.clock import present
from jobqueue.limits import BIGINT, check_id, check_int, check_moment, check_name, check_payload
from jobqueue.payload import MAX_PAYLOAD_BYTES, job_type_of, load_json, structure
from jobqueue.retry import RetryPolicy
from jobqueue.stored_policy import check_retry, check_retry_count, policy_of_json
from jobqueue.uniqueness import UniqueFor, check_unique

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

new_id: Final = uuid7
"""Make an id that sorts after every id that this process made before (a UUID of version 7)."""


class State(enum.StrEnum):
    """What a job's columns amount to; the first that holds, in this order."""

    CANCELLED = "cancelled"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    RUNNING = "running"
    RETRYING = "retrying"
    SCHEDULED = "scheduled"
    AVAILABLE = "available"


class Priority(enum.IntEnum):
    """Names for three priorities; any other integer is one, too. Higher is earlier."""

    LOW = -100
    DEFAULT = 0
    HIGH = 100


@attrs.frozen(kw_only=True)
class AttemptError:
    """How one run of a job failed; a job keeps the last 20, the newest last."""

    at: datetime
    run: int
    error_msg: str
    error_type: str
    traceback: str
    started_at: datetime | None = None
    """When it was claimed; None, like the next, for those that an older version has noted."""
    claimed_by: str | None = None
    """``host:pid:thread`` of its worker."""


@attrs.frozen(cache_hash=True)
class Fence:
    """What tells one claim from every other: a row is changed for a claim only while it still shows these values."""

    job_id: UUID
    # Equal fences have equal hashes without these, too; and to hash them takes longer than all the rest.
    started_at: datetime = attrs.field(hash=False)
    claim_id: UUID = attrs.field(hash=False)


@attrs.frozen(kw_only=True, eq=False)
class Job:
    """One job as it was when it was read; before that, as it is to be added. Jobs are equal when their ids are.

    Moments are aware; those that the database sets are None until the job is read from it.
    """

    id: UUID
    type: str
    payload_json: str = attrs.field(repr=False)
    origin: str | None = None
    """Where the job came from; None until it is added, when the service fills in its own."""
    priority: int = 0
    """Higher is earlier."""
    start_at: datetime | None = None
    """Not to be started before this moment; None: at once."""
    max_retry_count: int = 0
    """How often the job is run again after a failed run."""
    retry_policy_json: str | None = attrs.field(default=None, repr=False)
    """When it is; None: as its handler says."""

    unique_key: str | None = None
    """What no other job of its type may have while this one holds it; None when it holds none.

    A job that a handler is run for does not show it, nor the following three.
    """
    unique_key_spent: str | None = None
    """The key that it had, and has given up since."""
    unique_for: UniqueFor | timedelta | None = None
    """How long the key is held: until the first claim, the end, or success of the job; or for so long."""
    unique_until: datetime | None = None
    """When the latter is over."""
    is_duplicate: bool = attrs.field(default=False, repr=False)
    """Whether it was there already when another job was added that wanted its key, and is returned in its place."""

    bundle_id: UUID | None = None
    completes_bundle_id: UUID | None = None
    """The bundle whose completion added this job."""

    current_retry_count: int = 0
    run_count: int = 0
    rescue_count: int = 0
    """How often the job was taken away from a worker that had fallen silent."""

    started_at: datetime | None = None
    claim_id: UUID | None = attrs.field(default=None, repr=False)
    claimed_by: str | None = None
    """``host:pid:thread`` of the worker that claimed it, for people to read."""
    worker_alive_at: datetime | None = None
    stopped_at: datetime | None = None
    cancelled_at: datetime | None = None
    error_msg: str | None = None
    error_data_json: str | None = attrs.field(default=None, repr=False)
    result_json: str | None = attrs.field(default=None, repr=False)
    attempt_errors_json: str | None = attrs.field(default=None, repr=False)
    progress_json: str | None = attrs.field(default=None, repr=False)
    updated_at: datetime | None = None
    created_at: datetime | None = None

    @staticmethod
    def new(
        type: str | None,
        payload: object,
        *,
        origin: str | None = None,
        id: UUID | None = None,
        priority: int = 0,
        start_at: datetime | None = None,
        max_retry_count: int | None = None,
        retry: RetryPolicy | None = None,
        unique_key: str | None = None,
        unique_by: Sequence[str] | None = None,
        unique_for: UniqueFor | timedelta | None = None,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> "Job":
        """Describe a job that is not in the queue yet; *type* None takes it from the payload's class.

        *retry* is stored with the job, and goes before what its handler says. *max_retry_count* None is the number of
        waits that *retry* lists, else 0.

        Of the jobs of one type, one at a time holds a *unique_key*; *unique_by* makes it of the payload's fields of
        these names. It is held as long as *unique_for* says: until the job is claimed (``"waiting"``), has stopped
        (``"waiting_and_running"``, the default) or has succeeded (``"until_succeeded"``), or for so long after it was
        added. Of a long key the beginning is kept, and a hash.

        Raises:
            InvalidJobError: a value is of the wrong type or size; its ``field`` names it.
            PayloadError: the payload cannot be stored as JSON.
        """
        payload_json = check_payload(payload, max_payload_bytes)
        key, held_for = None, None
        if unique_key is not None or unique_by is not None or unique_for is not None:
            key, held_for = check_unique(unique_key, unique_by, unique_for, payload_json)
        return FreshJob(
            id=new_id() if id is None else check_id(id),
            type=check_name("type", job_type_of(payload) if type is None else type),
            payload_json=payload_json,
            origin=None if origin is None else check_name("origin", origin),
            priority=check_int("priority", priority, BIGINT),
            start_at=check_moment("start_at", start_at),
            max_retry_count=check_retry_count(max_retry_count, retry),
            retry_policy_json=None if retry is None else check_retry("retry", retry),
            unique_key=key,
            unique_for=held_for,
        )

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Job) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def fence(self) -> Fence:
        """The fence of the claim on the job. Raises ValueError when it was read, and not claimed."""
        if self.started_at is None or self.claim_id is None:
            raise ValueError(f"job {self.id} was read, not claimed")
        return Fence(self.id, self.started_at, self.claim_id)

    @cached_property
    def payload(self) -> Any:
        """The payload as a plain JSON value. Raises PayloadError when Python cannot hold it."""
        return load_json(self.payload_json)

    @cached_property
    def retry_policy(self) -> RetryPolicy | None:
        """The job's own retry policy, if any. Raises ValueError when this version does not know it."""
        return None if self.retry_policy_json is None else policy_of_json(self.retry_policy_json)

    @cached_property
    def result(self) -> Any:
        """What the handler returned, as a plain JSON value; None before it has, too."""
        return None if self.result_json is None else load_json(self.result_json)

    @cached_property
    def error_data(self) -> Any:
        """What is known of the error besides its message, as a plain JSON value."""
        return None if self.error_data_json is None else load_json(self.error_data_json)

    @cached_property
    def attempt_errors(self) -> tuple[AttemptError, ...]:
        """How the runs that failed went wrong: the last 20, the newest last."""
        if self.attempt_errors_json is None:
            return ()
        entries: tuple[AttemptError, ...] = structure(load_json(self.attempt_errors_json), tuple[AttemptError, ...])
        return entries

    @cached_property
    def progress(self) -> Any:
        """What the handler last said of its progress, as a plain JSON value."""
        return None if self.progress_json is None else load_json(self.progress_json)

    @property
    def started(self) -> bool:
        """Whether the job was claimed, and not given back since."""
        return self.started_at is not None

    @property
    def stopped(self) -> bool:
        """Whether the job has come to an end."""
        return self.stopped_at is not None

    @property
    def started_and_not_stopped(self) -> bool:
        """Whether the job is being worked on."""
        return self.started and not self.stopped

    @property
    def has_error(self) -> bool:
        """Whether the job has an error message."""
        return self.error_msg is not None

    @property
    def is_finished(self) -> bool:
        """Whether the job has stopped for good: without an error, or with no retry left."""
        return self.stopped and (not self.has_error or self.current_retry_count >= self.max_retry_count)

    @property
    def succeeded(self) -> bool:
        """Whether the job has stopped for good, without an error."""
        return self.is_finished and not self.has_error

    def worker_alive(self, dead_for: timedelta) -> bool:
        """Whether the job is being worked on and its worker was heard of within *dead_for*, by this machine's clock."""
        if not self.started_and_not_stopped or self.worker_alive_at is None:
            return False
        return present() - self.worker_alive_at <= dead_for

    @property
    def state(self) -> State:
        """The state that the columns amount to; what is due is judged by this machine's clock."""
        if self.cancelled_at is not None:
            return State.CANCELLED
        if self.stopped:
            return State.FAILED if self.has_error else State.SUCCEEDED
        if self.started:
            return State.RUNNING
        if self.run_count > 0:
            return State.RETRYING
        if self.start_at is not None and self.start_at > present():
            return State.SCHEDULED
        return State.AVAILABLE


@attrs.define(kw_only=True, eq=False, on_setattr=None)  # pyright: ignore[reportGeneralTypeIssues] - below, why
class FreshJob(Job):
    """Makes a Job in less than half of the time, for those who make many.

    What takes long is to set the columns of an object that is frozen. So they are set before it is.
    """

    # Both, or Python would not take its short way to slots.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __attrs_post_init__(self) -> None:
        self.__class__ = Job  # type: ignore[assignment]
