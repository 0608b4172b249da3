-- Keep schedules, and what has become of their ticks.
--
-- Why: Jobs that are to be enqueued again and again. A process moves next_tick_at on, by compare and set, in the
--      statement that adds the job; so any number of processes may try, without a leader, and a tick leads to one job.
-- Locks: none that matter; everything here is new.
-- Run: before the new code. The code before knows nothing of it, nor does go-jobqueue. migrations/grant_roles.sql, if
--      you use it, has to be run again: until then no schedule ticks.
--
-- This file names no schema; see 0001_create_queue.sql.

-- Each tick updates its row. There are few rows, and no index but that of the key: then such an update writes none
-- (HOT), and looking through all of them costs nothing.
create table schedule (
    name            text        not null,
    "type"          text        not null,
    payload         jsonb       not null,
    cron            text,
    every           interval,
    tz              text        not null default 'UTC',
    start_at        timestamptz,
    missed          text        not null default 'one',
    overlap         text        not null default 'allow',
    priority        bigint      not null default 0,
    max_retry_count integer     not null default 0,
    retry_policy    jsonb,
    origin          text        not null,
    next_tick_at    timestamptz,
    paused_at       timestamptz,
    version         bigint      not null default 1,
    declared        text,
    updated_at      timestamptz not null default now(),
    created_at      timestamptz not null default now(),

    constraint schedule_pkey primary key (name),
    constraint schedule_name_check check (length(name) between 1 and 100),
    constraint schedule_type_check check (length("type") between 1 and 100),
    constraint schedule_origin_check check (length(origin) between 1 and 100),
    constraint schedule_recurrence_check check ((cron is null) <> (every is null)),
    constraint schedule_missed_check check (missed in ('skip', 'one', 'all')),
    constraint schedule_overlap_check check (overlap in ('allow', 'skip')),
    constraint schedule_paused_check check (paused_at is null or next_tick_at is null)
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01
);

comment on column schedule.start_at is 'no tick is before it; with every, it is the first one';
comment on column schedule.next_tick_at is 'null: paused, or there is no further tick';
comment on column schedule.version is 'raised by whoever changes the row, ticks too: who has seen another one does nothing';
comment on column schedule.declared is 'how the code defined it that keeps it here; null: it was added at run time';

create table schedule_tick (
    schedule_name text        not null,
    tick_at       timestamptz not null,
    by_hand       boolean     not null default false,
    through_at    timestamptz,
    job_id        uuid, -- no foreign key: the job may be deleted at any time
    skipped       text,
    noted_at      timestamptz not null default now(),

    -- What makes sure that no tick is enqueued twice, whatever becomes of next_tick_at.
    constraint schedule_tick_pkey primary key (schedule_name, tick_at, by_hand),
    constraint schedule_tick_schedule_name_fkey foreign key (schedule_name) references schedule (name)
        on delete cascade,
    constraint schedule_tick_skipped_check check (skipped in ('missed', 'overlap', 'duplicate', 'dropped')),
    constraint schedule_tick_check check ((job_id is null) <> (skipped is null))
);

comment on column schedule_tick.by_hand is 'not a tick: somebody had the job enqueued at that moment';
comment on column schedule_tick.through_at is 'the row stands for all ticks from tick_at to this one';

-- That a schedule ticks is no change.
create function notify_schedule_changed() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify(
        case tg_table_schema when 'worker' then '' else tg_table_schema || '.' end || 'schedule_changed',
        json_build_object('name', case tg_op when 'DELETE' then old.name else new.name end)::text
    );
    return null;
end
$$;

create trigger schedule_changed_trigger
    after insert or delete or update of cron, every, tz, start_at, paused_at on schedule
    for each row
    execute function notify_schedule_changed();
