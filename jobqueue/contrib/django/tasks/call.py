"""How a call of a task is spelled as a job: its type, and its payload."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2s
from typing import Any, Final

import attrs
from django.utils import timezone

from jobqueue.contrib.django.tasks.framework import AnyTask, InvalidTask
from jobqueue.limits import MAX_NAME_LENGTH
from jobqueue.payload import structure

PREFIX: Final = "task:"
"""What the types of all jobs begin with that are calls of tasks."""

LONGEST_QUEUE_NAME: Final = 40
_HASH_BYTES: Final = 4


@attrs.frozen(kw_only=True)
class TaskCall:
    """The payload of such a job."""

    task: str
    """The path of the task."""
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict[str, Any])
    backend: str = "default"
    """The alias of the backend that it was enqueued with."""
    run_after: datetime | None = None
    """As the task said; the job itself may have been moved since."""

    @classmethod
    def of(cls, payload: object) -> "TaskCall":
        """Read the payload of a job. Raises PayloadError when it is none of these."""
        call: TaskCall = structure(payload, cls)
        return call

    def as_payload(self) -> dict[str, Any]:
        """Spell it as the payload of a job."""
        return {name: value for name, value in attrs.asdict(self, recurse=False).items() if value is not None}


def type_of(queue_name: str, path: str) -> str:
    """Name the job type of a task: ``task:QUEUE:PATH``. Of a long path the beginning is kept, and a hash."""
    name = f"{PREFIX}{queue_name}:{path}"
    if len(name) <= MAX_NAME_LENGTH:
        return name
    mark = f"~{blake2s(path.encode(), digest_size=_HASH_BYTES).hexdigest()}"
    return name[: MAX_NAME_LENGTH - len(mark)] + mark


def pattern_of(queue_name: str | None) -> str:
    """Name what covers the types of a queue's tasks; None: of all queues."""
    return f"{PREFIX}*" if queue_name is None else f"{PREFIX}{queue_name}:*"


def queue_of(job_type: str) -> str:
    """Return the name of the queue that a job type is of."""
    return job_type.removeprefix(PREFIX).partition(":")[0]


def check_queue_name(name: str) -> None:
    """Raise InvalidTask unless *name* can be a part of job types."""
    if not 1 <= len(name) <= LONGEST_QUEUE_NAME or not name.isprintable() or set(name) & set(":*"):
        raise InvalidTask(
            f"Queue {name!r} cannot be a part of a job's type: a name has 1 to {LONGEST_QUEUE_NAME} characters, "
            "without ':' and '*'."
        )


def aware(moment: datetime | None) -> datetime | None:
    """Return a moment as jobs have it: without USE_TZ, Django's are naive, and of its time zone."""
    return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment


def called(task: AnyTask, args: Sequence[Any], kwargs: dict[str, Any]) -> TaskCall:
    """Describe a call of *task* with arguments that are plain JSON values."""
    return TaskCall(
        task=task.module_path, args=args, kwargs=kwargs, backend=task.backend, run_after=aware(task.run_after)
    )
