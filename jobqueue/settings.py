"""What can be set about the workers of a service."""

from datetime import timedelta

import attrs

_ZERO = timedelta(0)


def _seconds(value: timedelta | None) -> timedelta | None:
    return None if value == _ZERO else value


def _positive(_: object, attribute: "attrs.Attribute[timedelta]", value: timedelta | None) -> None:
    if value is not None and value <= _ZERO:
        raise ValueError(f"{attribute.name} must be longer than zero, not {value}")


def _at_least_one(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 1:
        raise ValueError(f"{attribute.name} must be at least 1, not {value}")


def _not_negative(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must not be negative, not {value}")


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """The rules by which the workers of a service claim, beat and are taken for dead.

    Raises:
        ValueError: a duration or number is out of range, or *dead_for* is shorter than three heartbeats.
    """

    heartbeat_interval: timedelta | None = attrs.field(
        default=timedelta(seconds=10), converter=_seconds, validator=_positive
    )
    """How often a claimed job's ``worker_alive_at`` is advanced. None (or zero) turns heartbeats off: then no job of
    this process is ever taken for abandoned."""

    dead_for: timedelta = attrs.field(default=timedelta(seconds=60), validator=_positive)
    """How long a claim must have been silent before any process may take the job away."""

    job_timeout: timedelta | None = attrs.field(default=timedelta(minutes=15), converter=_seconds, validator=_positive)
    """How long a run may take, unless its handler says otherwise; None (or zero) means no limit. Cooperative: see
    ``JobContext.check``."""

    poll_interval: timedelta = attrs.field(default=timedelta(seconds=5), validator=_positive)
    """How often idle workers look at the queue although nobody told them to."""

    batch_size: int = attrs.field(default=1, validator=_at_least_one)
    """How many jobs may be held ahead of the threads of a pool, one of them included; 1 means none."""

    max_rescues: int = attrs.field(default=3, validator=_not_negative)
    """How often a job is taken up again after its worker died, before it is failed."""

    atomic_connections: int = attrs.field(default=4, validator=_at_least_one)
    """The most connections that handlers with a transaction of their own may use at the same time."""

    def __attrs_post_init__(self) -> None:
        if self.heartbeat_interval is not None and self.dead_for < 3 * self.heartbeat_interval:
            raise ValueError(
                f"dead_for is {self.dead_for}, but must be at least three times heartbeat_interval "
                f"({self.heartbeat_interval}), or a worker that misses one beat is taken for dead"
            )
