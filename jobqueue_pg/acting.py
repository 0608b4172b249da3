"""What is done to all jobs that a filter means, in the tables of one schema."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import attrs

from jobqueue.acting import Acted
from jobqueue.job_filter import JobFilter
from jobqueue_pg import counting
from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries import listing as queries
from jobqueue_pg.queries.counting import MEASURE_JOBS
from jobqueue_pg.rows import Row
from jobqueue_pg.taking_back import reset, taking_keys_back

_Change = Callable[[Lent, Sequence[UUID], Mapping[str, object]], list[Row]]


class PostgresActing:
    """The Acting on PostgreSQL."""

    def __init__(self, database: Database, channels: Mapping[str, str]) -> None:
        self._database = database
        self._channels = channels

    def replay(self, which: JobFilter, *, limit: int, after: Any) -> Acted:
        """Make those of the next *limit* jobs that have failed as good as new."""

        def replay(connection: Lent, found: Sequence[UUID], parameters: Mapping[str, object]) -> list[Row]:
            return reset(self._database, connection, found, queries.replay_found(parameters), parameters)

        return taking_keys_back(lambda takes: self._act(replay, which, limit, after, takes_keys_back=takes))

    def delete(self, which: JobFilter, *, limit: int, after: Any) -> Acted:
        """Delete the next *limit* jobs, and take them out of the counts of their bundles."""

        def delete(connection: Lent, _found: Sequence[UUID], parameters: Mapping[str, object]) -> list[Row]:
            return self._database.execute(connection, queries.delete_found(parameters), parameters).fetchall()

        return self._act(delete, which, limit, after)

    def _act(self, change: _Change, which: JobFilter, limit: int, after: Any, *, takes_keys_back: bool = True) -> Acted:
        # The moment stays as the server spells it, which has some that Python cannot hold.
        created_at, job_id = after or (None, None)
        parameters: dict[str, object] = {
            **parameters_of(which),
            "after_created_at": created_at,
            "after_id": job_id,
            "limit": limit,
            "takes_keys_back": takes_keys_back,
        }

        def act(connection: Lent) -> Acted:
            found = self._database.execute(connection, queries.find_jobs(parameters), parameters).fetchall()
            if not found:
                return Acted()
            # In order, and those that are found on this page alone.
            ids = [row[0] for row in found]
            changed = change(connection, ids, {**parameters, **self._channels, "found": ids})
            last_id, last_created_at = found[-1]
            return Acted(number=len(changed), place=(last_created_at, last_id) if len(found) == limit else None)

        return self._database.transact(act)

    def estimate(self, which: JobFilter) -> int | None:
        """Say how many jobs are meant, about where it would take long to count them; None: nobody knows."""
        parameters = parameters_of(which)
        ((rows, pages_then, pages),) = self._database.fetch(MEASURE_JOBS, {"schema": self._database.schema})
        if pages <= counting.PAGES_TO_COUNT:
            ((number,),) = self._database.fetch(queries.count_jobs(parameters), parameters)
            return int(number)
        if rows <= 0 or pages_then <= 0:
            # Never analyzed: the planner takes everything to be of one size.
            return None
        ((plan,),) = self._database.fetch(queries.estimate_jobs(parameters), parameters)
        return int(plan[0]["Plan"]["Plan Rows"])


def parameters_of(which: JobFilter) -> dict[str, object]:
    """Return what the statements need to know of a filter."""
    return {**attrs.asdict(which, recurse=False), "ids": None if which.ids is None else list(which.ids)}
