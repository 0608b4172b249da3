"""The statements that save outcomes, where jobs that are in no bundle may be removed in the moment in which they stop.

They are used only where a retention says so: to look each time whether it does would make the others slower.
"""

from typing import Final

from jobqueue_pg.queries.claiming import (
    ASIDE,
    CLAIMING,
    CLAIMING_TYPES,
    NARROW_ASIDE,
    NARROW_CLAIMING,
    WATCHFUL_ASIDE,
)
from jobqueue_pg.queries.cleaning import ARCHIVED_COLUMNS, COMPLETES_A_BUNDLE, ON_ARCHIVED_BEFORE, RULES, kept
from jobqueue_pg.queries.columns import NOW
from jobqueue_pg.queries.saving import ATTEMPT_ERRORS, COUNT_SAVED, OUTCOMES, RETRY_COUNT, SAVE
from jobqueue_pg.queries.trips import SAVED_AND_CLAIMED

# No trigger tells of a job that is deleted, in whatever session.
_TELL: Final = """
    case
      when current_setting('jobqueue.notify', true) is distinct from 'off'
      then pg_catalog.pg_notify(%(job_stopped)s, pg_catalog.json_build_object(
        'id', j.id, 'type', left(j."type", 100), 'origin', left(j.origin, 100), 'willRetry', false)::text
      )::text
    end as told"""

# `saved` is what it is where nothing is removed, for all that goes on from there.
_SAVING: Final = f"""{OUTCOMES},
{RULES},
locked as materialized (
  select j.id, j.started_at, j.claim_id, j.stopped_at, j.bundle_id, j."type",
    j.unique_key is not null and coalesce(j.unique_until > {NOW}, false) as is_needed,
    {COMPLETES_A_BUNDLE} as completes
  from {{schema}}.job j
  where j.id = any(array(select id from outcome))
  order by j.id
  for update
),
judged as materialized (
  select o.*, s.stops, s.stops and s.bundle_id is null and not l.is_needed and not (l.completes and s.has_error)
    and kept.seconds = 0 as goes
  from outcome o
  join locked l on l.id = o.id and l.started_at = o.started_at and l.claim_id = o.claim_id,
  lateral (
    select l.bundle_id, l."type", o.kind in ('finished', 'failed', 'discarded') as stops,
      o.kind = 'discarded' as was_cancelled, o.error_msg is not null as has_error
  ) s, {kept("s")}
  where l.stopped_at is null
),
owned as materialized (select * from judged where not coalesce(goes, false)),
leaving as materialized (select * from judged where goes),
updated as (
  {SAVE}
),
gone as (
  delete from {{schema}}.job j
  where j.id = any(array(select id from leaving))
  returning j.*, {_TELL}
),
saved as materialized (
  select id, bundle_id, stops from updated
  union all
  select id, bundle_id, true from gone where told is null or told is not null
),
{COUNT_SAVED}
"""

# As the row would be if it had stayed.
_ARCHIVED: Final = f"""
archived as (
  insert into {{schema}}.job_archive ({ARCHIVED_COLUMNS}, archived_at)
  select
    j.id, j.bundle_id, j."type", j.payload, j.priority, j.origin, j.max_retry_count, {RETRY_COUNT}, j.start_at,
    j.started_at, {NOW}, o.error_msg, o.error_data, o.result, {NOW}, j.created_at, j.claimed_by, j.run_count + 1,
    j.rescue_count, {ATTEMPT_ERRORS}, case when o.kind = 'discarded' then {NOW} end, j.progress, j.completes_bundle_id,
    j.retry_policy, {NOW}
  from gone j
  join leaving o on o.id = j.id
  {ON_ARCHIVED_BEFORE}
)
"""

_SAVING_AND_ARCHIVING: Final = f"{_SAVING}, {_ARCHIVED}"

_SELECT_SAVED: Final = "select id from saved"

SAVE_OUTCOMES_AND_DELETE: Final = f"with {_SAVING} {_SELECT_SAVED}"
SAVE_OUTCOMES_AND_ARCHIVE: Final = f"with {_SAVING_AND_ARCHIVING} {_SELECT_SAVED}"

MAKE_TRIP_AND_DELETE: Final = f"with recursive {CLAIMING}, {_SAVING} {SAVED_AND_CLAIMED} {ASIDE}"
MAKE_TRIP_AND_ARCHIVE: Final = f"with recursive {CLAIMING}, {_SAVING_AND_ARCHIVING} {SAVED_AND_CLAIMED} {ASIDE}"

MAKE_TRIP_FOR_TYPES_AND_DELETE: Final = f"with recursive {CLAIMING_TYPES}, {_SAVING} {SAVED_AND_CLAIMED} {ASIDE}"
MAKE_TRIP_FOR_TYPES_AND_ARCHIVE: Final = (
    f"with recursive {CLAIMING_TYPES}, {_SAVING_AND_ARCHIVING} {SAVED_AND_CLAIMED} {ASIDE}"
)

MAKE_WATCHFUL_TRIP_AND_DELETE: Final = f"with recursive {CLAIMING}, {_SAVING} {SAVED_AND_CLAIMED} {WATCHFUL_ASIDE}"
MAKE_WATCHFUL_TRIP_AND_ARCHIVE: Final = (
    f"with recursive {CLAIMING}, {_SAVING_AND_ARCHIVING} {SAVED_AND_CLAIMED} {WATCHFUL_ASIDE}"
)

MAKE_NARROW_TRIP_AND_DELETE: Final = f"with {NARROW_CLAIMING}, {_SAVING} {SAVED_AND_CLAIMED} {NARROW_ASIDE}"
MAKE_NARROW_TRIP_AND_ARCHIVE: Final = (
    f"with {NARROW_CLAIMING}, {_SAVING_AND_ARCHIVING} {SAVED_AND_CLAIMED} {NARROW_ASIDE}"
)
