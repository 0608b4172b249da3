"""Options that several commands have: which jobs are meant."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypedDict
from uuid import UUID

import attrs
import click

from jobqueue.cli.clean import AgeType
from jobqueue.models import State

_Decorated = Callable[..., object]

STATE: Final = click.option("--state", type=click.Choice([str(state) for state in State]), help="Only in this state.")
YES: Final = click.option("--yes", is_flag=True, help="Do not ask.")
IDS: Final = click.argument("ids", metavar="[ID]...", type=click.UUID, nargs=-1)
_FILTERS: Final = (
    click.option("--type", help="Only jobs of this type."),
    click.option("--origin", help="Only jobs that came from there."),
    click.option("--bundle", "bundle_id", type=click.UUID, help="Only members of this bundle."),
    click.option("--error", help="Only with this text in the error message, in whatever case."),
    click.option("--older-than", type=AgeType(), help="Only jobs that were added so long ago at least, such as 2h."),
    click.option("--newer-than", type=AgeType(), help="Only jobs that were added so long ago at most."),
)


class Filter(TypedDict, total=False):
    """What the options of ``with_filter`` say, as ``list_jobs`` and its like take it."""

    state: str | None
    type: str | None
    origin: str | None
    bundle_id: UUID | None
    error: str | None
    older_than: timedelta | None
    newer_than: timedelta | None


def with_filter(function: _Decorated) -> _Decorated:
    """Add the options that say which jobs are meant, but for their state."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@attrs.frozen
class Selection:
    """Which jobs a command is to act on: those with *ids*, or those that a filter means."""

    ids: tuple[UUID, ...]
    filter: dict[str, Any]

    @classmethod
    def of(cls, ids: tuple[UUID, ...], filter: Filter) -> "Selection":
        """Make one of what was given. Raises click.UsageError: nothing, or both."""
        given = {name: value for name, value in filter.items() if value is not None}
        if ids and given:
            raise click.UsageError("give ids, or options that say which jobs are meant, not both")
        if not ids and not given:
            raise click.UsageError("say which jobs are meant: by ids, or by options such as --type or --error")
        return cls(tuple(dict.fromkeys(ids)), given)
