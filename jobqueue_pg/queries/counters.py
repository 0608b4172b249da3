"""The counters of bundles: one fragment moves them, whatever happens to members."""

from typing import LiteralString

from jobqueue_pg.queries.columns import NOW


def move_counters(changes: LiteralString) -> LiteralString:
    """Return table expressions that add *changes* to the counters: a query for (bundle_id, jobs, stopped).

    The bundles are locked in order before any is changed. What completion means is the trigger's business.
    """
    return f"""
change as materialized ({changes}),
bundle as materialized (
  select b.id
  from {{schema}}.job_bundle b
  where b.id = any(array(select bundle_id from change))
  order by b.id
  for no key update
),
moved as (
  update {{schema}}.job_bundle b
  set
    num_jobs = greatest(0, b.num_jobs + c.jobs),
    num_jobs_stopped = least(greatest(0, b.num_jobs + c.jobs), greatest(0, b.num_jobs_stopped + c.stopped)),
    updated_at = {NOW}
  from bundle l
  join change c on c.bundle_id = l.id
  where b.id = l.id
  returning b.id
)"""
