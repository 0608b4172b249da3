"""What the tables of go-jobqueue 0.5 to 0.7 look like, and in what those of a schema differ from that."""

import re
from collections.abc import Mapping
from typing import Any, Final, LiteralString

import attrs
import psycopg

from jobqueue.errors import SchemaError
from jobqueue_pg.queries import adoption as queries

_MOMENT: Final = "timestamp with time zone"
_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "job_bundle": {
        "id": "uuid not null",
        "type": "text not null",
        "origin": "text not null",
        "num_jobs": "integer not null",
        "num_jobs_stopped": "integer not null",
        "updated_at": f"{_MOMENT} not null",
        "created_at": f"{_MOMENT} not null",
    },
    "job": {
        "id": "uuid not null",
        "bundle_id": "uuid",
        "type": "text not null",
        "payload": "jsonb not null",
        "priority": "bigint not null",
        "origin": "text not null",
        "max_retry_count": "integer not null",
        "current_retry_count": "integer not null",
        "start_at": _MOMENT,
        "started_at": _MOMENT,
        "worker_alive_at": _MOMENT,
        "stopped_at": _MOMENT,
        "error_msg": "text",
        "error_data": "jsonb",
        "result": "jsonb",
        "updated_at": f"{_MOMENT} not null",
        "created_at": f"{_MOMENT} not null",
    },
}
_OPTIONAL: Final = frozenset({"worker_alive_at"})  # which 0.5 has not
_CONSTRAINTS: Final[Mapping[str, str]] = {
    "job_bundle_pkey": "PRIMARY KEY (id)",
    "job_bundle_type_check": "CHECK ((length(type) > 0))",
    "job_bundle_origin_check": "CHECK ((length(origin) > 0))",
    "job_bundle_num_jobs_check": "CHECK ((num_jobs >= 0))",
    "job_bundle_check": "CHECK (((num_jobs_stopped >= 0) AND (num_jobs_stopped <= num_jobs)))",
    "job_pkey": "PRIMARY KEY (id)",
    "job_bundle_id_fkey": "FOREIGN KEY (bundle_id) REFERENCES job_bundle(id) ON DELETE CASCADE",
    "job_type_check": "CHECK (((length(type) > 0) AND (length(type) <= 100)))",
    "job_origin_check": "CHECK (((length(origin) > 0) AND (length(origin) <= 100)))",
}
_FUNCTIONS: Final = frozenset({"job_available", "job_stopped", "job_bundle_stopped"})
_CLAIM_INDEX: Final = "worker_job_claim_idx"


@attrs.frozen
class GoTables:
    """The tables in *schema*, looked at by an autocommit *connection* when this is made.

    *creation* is the text of 0001_create_queue.sql, *changes* that of adopt_go_jobqueue.sql.
    """

    connection: psycopg.Connection[Any]
    schema: str
    creation: str
    changes: str
    _columns: Mapping[str, Mapping[str, str]] = attrs.field(
        init=False, default=attrs.Factory(lambda self: self._find_columns(), takes_self=True)
    )

    @property
    def version(self) -> str:
        """The version of go-jobqueue that they are of."""
        if "worker_alive_at" not in self._columns["job"]:
            return "0.5"
        return "0.7" if self._look(queries.FIND_INDEXES, names=[_CLAIM_INDEX]) else "0.6"

    @property
    def are_changed(self) -> bool:
        """Whether *changes* were made to them: all come at once."""
        return self._added <= {name for columns in self._columns.values() for name in columns}

    def check(self) -> None:
        """Make sure that they are go-jobqueue's, and this user's to change.

        Raises:
            SchemaError: they are not; the message names what differs, or what the user may not do.
        """
        differences = [*self._differing_tables(), *self._differing_columns(), *self._differing_constraints()]
        if not self.are_changed:
            differences += [*self._differing_triggers(), *self._taken_names()]
        if differences:
            named = "; ".join(differences)
            raise SchemaError(f'the tables in schema "{self.schema}" are not those of go-jobqueue 0.5 to 0.7: {named}')
        if lacking := "; ".join(lack for (lack,) in self._look(queries.FIND_LACKING_RIGHTS)):
            raise SchemaError(f'the tables in schema "{self.schema}" can be taken over by their owner alone: {lacking}')

    def _find_columns(self) -> Mapping[str, Mapping[str, str]]:
        columns: dict[str, dict[str, str]] = {table: {} for table in _COLUMNS}
        for table, name, kind in self._look(queries.FIND_COLUMNS):
            columns[table][name] = kind
        return columns

    def _differing_tables(self) -> list[str]:
        found = dict(self._look(queries.FIND_TABLES))
        return [
            f'"{table}" is not an ordinary table' if table in found else f'there is no table "{table}"'
            for table in _COLUMNS
            if not found.get(table)
        ]

    def _differing_columns(self) -> list[str]:
        differences: list[str] = []
        for table, found in self._columns.items():
            expected = {name: kind for name, kind in _COLUMNS[table].items() if name in found or name not in _OPTIONAL}
            differences += [
                f"column {table}.{name} is {found.get(name, 'missing')} and not {kind}"
                for name, kind in expected.items()
                if found.get(name) != kind
            ]
            known = expected.keys() | (self._added if self.are_changed else set[str]())
            differences += [f"column {table}.{name} is unknown" for name in found if name not in known]
        return differences

    def _differing_constraints(self) -> list[str]:
        found = dict(self._look(queries.FIND_CONSTRAINTS))
        return [
            f"constraint {name} is {found.get(name, 'missing')} and not {definition}"
            for name, definition in _CONSTRAINTS.items()
            if found.get(name) != definition
        ]

    def _differing_triggers(self) -> list[str]:
        ours = re.findall(r"^create trigger (\w+)", self.creation, re.MULTILINE)
        return [
            f"trigger {trigger} calls {function}()"
            for trigger, function in self._look(queries.FIND_TRIGGERS)
            if trigger in ours and function not in _FUNCTIONS
        ]

    def _taken_names(self) -> list[str]:
        names = re.findall(r"^create (?:index|function) (\w+)", self.creation, re.MULTILINE)
        return [f"there is another {name}" for (name,) in self._look(queries.FIND_NAMES, names=names)]

    @property
    def _added(self) -> set[str]:
        return set(re.findall(r"^ +add column (?!if)(\w+)", self.changes, re.MULTILINE))

    def _look(self, query: LiteralString, **parameters: object) -> list[Any]:
        return self.connection.execute(query, {"schema": self.schema, **parameters}).fetchall()
