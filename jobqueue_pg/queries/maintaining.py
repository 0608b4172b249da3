"""What worker pools do besides their trips: beat for claims, take up silent ones, delete bundles that are done with."""

from typing import Final

from jobqueue_pg.queries.columns import NOW
from jobqueue_pg.queries.counters import move_counters
from jobqueue_pg.queries.uniqueness import keys_after_end

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

# --- taking up silent claims

# Of the few jobs that the reaper fails, the trigger tells.
BEGIN_TO_REAP: Final = f"select {NOW} from pg_catalog.set_config('jobqueue.tells_of_stopped', 'off', true)"

# What may have fallen silent, now or later. The second condition is for jobs of go-jobqueue before 0.6, which marks a
# job as stopped while it computes the retry.
_OPEN: Final = """
  j.started_at is not null
  and (
    (j.stopped_at is null and j.worker_alive_at is not null)
    or (j.stopped_at is not null and j.error_msg is not null and j.current_retry_count < j.max_retry_count
      and j.cancelled_at is null)
  )"""

_IN_DOUBT: Final = f"""
  coalesce(j.stopped_at, j.worker_alive_at)
    < {NOW} - greatest(%(dead_for)s::interval, j.lease) * %(in_doubt_after)s::float8"""

# Complete, nobody failed, and the job that it asked for when it stopped is gone or has succeeded. The offsets keep this
# from becoming a join that reads the members of all bundles.
_SUCCEEDED_BUNDLE: Final = f"""
  from {{schema}}.job_bundle b
  where b.delete_when_succeeded
    and b.stopped_at <= {NOW} - %(kept_for)s::interval
    and not exists (
      select from {{schema}}.job j
      where j.bundle_id = b.id and (j.error_msg is not null or j.stopped_at is null)
      offset 0
    )
    and not exists (
      select from {{schema}}.job j
      where j.completes_bundle_id = b.id and (j.error_msg is not null or j.stopped_at is null)
      offset 0
    )"""

# All that there is to know for one who waits: when it is; the open claims, of *ids* and of those that have become
# dead_for old since the last look, and whether one of them is in doubt; whether bundles are to be deleted. It writes
# nothing, and is refused all the same where nothing can be written: that is no server to be in contact with.
LOOK_AROUND: Final = f"""
with claim as materialized (
  select j.id, {_IN_DOUBT} as is_in_doubt from {{schema}}.job j where j.id = any(%(ids)s::uuid[]) and {_OPEN}
  union all
  select j.id, {_IN_DOUBT} from {{schema}}.job j
  where j.started_at >= greatest(
      %(since)s::timestamptz, {NOW} - %(dead_for)s::interval - %(longest_step)s::interval
    )
    and j.started_at < {NOW} - %(dead_for)s::interval
    and {_OPEN}
)
select
  {NOW},
  array(select id from claim),
  exists (select from claim where is_in_doubt),
  %(kept_for)s::interval is null or exists (select {_SUCCEEDED_BUNDLE})
where not exists (select from {{schema}}.job j where false for no key update)
"""

# All at once, for which no index is as fast as to read the table from end to end.
PREPARE_TO_FIND_ALL: Final = "select from pg_catalog.set_config('enable_seqscan', 'on', true)"
FIND_ALL_CLAIMS: Final = f"select j.id from {{schema}}.job j where {_OPEN}"

# A *number* of them, and others of the same moment as the last of these: the next ones are those below that.
SWEEP_CLAIMS: Final = f"""
with last as materialized (
  select j.started_at
  from {{schema}}.job j
  where j.started_at < %(below)s::timestamptz
  order by j.started_at desc
  offset %(number)s - 1 limit 1
)
select
  array(
    select j.id
    from {{schema}}.job j
    where j.started_at < %(below)s::timestamptz
      and j.started_at >= coalesce((select started_at from last), '-infinity')
      and {_OPEN}
  ),
  (select started_at::text from last)
"""

_COUNT_SPENT: Final = move_counters("""
  select bundle_id, 0 as jobs, count(*)::int as stopped from reaped where spent and bundle_id is not null group by 1
""")

# Claims are judged by the time of the look, even if the server, or this process, was frozen since then. Silence counts
# only while the database could hear: not for the time before its server was started.
REAP_JOBS: Final = f"""
with silent as materialized (
  select j.id, j.stopped_at is null and j.rescue_count >= %(max_rescues)s as spent, j.stopped_at is null as crashed
  from {{schema}}.job j
  where j.id = any(%(ids)s::uuid[])
    and pg_postmaster_start_time() < now() - %(dead_for)s::interval
    and j.started_at is not null
    and (
      (
        j.stopped_at is null
        and j.worker_alive_at < %(judged_at)s::timestamptz - greatest(%(dead_for)s::interval, j.lease)
      ) or (
        j.stopped_at < %(judged_at)s::timestamptz - %(dead_for)s::interval
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
    updated_at = {NOW},{keys_after_end("s.spent", "true")}
  from silent s
  where j.id = any(array(select id from silent)) and j.id = s.id
  returning j.id, j.bundle_id, j."type", j.rescue_count, s.spent
),
{_COUNT_SPENT}
-- The old row tells who was silent: this reads the snapshot from before the update.
select r.id, r."type", j.claimed_by, r.rescue_count, r.spent
from reaped r
join {{schema}}.job j on j.id = any(array(select id from reaped)) and j.id = r.id
order by r.id
"""

DELETE_SUCCEEDED_BUNDLES: Final = f"""
with done as materialized (
  select b.id
  {_SUCCEEDED_BUNDLE}
  order by b.id
  limit 100
),
listed as materialized (
  select j.id from {{schema}}.job j where j.bundle_id = any(array(select id from done))
),
-- By their ids, or all jobs would be read in the order in which these have to be locked.
member as materialized (
  select j.bundle_id, j.stopped_at is not null and j.error_msg is null as succeeded
  from {{schema}}.job j
  where j.id = any(array(select id from listed))
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
