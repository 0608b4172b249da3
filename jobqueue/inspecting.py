"""What goes on, and how the database is reached: what they look like, and the port that has them."""

from datetime import timedelta
from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class SeenWorker:
    """A process that has claimed jobs lately."""

    name: str
    """``host:pid``."""
    num_running: int
    """How many jobs it has claimed, and not let go; those count that it holds ahead of its threads."""
    silent_for: timedelta
    """How long ago the database last heard of it, by a claim, a heartbeat or the end of a job."""


@attrs.frozen(kw_only=True)
class Activity:
    """What has stopped lately, and who has worked."""

    num_stopped: int = 0
    """How many jobs have stopped *within* that time because they succeeded or failed, whoever ran them."""
    num_failed: int = 0
    """How many of these have failed."""
    within: timedelta
    workers: tuple[SeenWorker, ...] = ()
    """By name. One that has had nothing to do for long is not among them: idle processes write nothing."""

    @property
    def per_second(self) -> float:
        """How many jobs have stopped in a second."""
        return self.num_stopped / max(self.within.total_seconds(), 0.001)


@attrs.frozen(kw_only=True)
class ConnectionCheck:
    """How the backend is reached."""

    backend: str
    """``PostgreSQL`` or ``memory``."""
    server_version: str | None = None
    is_read_only: bool = False
    """Whether it is a standby, or else takes no changes."""
    is_pooled: bool = False
    """Whether a pooler stands between, which lends its connections for a transaction at a time."""
    round_trip: timedelta = timedelta(0)
    """How long a question takes that has no work to it."""


class Inspecting(Protocol):
    """Looks at what goes on without reading what has been finished."""

    def recent_activity(self) -> Activity:
        """Say what has become of the jobs that were claimed last, and by whom."""
        ...

    def check_connection(self) -> ConnectionCheck:
        """Ask the backend for its name, and take the time."""
        ...
