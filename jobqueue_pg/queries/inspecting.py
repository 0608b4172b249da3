"""Statements that look at what goes on, and at the connection."""

from typing import Final

from jobqueue_pg.queries.columns import NOW

# By the index of claims. Where more have been claimed within the window than are looked at, it is as much shorter.
# What go-jobqueue has claimed does not say by whom.
FIND_ACTIVITY: Final = f"""
with claim as materialized (
  select j.claimed_by, greatest(j.started_at, {NOW} - %(window)s::interval) as started_at, j.stopped_at,
    j.error_msg is not null as has_error, j.cancelled_at is null as has_run,
    greatest(j.started_at, j.worker_alive_at, j.stopped_at) as seen_at
  from {{schema}}.job j
  where j.started_at is not null
  order by j.started_at desc
  limit %(most)s
),
span as (
  select case
      when count(*) < %(most)s then {NOW} - %(window)s::interval
      else min(started_at)
    end as since
  from claim
)
select
  regexp_replace(c.claimed_by, ':[^:]*$', ''),
  count(*) filter (where c.stopped_at is null),
  count(*) filter (where c.stopped_at >= s.since and c.has_run),
  count(*) filter (where c.stopped_at >= s.since and c.has_run and c.has_error),
  extract(epoch from {NOW} - greatest(least(max(c.seen_at), {NOW}), '0001-01-02 00:00:00+00'))::float8,
  extract(epoch from {NOW} - least(s.since, {NOW}))::float8
from claim c cross join span s
group by 1, s.since
order by 1
"""

CHECK_CONNECTION: Final = """
select
  pg_catalog.current_setting('server_version'),
  pg_catalog.pg_is_in_recovery() or pg_catalog.current_setting('default_transaction_read_only') = 'on'
"""

DO_NOTHING: Final = "select"
