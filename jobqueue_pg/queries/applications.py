"""Statements for applications: add and read."""

from typing import Final

from jobqueue_pg.queries.columns import BUNDLE_COLUMNS, JOB_COLUMNS, NOW, STATE

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

GET_JOBS: Final = f"select {JOB_COLUMNS} from {{schema}}.job j where j.id = any(%(ids)s::uuid[])"

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
