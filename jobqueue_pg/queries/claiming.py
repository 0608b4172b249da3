"""Claim due jobs, and say when the next one will be due."""

from typing import Final

from jobqueue_pg.queries.columns import CLAIMED_COLUMNS, NOW
from jobqueue_pg.queries.pauses import KNOWN_PAUSES, PAUSE, is_not_paused
from jobqueue_pg.queries.uniqueness import AFTER_CLAIM

# Due jobs of a type on a priority, from the first one on.
_FROM_HEAD_ON: Final = f"""
  cross join lateral (
    select j.id from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" = head."type" and j.priority = head.priority
      and (coalesce(j.start_at, j.created_at), j.id) >= (head.at, head.id)
      and coalesce(j.start_at, j.created_at) <= {NOW} and j.stopped_at is null
    order by coalesce(j.start_at, j.created_at), j.id
    limit %(limit)s
    for no key update skip locked
  ) due"""

_CLAIMED: Final = f"""
claimed as (
  update {{schema}}.job j
  set
    started_at = {NOW},
    worker_alive_at = case when %(beats)s then {NOW} end,
    claim_id = %(claim_id)s,
    lease = %(lease)s,
    claimed_by = %(claimed_by)s,
    cancelled_at = null,
    updated_at = {NOW},{AFTER_CLAIM}
  where j.id = any(array(select id from picked))
  returning {CLAIMED_COLUMNS}
)"""

# How many priorities on which nothing is due are looked at one by one.
_LEVELS_ONE_BY_ONE: Final = "32"
# How often the time of what is next due, below those, is bettered by one more look.
_LOOKS_FOR_NEXT: Final = "100"

# A prefix is spelt out to those of its types that have jobs waiting, by one probe of the claim index each; what a
# process does not want, just because it is covered by a prefix, is left out.
_TYPES_AND_PATTERNS: Final = f"""
{PAUSE},
prefixed(prefix, without, "type") as (
  select p.prefix, p.without::text[], (
    select j."type" from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" >= p.prefix
    order by j."type" collate "C" limit 1
  )
  from unnest(%(prefixes)s::text[], %(without_prefixes)s::text[]) as p(prefix, without)
  union all
  select p.prefix, p.without, (
    select j."type" from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" > p."type"
    order by j."type" collate "C" limit 1
  )
  from prefixed p
  where starts_with(p."type", p.prefix)
),
wanted("type") as materialized (
  select w."type"
  from (
    select unnest(%(types)s::text[]) as "type"
    union
    select p."type"
    from prefixed p
    where starts_with(p."type", p.prefix) and p."type" <> all(%(without)s::text[])
      and (p."type" ^@ any(p.without)) is not true
  ) w
  where {is_not_paused('w."type"')}
)
"""

# Most processes have no prefixes. A plan with nothing to find out about them is ready sooner, and cheaper.
_TYPES_ALONE: Final = f"""
{PAUSE},
wanted("type") as materialized (
  select w."type" from unnest(%(types)s::text[]) as w("type") where {is_not_paused('w."type"')}
)
"""

# Claim due jobs at a cost that depends on how many types and priorities wait, not on how many jobs do.
#
# `wanted`: the types to look for, but for what is paused. `level`: the priorities in falling order, one probe per type
# each, walked only as far as the batch needs; behind a few of them, what is not due is passed over within the index,
# entry by entry, which costs a hundredth of a probe. `picked`: on each level, from the type on that was due first, due
# jobs in order, locked one by one as they are taken; those that somebody else holds are passed over, so that no lock
# can stop a queue. So are rows that stopped without having been started: go-jobqueue leaves them, and has counted them,
# when it finishes a job that was reset meanwhile.
_LEVELS: Final = f"""
level(priority, step) as (
  select max(top.priority), 1
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
        and coalesce(j.start_at, j.created_at) <= case when l.step < {_LEVELS_ONE_BY_ONE} then 'infinity' else {NOW} end
      order by j.priority desc limit 1
    ) below
  ), l.step + 1
  from level l
  where l.priority is not null
)
"""

_PICKING: Final = f"""
{_LEVELS},
picked as materialized (
  select due.id, l.step
  from level l
  cross join lateral (
    select w."type", l.priority, first.at, first.id
    from wanted w, lateral (
      select coalesce(j.start_at, j.created_at) as at, j.id from {{schema}}.job j
      where j.started_at is null and j."type" collate "C" = w."type" and j.priority = l.priority
        and coalesce(j.start_at, j.created_at) <= {NOW} and j.stopped_at is null
      order by coalesce(j.start_at, j.created_at), j.id limit 1
    ) first
    order by first.at, first.id
  ) head{_FROM_HEAD_ON}
  limit %(limit)s
),
{_CLAIMED}
"""

CLAIMING: Final = f"{_TYPES_AND_PATTERNS}, {_PICKING}"
CLAIMING_TYPES: Final = f"{_TYPES_ALONE}, {_PICKING}"

_FIRST_NEXT_DUE: Final = f"""
select min(next.at) as at
from level l, wanted w, lateral (
  select coalesce(j.start_at, j.created_at) as at from {{schema}}.job j
  where j.started_at is null and j."type" collate "C" = w."type" and j.priority = l.priority
    and coalesce(j.start_at, j.created_at) > {NOW} and coalesce(j.start_at, j.created_at) < 'infinity'
    and j.stopped_at is null
  order by coalesce(j.start_at, j.created_at) limit 1
) next
where l.step <= {_LEVELS_ONE_BY_ONE}
"""

# When too few jobs were due: how many seconds until the next one is; -1 when there are too many priorities, and that is
# left to FIND_NEXT_DUE. Infinity, which another program may write, has no distance from now.
_NEXT_DUE: Final = f"""
select case
  when exists (select from level where step = {_LEVELS_ONE_BY_ONE} and priority is not null) then -1
  else (select extract(epoch from first.at - {NOW})::float8 from ({_FIRST_NEXT_DUE}) first)
end
where (select count(*) from picked) < %(limit)s
"""

# `sooner`: below the levels that were looked at one by one, whatever is due before all that was found so far.
FIND_NEXT_DUE: Final = f"""
with recursive {_TYPES_AND_PATTERNS}, {_LEVELS},
first as materialized ({_FIRST_NEXT_DUE}),
sooner("type", below, at, step) as (
  select w."type", l.priority, coalesce(first.at, 'infinity'), 1
  from wanted w, level l, first
  where l.step = {_LEVELS_ONE_BY_ONE}
  union all
  select s."type", found.priority, found.at, s.step + 1
  from sooner s, lateral (
    select j.priority, coalesce(j.start_at, j.created_at) as at from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" = s."type" and j.priority < s.below
      and coalesce(j.start_at, j.created_at) > {NOW} and coalesce(j.start_at, j.created_at) < s.at
      and j.stopped_at is null
    order by j.priority desc, coalesce(j.start_at, j.created_at), j.id limit 1
  ) found
  where s.step < {_LOOKS_FOR_NEXT}
)
select extract(
  epoch from least((select at from first), (select min(at) from sooner where at < 'infinity')) - {NOW}
)::float8
"""

# What a full look has seen when it has brought all that was asked for, for those that go on from there: the priorities
# down to the last one that it has claimed from, and the types.
_SEEN: Final = """
select pg_catalog.json_build_object(
  'priorities', (
    select pg_catalog.json_agg(l.priority)
    from (select priority from level limit (select max(step) from picked)) l
  ),
  'types', (select pg_catalog.json_agg("type") from wanted)
)::text
where (select count(*) from picked) = %(limit)s
"""

# Claim more of what a full look has left on the priorities that it has seen, without looking again at what it has
# passed there: `run` says where to go on. While an old snapshot is held somewhere, that is all that was claimed since,
# still in the index, and dead.
#
# Nothing is claimed when something is due on a priority that was not there: `gap` has the ranges of those that would
# come first. What was paused since is passed over in both.
NARROW_CLAIMING: Final = f"""
{PAUSE},
picked as materialized (
  select due.id
  from (
    select r."type", r.priority, first.at, first.id
    from pg_catalog.jsonb_to_recordset(%(runs)s::jsonb) as r("type" text, priority bigint, at timestamptz, id uuid),
    lateral (
      select coalesce(j.start_at, j.created_at) as at, j.id from {{schema}}.job j
      where j.started_at is null and j."type" collate "C" = r."type" and j.priority = r.priority
        and (coalesce(j.start_at, j.created_at), j.id) >= (r.at, r.id)
        and coalesce(j.start_at, j.created_at) <= {NOW} and j.stopped_at is null
      order by coalesce(j.start_at, j.created_at), j.id limit 1
    ) first
    where {is_not_paused('r."type"')}
    order by r.priority desc, first.at, first.id
  ) head{_FROM_HEAD_ON}
  where not exists (
    select
    from pg_catalog.jsonb_to_recordset(%(gaps)s::jsonb) as g("type" text, low bigint, high bigint), lateral (
      select from {{schema}}.job j
      where j.started_at is null and j."type" collate "C" = g."type" and j.priority between g.low and g.high
        and coalesce(j.start_at, j.created_at) <= {NOW} and j.stopped_at is null
      limit 1
    ) found
    where {is_not_paused('g."type"')}
  )
  limit %(limit)s
),
{_CLAIMED}
"""

# As many as CLAIMED_COLUMNS, but for the id.
NO_JOB: Final = "null, " * 17 + "null"

# The last row of a claim: how long until more is due, if that was looked up; when the claim began, as created_at; as
# attempt_errors, what was seen, if somebody wants to go on from there; and, as error_msg, what is paused, if
# anything is.
_TOLD_ALWAYS: Final = f"null, null, {KNOWN_PAUSES}, null, null, null"
ASIDE: Final = f"select 'next', ({_NEXT_DUE}), {'null, ' * 9}{NOW}, null, null, null, {_TOLD_ALWAYS}"
WATCHFUL_ASIDE: Final = f"select 'next', ({_NEXT_DUE}), {'null, ' * 9}{NOW}, null, null, ({_SEEN}), {_TOLD_ALWAYS}"
NARROW_ASIDE: Final = f"select 'next', null::float8, {'null, ' * 9}{NOW}, null, null, null, {_TOLD_ALWAYS}"

_CLAIMED_AND_ASIDE: Final = f"""
select 'claimed', null::float8, c.* from claimed c
union all
{ASIDE}
"""

CLAIM_JOBS: Final = f"with recursive {CLAIMING} {_CLAIMED_AND_ASIDE}"
CLAIM_JOBS_OF_TYPES: Final = f"with recursive {CLAIMING_TYPES} {_CLAIMED_AND_ASIDE}"
