"""Which jobs are meant."""

from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

import attrs

from jobqueue.errors import InvalidJobError
from jobqueue.limits import check_id, check_name, check_text
from jobqueue.models import State

Cursor = tuple[datetime, UUID]
"""A place in the list of jobs: the ``created_at`` and the id of the job before it."""

_LONGEST: Final = timedelta(days=365 * 1000)


@attrs.frozen(kw_only=True)
class JobFilter:
    """Those jobs for which everything that is not None holds."""

    state: State | None = None
    type: str | None = None
    origin: str | None = None
    bundle_id: UUID | None = None
    error: str | None = None
    """What is somewhere in their error messages, whatever its case."""
    older_than: timedelta | None = None
    """How long ago they were added at least."""
    newer_than: timedelta | None = None
    """How long ago they were added at most."""
    ids: tuple[UUID, ...] | None = None
    archived: bool = False
    """Whether those in the archive are meant, and not those in the queue."""

    @classmethod
    def of(
        cls,
        *,
        state: str | None = None,
        type: object = None,
        origin: object = None,
        bundle_id: object = None,
        error: object = None,
        older_than: object = None,
        newer_than: object = None,
        archived: bool = False,
    ) -> Self:
        """Make a filter of what an application gives. Raises InvalidJobError."""
        return cls(
            state=None if state is None else _state_named(state),
            type=None if type is None else check_name("type", type),
            origin=None if origin is None else check_name("origin", origin),
            bundle_id=None if bundle_id is None else check_id(bundle_id, "bundle_id"),
            error=None if error is None else _check_part("error", error),
            older_than=_check_age("older_than", older_than),
            newer_than=_check_age("newer_than", newer_than),
            archived=archived,
        )

    @property
    def is_empty(self) -> bool:
        """Whether all jobs are meant."""
        given: dict[str, Any] = attrs.asdict(self, recurse=False)
        return all(value is None for name, value in given.items() if name != "archived")


def _state_named(value: str) -> State:
    try:
        return State(value)
    except ValueError:
        raise InvalidJobError(f"{value!r} is not a state: there are {', '.join(State)}", field="state") from None


def _check_part(field: str, value: object) -> str:
    text = check_text(field, value)
    if not text:
        raise InvalidJobError(
            f"{field} is empty, which is in every text: leave it out, or give state='failed'", field=field
        )
    return text


def _check_age(field: str, value: object) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise InvalidJobError(f"{field} must be a timedelta, not {type(value).__qualname__}", field=field)
    if not timedelta(0) <= value <= _LONGEST:
        raise InvalidJobError(f"{field} must be from zero to a thousand years, not {value}", field=field)
    return value
