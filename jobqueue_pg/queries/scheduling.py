"""Statements about schedules and their ticks."""

from typing import Final

from jobqueue_pg.queries.columns import JOB_COLUMNS, NOW

SCHEDULE_COLUMNS: Final = """
  s.name, s."type", s.payload::text, s.cron, s.every, s.tz, s.start_at, s.missed, s.overlap, s.priority,
  s.max_retry_count, s.retry_policy::text, s.origin, s.next_tick_at, s.paused_at, s.version, s.declared, s.created_at,
  s.updated_at"""

ASK_THE_TIME: Final = f"select {NOW}"

ADD_SCHEDULE: Final = f"""
insert into {{schema}}.schedule
  (name, "type", payload, cron, every, tz, start_at, missed, overlap, priority, max_retry_count, retry_policy, origin,
  next_tick_at, declared, created_at, updated_at)
values
  (%(name)s::text, %(type)s::text, %(payload)s::jsonb, %(cron)s::text, %(every)s::interval, %(tz)s::text,
  %(start_at)s::timestamptz, %(missed)s::text, %(overlap)s::text, %(priority)s::bigint, %(max_retry_count)s::int,
  %(retry_policy)s::jsonb, %(origin)s::text, %(next_tick_at)s::timestamptz, %(declared)s::text, {NOW}, {NOW})
on conflict (name) do nothing
"""

# A tick that is under way is waited for, and one that comes then finds another version.
LOCK_SCHEDULE: Final = f"""
select {NOW}, {SCHEDULE_COLUMNS} from {{schema}}.schedule s where s.name = %(name)s for no key update
"""

CHANGE_SCHEDULE: Final = f"""
update {{schema}}.schedule
set "type" = %(type)s::text,
  payload = %(payload)s::jsonb,
  cron = %(cron)s::text,
  every = %(every)s::interval,
  tz = %(tz)s::text,
  start_at = %(start_at)s::timestamptz,
  missed = %(missed)s::text,
  overlap = %(overlap)s::text,
  priority = %(priority)s::bigint,
  max_retry_count = %(max_retry_count)s::int,
  retry_policy = %(retry_policy)s::jsonb,
  origin = %(origin)s::text,
  next_tick_at = %(next_tick_at)s::timestamptz,
  paused_at = %(paused_at)s::timestamptz,
  declared = %(declared)s::text,
  version = version + 1,
  updated_at = {NOW}
where name = %(name)s
"""

REMOVE_SCHEDULE: Final = "delete from {schema}.schedule where name = %(name)s"

GET_SCHEDULES: Final = f"""
select {SCHEDULE_COLUMNS} from {{schema}}.schedule s
where %(names)s::text[] is null or s.name = any(%(names)s::text[])
order by s.name collate "C"
"""

GET_TICKS: Final = """
select t.tick_at, t.through_at, t.job_id, t.skipped, t.by_hand, t.noted_at
from {schema}.schedule_tick t
where t.schedule_name = %(name)s
order by t.tick_at desc, t.by_hand desc
limit %(limit)s
"""

# One row at least, which tells the time. There are few schedules: no index is worth what it would cost each tick. It
# writes nothing, and is refused all the same where nothing can be written: that is no server to be in contact with.
LOOK_AT_SCHEDULES: Final = f"""
select l.now, l.nearest, {SCHEDULE_COLUMNS},
  case when s.overlap = 'skip' then exists (
    select from {{schema}}.schedule_tick t join {{schema}}.job j on j.id = t.job_id
    where t.schedule_name = s.name and j.stopped_at is null
  ) end
from (
  select {NOW} as now, min(a.next_tick_at) as nearest
  from {{schema}}.schedule a
  where a.name <> all(%(besides)s::text[])
) l
left join {{schema}}.schedule s on s.next_tick_at <= l.now and s.name <> all(%(besides)s::text[])
where not exists (select from {{schema}}.schedule w where false for no key update)
order by s.next_tick_at, s.name
limit %(limit)s
"""

# The version is compared under the row's lock: of several who have seen the same one, the first to come is the only
# one to move it on; and who has changed the schedule meanwhile, or removed it and added another, is heeded. What was
# noted before comes second: it is not enqueued again, whoever has set next_tick_at back. The key of the notes would
# roll all back.
_IS_UNCHANGED: Final = """s.name = %(name)s
    and s.created_at = %(created_at)s::timestamptz
    and s.version = %(version)s
    and s.next_tick_at is not distinct from %(expected)s::timestamptz"""

_NEW_JOBS: Final = """jsonb_to_recordset(%(jobs)s::jsonb) as n(
    id uuid, "type" text, payload jsonb, priority bigint, origin text, max_retry_count int, retry_policy jsonb,
    start_at timestamptz, unique_key text, unique_for text, unique_seconds double precision
  )"""

_ADD_JOBS: Final = f"""insert into {{schema}}.job
    (id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at, unique_key, unique_for,
    unique_until, created_at, updated_at)
  select
    n.id, n."type", n.payload, n.priority, n.origin, n.max_retry_count, n.retry_policy, n.start_at, n.unique_key,
    n.unique_for, {NOW} + pg_catalog.make_interval(secs => n.unique_seconds), {NOW}, {NOW}"""

# In the order of the keys, as whoever adds jobs that have some.
_UNLESS_DUPLICATE: Final = """order by n."type" collate "C", n.unique_key collate "C", n.id
  on conflict ("type" collate "C", unique_key collate "C") where unique_key is not null do nothing
  returning id"""

TICK: Final = f"""
with moved as (
  update {{schema}}.schedule s
  set next_tick_at = %(next_tick_at)s::timestamptz, version = s.version + 1
  where {_IS_UNCHANGED}
  returning s.name
), ticks as materialized (
  select m.name, t.*
  from moved m, jsonb_to_recordset(%(ticks)s::jsonb) as t(
    tick_at timestamptz, through_at timestamptz, job_id uuid, skipped text
  )
  where not exists (
    select from {{schema}}.schedule_tick k
    where k.schedule_name = m.name and k.tick_at = t.tick_at and not k.by_hand
  )
), added as (
  {_ADD_JOBS}
  from {_NEW_JOBS} join ticks t on t.job_id = n.id
  {_UNLESS_DUPLICATE}
), noted as (
  insert into {{schema}}.schedule_tick (schedule_name, tick_at, through_at, job_id, skipped, noted_at)
  select
    t.name, t.tick_at, t.through_at, a.id, case when t.job_id is null or a.id is not null then t.skipped else
    'duplicate' end, {NOW}
  from ticks t left join added a on a.id = t.job_id
), forgotten as (
  delete from {{schema}}.schedule_tick t
  using moved m
  where %(forgets)s::boolean
    and t.schedule_name = m.name
    and t.tick_at < (
      select k.tick_at from {{schema}}.schedule_tick k
      where k.schedule_name = %(name)s
      order by k.tick_at desc
      offset %(kept)s - 1 limit 1
    )
)
select array(select id from added) from moved
"""

# By hand there may be several at one moment, by a clock that stands still or goes back: each gets a microsecond of its
# own.
RUN_SCHEDULE: Final = f"""
with touched as (
  update {{schema}}.schedule s
  set version = s.version + 1
  where {_IS_UNCHANGED}
  returning s.name
), added as (
  {_ADD_JOBS}
  from touched, {_NEW_JOBS}
  {_UNLESS_DUPLICATE}
), noted as (
  insert into {{schema}}.schedule_tick (schedule_name, tick_at, by_hand, job_id, noted_at)
  select s.name, free.moment, true, a.id, {NOW}
  from touched s, added a, lateral (
    select min(m) as moment from generate_series({NOW}, {NOW} + interval '1 ms', interval '1 us') m
    where not exists (
      select from {{schema}}.schedule_tick t where t.schedule_name = s.name and t.tick_at = m and t.by_hand
    )
  ) free
)
select (select count(*) from touched) > 0, (select count(*) from added) > 0
"""

# Before the statements above, and not with them: who frees keys and who adds jobs could wait for each other.
FREE_KEYS_OF_JOBS: Final = f"""
with target as materialized (
  select j.id
  from (
    select distinct n."type", n.unique_key
    from jsonb_to_recordset(%(jobs)s::jsonb) as n("type" text, unique_key text)
    where n.unique_key is not null
  ) n
  join {{schema}}.job j on j."type" collate "C" = n."type" and j.unique_key collate "C" = n.unique_key
  where j.unique_key is not null and j.unique_until <= {NOW}
  order by j.id
  for no key update of j
)
update {{schema}}.job j
set unique_key = null, unique_key_spent = j.unique_key, updated_at = {NOW}
where j.id = any(array(select id from target))
"""

HOLDER_OF_KEY: Final = f"""
select {JOB_COLUMNS}
from {{schema}}.job j
where j."type" collate "C" = %(type)s::text and j.unique_key collate "C" = %(unique_key)s::text
"""
