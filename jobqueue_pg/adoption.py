"""Takes over the tables of go-jobqueue, filled and in use, so that they become what 0001_create_queue.sql creates.

One short transaction changes the catalog; after it, go-jobqueue 0.7 works on the tables as before, and whatever else
there is to do can be broken off and begun again at any moment. Nothing here waits for a lock with others queueing up
behind it for longer than an instant.
"""

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString
from uuid import UUID

import attrs
import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from jobqueue.errors import LockTimeoutError
from jobqueue_pg.go_tables import GoTables
from jobqueue_pg.queries import adoption as queries

logger = logging.getLogger(__name__)

# Twice as much, for two tables, is what somebody may be held up for; and as long again is left to whoever was.
_LONGEST_LOCK_WAIT: Final = 0.3
_TIMES_TO_TRY: Final = 60
_SECONDS_TO_TELL: Final = 1.0

_ODD_ROWS: Final[tuple[tuple[str, LiteralString], ...]] = (
    (
        "jobs have stopped without having been started: only go-jobqueue would claim them",
        queries.FIND_STOPPED_UNSTARTED,
    ),
    ("bundles count other members than they have, and may never complete", queries.FIND_MISCOUNTING),
)


@attrs.frozen
class Adoption:
    """The take-over of *schema* by an autocommit *connection*, whose search_path and lock_timeout it sets.

    *creation* is the text of 0001_create_queue.sql, *changes* that of adopt_go_jobqueue.sql.
    """

    connection: psycopg.Connection[Any]
    schema: str
    creation: str
    changes: str

    def run(self) -> None:
        """Take the tables over, or finish what was broken off.

        Raises:
            SchemaError: they are not go-jobqueue's, or not this user's; nothing was changed.
            LockTimeoutError: others held them, or rows of them, for too long; what was done stays done.
        """
        tables = GoTables(self.connection, self.schema, self.creation, self.changes)
        tables.check()
        self._execute(sql.SQL("set search_path to {}, pg_temp").format(sql.Identifier(self.schema)))
        self._execute("set lock_timeout = 0")
        if tables.version < "0.7":
            logger.warning(
                "the tables are those of go-jobqueue %s: processes older than 0.7 fail on columns that they do not "
                "know, and leave what they have claimed; upgrade them to 0.7",
                tables.version,
            )
        if not tables.are_changed:
            self._change_tables()
        for back_fill in queries.BACK_FILLS:
            self._fill_in(back_fill)
        self._build_indexes()
        self._report()

    # --- changing the tables

    def _change_tables(self) -> None:
        comments = re.findall(r"^comment on .*?;$", self.creation, re.MULTILINE | re.DOTALL)
        triggers = self.creation[_heading(self.creation, "notifications") :]
        script = "\n".join([self.changes, *comments, triggers]).encode()
        logger.info("changing the tables")
        with self.connection.transaction():
            self._execute("set local lock_timeout = '10s'")
            with suppress(LockNotAvailable), self.connection.transaction():
                self._execute(queries.KEEP_VACUUM_AWAY)
            self._run_locked(script)
        logger.warning(
            "restart the processes of go-jobqueue: the claim that each has prepared fails from now on, "
            'with "cached plan must not change result type"; nothing is lost by it'
        )

    def _run_locked(self, script: bytes) -> None:
        pause = threading.Event()
        for attempt in range(_TIMES_TO_TRY):
            wait = min(_LONGEST_LOCK_WAIT, 0.05 * 2**attempt)
            with suppress(LockNotAvailable), self.connection.transaction():
                self._execute("select set_config('lock_timeout', %(wait)s, true)", {"wait": f"{wait * 1000:.0f}ms"})
                for lock in queries.LOCK_TABLES:
                    self._execute(lock)
                self.connection.execute(script)
                return
            logger.info("the tables are busy: attempt %s of %s", attempt + 1, _TIMES_TO_TRY)
            pause.wait(2 * wait)
        holders = ", ".join(str(pid) for (pid,) in self._look(queries.FIND_HOLDERS)) or "ended meanwhile"
        raise LockTimeoutError(
            f'the tables in schema "{self.schema}" are in use by transactions that do not end (server processes, '
            f"the oldest first: {holders}): nothing was changed; end them, or try again when there is less to do"
        )

    # --- filling in

    def _fill_in(self, back_fill: queries.BackFill) -> None:
        self._execute(back_fill.find)
        count = self._execute(queries.COUNT_LACKING).rowcount
        self._execute(queries.REWIND_LACKING)
        logger.info("filling in %s: %s rows", back_fill.what, count)
        locked: list[UUID] = []
        done, told_at = 0, time.monotonic()
        while ids := [id for (id,) in self._execute(queries.FETCH_LACKING)]:
            locked += self._fill(back_fill, ids)
            done += len(ids)
            if time.monotonic() - told_at > _SECONDS_TO_TELL:
                told_at = time.monotonic()
                logger.info("filling in %s: %s of %s rows", back_fill.what, done, count)
        self._execute(queries.CLOSE_LACKING)
        self._fill_locked(back_fill, locked)

    def _fill_locked(self, back_fill: queries.BackFill, ids: Sequence[UUID]) -> None:
        pause = threading.Event()
        for _ in range(_TIMES_TO_TRY):
            if not ids:
                return
            pause.wait(_LONGEST_LOCK_WAIT)
            ids = self._fill(back_fill, ids)
        raise LockTimeoutError(
            f"{len(ids)} rows that lack {back_fill.what} are locked by transactions that do not end, the first is "
            f"{ids[0]}: end them, and run the command again, which goes on from here"
        )

    def _fill(self, back_fill: queries.BackFill, ids: Sequence[UUID]) -> list[UUID]:
        """Fill in what is not locked; return the others."""
        if self._execute(back_fill.fill, {"ids": ids}).rowcount == len(ids):
            return []
        return [id for (id,) in self._execute(back_fill.find_left, {"ids": ids})]

    # --- building indexes

    def _build_indexes(self) -> None:
        found = dict(self._look(queries.FIND_INDEXES, names=list(self._indexes)))
        for name in [name for name, is_valid in found.items() if not is_valid]:
            logger.info("dropping index %s, of which an earlier attempt left a part", name)
            self._execute(sql.SQL("drop index concurrently {}").format(sql.Identifier(name)))
            del found[name]
        for number, (name, definition) in enumerate(self._indexes.items(), start=1):
            if name not in found:
                logger.info("building index %s (%s of %s)", name, number, len(self._indexes))
                self.connection.execute(f"create index concurrently {name} {definition}".encode())

    @property
    def _indexes(self) -> dict[str, str]:
        return dict(re.findall(r"^create index (\w+) (.*?);$", self.creation, re.MULTILINE | re.DOTALL))

    # --- reporting

    def _report(self) -> None:
        names = list(self._indexes)
        for name, columns in self._look(queries.FIND_SLOWING_INDEXES, names=names):
            logger.warning(
                "index %s has %s, so that each update of it writes to all indexes; when go-jobqueue is gone, or does "
                "without it: drop index concurrently %s;",
                *(name, columns, self._qualified(name)),
            )
        for name, ours in self._look(queries.FIND_DOUBLE_INDEXES, names=names):
            logger.warning("index %s is the same as %s: drop index concurrently %s;", name, ours, self._qualified(name))
        logger.info("looking for odd rows")
        for fault, query in _ODD_ROWS:
            if rows := self._execute(query).fetchall():
                logger.warning("%s %s; for instance %s", rows[0][0], fault, ", ".join(str(id) for _, id in rows))

    def _qualified(self, name: str) -> str:
        return sql.Identifier(self.schema, name).as_string()

    # --- statements

    def _look(self, query: LiteralString, **parameters: object) -> list[Any]:
        """Return what the catalog says of the schema."""
        return self.connection.execute(query, {"schema": self.schema, **parameters}).fetchall()

    def _execute(
        self, statement: LiteralString | sql.Composed, parameters: Mapping[str, object] | None = None
    ) -> "psycopg.Cursor[Any]":
        return self.connection.execute(statement, parameters)


def _heading(script: str, title: str) -> int:
    """Return where in *script* the heading *title* stands."""
    found = re.search(rf"^-- -+ {title}$", script, re.MULTILINE)
    assert found is not None, f"0001 has no heading {title}"
    return found.start()
