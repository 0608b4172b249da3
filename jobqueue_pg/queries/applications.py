"""Statements for applications: add and read."""

from typing import Final

from jobqueue_pg.queries.columns import BUNDLE_COLUMNS, JOB_COLUMNS, NOW, STATE

# --- adding -----------------------------------------------------------------------------------------------------------

# No RETURNING: the client has made the id, and knows every value but the database's own. A delay counts from the call,
# not from the start of the caller's transaction.
ADD_JOB: Final = f"""
insert into {{schema}}.job
  (id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at, created_at, updated_at)
select
  %(id)s::uuid, %(type)s::text, %(payload)s::jsonb, %(priority)s::bigint, %(origin)s::text, %(max_retry_count)s::int,
  %(retry_policy)s::jsonb,
  coalesce(
    coalesce(%(now)s::timestamptz, clock_timestamp()) + pg_catalog.make_interval(secs => %(delay)s::double precision),
    %(start_at)s::timestamptz
  ),
  {NOW}, {NOW}
"""

ADD_JOBS: Final = f"""
insert into {{schema}}.job
  (id, bundle_id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at, created_at, updated_at)
select
  n.id, n.bundle_id, n."type", n.payload, n.priority, n.origin, n.max_retry_count, n.retry_policy, n.start_at, {NOW},
  {NOW}
from jsonb_to_recordset(%(jobs)s::jsonb) as n(
  id uuid, bundle_id uuid, "type" text, payload jsonb, priority bigint, origin text, max_retry_count int,
  retry_policy jsonb, start_at timestamptz
)
"""

# The moments are left to the columns' defaults, as COPY takes no expressions.
COPY_JOBS: Final = """
copy {schema}.job (id, bundle_id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at) from stdin
"""

COPY_JOBS_OF_A_MOMENT: Final = """
copy {schema}.job
  (id, bundle_id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at, created_at, updated_at)
from stdin
"""

# PostgreSQL refuses COPY FROM where row-level security is in force. Fully named: it is asked on connections of others.
HAS_ROW_SECURITY: Final = """
select pg_catalog.row_security_active(t.oid)
from pg_catalog.pg_class t join pg_catalog.pg_namespace s on s.oid operator(pg_catalog.=) t.relnamespace
where t.relname operator(pg_catalog.=) 'job' and s.nspname operator(pg_catalog.=) %(schema)s::name
"""

_BUNDLE: Final = f"""bundle as (
  insert into {{schema}}.job_bundle
    (id, "type", origin, num_jobs, on_stopped, delete_when_succeeded, created_at, updated_at)
  values
    (%(id)s, %(type)s, %(origin)s, %(num_jobs)s, %(on_stopped)s::jsonb, %(delete_when_succeeded)s, {NOW}, {NOW})
)"""

# The members' foreign key is checked at the end of the statement, so that both inserts fit into one round trip.
ADD_BUNDLE: Final = f"with {_BUNDLE} {ADD_JOBS}"

# The driver begins a transaction, as the connection says it is to be, before whatever comes first.
BEGIN: Final = "select"

# --- adding quietly: without NOTIFY, which is what the triggers leave out when jobqueue.notify is off

HUSH: Final = """
select current_setting('jobqueue.notify', true) as before, set_config('jobqueue.notify', 'off', true) as during
"""

SPEAK_AGAIN: Final = "select set_config('jobqueue.notify', coalesce(%(before)s::text, ''), true)"

# In one statement: the setting is off before the first row can be made, and as it was before for what the transaction
# goes on to do. The trigger looks at it in between, when there are no more rows and `count` has yet to learn that.
_HUSH: Final = f"hush as materialized ({HUSH})"
_SPEAK_AGAIN: Final = """
select set_config('jobqueue.notify', coalesce(h.before, ''), true) from hush h, (select count(*) from added) as n
"""

ADD_JOB_QUIETLY: Final = f"with {_HUSH}, added as ({ADD_JOB} from hush returning 1) {_SPEAK_AGAIN}"

ADD_JOBS_QUIETLY: Final = f"with {_HUSH}, added as ({ADD_JOBS}, hush returning 1) {_SPEAK_AGAIN}"

ADD_BUNDLE_QUIETLY: Final = f"with {_HUSH}, {_BUNDLE}, added as ({ADD_JOBS}, hush returning 1) {_SPEAK_AGAIN}"

# --- reading ----------------------------------------------------------------------------------------------------------

GET_JOB: Final = f"select {JOB_COLUMNS} from {{schema}}.job j where j.id = %(id)s"

GET_JOBS: Final = f"select {JOB_COLUMNS} from {{schema}}.job j where j.id = any(%(ids)s::uuid[])"

# A row for the bundle, and then one for each member: in one statement, which sees them all as of one moment, whatever
# transaction it is in. `offset 0` keeps members from being looked for beside the bundle's row, too. They share their
# created_at; ids are made in increasing order.
GET_BUNDLE: Final = f"""
select {JOB_COLUMNS}, {BUNDLE_COLUMNS}
from (values (1), (2)) part(number)
  left join {{schema}}.job_bundle b on part.number = 1 and b.id = %(id)s
  left join lateral (
    select m.* from {{schema}}.job m where part.number = 2 and m.bundle_id = %(id)s offset 0
  ) j on true
where coalesce(b.id, j.id) is not null
order by part.number, j.created_at, j.id
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

# The columns that make a state, in two steps: of how many states there may be, the planner has an idea then, and does
# not sort the table.
COUNT_JOBS: Final = f"""
select j."type", {STATE}, sum(j.number)::bigint
from (
  select j."type", min(j.cancelled_at) as cancelled_at, min(j.stopped_at) as stopped_at,
    case when not (j.error_msg is null) then '' end as error_msg, min(j.started_at) as started_at,
    max(j.run_count) as run_count, max(j.start_at) as start_at, count(*) as number
  from {{schema}}.job j
  group by j."type", j.cancelled_at is null, j.stopped_at is null, j.error_msg is null, j.started_at is null,
    j.run_count > 0, j.start_at > {NOW}
) j
group by 1, 2
order by 1, 2
"""

COUNT_BUNDLES: Final = "select count(*) from {schema}.job_bundle"
