"""Statements for applications that manage jobs: reset, replay, cancel, reschedule, delete, save progress."""

from typing import Final

from jobqueue_pg.queries.columns import NOW
from jobqueue_pg.queries.counters import move_counters
from jobqueue_pg.queries.uniqueness import AFTER_CANCEL, TAKE_BACK, TAKING_BACK

# --- what they have in common -----------------------------------------------------------------------------------------

# The counter goes down for members that it counted: those that had stopped, unless go-jobqueue before 0.6 was about to
# retry them.
_TARGET_COLUMNS: Final = f"""
    j.id, j.bundle_id, j."type", j.origin,
    j.started_at is null and j.run_count > 0 and j.start_at > {NOW} as to_tell,
    j.stopped_at is not null and (j.error_msg is null or j.current_retry_count >= j.max_retry_count) as counted,
    case when j.started_at is not null and j.stopped_at is null then j.claim_id end as lost_claim"""

# Those who run the jobs hear of it at once. As materialized expressions that nobody reads are not run, each statement
# counts what was told.
_TELL_OF_LOST_CLAIMS: Final = """
told as materialized (
  select pg_notify(%(claim_lost)s, json_build_object('id', id, 'claimId', lost_claim)::text)
  from target
  where lost_claim is not null and current_setting('jobqueue.notify', true) is distinct from 'off'
)"""

# A trigger tells of jobs that had been started, and not of those that had been waiting for another moment.
_TELL_OF_JOBS: Final = """
told_of_jobs as materialized (
  select pg_notify(
    %(job_available)s,
    json_build_object('id', id, 'type', left("type", 100), 'origin', left(origin, 100))::text
  )
  from target
  where to_tell and current_setting('jobqueue.notify', true) is distinct from 'off'
)"""

# --- resetting --------------------------------------------------------------------------------------------------------

_COUNT_RESET: Final = move_counters("""
  select bundle_id, 0 as jobs, -count(*)::int as stopped from target where counted and bundle_id is not null group by 1
""")
RESET_BEFORE: Final = f"""
with target as materialized (
  select {_TARGET_COLUMNS}, j.unique_key, j.unique_key_spent, j.unique_until
  from {{schema}}.job j
  where """
RESET_AFTER: Final = f"""
  order by j.id
  for no key update
),
{_COUNT_RESET},
{_TELL_OF_LOST_CLAIMS},
{_TELL_OF_JOBS},
{TAKING_BACK}
update {{schema}}.job j
set
  started_at = null,
  worker_alive_at = null,
  claim_id = null,
  lease = null,
  claimed_by = null,
  stopped_at = null,
  cancelled_at = null,
  error_msg = null,
  error_data = null,
  result = null,
  progress = null,
  -- The moment of a retry that is not wanted any more; not that for which the job was added.
  start_at = case when j.run_count > 0 and j.start_at > {NOW} then null else j.start_at end,
  current_retry_count = 0,
  run_count = 0,
  rescue_count = 0,
  updated_at = {NOW},{TAKE_BACK}
where j.id = any(array(select id from target))
  and (select count(*) from told) + (select count(*) from told_of_jobs) >= 0
returning j.id
"""
RESET_JOBS: Final = f"{RESET_BEFORE} j.id = any(%(ids)s::uuid[]) {RESET_AFTER}"
HAS_FAILED: Final = "j.stopped_at is not null and j.error_msg is not null and j.cancelled_at is null"
REPLAY_JOBS: Final = f"{RESET_BEFORE} j.id = any(%(ids)s::uuid[]) and {HAS_FAILED} {RESET_AFTER}"

# --- cancelling and rescheduling --------------------------------------------------------------------------------------

_COUNT_CANCELLED: Final = move_counters("""
  select bundle_id, 0 as jobs, count(*)::int as stopped from target where bundle_id is not null group by 1
""")
# started_at is set, so that no claim, of go-jobqueue neither, can take the job.
CANCEL_JOBS: Final = f"""
with target as materialized (
  select {_TARGET_COLUMNS}
  from {{schema}}.job j
  where j.id = any(%(ids)s::uuid[]) and j.stopped_at is null
  order by j.id
  for no key update
),
{_COUNT_CANCELLED},
{_TELL_OF_LOST_CLAIMS}
update {{schema}}.job j
set
  started_at = coalesce(j.started_at, {NOW}),
  worker_alive_at = null,
  stopped_at = {NOW},
  cancelled_at = {NOW},
  error_msg = 'cancelled',
  error_data = null,
  result = null,
  current_retry_count = greatest(j.current_retry_count, j.max_retry_count),
  updated_at = {NOW},{AFTER_CANCEL}
where j.id = any(array(select id from target)) and (select count(*) from told) >= 0
returning j.id
"""

# Told even when the job is due later: workers then learn when to look for it.
RESCHEDULE_JOB: Final = f"""
with target as materialized (
  select j.id, j."type", j.origin, true as to_tell
  from {{schema}}.job j
  where j.id = %(id)s and j.started_at is null and j.stopped_at is null
  for no key update
),
{_TELL_OF_JOBS}
update {{schema}}.job j
set start_at = %(start_at)s, updated_at = {NOW}
where j.id = any(array(select id from target)) and (select count(*) from told_of_jobs) >= 0
returning j.id
"""

SAVE_PROGRESS: Final = f"""
update {{schema}}.job j
set progress = %(progress)s::jsonb, updated_at = {NOW}
where j.id = %(id)s and j.started_at = %(started_at)s and j.claim_id = %(claim_id)s and j.stopped_at is null
"""

# --- deleting ---------------------------------------------------------------------------------------------------------

_COUNT_DELETED: Final = move_counters("""
  select bundle_id, -count(*)::int as jobs, -count(*) filter (where counted)::int as stopped
  from target
  where bundle_id is not null
  group by 1
""")
DELETE_BEFORE: Final = f"""
with target as materialized (
  select {_TARGET_COLUMNS}
  from {{schema}}.job j
  where """
DELETE_AFTER: Final = f"""
  order by j.id
  for update
),
{_COUNT_DELETED},
{_TELL_OF_LOST_CLAIMS}
delete from {{schema}}.job j
where j.id = any(array(select id from target)) and (select count(*) from told) >= 0
returning j.id
"""
DELETE_JOBS: Final = f"{DELETE_BEFORE} j.id = any(%(ids)s::uuid[]) {DELETE_AFTER}"
DELETE_JOBS_FROM_ORIGIN: Final = f"{DELETE_BEFORE} j.origin = %(origin)s {DELETE_AFTER}"
DELETE_JOBS_OF_TYPE: Final = f'{DELETE_BEFORE} j."type" = %(type)s {DELETE_AFTER}'
DELETE_FINISHED_JOBS: Final = """
with target as materialized (
  select j.id
  from {schema}.job j
  where j.stopped_at is not null and j.error_msg is null and j.bundle_id is null
  order by j.id
  for update
)
delete from {schema}.job j where j.id = any(array(select id from target)) returning j.id
"""

# The members are locked before their bundle, though it is the bundle's deletion that takes them along.
_DELETE_BUNDLES_BEFORE: Final = "with doomed as materialized (select b.id from {schema}.job_bundle b where "
_DELETE_BUNDLES_AFTER: Final = f"""
),
target as materialized (
  select {_TARGET_COLUMNS}
  from {{schema}}.job j
  where j.bundle_id = any(array(select id from doomed))
  order by j.id
  for update
),
bundle as materialized (
  select b.id
  from {{schema}}.job_bundle b
  where b.id = any(array(select id from doomed)) and (select count(*) from target) >= 0
  order by b.id
  for update
),
{_TELL_OF_LOST_CLAIMS}
delete from {{schema}}.job_bundle b
where b.id = any(array(select id from bundle)) and (select count(*) from told) >= 0
returning b.id
"""
DELETE_BUNDLES: Final = f"{_DELETE_BUNDLES_BEFORE} b.id = any(%(ids)s::uuid[]) {_DELETE_BUNDLES_AFTER}"
DELETE_BUNDLES_FROM_ORIGIN: Final = f"{_DELETE_BUNDLES_BEFORE} b.origin = %(origin)s {_DELETE_BUNDLES_AFTER}"
DELETE_BUNDLES_OF_TYPE: Final = f'{_DELETE_BUNDLES_BEFORE} b."type" = %(type)s {_DELETE_BUNDLES_AFTER}'

DELETE_ALL_JOBS: Final = f"""
with target as materialized (select {_TARGET_COLUMNS} from {{schema}}.job j order by j.id for update),
{_TELL_OF_LOST_CLAIMS}
delete from {{schema}}.job j
where j.id = any(array(select id from target)) and (select count(*) from told) >= 0
"""
# With the jobs that were added by a completion which the deletion of all jobs had to wait for, and so could not see.
DELETE_ALL_BUNDLES: Final = """
with target as materialized (select b.id from {schema}.job_bundle b order by b.id for update),
completion as (
  delete from {schema}.job j where j.completes_bundle_id = any(array(select id from target))
)
delete from {schema}.job_bundle b where b.id = any(array(select id from target))
"""
