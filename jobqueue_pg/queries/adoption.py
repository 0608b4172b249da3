"""Statements for the take-over of go-jobqueue's tables; unqualified names are found by the search_path."""

from typing import Final, LiteralString

import attrs

# --- looking, in the catalog, which everyone may read -----------------------------------------------------------------

FIND_TABLES: Final = """
select c.relname::text, c.relkind = 'r'
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname in ('job', 'job_bundle')
"""

FIND_COLUMNS: Final = """
select c.relname::text, a.attname::text,
  format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname in ('job', 'job_bundle') and a.attnum > 0 and not a.attisdropped
order by c.relname, a.attnum
"""

FIND_CONSTRAINTS: Final = """
select t.conname::text, replace(pg_get_constraintdef(t.oid), quote_ident(n.nspname) || '.', '')
from pg_catalog.pg_constraint t
join pg_catalog.pg_class c on c.oid = t.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname in ('job', 'job_bundle')
"""

FIND_TRIGGERS: Final = """
select t.tgname::text, p.proname::text
from pg_catalog.pg_trigger t
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname in ('job', 'job_bundle') and not t.tgisinternal
"""

FIND_NAMES: Final = """
select c.relname::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = any(%(names)s)
union all
select p.proname::text
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = %(schema)s and p.proname = any(%(names)s) and p.pronargs = 0
"""

# What the current user would need to own, or may not do, in words.
FIND_LACKING_RIGHTS: Final = """
select format('table "%%s" belongs to "%%s"', c.relname, pg_get_userbyid(c.relowner))
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname in ('job', 'job_bundle') and not pg_has_role(c.relowner, 'usage')
union all
select format('function "%%s" belongs to "%%s"', p.proname, pg_get_userbyid(p.proowner))
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = %(schema)s and p.pronargs = 0 and p.proname in ('job_available', 'job_stopped', 'job_bundle_stopped')
  and not pg_has_role(p.proowner, 'usage')
union all
select 'user "' || current_user || '" may not create anything in the schema'
where not (has_schema_privilege(%(schema)s, 'usage') and has_schema_privilege(%(schema)s, 'create'))
"""

# --- changing the tables ----------------------------------------------------------------------------------------------

# Nobody who reads or writes rows waits for this lock, nor behind somebody who waits for it. An autovacuum gives way to
# it, and to a lock that is wanted for less than `deadlock_timeout` it would not.
KEEP_VACUUM_AWAY: Final = "lock table job, job_bundle in share update exclusive mode"

# Jobs first: who finishes one locks it, then its bundle.
LOCK_TABLES: Final = ("lock table job in access exclusive mode", "lock table job_bundle in access exclusive mode")

FIND_HOLDERS: Final = """
select l.pid
from pg_catalog.pg_locks l
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.granted and l.pid <> pg_backend_pid() and l.locktype = 'relation'
  and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
  and l.relation in ('job'::regclass, 'job_bundle'::regclass)
group by l.pid
order by min(a.xact_start) nulls last
limit 3
"""

# --- filling in -------------------------------------------------------------------------------------------------------


@attrs.frozen
class BackFill:
    """A column that is to get its value from another, in all rows that lack it."""

    what: str
    find: LiteralString
    fill: LiteralString
    find_left: LiteralString


def _back_fill(table: LiteralString, column: LiteralString, value: LiteralString, lacks: LiteralString) -> BackFill:
    # Rows that somebody has locked are passed over: who waits for one with others locked holds up more than itself.
    return BackFill(
        what=f"{table}.{column}",
        find=f"declare lacking scroll cursor with hold for select id from {table} where {lacks}",
        fill=f"""
with free as materialized (
  select id from {table} where id = any(%(ids)s) and {lacks} order by id for no key update skip locked
)
update {table} set {column} = {value} where id = any(array(select id from free))
""",
        find_left=f"select id from {table} where id = any(%(ids)s) and {lacks}",
    )


BACK_FILLS: Final = (
    # What has no heartbeat is never rescued: it was claimed by version 0.5, or with heartbeats turned off.
    _back_fill(
        "job",
        "worker_alive_at",
        "started_at",
        "started_at is not null and stopped_at is null and worker_alive_at is null",
    ),
    _back_fill("job_bundle", "stopped_at", "updated_at", "num_jobs_stopped = num_jobs and stopped_at is null"),
)

COUNT_LACKING: Final = "move forward all in lacking"
REWIND_LACKING: Final = "move absolute 0 in lacking"
FETCH_LACKING: Final = "fetch forward 1000 from lacking"
CLOSE_LACKING: Final = "close lacking"

# --- building indexes -------------------------------------------------------------------------------------------------

FIND_INDEXES: Final = """
select c.relname::text, i.indisvalid
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = any(%(names)s)
"""

# --- reporting --------------------------------------------------------------------------------------------------------

# Indexes that hold or test a column which finishing and beating change, and which no index of ours has: without them
# those updates write no index. Claims and retries change started_at, which is in job_claim_idx, and write to all.
FIND_SLOWING_INDEXES: Final = """
select c.relname::text, string_agg(a.attname, ', ' order by a.attnum)
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum > 0
where not c.relname = any(%(names)s)
  and (
    (i.indrelid = 'job'::regclass and a.attname in ('worker_alive_at', 'stopped_at', 'result', 'updated_at'))
    or (i.indrelid = 'job_bundle'::regclass
      and a.attname in ('num_jobs', 'num_jobs_stopped', 'stopped_at', 'updated_at'))
  )
  and (
    a.attnum = any(i.indkey)
    or exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
        and d.refclassid = 'pg_class'::regclass and d.refobjid = i.indrelid and d.refobjsubid = a.attnum
    )
  )
group by c.relname
order by c.relname
"""

FIND_DOUBLE_INDEXES: Final = """
select c.relname::text, o.relname::text
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
join pg_catalog.pg_index own on own.indrelid = i.indrelid and own.indexrelid <> i.indexrelid
join pg_catalog.pg_class o on o.oid = own.indexrelid and o.relname = any(%(names)s)
where i.indrelid in ('job'::regclass, 'job_bundle'::regclass) and not c.relname = any(%(names)s)
  and not i.indisunique
  and split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2)
    = split_part(pg_get_indexdef(own.indexrelid), ' USING ', 2)
order by c.relname
"""

# Rows that no rule of the tables forbids, and that will never do what their owner hopes for: how many there are, and
# some of them.
FIND_STOPPED_UNSTARTED: Final = """
select count(*) over (), id
from job
where stopped_at is not null and started_at is null
order by id
limit 3
"""

FIND_MISCOUNTING: Final = """
select count(*) over (), b.id
from job_bundle b
left join (
  select bundle_id, count(*) as jobs,
    count(*) filter (
      where stopped_at is not null and (error_msg is null or current_retry_count >= max_retry_count)
    ) as stopped
  from job
  where bundle_id is not null
  group by bundle_id
) j on j.bundle_id = b.id
where (b.num_jobs, b.num_jobs_stopped) <> (coalesce(j.jobs, 0), coalesce(j.stopped, 0))
order by b.id
limit 3
"""
