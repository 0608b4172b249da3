"""Claim due jobs, and say when the next one will be due."""

from typing import Final

from jobqueue_pg.queries.columns import CLAIMED_COLUMNS, NOW

# Claim due jobs at a cost that depends on how many types and priorities wait, not on how many jobs do.
#
# `prefixed` and `wanted`: the types to look for; a prefix is spelt out to those of its types that have jobs waiting, by
# one probe of the claim index each. `level`: the priorities in falling order, one probe per type each, walked only as
# far as the batch needs. `picked`: on each level, from the type on that was due first, due jobs in order, locked one by
# one as they are taken; those that somebody else holds are passed over, so that no lock can stop a queue. So are rows
# that stopped without having been started: go-jobqueue leaves them, and has counted them, when it finishes a job that
# was reset meanwhile.
CLAIMING: Final = f"""
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
  returning {CLAIMED_COLUMNS}
)
"""

# When too few jobs were due: how long until the next one is. A hint, so that it may look at the top levels only.
# Infinity, which another program may write, has no distance from now.
NEXT_DUE: Final = f"""
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

# As many as CLAIMED_COLUMNS, but for the id.
NO_JOB: Final = "null, " * 16 + "null"

# The last row of a claim: how long until more is due, if that was looked up, and, as created_at, when the claim began.
ASIDE: Final = f"select 'next', ({NEXT_DUE}), {'null, ' * 9}{NOW}, {'null, ' * 7}null"

CLAIM_JOBS: Final = f"""
with recursive {CLAIMING}
select 'claimed', null::float8, c.* from claimed c
union all
{ASIDE}
"""
