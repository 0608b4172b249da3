"""Finds and removes what was kept for long enough, in the tables of one schema."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from jobqueue.cleaning import CleanResult, Found
from jobqueue.retention import Retention
from jobqueue_pg.database import Database
from jobqueue_pg.queries import cleaning as queries
from jobqueue_pg.retention import rules_json

_FIRST_MOMENT: Final = "-infinity"
_FIRST_ID: Final = str(UUID(int=0))


class PostgresCleaning:
    """The Cleaning on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find_jobs(self, retention: Retention, *, after: Any, limit: int, behind: timedelta = timedelta(0)) -> Found:
        """Look at *limit* jobs, from the oldest on, or those that follow the place *after*; find those in no bundle."""
        if (youngest := retention.youngest) is None:
            return Found()
        # The moment stays as the server spells it, which has some that Python cannot hold.
        moment, job_id = after or (_FIRST_MOMENT, _FIRST_ID)
        place = {"after": moment, "after_id": job_id, "number": limit}
        which = {**_rules(retention), **place, "youngest": youngest, "behind": behind}
        ((ids, number, last),) = self._database.fetch(queries.FIND_OLD_JOBS, which)
        return Found(ids=tuple(ids), number=number, place=last or after, is_end=number < limit)

    def remove_jobs(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        """Remove those of the jobs that are old enough."""
        archives = retention.mode == "archive"
        statement = queries.ARCHIVE_OLD_JOBS if archives else queries.DELETE_OLD_JOBS
        return CleanResult(jobs=self._database.change(statement, {**_rules(retention), "ids": list(ids)}))

    def find_bundles(self, retention: Retention, *, after: Any, limit: int) -> Found:
        """Look at *limit* bundles, in the order of their ids, or those that follow the place *after*."""
        if (youngest := retention.youngest) is None:
            return Found()
        place = {"after_id": after or _FIRST_ID, "number": limit, "youngest": youngest}
        which = {**_rules(retention), **place, "kept_empty": retention.succeeded}
        ((ids, number, last),) = self._database.fetch(queries.FIND_OLD_BUNDLES, which)
        return Found(ids=tuple(ids), number=number, place=last or after, is_end=number < limit)

    def remove_bundles(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        """Remove those of the bundles that are old enough, each with all of its members."""
        archives = retention.mode == "archive"
        statement = queries.ARCHIVE_OLD_BUNDLES if archives else queries.DELETE_OLD_BUNDLES
        which = {**_rules(retention), "ids": list(ids), "kept_empty": retention.succeeded}
        ((bundles, jobs),) = self._database.fetch(statement, which)
        return CleanResult(jobs=jobs, bundles=bundles)


def _rules(retention: Retention) -> dict[str, object]:
    return {"rules": rules_json(retention)}
