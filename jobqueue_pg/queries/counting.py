"""Statements that count what is quick to count, and estimate the rest."""

from typing import Final, LiteralString

from jobqueue_pg.queries.columns import NOW, STATE

# How many rows there were at the last vacuum, in how many pages; and how many pages there are now.
MEASURE_JOBS: Final = """
select t.reltuples::float8, t.relpages, pg_relation_size(t.oid) / current_setting('block_size')::bigint
from pg_class t join pg_namespace s on s.oid = t.relnamespace
where t.relname = 'job' and s.nspname = %(schema)s::name
"""

# The same pages each time, which are then in memory.
SAMPLE_JOBS: Final = f"""
select j."type", {STATE}, count(*)
from {{schema}}.job j tablesample system (%(percent)s::float8) repeatable (0)
group by 1, 2
"""

_STATE_COLUMNS: Final = 'j."type", j.cancelled_at, j.stopped_at, j.error_msg, j.started_at, j.run_count, j.start_at'


def _count(jobs: LiteralString) -> LiteralString:
    return f"""
select j."type", {STATE}, count(*)
from ({jobs}) j
group by 1, 2
"""


_NEXT_TYPE: Final = """
    select j."type" collate "C" as "type"
    from {schema}.job j
    where j.started_at is null"""

# From one type to the next by the index for claims; of each the first *most*, and *most_in_all*.
COUNT_WAITING: Final = f"""
with recursive kind as (
  ({_NEXT_TYPE} order by 1 limit 1)
  union all
  select n."type"
  from kind k, lateral ({_NEXT_TYPE} and j."type" collate "C" > k."type" order by 1 limit 1) n
)
{
    _count(f'''
  select j.*
  from kind k, lateral (
    select {_STATE_COLUMNS}
    from {{schema}}.job j
    where j.started_at is null and j."type" collate "C" = k."type"
    order by j."type" collate "C", j.priority desc, coalesce(j.start_at, j.created_at), j.id
    limit %(most)s
  ) j
  limit %(most_in_all)s''')
}"""

COUNT_WITH_ERRORS: Final = _count(f"""
  select {_STATE_COLUMNS}
  from {{schema}}.job j
  where j.error_msg is not null
  order by j.id
  limit %(most_in_all)s""")

# No index leads to running jobs; most of them were claimed not long ago.
COUNT_NEWEST_CLAIMS: Final = _count(f"""
  select {_STATE_COLUMNS}
  from {{schema}}.job j
  where j.started_at is not null
  order by j.started_at desc
  limit %(most_in_all)s""")

# The first of each priority of each type, by the index for claims.
_FIRST: Final = """
    select j."type" collate "C" as "type", j.priority, coalesce(j.start_at, j.created_at) as due_at
    from {schema}.job j
    where j.started_at is null and j.stopped_at is null"""
_IN_ORDER: Final = """
    order by j."type" collate "C", j.priority desc, coalesce(j.start_at, j.created_at), j.id
    limit 1"""
FIND_OLDEST_DUE: Final = f"""
with recursive first as (
  ({_FIRST} {_IN_ORDER})
  union all
  select n.*
  from first f, lateral (
    ({_FIRST} and j."type" collate "C" = f."type" and j.priority < f.priority {_IN_ORDER})
    union all
    ({_FIRST} and j."type" collate "C" > f."type" {_IN_ORDER})
    limit 1
  ) n
)
select "type", extract(epoch from {NOW} - greatest(min(due_at), '0001-01-02 00:00:00+00'))::float8
from first
where due_at <= {NOW}
group by 1
"""
