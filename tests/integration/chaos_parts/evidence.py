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
  transaction xid8 not null default pg_current_xact_id(),
  began_at timestamptz not null default now(),
  at timestamptz not null default clock_timestamp(),
  subject text not null,
  id text not null,
  before jsonb not null,
  after jsonb not null
);

create function evidence.digest(seen jsonb) returns jsonb language sql as $$
  select seen - array['payload', 'error_data', 'attempt_errors', 'progress', 'updated_at', 'declared']
    || jsonb_build_object('last_failure', (seen #> '{attempt_errors,-1}') - 'traceback')
$$;

create function evidence.note_change() returns trigger language plpgsql set timezone = 'UTC' as $$
declare
  is_ text := case tg_op when 'UPDATE' then '' else ' ' || lower(tg_op) end;
begin
  insert into evidence.change (subject, id, before, after) values (
    tg_table_name || is_,
    coalesce(to_jsonb(new), to_jsonb(old)) ->> tg_argv[0],
    coalesce(evidence.digest(to_jsonb(old)), '{}'),
    coalesce(evidence.digest(to_jsonb(new)), '{}')
  );
  return null;
end
$$;

create trigger evidence_trigger after update on worker.job for each row
when (
  old.started_at is distinct from new.started_at
  or old.claim_id is distinct from new.claim_id
  or old.stopped_at is distinct from new.stopped_at
  or old.unique_key is distinct from new.unique_key
)
execute function evidence.note_change('id');

create trigger evidence_of_new_trigger after insert on worker.job for each row
when (new.unique_key is not null or new.type like 'tick:%')
execute function evidence.note_change('id');

create trigger evidence_of_end_trigger after delete on worker.job for each row
execute function evidence.note_change('id');

create trigger evidence_trigger after update on worker.job_bundle for each row
when (old.num_jobs_stopped <> new.num_jobs_stopped or old.stopped_at is distinct from new.stopped_at)
execute function evidence.note_change('id');

create trigger evidence_of_end_trigger after delete on worker.job_bundle for each row
execute function evidence.note_change('id');

create trigger evidence_trigger after insert or update on worker.job_archive for each row
execute function evidence.note_change('id');

create trigger evidence_trigger after insert or update or delete on worker.paused_type for each row
execute function evidence.note_change('type');

create trigger evidence_trigger after insert or update or delete on worker.schedule for each row
execute function evidence.note_change('name');

create trigger evidence_trigger after insert on worker.schedule_tick for each row
execute function evidence.note_change('schedule_name');
"""

_CHANGES: Final = """
select *, case
  when current_setting('track_commit_timestamp') = 'on' then pg_xact_commit_timestamp(transaction::xid)
end as committed_at
from evidence.change order by seq
"""


def take_evidence(conninfo: str) -> None:
    """Have the queue's database write down from now on what becomes of its jobs and bundles."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(_CREATE)


def read_evidence(conninfo: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of the queue and its archive, and of what was written down."""
    with closing(psycopg.connect(conninfo, autocommit=True, row_factory=dict_row)) as connection:
        return {
            "jobs": connection.execute("select * from worker.job").fetchall(),
            "bundles": connection.execute("select * from worker.job_bundle").fetchall(),
            "effects": connection.execute("select job_id, claim_id from evidence.effect").fetchall(),
            "archive": connection.execute("select * from worker.job_archive").fetchall(),
            "changes": connection.execute(_CHANGES).fetchall(),
        }
