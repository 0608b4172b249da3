"""Statements for worker pools: the trip that saves and claims, the beat, the reaper."""

from typing import Final

from jobqueue_pg.queries.columns import JOB_COLUMNS, NOW
from jobqueue_pg.queries.counters import move_counters

# --- working: one trip carries outcomes out and claims in -------------------------------------------------------------

_COUNT_SAVED: Final = move_counters("""
  select bundle_id, 0 as jobs, count(*)::int as stopped from saved where stops and bundle_id is not null group by 1
""")

# Save outcomes, each only while its claim is still the row's. `locked` takes the jobs in order, as they are by then;
# `moved` counts, for each bundle once, the members that have really stopped by this statement.
#
# `id = any(array(...))` and not a join, here as below: joins are planned for a share of the table, and a plan that was
# made when that was small goes on reading all of it.
_SAVING: Final = f"""
outcome as materialized (
  select *
  from jsonb_to_recordset(%(outcomes)s::jsonb) as o(
    id uuid, started_at timestamptz, claim_id uuid, kind text, result jsonb, error_msg text, error_data jsonb,
    attempt jsonb, delay float8, start_at timestamptz
  )
),
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
  update {{schema}}.job j
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
    attempt_errors = case
      when o.attempt is null then j.attempt_errors
      else
        case when jsonb_array_length(j.attempt_errors) >= 20 then j.attempt_errors - 0
          else coalesce(j.attempt_errors, '[]') end
        || (pg_catalog.jsonb_build_object('at', {NOW}, 'run', j.run_count + 1) || o.attempt)
    end,
    current_retry_count = case
      when o.kind = 'retry' then j.current_retry_count + 1
      when o.kind in ('failed', 'discarded') then greatest(j.current_retry_count, j.max_retry_count)
      else j.current_retry_count
    end,
    run_count = case when o.kind in ('released', 'rescued') then j.run_count else j.run_count + 1 end,
    rescue_count = case when o.kind = 'rescued' then j.rescue_count + 1 else j.rescue_count end,
    updated_at = {NOW}
  from owned o
  where j.id = o.id
  returning j.id, j.bundle_id, o.stops,
    -- A retry does not stop the job, so no trigger tells of it.
    case when o.kind = 'retry' and current_setting('jobqueue.notify', true) is distinct from 'off' then
      pg_catalog.pg_notify(%(job_stopped)s, pg_catalog.json_build_object(
        'id', j.id, 'type', left(j."type", 100), 'origin', left(j.origin, 100), 'willRetry', true)::text)::text
    end as told
),
{_COUNT_SAVED}
"""

# Claim due jobs at a cost that depends on how many types and priorities wait, not on how many jobs do.
#
# `prefixed` and `wanted`: the types to look for; a prefix is spelt out to those of its types that have jobs waiting, by
# one probe of the claim index each. `level`: the priorities in falling order, one probe per type each, walked only as
# far as the batch needs. `picked`: on each level, from the type on that was due first, due jobs in order, locked one by
# one as they are taken; those that somebody else holds are passed over, so that no lock can stop a queue. So are rows
# that stopped without having been started: go-jobqueue leaves them, and has counted them, when it finishes a job that
# was reset meanwhile.
_CLAIMING: Final = f"""
prefixed(prefix, "type") as (
  select p.prefix, (
    select j."type" from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" >= p.prefix
    order by j."type" collate "C" limit 1
  )
  from unnest(%(prefixes)s::text[]) as p(prefix)
  union all
  select p.prefix, (
    select j."type" from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" > p."type"
    order by j."type" collate "C" limit 1
  )
  from prefixed p
  where starts_with(p."type", p.prefix)
),
wanted("type") as materialized (
  select unnest(%(types)s::text[])
  union
  select "type" from prefixed where starts_with("type", prefix)
),
level(priority) as (
  select max(top.priority)
  from wanted w, lateral (
    select j.priority from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" = w."type"
    order by j.priority desc limit 1
  ) top
  union all
  select (
    select max(below.priority)
    from wanted w, lateral (
      select j.priority from {{schema}}.job j
      where j.started_at is null and j."type" collate "C" = w."type" and j.priority < l.priority
      order by j.priority desc limit 1
    ) below
  )
  from level l
  where l.priority is not null
),
picked as materialized (
  select due.id
  from level l
  cross join lateral (
    select w."type"
    from wanted w, lateral (
      select coalesce(j.start_at, j.created_at) as at, j.id from {{schema}}.job j
      where j.started_at is null and j."type" collate "C" = w."type" and j.priority = l.priority
        and coalesce(j.start_at, j.created_at) <= {NOW} and j.stopped_at is null
      order by coalesce(j.start_at, j.created_at), j.id limit 1
    ) first
    order by first.at, first.id
  ) head
  cross join lateral (
    select j.id from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" = head."type" and j.priority = l.priority
      and coalesce(j.start_at, j.created_at) <= {NOW} and j.stopped_at is null
    order by coalesce(j.start_at, j.created_at), j.id
    limit %(limit)s
    for no key update skip locked
  ) due
  limit %(limit)s
),
claimed as (
  update {{schema}}.job j
  set
    started_at = {NOW},
    worker_alive_at = case when %(beats)s then {NOW} end,
    claim_id = %(claim_id)s,
    lease = %(lease)s,
    claimed_by = %(claimed_by)s,
    cancelled_at = null,
    updated_at = {NOW}
  where j.id = any(array(select id from picked))
  returning {JOB_COLUMNS}
)
"""

# When too few jobs were due: how long until the next one is. A hint, so that it may look at the top levels only.
# Infinity, which another program may write, has no distance from now.
_NEXT_DUE: Final = f"""
select extract(epoch from min(next.at) - {NOW})::float8
from (select priority from level where priority is not null limit 20) l, wanted w, lateral (
  select coalesce(j.start_at, j.created_at) as at from {{schema}}.job j
  where j.started_at is null and j."type" collate "C" = w."type" and j.priority = l.priority
    and coalesce(j.start_at, j.created_at) > {NOW} and coalesce(j.start_at, j.created_at) < 'infinity'
    and j.stopped_at is null
  order by coalesce(j.start_at, j.created_at) limit 1
) next
where (select count(*) from picked) < %(limit)s
"""

# As many as JOB_COLUMNS, but for the id.
_NO_JOB: Final = "null, " * 23 + "null"

# For the transaction of an atomic handler, as its first statement: the mark ends with it. No query, after which the
# isolation could not even be changed: what is wrong with that is said at the end.
MARK_TRANSACTION: Final = "set local jobqueue.transaction = 'begun'"

# For the same, before its outcome is saved. Whoever has locked the bundle's row is waited
# for: meanwhile the job's row is locked, so that nobody can take the claim away.
PREPARE_TO_COMPLETE: Final = """
select pg_catalog.current_setting('jobqueue.transaction', true), pg_catalog.current_setting('transaction_isolation'),
  pg_catalog.current_setting('transaction_read_only')
from pg_catalog.set_config('lock_timeout', '0', true) waiting,
  pg_catalog.set_config('statement_timeout', '0', true) running
"""

SAVE_OUTCOMES: Final = f"with {_SAVING} select id from saved"

# Rows are ('saved', null, id), ('next', seconds) or ('claimed', null, job...). The order of the branches is the order
# of locks: all outcomes with their bundles are saved before the first claim, which never waits for a lock, is made.
MAKE_TRIP: Final = f"""
with recursive {_CLAIMING}, {_SAVING}
select 'saved', null::float8, id, {_NO_JOB} from saved where (select count(*) from moved) >= 0
union all
select 'claimed', null, c.* from claimed c
union all
select 'next', ({_NEXT_DUE}), null, {_NO_JOB}
"""

CLAIM_JOBS: Final = f"""
with recursive {_CLAIMING}
select 'claimed', null::float8, c.* from claimed c
union all
select 'next', ({_NEXT_DUE}), null, {_NO_JOB}
"""

# A beat does not wait for a row that somebody has locked, so that one such row cannot silence the others. `owned` says
# which claims stand, touched or not.
TOUCH_JOBS: Final = f"""
with claim as materialized (
  select * from jsonb_to_recordset(%(fences)s::jsonb) as c(id uuid, started_at timestamptz, claim_id uuid)
),
seen as materialized (
  select j.id, j.started_at, j.claim_id, j.stopped_at
  from {{schema}}.job j
  where j.id = any(array(select id from claim))
),
owned as materialized (
  select c.*
  from claim c
  join seen s on s.id = c.id and s.started_at = c.started_at and s.claim_id = c.claim_id
  where s.stopped_at is null
),
locked as materialized (
  select j.id, j.started_at, j.claim_id, j.stopped_at
  from {{schema}}.job j
  where j.id = any(array(select id from owned))
  order by j.id
  for no key update skip locked
),
touched as (
  update {{schema}}.job j
  set worker_alive_at = {NOW}, updated_at = {NOW}
  where j.id = any(array(
    select o.id
    from owned o
    join locked l on l.id = o.id and l.started_at = o.started_at and l.claim_id = o.claim_id
    where l.stopped_at is null
  ))
)
select id from owned
"""

# --- maintaining ------------------------------------------------------------------------------------------------------

# No index leads to running jobs, since it would have to be changed by every finish: the reaper reads all.
PREPARE_TO_REAP: Final = f"select {NOW} from pg_catalog.set_config('enable_seqscan', 'on', true)"

_COUNT_SPENT: Final = move_counters("""
  select bundle_id, 0 as jobs, count(*)::int as stopped from reaped where spent and bundle_id is not null group by 1
""")

# Silence counts only while the database could hear: not for the time before its server was started. The second
# condition on j is for jobs of go-jobqueue before 0.6, which marks a job as stopped while it computes the retry.
REAP_JOBS: Final = f"""
with silent as materialized (
  select j.id, j.stopped_at is null and j.rescue_count >= %(max_rescues)s as spent, j.stopped_at is null as crashed
  from {{schema}}.job j
  where pg_postmaster_start_time() < now() - %(dead_for)s::interval
    and (
      (
        j.started_at is not null
        and j.stopped_at is null
        and j.worker_alive_at < {NOW} - greatest(%(dead_for)s::interval, j.lease)
      ) or (
        j.stopped_at < {NOW} - %(dead_for)s::interval
        and j.error_msg is not null
        and j.current_retry_count < j.max_retry_count
        and j.cancelled_at is null
      )
    )
  order by j.id
  for no key update skip locked
),
reaped as (
  update {{schema}}.job j
  set
    started_at = case when s.spent then j.started_at end,
    stopped_at = case when s.spent then {NOW} end,
    error_msg = case when s.spent then format(
      'the worker of this job fell silent, and it had been taken up again %%s times before', j.rescue_count) end,
    error_data = case when s.spent then jsonb_build_object(
      'type', 'TooManyRescues', 'rescue_count', j.rescue_count, 'claimed_by', j.claimed_by,
      'started_at', j.started_at, 'worker_alive_at', j.worker_alive_at) end,
    current_retry_count = case
      when s.spent then greatest(j.current_retry_count, j.max_retry_count)
      else j.current_retry_count
    end,
    rescue_count = case when s.crashed and not s.spent then j.rescue_count + 1 else j.rescue_count end,
    result = null,
    worker_alive_at = null,
    claim_id = null,
    lease = null,
    claimed_by = case when s.spent then j.claimed_by end,
    updated_at = {NOW}
  from silent s
  where j.id = s.id
  returning j.id, j.bundle_id, j."type", j.rescue_count, s.spent
),
{_COUNT_SPENT}
-- The old row tells who was silent: this reads the snapshot from before the update.
select r.id, r."type", j.claimed_by, r.rescue_count, r.spent
from reaped r
join {{schema}}.job j on j.id = r.id
order by r.id
"""

# Complete, nobody failed, and the job that it asked for when it stopped is gone or has succeeded.
DELETE_SUCCEEDED_BUNDLES: Final = f"""
with done as materialized (
  select b.id
  from {{schema}}.job_bundle b
  where b.delete_when_succeeded
    and b.stopped_at <= {NOW} - %(kept_for)s::interval
    and not exists (
      select from {{schema}}.job j where j.bundle_id = b.id and (j.error_msg is not null or j.stopped_at is null)
    )
    and not exists (
      select from {{schema}}.job j
      where j.completes_bundle_id = b.id and (j.error_msg is not null or j.stopped_at is null)
    )
  order by b.id
  limit 100
),
member as materialized (
  select j.bundle_id, j.stopped_at is not null and j.error_msg is null as succeeded
  from {{schema}}.job j
  where j.bundle_id = any(array(select id from done))
  order by j.id
  for update skip locked
),
bundle as materialized (
  select b.id
  from {{schema}}.job_bundle b
  where b.id = any(array(select id from done))
    -- All of them are locked and still as they were: one that is being reset meanwhile must not go with the others.
    and b.num_jobs = (select count(*) from member m where m.bundle_id = b.id and m.succeeded)
  order by b.id
  for update skip locked
)
delete from {{schema}}.job_bundle b where b.id = any(array(select id from bundle))
"""
