"""Which statements save outcomes: by what the retention says of jobs that have just stopped."""

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

import attrs

from jobqueue.outcomes import Outcome
from jobqueue.retention import Retention
from jobqueue_pg import rows
from jobqueue_pg.queries import removing, saving, trips
from jobqueue_pg.retention import rules_json


@attrs.frozen
class _Statements:
    save: LiteralString
    trip: LiteralString
    trip_for_types: LiteralString
    """For claims that ask for no patterns."""
    watchful_trip: LiteralString
    narrow_trip: LiteralString


_KEEPING: Final = _Statements(
    saving.SAVE_OUTCOMES, trips.MAKE_TRIP, trips.MAKE_TRIP_FOR_TYPES, trips.MAKE_WATCHFUL_TRIP, trips.MAKE_NARROW_TRIP
)
_REMOVING: Final[Mapping[str, _Statements]] = {
    "delete": _Statements(
        removing.SAVE_OUTCOMES_AND_DELETE,
        removing.MAKE_TRIP_AND_DELETE,
        removing.MAKE_TRIP_FOR_TYPES_AND_DELETE,
        removing.MAKE_WATCHFUL_TRIP_AND_DELETE,
        removing.MAKE_NARROW_TRIP_AND_DELETE,
    ),
    "archive": _Statements(
        removing.SAVE_OUTCOMES_AND_ARCHIVE,
        removing.MAKE_TRIP_AND_ARCHIVE,
        removing.MAKE_TRIP_FOR_TYPES_AND_ARCHIVE,
        removing.MAKE_WATCHFUL_TRIP_AND_ARCHIVE,
        removing.MAKE_NARROW_TRIP_AND_ARCHIVE,
    ),
}


class Saving:
    """The statements and their parameters."""

    def __init__(self, retention: Retention, channel: str) -> None:
        removes = retention.removes_at_once
        self.statements = _REMOVING[retention.mode] if removes else _KEEPING
        self._fixed = {"job_stopped": channel} | ({"rules": rules_json(retention)} if removes else {})

    def parameters(self, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Return what the statements need for *outcomes*."""
        return {"outcomes": rows.outcomes_json(outcomes), **self._fixed}
