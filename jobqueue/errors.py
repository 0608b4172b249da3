"""The errors that jobqueue raises: one base, and a child for everything that a caller may want to tell apart."""

from collections.abc import Sequence
from uuid import UUID


class JobQueueError(Exception):
    """Base of every error that this package raises on purpose."""


class NotInitializedError(JobQueueError):
    """No service has been made the current one yet."""


class ClosedError(JobQueueError):
    """The service was closed, or belongs to the process that this one was forked from."""


class NotFoundError(JobQueueError, LookupError):
    """Something that was asked for by its id is not there."""


class JobNotFoundError(NotFoundError):
    """No job has the id *job_id*, or it was added in a transaction that is not committed yet."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(
            f"no job {job_id} can be seen: "
            "it was deleted, never added, or added in a transaction that has not committed"
        )
        self.job_id = job_id


class JobBundleNotFoundError(NotFoundError):
    """No bundle has the id *bundle_id*, or it was added in a transaction that is not committed yet."""

    def __init__(self, bundle_id: UUID) -> None:
        super().__init__(
            f"no job bundle {bundle_id} can be seen: "
            "it was deleted, never added, or added in a transaction that has not committed"
        )
        self.bundle_id = bundle_id


class InvalidJobError(JobQueueError, ValueError):
    """A job or bundle cannot be made like this; *field* names what is wrong with it."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class PayloadError(InvalidJobError):
    """A payload cannot be made JSON, stored, or turned into what its handler wants.

    *problems* has one (path, reason) pair for each thing that is wrong, the path as in ``$.to[0]``.
    """

    def __init__(self, message: str, *, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, field="payload")
        self.problems = tuple(problems)


class InvalidScheduleError(InvalidJobError):
    """A schedule cannot be made, or changed, like this; *field* names what is wrong with it."""


class ScheduleNotFoundError(NotFoundError):
    """There is no schedule called *name*."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no schedule {name!r}: it was removed, or never added; get_schedules() tells which there are"
        )
        self.name = name


class DuplicateScheduleError(JobQueueError):
    """There is a schedule called *name* already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is a schedule {name!r} already: change it by change_schedule(), or remove_schedule() it first"
        )
        self.name = name


class DuplicateJobError(JobQueueError):
    """A job or bundle with the id *existing_id* is in the queue already, or that job holds the unique key.

    It is *pending* when that is for another transaction to decide, which was not ended in time: the same call may
    succeed later.
    """

    def __init__(self, message: str, *, existing_id: UUID | None, pending: bool = False) -> None:
        super().__init__(message)
        self.existing_id = existing_id
        self.pending = pending


class RegistrationError(JobQueueError):
    """A handler cannot be registered like this, or not now."""


class DuplicateHandlerError(RegistrationError):
    """The job type has a handler already."""


class RegistryFrozenError(RegistrationError):
    """Handlers cannot come or go while worker threads run on the registry."""


class HandlerNotFoundError(RegistrationError, LookupError):
    """No handler is registered for the type of a job."""


class BackOff(JobQueueError):  # noqa: N818 - what to do, as its handler says it
    """Raised by a handler: the run has failed, and no job of its type is to be claimed for a while.

    That is 100 ms after the first such failure, and twice as long after each one that follows, up to 60 s, until a job
    of the type succeeds. The job itself is retried by its policy. It goes for this worker pool, or, when it is
    *shared*, for all processes. Any other exception with a true attribute ``backoff`` (and ``shared``) does the same.
    """

    backoff = True

    def __init__(self, message: str, shared: bool = False) -> None:  # noqa: FBT001, FBT002 - BackOff("429", shared=True)
        super().__init__(message)
        self.shared = shared


class JobTimeoutError(JobQueueError):
    """A handler found, by ``ctx.check()``, that its job has run for longer than its timeout."""


class JobInterruptedError(JobQueueError):
    """A handler found, by ``ctx.check()``, that its worker pool is stopping; its job is released, at no cost."""


class LostClaimError(JobQueueError):
    """The claim on a job was taken away: what is still done for it will not be saved.

    Raised by ``check()`` and ``set_progress()`` of a handler's context, and by ``finish()``, ``fail()`` and
    ``release()`` of a claim made by hand.
    """


class TransactionError(JobQueueError):
    """An atomic handler has ended its transaction, broken it, or changed its isolation: the run fails."""


class BackendError(JobQueueError):
    """The database refused or failed; the driver's own error is ``__cause__``."""


class UnavailableError(BackendError):
    """The database cannot be reached, or is out of something; the same call may succeed later."""


class LockTimeoutError(BackendError):
    """Another transaction held a needed row for too long; the same call may succeed later."""


class RefusedError(BackendError):
    """The database does not accept the values; the same call will fail again."""


class SchemaError(BackendError):
    """The queue's tables are missing, too old, too new, or not ours; the message names the command to run."""
