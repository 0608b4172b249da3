"""Statements that remove what was kept for long enough, or move it to the archive."""

from typing import Final, LiteralString

from jobqueue_pg.queries.columns import NOW

# All columns of job but those of a claim.
ARCHIVED_COLUMNS: Final = """
    id, bundle_id, "type", payload, priority, origin, max_retry_count, current_retry_count, start_at, started_at,
    stopped_at, error_msg, error_data, result, updated_at, created_at, claimed_by, run_count, rescue_count,
    attempt_errors, cancelled_at, progress, completes_bundle_id, retry_policy"""

# A job that has been there before is shown as it was in the end.
ON_ARCHIVED_BEFORE: Final = """
on conflict (id) do update set
  bundle_id = excluded.bundle_id, "type" = excluded."type", payload = excluded.payload, priority = excluded.priority,
  origin = excluded.origin, max_retry_count = excluded.max_retry_count,
  current_retry_count = excluded.current_retry_count, start_at = excluded.start_at, started_at = excluded.started_at,
  stopped_at = excluded.stopped_at, error_msg = excluded.error_msg, error_data = excluded.error_data,
  result = excluded.result, updated_at = excluded.updated_at, created_at = excluded.created_at,
  claimed_by = excluded.claimed_by, run_count = excluded.run_count, rescue_count = excluded.rescue_count,
  attempt_errors = excluded.attempt_errors, cancelled_at = excluded.cancelled_at, progress = excluded.progress,
  completes_bundle_id = excluded.completes_bundle_id, retry_policy = excluded.retry_policy,
  archived_at = excluded.archived_at"""

# --- how long a job is kept

# In the order in which they count; the last one is for all types. No age is for ever.
RULES: Final = """
rule as materialized (
  select *
  from jsonb_to_recordset(%(rules)s::jsonb) as r(
    place int, name text, is_prefix boolean, succeeded float8, failed float8, cancelled float8
  )
)"""

# The job that was added when a bundle was complete: without a trace of its failure the bundle would seem to succeed.
# The offset keeps this from being answered by a table of all bundles.
COMPLETES_A_BUNDLE: Final = """case
      when j.completes_bundle_id is not null
      then exists (select from {schema}.job_bundle b where b.id = j.completes_bundle_id offset 0)
      else false
    end"""

# What decides on how long a job is kept. Jobs of go-jobqueue before 0.6, which marks a job as stopped while it computes
# the retry, are needed; so are those that hold their unique key for some time after their end, and failed completions
# of bundles that are there.
_FACTS: Final = f"""
    j.id, j.bundle_id, j."type", j.stopped_at, j.cancelled_at is not null as was_cancelled,
    j.error_msg is not null as has_error,
    j.error_msg is not null and j.cancelled_at is null and j.current_retry_count < j.max_retry_count
      or j.unique_key is not null and coalesce(j.unique_until > {NOW}, false)
      or j.error_msg is not null and {COMPLETES_A_BUNDLE} as is_needed"""


def kept(job: LiteralString) -> LiteralString:
    """Return a table of one row, that says how many *seconds* the row *job* of facts is kept."""
    return f"""lateral (
    select case when {job}.was_cancelled then r.cancelled when {job}.has_error then r.failed else r.succeeded end
      as seconds
    from rule r
    where r.name = {job}."type" or (r.is_prefix and pg_catalog.starts_with({job}."type", r.name))
    order by r.place
    limit 1
  ) kept"""


_HAS_PASSED: Final = f"<= {NOW} - pg_catalog.make_interval(secs => kept.seconds)"

# --- jobs that are in no bundle

# The index on (created_at, id) is walked on from where the last look has ended. What has stopped long ago was made even
# longer ago; what was made just before that may still run, and is looked at later.
FIND_OLD_JOBS: Final = f"""
with {RULES},
seen as materialized (
  select {_FACTS}, j.created_at
  from {{schema}}.job j
  where (j.created_at, j.id) > (%(after)s::timestamptz, %(after_id)s::uuid)
    and j.created_at <= {NOW} - %(youngest)s::interval - %(behind)s::interval
  order by j.created_at, j.id
  limit %(number)s
),
old as (
  select s.id
  from seen s, {kept("s")}
  where s.bundle_id is null and not s.is_needed and s.stopped_at {_HAS_PASSED}
)
select
  array(select id from old),
  (select count(*) from seen),
  (select array[s.created_at::text, s.id::text] from seen s order by s.created_at desc, s.id desc limit 1)
"""

# What is found is judged again once it is locked: it may have been replayed meanwhile.
_OLD_JOBS: Final = f"""
with {RULES},
locked as materialized (
  select {_FACTS}
  from {{schema}}.job j
  where j.id = any(%(ids)s::uuid[])
  order by j.id
  for update skip locked
),
old as materialized (
  select l.id
  from locked l, {kept("l")}
  where l.bundle_id is null and not l.is_needed and l.stopped_at {_HAS_PASSED}
)"""

DELETE_OLD_JOBS: Final = f"""{_OLD_JOBS}
delete from {{schema}}.job j where j.id = any(array(select id from old))
"""

ARCHIVE: Final = f"""
insert into {{schema}}.job_archive ({ARCHIVED_COLUMNS}, archived_at)
select {ARCHIVED_COLUMNS}, {NOW} from gone
{ON_ARCHIVED_BEFORE}"""

ARCHIVE_OLD_JOBS: Final = f"""{_OLD_JOBS},
gone as (
  delete from {{schema}}.job j where j.id = any(array(select id from old)) returning j.*
)
{ARCHIVE}
"""

# --- bundles with their members

# The job that was added when a bundle was complete may want to read it.
_COMPLETION_IS_DONE: Final = """
    not exists (
      select from {schema}.job c where c.completes_bundle_id = b.id and c.stopped_at is null offset 0
    )"""

# The offsets keep this from becoming a join that reads the members of all bundles. A bundle that all members have left
# is kept like a job that has succeeded.
FIND_OLD_BUNDLES: Final = f"""
with {RULES},
seen as materialized (
  select b.id, b.num_jobs, b.stopped_at
  from {{schema}}.job_bundle b
  where b.id > %(after_id)s::uuid
  order by b.id
  limit %(number)s
),
old as (
  select b.id
  from seen b
  where b.stopped_at <= {NOW} - %(youngest)s::interval
    and (b.num_jobs > 0 or b.stopped_at <= {NOW} - %(kept_empty)s::interval)
    and not exists (
      select from (
        select {_FACTS} from {{schema}}.job j where j.bundle_id = b.id offset 0
      ) m, {kept("m")}
      where (
        m.stopped_at is not null and not m.is_needed and greatest(b.stopped_at, m.stopped_at) {_HAS_PASSED}
      ) is not true
      offset 0
    )
    and {_COMPLETION_IS_DONE}
)
select
  array(select id from old),
  (select count(*) from seen),
  (select s.id::text from seen s order by s.id desc limit 1)
"""

# The members are locked before their bundle. By their ids, or all jobs would be read in the order in which these have
# to be locked. A bundle of which one is locked by somebody, or younger than it seemed, is left alone.
_OLD_BUNDLES: Final = f"""
with {RULES},
listed as materialized (
  select j.id from {{schema}}.job j where j.bundle_id = any(%(ids)s::uuid[])
),
locked as materialized (
  select {_FACTS}
  from {{schema}}.job j
  where j.id = any(array(select id from listed))
  order by j.id
  for update skip locked
),
whole as materialized (
  select l.bundle_id, count(*) as members, max(l.stopped_at) as stopped_at, max(kept.seconds) as seconds,
    bool_and(l.stopped_at is not null and kept.seconds is not null and not l.is_needed) as has_stopped
  from locked l, {kept("l")}
  group by 1
),
bundle as materialized (
  select b.id
  from {{schema}}.job_bundle b
  where b.id = any(%(ids)s::uuid[])
    and b.stopped_at is not null
    and (
      (b.num_jobs = 0 and b.stopped_at <= {NOW} - %(kept_empty)s::interval)
      or exists (
        select
        from whole kept
        where kept.bundle_id = b.id
          and kept.members = b.num_jobs
          and kept.has_stopped
          and greatest(b.stopped_at, kept.stopped_at) {_HAS_PASSED}
      )
    )
    and {_COMPLETION_IS_DONE}
  order by b.id
  for update skip locked
)"""

DELETE_OLD_BUNDLES: Final = f"""{_OLD_BUNDLES},
removed as (
  delete from {{schema}}.job_bundle b where b.id = any(array(select id from bundle)) returning b.id
)
select
  (select count(*) from removed),
  (select count(*) from locked l where l.bundle_id = any(array(select id from bundle)))
"""

ARCHIVE_OLD_BUNDLES: Final = f"""{_OLD_BUNDLES},
member as materialized (
  select l.id from locked l where l.bundle_id = any(array(select id from bundle))
),
gone as (
  delete from {{schema}}.job j where j.id = any(array(select id from member)) returning j.*
),
archived as (
  {ARCHIVE}
  returning 1
),
removed as (
  delete from {{schema}}.job_bundle b where b.id = any(array(select id from bundle)) returning b.id
)
select (select count(*) from removed), (select count(*) from archived)
"""
