"""What the database itself writes down of a chaos run, in the transactions that change its rows; and how it is read."""

from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

# A change is written down by a trigger, so it is there if and only if its transaction has committed. As the row is
# locked by then, the numbers of the changes of one row, and of a job and its bundle, have the order of the commits.
_CREATE: Final = """
create schema evidence;

create table evidence.effect (job_id uuid not null, claim_id uuid not null);

create table evidence.change (
  seq bigserial primary key,
  at timestamptz not null default clock_timestamp(),
  subject text not null,
  id uuid not null,
  before jsonb not null,
  after jsonb not null
);

create function evidence.digest(seen jsonb) returns jsonb language sql as $$
  select seen - array['payload', 'error_data', 'attempt_errors', 'progress', 'on_stopped', 'updated_at']
    || jsonb_build_object('last_failure', (seen #> '{attempt_errors,-1}') - 'traceback')
$$;

create function evidence.note_change() returns trigger language plpgsql set timezone = 'UTC' as $$
begin
  insert into evidence.change (subject, id, before, after)
  values (tg_table_name, new.id, evidence.digest(to_jsonb(old)), evidence.digest(to_jsonb(new)));
  return null;
end
$$;

create trigger evidence_trigger after update on worker.job for each row
when (
  old.started_at is distinct from new.started_at
  or old.claim_id is distinct from new.claim_id
  or old.stopped_at is distinct from new.stopped_at
)
execute function evidence.note_change();

create trigger evidence_trigger after update on worker.job_bundle for each row
when (old.num_jobs_stopped <> new.num_jobs_stopped or old.stopped_at is distinct from new.stopped_at)
execute function evidence.note_change();
"""


def take_evidence(conninfo: str) -> None:
    """Have the queue's database write down from now on what becomes of its jobs and bundles."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(_CREATE)


def read_evidence(conninfo: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of the queue, and of what was written down."""
    with closing(psycopg.connect(conninfo, autocommit=True, row_factory=dict_row)) as connection:
        return {
            "jobs": connection.execute("select * from worker.job").fetchall(),
            "bundles": connection.execute("select * from worker.job_bundle").fetchall(),
            "effects": connection.execute("select job_id, claim_id from evidence.effect").fetchall(),
            "changes": connection.execute("select * from evidence.change order by seq").fetchall(),
        }
