"""Statements that save what runs have led to, in trips and in the transactions of atomic handlers."""

from typing import Final

from jobqueue_pg.queries.columns import NOW
from jobqueue_pg.queries.counters import move_counters
from jobqueue_pg.queries.uniqueness import keys_after_end

COUNT_SAVED: Final = move_counters("""
  select bundle_id, 0 as jobs, count(*)::int as stopped from saved where stops and bundle_id is not null group by 1
""")

# What a run leaves behind in the row of its job.
ATTEMPT_ERRORS: Final = f"""case
      when o.attempt is null then j.attempt_errors
      else
        case when jsonb_array_length(j.attempt_errors) >= 20 then j.attempt_errors - 0
          else coalesce(j.attempt_errors, '[]') end
        || (pg_catalog.jsonb_build_object(
          'at', {NOW}, 'run', j.run_count + 1, 'started_at', j.started_at, 'claimed_by', j.claimed_by
        ) || o.attempt)
    end"""
RETRY_COUNT: Final = """case
      when o.kind = 'retry' then j.current_retry_count + 1
      when o.kind in ('failed', 'discarded') then greatest(j.current_retry_count, j.max_retry_count)
      else j.current_retry_count
    end"""

OUTCOMES: Final = """
outcome as materialized (
  select *
  from jsonb_to_recordset(%(outcomes)s::jsonb) as o(
    id uuid, started_at timestamptz, claim_id uuid, kind text, result jsonb, error_msg text, error_data jsonb,
    attempt jsonb, delay float8, start_at timestamptz
  )
)"""

SAVE: Final = f"""update {{schema}}.job j
  set
    started_at = case when o.stops then j.started_at end,
    claim_id = case when o.stops then j.claim_id end,
    lease = case when o.stops then j.lease end,
    claimed_by = case when o.stops then j.claimed_by end,
    worker_alive_at = null,
    stopped_at = case when o.stops then {NOW} end,
    cancelled_at = case when o.kind = 'discarded' then {NOW} end,
    start_at = case
      when o.delay is not null then {NOW} + pg_catalog.make_interval(secs => o.delay)
      when o.start_at is not null then o.start_at
      else j.start_at
    end,
    result = o.result,
    error_msg = o.error_msg,
    error_data = o.error_data,
    attempt_errors = {ATTEMPT_ERRORS},
    current_retry_count = {RETRY_COUNT},
    run_count = case when o.kind in ('released', 'rescued') then j.run_count else j.run_count + 1 end,
    rescue_count = case when o.kind = 'rescued' then j.rescue_count + 1 else j.rescue_count end,
    updated_at = {NOW},{keys_after_end("o.stops", "o.kind = 'failed'")}
  from owned o
  where j.id = o.id
  returning j.id, j.bundle_id, o.stops,
    -- A retry does not stop the job, so no trigger tells of it; of what stops, none does in a session of workers.
    case
      when (
        o.kind = 'retry'
        or (o.stops and current_setting('jobqueue.tells_of_stopped', true) is not distinct from 'on')
      ) and current_setting('jobqueue.notify', true) is distinct from 'off'
      then pg_catalog.pg_notify(%(job_stopped)s, pg_catalog.json_build_object(
        'id', j.id, 'type', left(j."type", 100), 'origin', left(j.origin, 100), 'willRetry', o.kind = 'retry')::text
      )::text
    end as told"""

# Save outcomes, each only while its claim is still the row's. `locked` takes the jobs in order, as they are by then;
# `moved` counts, for each bundle once, the members that have really stopped by this statement.
#
# `id = any(array(...))` and not a join, here as below: joins are planned for a share of the table, and a plan that was
# made when that was small goes on reading all of it.
SAVING: Final = f"""{OUTCOMES},
locked as materialized (
  select j.id, j.started_at, j.claim_id, j.stopped_at
  from {{schema}}.job j
  where j.id = any(array(select id from outcome))
  order by j.id
  for no key update
),
owned as materialized (
  select o.*, o.kind in ('finished', 'failed', 'discarded') as stops
  from outcome o
  join locked l on l.id = o.id and l.started_at = o.started_at and l.claim_id = o.claim_id
  where l.stopped_at is null
),
saved as (
  {SAVE}
),
{COUNT_SAVED}
"""

SAVE_OUTCOMES: Final = f"with {SAVING} select id from saved"

# --- in the transaction of an atomic handler

# Its first statement: the mark ends with it. No query, after which the isolation could not even be changed: what is
# wrong with that is said at the end.
MARK_TRANSACTION: Final = "set local jobqueue.transaction = 'begun'"

STATUS_OF_TRANSACTION: Final = "select pg_catalog.pg_xact_status(%(number)s::pg_catalog.xid8)"

# Before its outcome is saved. Whoever has locked the bundle's row is waited for: meanwhile the job's row is locked, so
# that nobody can take the claim away. By its number the server knows the transaction, also when it has ended.
PREPARE_TO_COMPLETE: Final = """
select pg_catalog.current_setting('jobqueue.transaction', true), pg_catalog.current_setting('transaction_isolation'),
  pg_catalog.current_setting('transaction_read_only'),
  case when pg_catalog.current_setting('transaction_read_only') = 'off' then pg_catalog.pg_current_xact_id()::text end
from pg_catalog.set_config('lock_timeout', '0', true) waiting,
  pg_catalog.set_config('statement_timeout', '0', true) running
"""
