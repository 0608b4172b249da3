"""Pause types of jobs, resume them, back off from them; and how claims know what is paused."""

from typing import Final, LiteralString

from jobqueue_pg.queries.columns import NOW, moment


def covers(pattern: LiteralString, name: LiteralString) -> LiteralString:
    """Say that a type, or a pattern that ends in a star, covers the type *name*."""
    is_covered: LiteralString = f"starts_with({name}, left({pattern}, -1))"
    return f"case when right({pattern}, 1) = '*' then {is_covered} else {pattern} = {name} end"


# What claims know of pauses. The table is all but always empty, and then without a page. No aggregates, nor more nodes
# of a plan than are needed: what costs is that they are made ready.
PAUSE: Final = f"""
pause("type", until, holds, may_double) as materialized (
  select p."type", p.until, p.until is null or p.until > {NOW}, p.back_off > '0' from {{schema}}.paused_type p
)"""

# For the process: of each row the type, for how many seconds it holds, and whether it is a back-off to be doubled.
KNOWN_PAUSES: Final = f"""
array_to_json(array(
  select json_build_array(
    p."type",
    case when p.holds and p.until < 'infinity' then extract(epoch from p.until - {NOW}) end,
    coalesce(p.may_double, false)
  )
  from pause p
))::text"""


def is_not_paused(name: LiteralString) -> LiteralString:
    """Say that no pause covers a type."""
    is_covered = covers('p."type"', name)
    return f"not exists (select from pause p where p.holds and {is_covered})"


_COLUMNS: Final = f"""
  p."type", {moment("p.until")} as until, p.reason, {moment("p.paused_at")} as paused_at,
  p.back_off is not null as is_back_off"""

# What waits is told of as if it was added now, so that somebody looks for it; also what is not due yet: as long as it
# was paused, nobody knew of it. `waiting`: the types that a pattern covers, by one probe of the claim index each.
#
# Those of the types that were *told* already are left out: whoever was told of them looks when that was committed.
_TELL_OF_WAITING: Final = f"""
waiting("type") as (
  select (
    select j."type" from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" >= rtrim(%(type)s::text, '*')
    order by j."type" collate "C" limit 1
  )
  union all
  select (
    select j."type" from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" > w."type"
    order by j."type" collate "C" limit 1
  )
  from waiting w
  where right(%(type)s::text, 1) = '*' and {covers("%(type)s::text", 'w."type"')}
),
told as materialized (
  select w."type", pg_notify(
    %(job_available)s::text,
    json_build_object('id', first.id, 'type', left(w."type", 100), 'origin', left(first.origin, 100))::text
  )
  from waiting w, lateral (
    select j.id, j.origin from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" = w."type" and j.stopped_at is null
    order by j.priority desc, coalesce(j.start_at, j.created_at), j.id limit 1
  ) first
  where {covers("%(type)s::text", 'w."type"')} and current_setting('jobqueue.notify', true) is distinct from 'off'
    and w."type" <> all(%(told)s::text[])
)"""
_TOLD: Final = """array(select told."type" from told)"""

# What was committed while a pause was changed: its statement could not see it, and claims saw the pause as it had been.
TELL_OF_WAITING: Final = f"with recursive {_TELL_OF_WAITING} select count(*) from told"

# Rows that do not count any more go by the way: of back-offs, what the next one would double is kept for an hour.
#
# Where there is an end, those who wait for another one are told.
PAUSE_TYPE: Final = f"""
with recursive over as (
  delete from {{schema}}.paused_type p
  where p."type" = any(array(
    select o."type" from {{schema}}.paused_type o
    where o.until <= {NOW} - case when o.back_off is null then interval '0' else interval '1 hour' end
      and o."type" <> %(type)s::text
    for update skip locked
  ))
),
{_TELL_OF_WAITING},
pausing as (
  insert into {{schema}}.paused_type as p ("type", until, reason, paused_at)
  select %(type)s::text, wanted.until, %(reason)s::text, {NOW}
  from (
    select coalesce({NOW} + make_interval(secs => %(seconds)s::float8), %(until)s::timestamptz) as until
  ) wanted
  where wanted.until > {NOW} or wanted.until is null
  on conflict ("type") do update
  set until = excluded.until, reason = excluded.reason, paused_at = excluded.paused_at, back_off = null
  returning {_COLUMNS}
)
select pausing.*, case when pausing.until is not null then {_TOLD} end
from pausing
"""

RESUME_TYPE: Final = f"""
with recursive {_TELL_OF_WAITING},
resumed as (
  delete from {{schema}}.paused_type p
  where p."type" = %(type)s::text
  returning p.until is null or p.until > {NOW} as held
)
select resumed.held, {_TOLD}
from resumed
"""

GET_PAUSED_TYPES: Final = f"""
select {_COLUMNS}
from {{schema}}.paused_type p
where p.until is null or p.until > {NOW}
order by p."type"
"""

# A failure counts once for each pause: one whose job was started before the last pause had ended only has that go on.
# What a person has paused is left alone.
BACK_OFF: Final = f"""
insert into {{schema}}.paused_type as p ("type", until, reason, paused_at, back_off)
values (%(type)s::text, {NOW} + %(shortest)s::interval, %(reason)s::text, {NOW}, %(shortest)s::interval)
on conflict ("type") do update
set (until, reason, paused_at, back_off) = (
  select {NOW} + again.back_off, excluded.reason, excluded.paused_at, again.back_off
  from (
    select case
      when p.until > {NOW} - make_interval(secs => %(ran_for)s::float8) then greatest(p.back_off, excluded.back_off)
      else least(greatest(2 * p.back_off, excluded.back_off), %(longest)s::interval)
    end as back_off
  ) again
)
where p.back_off is not null or p.until <= {NOW}
"""

# A pause that holds goes on to its end; what follows begins anew.
END_BACK_OFF: Final = f"""
with over as (
  delete from {{schema}}.paused_type p where p."type" = %(type)s::text and p.back_off is not null and p.until <= {NOW}
)
update {{schema}}.paused_type p set back_off = '0'
where p."type" = %(type)s::text and p.back_off > '0' and p.until > {NOW}
"""
