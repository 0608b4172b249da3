"""Types of jobs that nobody claims for a while: what is known of a pause, and the port that keeps them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

import attrs

SHORTEST_BACK_OFF: Final = timedelta(milliseconds=100)
LONGEST_BACK_OFF: Final = timedelta(seconds=60)


@attrs.frozen(kw_only=True)
class PausedType:
    """A type of jobs, or a pattern of types, of which no process claims any."""

    type: str
    until: datetime | None = None
    """When it ends by itself; None: when somebody resumes it."""
    reason: str | None = None
    paused_at: datetime
    is_back_off: bool = False
    """Whether it was set by a failure that asked all processes to back off, and not by a person."""

    def holds_at(self, now: datetime) -> bool:
        """Whether it has not ended by *now*."""
        return self.until is None or self.until > now


def covers(pattern: str, job_type: str) -> bool:
    """Whether a type, or a pattern such as ``report:*``, is or covers *job_type*."""
    return job_type.startswith(pattern[:-1]) if pattern.endswith("*") else job_type == pattern


def concerns(paused: str, types: Iterable[str]) -> bool:
    """Whether a paused type or pattern takes away something of *types*, which are names and patterns, too."""
    prefix = paused.removesuffix("*")
    return any(
        ((paused.endswith("*") or not name.endswith("*")) and covers(paused, name.removesuffix("*")))
        or (name.endswith("*") and covers(name, prefix))
        for name in types
    )


class Pauses(Protocol):
    """What is paused, kept by a backend and obeyed by its claims, by the backend's clock."""

    def pause(
        self, type: str, *, until: datetime | None, lasts: timedelta | None, reason: str | None
    ) -> PausedType | None:
        """Pause a type or pattern, for as long as it *lasts* or *until* a moment; None when that has passed already.

        A pause that it has is replaced.
        """
        ...

    def resume(self, type: str) -> bool:
        """End the pause of exactly this type or pattern, and tell of what waits; return whether there was one."""
        ...

    def paused_types(self) -> tuple[PausedType, ...]:
        """Return what is paused now, by type."""
        ...
