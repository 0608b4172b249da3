"""Numbers that are had at once, from the tables of one schema."""

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from jobqueue.counting import JobCounts
from jobqueue.models import State
from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries import counting as queries
from jobqueue_pg.queries.applications import COUNT_JOBS

# About 10 ms to read them all.
PAGES_TO_COUNT: Final = 1000
_PAGES_OF_SAMPLE: Final = 300
_MOST: Final = {"most": 2_500, "most_in_all": 5_000}

_Key = tuple[str, State]


class PostgresCounting:
    """The Counting on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_jobs(self) -> JobCounts:
        """Count jobs by type and state: exactly where that is quick, and else by a sample."""
        return self._database.transact(self._count_jobs)

    def _count_jobs(self, connection: Lent) -> JobCounts:
        def count(statement: Any, **parameters: object) -> Counter[_Key]:
            rows = self._database.execute(connection, statement, {**_MOST, **parameters})
            return Counter({(job_type, State(state)): int(number) for job_type, state, number in rows})

        which = {"schema": self._database.schema}
        [(rows, pages_then, pages)] = self._database.execute(connection, queries.MEASURE_JOBS, which).fetchall()
        if pages <= PAGES_TO_COUNT:
            return _counts(count(COUNT_JOBS), ())
        share = min(1.0, _PAGES_OF_SAMPLE / pages)
        sample = count(queries.SAMPLE_JOBS, percent=100 * share)
        estimate = _scaled(sample, rows * pages / pages_then if rows > 0 and pages_then > 0 else sample.total() / share)

        waiting = count(queries.COUNT_WAITING)
        with_errors = count(queries.COUNT_WITH_ERRORS)
        newest_claims = count(queries.COUNT_NEWEST_CLAIMS)
        most = _MOST["most_in_all"]
        is_known = {
            State.SUCCEEDED: False,
            State.RUNNING: newest_claims.total() < most,
            **dict.fromkeys((State.FAILED, State.CANCELLED), with_errors.total() < most),
            **dict.fromkeys((State.AVAILABLE, State.SCHEDULED, State.RETRYING), _has_all(waiting)),
        }
        counted = Counter[_Key]()
        for found, states in (
            (waiting, (State.AVAILABLE, State.SCHEDULED, State.RETRYING)),
            (with_errors, (State.FAILED, State.CANCELLED)),
            (newest_claims, (State.RUNNING,)),
        ):
            counted.update({key: number for key, number in found.items() if key[1] in states})
        # The few that run, among millions, are in no sample.
        is_known_or_running = is_known | {State.RUNNING: True}
        guessed = Counter({key: number for key, number in estimate.items() if not is_known_or_running[key[1]]})
        # There are as many as were counted, at least.
        return _counts(counted | guessed, (state for state, known in is_known.items() if not known))

    def oldest_due_age(self) -> dict[str, timedelta]:
        """Say of each type that has jobs which are due and wait, for how long the first of them has been due."""
        found = self._database.fetch(queries.FIND_OLDEST_DUE, {})
        return {job_type: timedelta(seconds=seconds) for job_type, seconds in found}


def _has_all(waiting: Counter[_Key]) -> bool:
    """Whether the limits have left nothing out."""
    of_types = Counter[str]()
    for (job_type, _), number in waiting.items():
        of_types[job_type] += number
    return waiting.total() < _MOST["most_in_all"] and all(number < _MOST["most"] for number in of_types.values())


def _scaled(sample: Counter[_Key], total: float) -> Counter[_Key]:
    looked_at = max(sample.total(), 1)
    return Counter({key: round(number * total / looked_at) for key, number in sample.items()})


def _counts(numbers: Counter[_Key], estimated: Iterable[State]) -> JobCounts:
    by_type: dict[str, dict[State, int]] = {}
    for (job_type, state), number in sorted(numbers.items()):
        by_type.setdefault(job_type, {})[state] = number
    return JobCounts(by_type_and_state=by_type, estimated_states=frozenset(estimated))
