"""What the statements have in common: the clock, the columns that make a model, the state of a job."""

from typing import Final

NOW: Final = "coalesce(%(now)s::timestamptz, now())"

# A moment that another program wrote may lie outside of what Python can hold: it is read as the nearest that can be.
# `case` and not `least`, which would make a moment of a null.
_START_AT: Final = """case
    when j.start_at < '0001-01-02 00:00:00+00' then '0001-01-02 00:00:00+00'
    when j.start_at > '9999-12-30 00:00:00+00' then '9999-12-30 00:00:00+00'
    else j.start_at
  end"""
_CREATED_AT: Final = """least(greatest(j.created_at, '0001-01-02 00:00:00+00'), '9999-12-30 00:00:00+00')"""

# JSON is read as text and parsed when somebody looks: one value that Python cannot hold must not spoil a whole list.
JOB_COLUMNS: Final = f"""
  j.id, j.bundle_id, j."type", j.payload::text, j.priority, j.origin, j.max_retry_count, j.current_retry_count,
  {_START_AT}, j.started_at, j.worker_alive_at, {_CREATED_AT}, j.updated_at, j.claim_id, j.claimed_by,
  j.run_count, j.rescue_count, j.attempt_errors::text, j.completes_bundle_id, j.progress::text,
  j.stopped_at, j.cancelled_at, j.error_msg, j.error_data::text, j.result::text"""

BUNDLE_COLUMNS: Final = """
  b.id, b."type", b.origin, b.num_jobs, b.num_jobs_stopped, b.on_stopped::text, b.delete_when_succeeded,
  b.stopped_at, b.updated_at, b.created_at"""

# The state of a job as a word: the SQL twin of Job.state.
STATE: Final = f"""case
    when j.cancelled_at is not null then 'cancelled'
    when j.stopped_at is not null then case when j.error_msg is not null then 'failed' else 'succeeded' end
    when j.started_at is not null then 'running'
    when j.run_count > 0 then 'retrying'
    when j.start_at > {NOW} then 'scheduled'
    else 'available'
  end"""
