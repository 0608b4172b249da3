"""Statements for unique keys: add jobs that want them, and what in other statements ends their scopes."""

from typing import Final, LiteralString

from jobqueue_pg.queries.columns import NOW


def keys_after(ends: LiteralString) -> LiteralString:
    """Return what an update of jobs sets so that those give up their keys for which *ends* is true.

    What *ends* is to be null or false when ``unique_for`` is null, as it is in a job that never had a key.
    """
    return f"""
    unique_key = case when {ends} then null else j.unique_key end,
    unique_key_spent = case when {ends} then coalesce(j.unique_key, j.unique_key_spent) else j.unique_key_spent end"""


# When scopes end: twins of the conditions of job_unique_key_trigger. A period ends by itself.
AFTER_CLAIM: Final = keys_after("j.unique_for = 'waiting'")
AFTER_CANCEL: Final = keys_after("j.unique_for <> 'period'")


def keys_after_end(stops: LiteralString, failed: LiteralString) -> LiteralString:
    """Return what is set when a run has ended: whether that *stops* the job for good, and whether it has *failed*."""
    return keys_after(
        f"j.unique_for is not null and {stops}"
        f" and case j.unique_for when 'period' then false when 'until_succeeded' then not ({failed}) else true end"
    )


# --- adding

# In one statement, as in adding quietly. A caller may be less patient already.
_SETTINGS: Final = """settings as materialized (
  select
    current_setting('lock_timeout') as lock_timeout, current_setting('jobqueue.notify', true) as notify,
    set_config('lock_timeout', (
      extract(epoch from
        least(nullif(current_setting('lock_timeout')::interval, interval '0'), %(patience)s::interval)
      ) * 1000
    )::bigint::text, true) as patience,
    set_config(
      'jobqueue.notify',
      case when %(notify)s::boolean then coalesce(current_setting('jobqueue.notify', true), '') else 'off' end,
      true
    ) as hush
)"""
_AS_BEFORE: Final = """
  set_config('lock_timeout', s.lock_timeout, true), set_config('jobqueue.notify', coalesce(s.notify, ''), true)"""

# Add jobs whose keys are free; return those that were not added, with the jobs that hold their keys. Those are null
# when this statement cannot see them yet: for what it reads it has a snapshot, for what is unique there is none.
#
# In the order of the keys, so that those who add at the same time wait for each other, and never in a circle.
ADD_UNIQUE_JOBS: Final = f"""
with {_SETTINGS},
new as materialized (
  select *
  from jsonb_to_recordset(%(jobs)s::jsonb) as n(
    id uuid, "type" text, payload jsonb, priority bigint, origin text, max_retry_count int, retry_policy jsonb,
    start_at timestamptz, unique_key text, unique_for text, unique_seconds double precision
  )
),
added as (
  insert into {{schema}}.job
    (id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at, unique_key, unique_for,
    unique_until, created_at, updated_at)
  select
    n.id, n."type", n.payload, n.priority, n.origin, n.max_retry_count, n.retry_policy,
    coalesce(
      coalesce(%(now)s::timestamptz, clock_timestamp()) + pg_catalog.make_interval(secs => %(delay)s::double precision),
      n.start_at
    ),
    n.unique_key, n.unique_for, {NOW} + pg_catalog.make_interval(secs => n.unique_seconds), {NOW}, {NOW}
  from settings, new n
  order by n."type" collate "C", n.unique_key collate "C"
  on conflict ("type", unique_key) where unique_key is not null do nothing
  returning id
)
select {_AS_BEFORE}, refused.id, holder.id, holder.is_over
from settings s
cross join (select count(*) from added) as done
left join lateral (select n.* from new n where n.id not in (select id from added)) as refused on true
left join lateral (
  select j.id, coalesce(j.unique_until <= {NOW}, false) as is_over
  from {{schema}}.job j
  where j."type" collate "C" = refused."type" and j.unique_key collate "C" = refused.unique_key
) as holder on true
"""

# A period that is over, whoever finds it so first.
FREE_KEYS: Final = f"""
with {_SETTINGS},
target as materialized (
  select j.id
  from settings, {{schema}}.job j
  where j.id = any(%(ids)s::uuid[]) and j.unique_key is not null and j.unique_until <= {NOW}
  order by j.id
  for no key update of j
),
freed as (
  update {{schema}}.job j
  set unique_key = null, unique_key_spent = j.unique_key, updated_at = {NOW}
  where j.id = any(array(select id from target))
  returning 1
)
select {_AS_BEFORE} from settings s, (select count(*) from freed) as done
"""

REPLACE_PAYLOADS: Final = f"""
with {_SETTINGS},
new as materialized (
  select * from jsonb_to_recordset(%(payloads)s::jsonb) as n(id uuid, payload jsonb)
),
target as materialized (
  select j.id
  from settings, {{schema}}.job j
  where j.id = any(array(select id from new)) and j.unique_key is not null
    and j.started_at is null and j.stopped_at is null
  order by j.id
  for no key update of j
),
replaced as (
  update {{schema}}.job j
  set payload = n.payload, updated_at = {NOW}
  from new n
  where j.id = any(array(select id from target)) and j.id = n.id
  returning 1
)
select {_AS_BEFORE} from settings s, (select count(*) from replaced) as done
"""

# --- taking back

# Whoever waits for a key that he takes back holds locks on jobs, and takes keys in the order of these, not of the keys:
# he gives in before a server looks for deadlocks, as the others are callers who would lose more than a moment. From
# then on in this transaction; where no key is to be taken back, all is as usual.
LOCK_TO_TAKE_KEYS_BACK: Final = """
with locked as materialized (
  select j.unique_key_spent
  from {schema}.job j
  where j.id = any(%(ids)s::uuid[])
  order by j.id
  for no key update
)
select set_config('lock_timeout', greatest(1, (
  extract(epoch from least(
    nullif(current_setting('lock_timeout')::interval, interval '0'),
    current_setting('deadlock_timeout')::interval / 2,
    interval '500 ms'
  )) * 1000
)::bigint)::text, true)
from locked
having count(unique_key_spent) > 0
"""

LOCK_TIMEOUT: Final = "select pg_catalog.current_setting('lock_timeout')"

SET_LOCK_TIMEOUT: Final = "select pg_catalog.set_config('lock_timeout', %(lock_timeout)s::text, true)"

# Of jobs that are to be as good as new, those that may have their keys again: of several the first, unless the time is
# over or somebody else holds the key. The offset keeps this from becoming a join that reads the whole index.
TAKING_BACK: Final = f"""
wanting as materialized (
  select distinct on (t."type", t.unique_key_spent) t.id, t."type", t.unique_key_spent as unique_key
  from target t
  where %(takes_keys_back)s::boolean and t.unique_key_spent is not null and t.unique_key is null
    and (t.unique_until is null or t.unique_until > {NOW})
  order by t."type", t.unique_key_spent, t.id
),
taking_back as materialized (
  select w.id
  from wanting w
  where not exists (
    select from {{schema}}.job h
    where h."type" collate "C" = w."type" and h.unique_key collate "C" = w.unique_key
    offset 0
  )
)"""
TAKE_BACK: Final = """
  unique_key = case when j.id in (select id from taking_back) then j.unique_key_spent else j.unique_key end,
  unique_key_spent = case when j.id in (select id from taking_back) then null else j.unique_key_spent end"""
