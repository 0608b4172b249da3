"""Statements for applications: add, read, reset, delete."""

from typing import Final

from jobqueue_pg.queries.columns import BUNDLE_COLUMNS, JOB_COLUMNS, NOW, STATE
from jobqueue_pg.queries.counters import move_counters

# --- adding -----------------------------------------------------------------------------------------------------------

# No RETURNING: the client has made the id, and knows every value but the database's own. A delay counts from the call,
# not from the start of the caller's transaction.
ADD_JOB: Final = f"""
insert into {{schema}}.job (id, "type", payload, priority, origin, max_retry_count, start_at, created_at, updated_at)
values (
  %(id)s, %(type)s, %(payload)s::jsonb, %(priority)s, %(origin)s, %(max_retry_count)s,
  coalesce(coalesce(%(now)s::timestamptz, clock_timestamp()) + %(delay)s::interval, %(start_at)s::timestamptz),
  {NOW}, {NOW}
)
"""

_JOBS: Final = f"""
insert into {{schema}}.job
  (id, bundle_id, "type", payload, priority, origin, max_retry_count, start_at, created_at, updated_at)
select n.id, n.bundle_id, n."type", n.payload, n.priority, n.origin, n.max_retry_count, n.start_at, {NOW}, {NOW}
from jsonb_to_recordset(%(jobs)s::jsonb) as n(
  id uuid, bundle_id uuid, "type" text, payload jsonb, priority bigint, origin text, max_retry_count int,
  start_at timestamptz
)
"""

ADD_JOBS: Final = _JOBS

# The members' foreign key is checked at the end of the statement, so that both inserts fit into one round trip.
ADD_BUNDLE: Final = f"""
with bundle as (
  insert into {{schema}}.job_bundle
    (id, "type", origin, num_jobs, on_stopped, delete_when_succeeded, created_at, updated_at)
  values
    (%(id)s, %(type)s, %(origin)s, %(num_jobs)s, %(on_stopped)s::jsonb, %(delete_when_succeeded)s, {NOW}, {NOW})
)
{_JOBS}
"""

# --- reading ----------------------------------------------------------------------------------------------------------

GET_JOB: Final = f"select {JOB_COLUMNS} from {{schema}}.job j where j.id = %(id)s"

GET_BUNDLE: Final = f"select {BUNDLE_COLUMNS} from {{schema}}.job_bundle b where b.id = %(id)s"

# Members share their created_at; ids are made in increasing order.
GET_JOBS_OF_BUNDLE: Final = f"""
select {JOB_COLUMNS} from {{schema}}.job j where j.bundle_id = %(id)s order by j.created_at, j.id
"""

GET_JOBS_TO_DO: Final = f"""
select {JOB_COLUMNS} from {{schema}}.job j
where j.stopped_at is null
order by j.start_at nulls first, j.created_at, j.id
"""

GET_JOBS_STARTED_BEFORE: Final = f"""
select {JOB_COLUMNS} from {{schema}}.job j
where j.started_at < %(moment)s and j.stopped_at is null
order by j.started_at, j.id
"""

GET_JOBS_WITH_ERRORS: Final = f"""
select {JOB_COLUMNS} from {{schema}}.job j where j.error_msg is not null order by j.stopped_at, j.id
"""

# The place to go on after is that of the row, as long as it is there: what was read of it may be rounded.
LIST_JOBS: Final = f"""
select {JOB_COLUMNS} from {{schema}}.job j
where (
    %(after_id)s::uuid is null
    or (j.created_at, j.id) < (
      coalesce(
        (select a.created_at from {{schema}}.job a where a.id = %(after_id)s::uuid), %(after_created_at)s::timestamptz
      ),
      %(after_id)s::uuid
    )
  )
  and (%(type)s::text is null or j."type" = %(type)s)
  and (%(origin)s::text is null or j.origin = %(origin)s)
  and (%(bundle_id)s::uuid is null or j.bundle_id = %(bundle_id)s)
  and (%(state)s::text is null or {STATE} = %(state)s)
order by j.created_at desc, j.id desc
limit %(limit)s
"""

COUNT_JOBS: Final = f"""
select j."type", {STATE}, count(*) from {{schema}}.job j group by 1, 2 order by 1, 2
"""

COUNT_BUNDLES: Final = "select count(*) from {schema}.job_bundle"

# --- resetting and deleting -------------------------------------------------------------------------------------------

# The counter goes down for members that it counted: those that had stopped, unless go-jobqueue before 0.6 was about to
# retry them.
_COUNTED: Final = (
    "j.stopped_at is not null and (j.error_msg is null or j.current_retry_count >= j.max_retry_count) as counted"
)
_COUNT_RESET: Final = move_counters("""
  select bundle_id, 0 as jobs, -count(*)::int as stopped from target where counted and bundle_id is not null group by 1
""")
RESET_JOBS: Final = f"""
with target as materialized (
  select j.id, j.bundle_id, {_COUNTED}
  from {{schema}}.job j
  where j.id = any(%(ids)s::uuid[])
  order by j.id
  for no key update
),
{_COUNT_RESET}
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
  updated_at = {NOW}
where j.id = any(array(select id from target))
returning j.id
"""

_COUNT_DELETED: Final = move_counters("""
  select bundle_id, -count(*)::int as jobs, -count(*) filter (where counted)::int as stopped
  from target
  where bundle_id is not null
  group by 1
""")
_DELETE_JOBS_BEFORE: Final = f"""
with target as materialized (
  select j.id, j.bundle_id, {_COUNTED}
  from {{schema}}.job j
  where """
_DELETE_JOBS_AFTER: Final = f"""
  order by j.id
  for update
),
{_COUNT_DELETED}
delete from {{schema}}.job j
where j.id = any(array(select id from target))
returning j.id
"""
DELETE_JOBS: Final = f"{_DELETE_JOBS_BEFORE} j.id = any(%(ids)s::uuid[]) {_DELETE_JOBS_AFTER}"
DELETE_JOBS_FROM_ORIGIN: Final = f"{_DELETE_JOBS_BEFORE} j.origin = %(origin)s {_DELETE_JOBS_AFTER}"
DELETE_JOBS_OF_TYPE: Final = f'{_DELETE_JOBS_BEFORE} j."type" = %(type)s {_DELETE_JOBS_AFTER}'
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
_DELETE_BUNDLES_BEFORE: Final = "with target as materialized (select b.id from {schema}.job_bundle b where "
_DELETE_BUNDLES_AFTER: Final = """
),
member as materialized (
  select j.id
  from {schema}.job j
  where j.bundle_id = any(array(select id from target))
  order by j.id
  for update
),
bundle as materialized (
  select b.id
  from {schema}.job_bundle b
  where b.id = any(array(select id from target)) and (select count(*) from member) >= 0
  order by b.id
  for update
)
delete from {schema}.job_bundle b where b.id = any(array(select id from bundle)) returning b.id
"""
DELETE_BUNDLES: Final = f"{_DELETE_BUNDLES_BEFORE} b.id = any(%(ids)s::uuid[]) {_DELETE_BUNDLES_AFTER}"
DELETE_BUNDLES_FROM_ORIGIN: Final = f"{_DELETE_BUNDLES_BEFORE} b.origin = %(origin)s {_DELETE_BUNDLES_AFTER}"
DELETE_BUNDLES_OF_TYPE: Final = f'{_DELETE_BUNDLES_BEFORE} b."type" = %(type)s {_DELETE_BUNDLES_AFTER}'

DELETE_ALL_JOBS: Final = """
with target as materialized (select j.id from {schema}.job j order by j.id for update)
delete from {schema}.job j where j.id = any(array(select id from target))
"""
DELETE_ALL_BUNDLES: Final = """
with target as materialized (select b.id from {schema}.job_bundle b order by b.id for update)
delete from {schema}.job_bundle b where b.id = any(array(select id from target))
"""
