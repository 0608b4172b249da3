"""Large tables to claim from: ``python -m tests.benchmarks.contestants.scenes SCENE DSN``.

Every scene has some due jobs of the type that is claimed; what else is in it is what must not matter.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Final

import psycopg

import jobqueue_pg
from tests.benchmarks import contract
from tests.benchmarks.contestants.handlers import JOB_TYPE

DUE: Final = 10_000
RARE_TYPES: Final = 100
_ROWS_PER_TYPE: Final = 30

# Ids in the order of time, as the library makes them.
_INSERT: Final = """
insert into worker.job
  (id, "type", payload, priority, origin, start_at, created_at, updated_at, started_at, stopped_at, run_count)
select
  (lpad(to_hex(%(first)s + n), 8, '0') || '-0000-7000-8000-000000000000')::uuid,
  %(type)s || case when %(types)s > 1 then (n %% %(types)s)::text else '' end,
  '{"number":1}',
  case when %(own_priorities)s then n else 0 end,
  'bench',
  now() + %(due_in)s::interval,
  now() - interval '1 hour' + n * interval '1 ms',
  now(),
  case when %(finished)s then now() end,
  case when %(finished)s then now() end,
  case when %(finished)s then 1 else 0 end
from generate_series(1, %(rows)s) n
"""

# In the order of insertion; what comes first is older.
_SCENES: Final[Mapping[str, tuple[Mapping[str, object], ...]]] = {
    "ten-thousand": ({"rows": DUE},),
    "million": ({"rows": 1.0, "finished": True}, {"rows": 1.0}),
    "rare-types": (
        {"rows": 1.0, "type": "common"},
        {"rows": RARE_TYPES * _ROWS_PER_TYPE, "type": "rare-", "types": RARE_TYPES},
    ),
    "due-later": ({"rows": 0.5, "due_in": "1 day"}, {"rows": DUE}),
    "own-priorities": ({"rows": 0.05, "due_in": "1 day", "own_priorities": True}, {"rows": DUE}),
}
_USUAL: Final = {"type": JOB_TYPE, "types": 1, "own_priorities": False, "due_in": None, "finished": False}


def build(options: argparse.Namespace) -> dict[str, int]:
    """Make the tables of a scene."""
    jobqueue_pg.migrate(options.dsn)
    total = 0
    with psycopg.connect(options.dsn) as connection:
        connection.execute("set local jobqueue.notify = 'off'")
        for part in _SCENES[options.work]:
            given = part["rows"]
            rows = round(given * options.million) if isinstance(given, float) else given
            assert isinstance(rows, int)
            connection.execute(_INSERT, {**_USUAL, **part, "rows": rows, "first": total})
            total += rows
    with psycopg.connect(options.dsn, autocommit=True) as connection:
        connection.execute("vacuum (analyze) worker.job")
        connection.execute("checkpoint")
    return {"jobs": total}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--million", type=int, default=1_000_000, help="what is taken for a million")


if __name__ == "__main__":
    sys.exit(contract.run(dict.fromkeys(_SCENES, build), _add_options))
