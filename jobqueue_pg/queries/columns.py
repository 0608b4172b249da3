"""What the statements have in common: the clock, the columns that make a model, the state of a job."""

from typing import Final, LiteralString

NOW: Final = "coalesce(%(now)s::timestamptz, now())"


def moment(column: LiteralString) -> LiteralString:
    """Read a moment that another program wrote, which Python may be unable to hold, as the nearest that it can.

    `case` and not `least`, which would make a moment of a null.
    """
    return f"""case
    when {column} < '0001-01-02 00:00:00+00' then '0001-01-02 00:00:00+00'
    when {column} > '9999-12-30 00:00:00+00' then '9999-12-30 00:00:00+00'
    else {column}
  end"""


# JSON is read as text and parsed when somebody looks: one value that Python cannot hold must not spoil a whole list.
JOB_COLUMNS: Final = f"""
  j.id, j.bundle_id, j."type", j.payload::text, j.priority, j.origin, j.max_retry_count, j.current_retry_count,
  {moment("j.start_at")}, {moment("j.started_at")}, {moment("j.worker_alive_at")}, {moment("j.created_at")},
  {moment("j.updated_at")}, j.claim_id, j.claimed_by,
  j.run_count, j.rescue_count, j.attempt_errors::text, j.completes_bundle_id, j.progress::text,
  {moment("j.stopped_at")}, {moment("j.cancelled_at")}, j.error_msg, j.error_data::text, j.result::text,
  j.retry_policy::text, j.unique_key, j.unique_key_spent, j.unique_for, {moment("j.unique_until")}"""

# What a worker needs of a job that it claims: not what the claim itself has just set, which is the same for all.
CLAIMED_COLUMNS: Final = f"""
  j.id, j.bundle_id, j."type", j.payload::text, j.priority, j.origin, j.max_retry_count, j.current_retry_count,
  {moment("j.start_at")} as start_at, {moment("j.created_at")} as created_at, j.run_count, j.rescue_count,
  j.attempt_errors::text, j.completes_bundle_id, j.progress::text, j.error_msg, j.error_data::text, j.result::text,
  j.retry_policy::text"""

# The description of the job to add when the bundle stops is taken apart as the trigger does that adds it.
BUNDLE_COLUMNS: Final = f"""
  b.id, b."type", b.origin, b.num_jobs, b.num_jobs_stopped, b.delete_when_succeeded,
  {moment("b.stopped_at")}, {moment("b.updated_at")}, {moment("b.created_at")},
  b.on_stopped ->> 'type', (b.on_stopped -> 'payload')::text, b.on_stopped ->> 'origin',
  coalesce((b.on_stopped ->> 'priority')::bigint, 0), coalesce((b.on_stopped ->> 'maxRetryCount')::integer, 0),
  {moment("(b.on_stopped ->> 'startAt')::timestamptz")}, (b.on_stopped -> 'retryPolicy')::text"""

# The state of a job as a word: the SQL twin of Job.state.
STATE: Final = f"""case
    when j.cancelled_at is not null then 'cancelled'
    when j.stopped_at is not null then case when j.error_msg is not null then 'failed' else 'succeeded' end
    when j.started_at is not null then 'running'
    when j.run_count > 0 then 'retrying'
    when j.start_at > {NOW} then 'scheduled'
    else 'available'
  end"""
