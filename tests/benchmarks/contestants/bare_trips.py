"""The floor of a worker: the library's own statements on a bare connection, and next to no Python around them.

What the statements are, what their parameters, and where in a row a claim's fence is, is learnt from the library: it
makes its own first trips, with jobs for that, while somebody looks on.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid4

import attrs
import psycopg
from psycopg import RawCursor, sql

import jobqueue
import jobqueue_pg
from jobqueue.outcomes import Claimant, Outcome
from jobqueue_pg.pool import worker_pool
from jobqueue_pg.watermarks import Watermarks
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.benchmarks.contestants.handlers import JOB_TYPE

SCHEMA: Final = "worker"
_WARM_UP: Final = "warm-up"
_CLAIMANT: Final = Claimant(name="floor", lease=timedelta(seconds=60))
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@attrs.frozen
class Statement:
    """A statement as the server takes it, its parameters numbered."""

    text: bytes
    names: tuple[str, ...]

    @classmethod
    def of(cls, template: str) -> "Statement":
        """Make one of a template of jobqueue_pg.queries."""
        names = tuple(dict.fromkeys(_PARAMETER.findall(template)))
        numbers = {name: f"${number}" for number, name in enumerate(names, start=1)}
        numbered = _PARAMETER.sub(lambda found: numbers[found[1]], template).replace("%%", "%")
        return cls(sql.SQL(numbered).format(schema=sql.Identifier(SCHEMA)).as_bytes(None), names)  # pyright: ignore[reportArgumentType]

    def run(self, connection: psycopg.Connection[Any], values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Run it, prepared, and return its rows."""
        return RawCursor(connection).execute(self.text, [values[name] for name in self.names], prepare=True).fetchall()


class Place(NamedTuple):
    """Where in the rows of a trip something is."""

    mark: str
    """What the first column of the row is."""
    column: int


@attrs.frozen
class Lesson:
    """What the library's own trips have shown."""

    claiming: Statement
    """What claims when there is nothing to save."""
    travelling: Statement
    """What saves and claims."""
    going_on: Statement
    """What saves, and claims behind the place where the last claim has ended."""
    parameters: Mapping[str, object]
    outcome: str
    """One outcome, with ``{id}`` of the job, ``{moment}`` of its claim, and the claim's ``{claim_id}``."""
    runs: str
    """Where to go on, with ``{due}`` for when the last job was due, and its ``{id}``."""
    id_place: Place
    """Where the id of a claimed job is."""
    due_place: Place
    """Where it is said when it was due."""
    moment_place: Place
    """Where the moment of the claim is: in the row of each job, or in another one."""


class BareTrips:
    """Claims *batch* jobs and saves what was claimed before, in one statement and one commit, on its own connection.

    With *goes_on*, claims are made as the library makes them in a long queue of one type and one priority.
    """

    def __init__(self, dsn: str, lesson: Lesson, batch: int, *, goes_on: bool = False) -> None:
        self._lesson = lesson
        self._batch = batch
        self._goes_on = goes_on
        self._values = {**lesson.parameters, "types": [JOB_TYPE], "limit": batch}
        self._connection = worker_session(dsn)
        self._claim_id = uuid4()
        self._moment = ""

    def make(self, done: Sequence[UUID]) -> list[UUID]:
        """Save that the jobs claimed last are finished; return the ids of those that were claimed now."""
        if not done:
            return self._claim(self._lesson.claiming)
        outcome = _filled(self._lesson.outcome, moment=self._moment, claim_id=str(self._claim_id))
        before, _, after = outcome.partition("{id}")
        self._values["outcomes"] = f"[{before}{f'{after},{before}'.join([id_.hex for id_ in done])}{after}]"
        if not self._goes_on:
            return self._claim(self._lesson.travelling)
        # Only a look at everything can tell that there is no more.
        return self._claim(self._lesson.going_on) or self._claim(self._lesson.claiming)

    def _claim(self, statement: Statement) -> list[UUID]:
        self._values["claim_id"] = self._claim_id = uuid4()
        rows = statement.run(self._connection, self._values)
        mark, column = self._lesson.moment_place
        self._moment = next((row[column].isoformat() for row in rows if row[0] == mark and row[column]), "")
        mark, column = self._lesson.id_place
        claimed = [row for row in rows if row[0] == mark]
        if claimed and self._goes_on:
            due_column = self._lesson.due_place.column
            last = max(claimed, key=lambda row: (row[due_column], row[column].int))
            self._values["runs"] = _filled(self._lesson.runs, due=last[due_column].isoformat(), id=last[column].hex)
        return [row[column] for row in claimed]

    def close(self) -> None:
        """Give up the connection."""
        self._connection.close()


def learn(dsn: str) -> Lesson:
    """Have the library add a few jobs and make trips for them, in an idle queue."""
    with jobqueue_pg.connect(dsn) as service:
        service.add_jobs([jobqueue.Job.new(_WARM_UP, {}) for _ in range(4)])
    with worker_session(dsn) as connection:
        watched = _Watched(connection)
        claiming, first = watched.trip(Watermarks(), None)
        travelling, second = watched.trip(Watermarks(), first)
        outcome = _template(
            watched.parameters["outcomes"].strip("[]"),
            id=first.id,
            moment=first.started_at,
            claim_id=first.claim_id,
        )
        watermarks = Watermarks(worthwhile=1)
        _, third = watched.trip(watermarks, second)
        going_on, fourth = watched.trip(watermarks, third)
        runs = _template(watched.parameters["runs"], due=third.created_at, id=third.id)
        places = [_place_of(value, watched.rows) for value in (fourth.id, fourth.created_at, fourth.started_at)]
        parameters = dict(watched.parameters)
        watched.save(fourth)
    parameters["gaps"] = parameters["gaps"].replace(_WARM_UP, JOB_TYPE)
    return Lesson(claiming, travelling, going_on, parameters, outcome, runs.replace(_WARM_UP, JOB_TYPE), *places)


def _template(text: str, **values: object) -> str:
    """Return *text* with the names of values in braces in their place, where each of them must be."""
    for name, value in values.items():
        spellings = (value.isoformat(),) if isinstance(value, datetime) else (str(value), str(value).replace("-", ""))
        [spelling] = [spelling for spelling in spellings if spelling in text]
        text = text.replace(spelling, f"{{{name}}}")
    return text


def _filled(template: str, **values: str) -> str:
    """Return the *template* with values in place of their names."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def _place_of(value: object, rows: list[tuple[Any, ...]]) -> Place:
    return next(Place(row[0], row.index(value)) for row in rows if value in row)


def worker_session(dsn: str) -> psycopg.Connection[Any]:
    """Return a bare connection whose session has the settings that the library's connections for workers have."""
    connection = psycopg.connect(dsn, autocommit=True)
    pool = worker_pool(dsn, timedelta(seconds=2))
    with pool.connection() as session:
        settings = session.execute("select name, setting from pg_settings where source = 'session'").fetchall()
    pool.close()
    for name, value in settings:
        connection.execute("select set_config(%s, %s, false)", [name, value], prepare=False)
    return connection


class _Watched:
    """To the library's worker store a database; it runs statements on a bare connection, and remembers the last one."""

    schema = SCHEMA

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._template = ""
        self.parameters: dict[str, Any] = {"now": None}
        self.rows: list[tuple[Any, ...]] = []

    def trip(self, watermarks: Watermarks, done: jobqueue.Job | None) -> "tuple[Statement, jobqueue.Job]":
        """Have a store make a trip that saves a job as finished and claims one; return how, and the latter."""
        store = PostgresWorkerStore(cast("Any", self))
        store._watermarks = watermarks
        outcomes = [] if done is None else [Outcome.finished(done)]
        trip = store.make_trip(outcomes, [_WARM_UP], 1, _CLAIMANT)
        assert trip.saved == {outcome.fence.job_id for outcome in outcomes}
        return Statement.of(self._template), trip.claimed[0]

    def save(self, done: jobqueue.Job) -> None:
        """Have a store save a job as finished."""
        assert PostgresWorkerStore(cast("Any", self)).save_outcomes([Outcome.finished(done)]) == {done.id}

    def fetch(self, statement: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Run a statement as a Database does."""
        self._template = statement
        self.parameters |= parameters
        self.rows = Statement.of(statement).run(self._connection, self.parameters)
        return self.rows
