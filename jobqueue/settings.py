"""What can be set about the workers of a service."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import attrs

_ZERO: Final = timedelta(0)
_A_YEAR: Final = timedelta(days=365)
_INTEGER: Final = 2**31


def _none_for_zero(value: timedelta | None) -> timedelta | None:
    return value or None


def _duration(_: object, attribute: "attrs.Attribute[timedelta]", value: object) -> None:
    if not isinstance(value, timedelta):
        raise TypeError(f"{attribute.name} must be a timedelta, not {value!r}")
    if not _ZERO < value <= _A_YEAR:
        raise ValueError(f"{attribute.name} must be longer than zero and at most a year, not {value}")


def _optional_duration(owner: object, attribute: "attrs.Attribute[timedelta]", value: object) -> None:
    if value is not None:
        _duration(owner, attribute, value)


def _number(lowest: int) -> Callable[[object, "attrs.Attribute[int]", object], None]:
    def check(_: object, attribute: "attrs.Attribute[int]", value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{attribute.name} must be an int, not {value!r}")
        if not lowest <= value < _INTEGER:
            raise ValueError(f"{attribute.name} must be at least {lowest} and below {_INTEGER}, not {value}")

    return check


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """The rules by which the workers of a service claim, beat and are taken for dead.

    Raises:
        TypeError: a value is no timedelta, or no int.
        ValueError: a duration or number is out of range, or *dead_for* is shorter than three heartbeats.
    """

    heartbeat_interval: timedelta | None = attrs.field(
        default=timedelta(seconds=10), converter=_none_for_zero, validator=_optional_duration
    )
    """How often a claimed job's ``worker_alive_at`` is advanced. None (or zero) turns heartbeats off: then no job of
    this process is ever taken for abandoned."""

    dead_for: timedelta = attrs.field(default=timedelta(seconds=60), validator=_duration)
    """How long a claim must have been silent before any process may take the job away."""

    job_timeout: timedelta | None = attrs.field(
        default=timedelta(minutes=15), converter=_none_for_zero, validator=_optional_duration
    )
    """How long a run may take, unless its handler says otherwise; None (or zero) means no limit. Cooperative: see
    ``JobContext.check``."""

    poll_interval: timedelta = attrs.field(default=timedelta(seconds=5), validator=_duration)
    """How often idle workers look at the queue although nobody told them to."""

    batch_size: int = attrs.field(default=64, validator=_number(1))
    """How many jobs may be held ahead of the threads of a pool, one of them included: about 20 ms of work for each, and
    none while jobs are long; 1 means none at all. The outcomes of shorter jobs wait until there are half as many, for
    100 ms at most, unless a thread has nothing else to do."""

    max_rescues: int = attrs.field(default=3, validator=_number(0))
    """How often a job is taken up again after its worker died, before it is failed."""

    atomic_connections: int = attrs.field(default=4, validator=_number(1))
    """How many connections a worker pool may use for atomic handlers, each of which has one to itself while it runs."""

    def __attrs_post_init__(self) -> None:
        if self.heartbeat_interval is not None and self.dead_for < 3 * self.heartbeat_interval:
            raise ValueError(
                f"dead_for is {self.dead_for}, but must be at least three times heartbeat_interval "
                f"({self.heartbeat_interval}), or a worker that misses one beat is taken for dead"
            )
