-- Create the queue: tables job and job_bundle, their indexes and their triggers.
--
-- Why: Every table, column, check, trigger condition, channel and JSON key of go-jobqueue 0.7 is here under its own
--      name, so that its processes and ours can share one queue. Every column that it does not know has a default or
--      may be null, because it inserts without them.
-- Locks: none that matter; everything here is new.
-- Run: before the new code.
--
-- This file names no schema: everything goes into the first one of the search_path, which must exist. With psql:
--     PGOPTIONS=-csearch_path=NAME psql --single-transaction --file=0001_create_queue.sql

-- ---------------------------------------------------------------------------------------------------------- tables

-- Every job that stops updates the row of its bundle. Half of each page is left free, and no index holds or tests a
-- column that such an update changes: then it writes no index (HOT), and old versions are cleared away by whoever
-- reads the page next.
create table job_bundle (
    id                    uuid        not null default gen_random_uuid(),
    "type"                text        not null,
    origin                text        not null,
    num_jobs              integer     not null,
    num_jobs_stopped      integer     not null default 0,
    updated_at            timestamptz not null default now(),
    created_at            timestamptz not null default now(),

    stopped_at            timestamptz,
    on_stopped            jsonb,
    delete_when_succeeded boolean     not null default false,

    constraint job_bundle_pkey primary key (id),
    constraint job_bundle_type_check check (length("type") > 0),
    constraint job_bundle_origin_check check (length(origin) > 0),
    constraint job_bundle_num_jobs_check check (num_jobs >= 0),
    constraint job_bundle_check check (num_jobs_stopped >= 0 and num_jobs_stopped <= num_jobs)
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.01
);

comment on column job_bundle.stopped_at is 'when the last member stopped; null again when one is reset';
comment on column job_bundle.on_stopped is
    'the job to add at each completion: type, payload, origin, priority, maxRetryCount, startAt';

-- A job is updated three times or more in its life. All but the claim (which leaves the claim index) can be HOT.
create table job (
    id                  uuid        not null default gen_random_uuid(),
    bundle_id           uuid,
    "type"              text        not null,
    payload             jsonb       not null,
    priority            bigint      not null,
    origin              text        not null,
    max_retry_count     integer     not null default 0,
    current_retry_count integer     not null default 0,
    start_at            timestamptz,
    started_at          timestamptz,
    worker_alive_at     timestamptz,
    stopped_at          timestamptz,
    error_msg           text,
    error_data          jsonb,
    result              jsonb,
    updated_at          timestamptz not null default now(),
    created_at          timestamptz not null default now(),

    claim_id            uuid,
    lease               interval,
    claimed_by          text,
    run_count           integer     not null default 0,
    rescue_count        integer     not null default 0,
    attempt_errors      jsonb,
    cancelled_at        timestamptz,
    progress            jsonb,
    completes_bundle_id uuid, -- no foreign key: the job outlives its bundle, which may be deleted as soon as it stops

    constraint job_pkey primary key (id),
    constraint job_bundle_id_fkey foreign key (bundle_id) references job_bundle (id) on delete cascade,
    constraint job_type_check check (length("type") > 0 and length("type") <= 100),
    constraint job_origin_check check (length(origin) > 0 and length(origin) <= 100)
) with (
    fillfactor = 65,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.01,
    toast.autovacuum_vacuum_scale_factor = 0.01
);

comment on column job.claim_id is 'with started_at the fence of a claim: its holder may change the row while both match';
comment on column job.lease is 'how long the claim may be silent before anyone may take the job away';
comment on column job.claimed_by is 'host:pid:thread of the claimer, for people; no logic depends on it';
comment on column job.run_count is 'how many runs have ended; unlike current_retry_count it is never raised to a limit';
comment on column job.rescue_count is 'how often the job was taken away from a claim that had fallen silent';
comment on column job.attempt_errors is 'how the failed runs ended, the newest last';
comment on column job.completes_bundle_id is 'the bundle whose completion added this job';

-- --------------------------------------------------------------------------------------------------------- indexes

-- Claims walk it from the best job on. Collation C, so that all types with a common prefix are one range of it; the
-- third column is when the job is due.
create index job_claim_idx on job ("type" collate "C", priority desc, (coalesce(start_at, created_at)), id)
    where started_at is null;

create index job_bundle_id_idx on job (bundle_id) where bundle_id is not null;

create index job_completes_bundle_id_idx on job (completes_bundle_id) where completes_bundle_id is not null;

-- Listing and retention.
create index job_created_at_idx on job (created_at, id);

create index job_error_idx on job (id) where error_msg is not null;

create index job_bundle_type_idx on job_bundle ("type");

-- The few bundles that somebody must look at again and again: those that wait to be deleted.
create index job_bundle_delete_idx on job_bundle (id) where delete_when_succeeded;

-- --------------------------------------------------------------------------------------------------- notifications

-- Channels are job_available, job_stopped and job_bundle_stopped in a schema called worker, as go-jobqueue has them;
-- in any other they begin with its name and a dot, so that several queues can live in one database.
--
-- NOTIFY makes all commits of a database that use it queue up for one lock. `set local jobqueue.notify = 'off'` keeps
-- a transaction out of that; who waits for its jobs then learns of them by polling.
--
-- Types and origins are cut: bundles may have long ones, and a payload of 8,000 bytes or more is an error, because of
-- which the last job of such a bundle could never be stored as finished.

-- One notification for all new jobs of a type that are due, however many a statement adds: `id` and `origin` are those
-- of the lowest id.
create function notify_jobs_added() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify(
        case tg_table_schema when 'worker' then '' else tg_table_schema || '.' end || 'job_available',
        json_build_object(
            'id', due.id,
            'type', left(due."type", 100),
            'origin', left(due.origin, 100),
            'count', due.count
        )::text
    )
    from (
        select distinct on (added."type" collate "C")
            added.id,
            added."type",
            added.origin,
            count(*) over (
                partition by added."type" collate "C"
                order by added.id
                rows between unbounded preceding and unbounded following
            ) as count
        from added
        where added.started_at is null
            and (added.start_at is null or now() >= added.start_at)
        order by added."type" collate "C", added.id
    ) as due;
    return null;
end
$$;

-- One notification for the row; the argument is the event.
create function notify_of_row() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify(
        case tg_table_schema when 'worker' then '' else tg_table_schema || '.' end || tg_argv[0],
        json_build_object(
            'id', new.id,
            'type', left(new."type", 100),
            'origin', left(new.origin, 100)
        )::text
    );
    return null;
end
$$;

create function notify_job_stopped() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify(
        case tg_table_schema when 'worker' then '' else tg_table_schema || '.' end || 'job_stopped',
        json_build_object(
            'id', new.id,
            'type', left(new."type", 100),
            'origin', left(new.origin, 100),
            'willRetry', new.error_msg is not null and new.current_retry_count < new.max_retry_count
        )::text
    );
    return null;
end
$$;

create trigger job_available_insert_trigger
    after insert on job
    referencing new table as added
    for each statement
    when (coalesce(current_setting('jobqueue.notify', true), '') <> 'off')
    execute function notify_jobs_added();

-- The triggers on updates look at rows one by one: a transition table would keep a copy of every claim and every beat,
-- which nobody is to hear of.

create trigger job_available_update_trigger
    after update of started_at on job
    for each row
    when (
        old.started_at is not null
        and new.started_at is null
        and (new.start_at is null or now() >= new.start_at)
        and coalesce(current_setting('jobqueue.notify', true), '') <> 'off'
    )
    execute function notify_of_row('job_available');

create trigger job_stopped_trigger
    after update of stopped_at on job
    for each row
    when (
        old.stopped_at is null
        and new.stopped_at is not null
        and coalesce(current_setting('jobqueue.notify', true), '') <> 'off'
    )
    execute function notify_job_stopped();

create trigger job_bundle_stopped_trigger
    after update of num_jobs, num_jobs_stopped on job_bundle
    for each row
    when (
        new.num_jobs_stopped = new.num_jobs
        and old.num_jobs_stopped < old.num_jobs
        and coalesce(current_setting('jobqueue.notify', true), '') <> 'off'
    )
    execute function notify_of_row('job_bundle_stopped');

-- ------------------------------------------------------------------------------------------- completion of bundles

-- What completion means is said here alone, so that it holds whoever stops the last job, and by whatever statement.

-- The moment is updated_at, not now(): the statement that stops the last member decides which clock it goes by.
create function mark_job_bundle_stopped() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    new.stopped_at := case when new.num_jobs_stopped = new.num_jobs then new.updated_at end;
    return new;
end
$$;

create trigger job_bundle_mark_stopped_trigger
    before update of num_jobs, num_jobs_stopped on job_bundle
    for each row
    when ((new.num_jobs_stopped = new.num_jobs) <> (old.num_jobs_stopped = old.num_jobs))
    execute function mark_job_bundle_stopped();

-- Refuse, when the bundle is added, whatever add_on_stopped_job() could not make a job of when it completes: by then
-- it would be the last member that cannot be stored as finished. Not a CHECK: that would read the whole description at
-- every update of a counter.
create function check_on_stopped() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if (
        length(new.on_stopped ->> 'type') between 1 and 100
        and length(coalesce(new.on_stopped ->> 'origin', 'the bundle''s')) between 1 and 100
        and new.on_stopped -> 'payload' is not null
    ) is not true then
        raise check_violation using
            message = 'on_stopped needs a type of 1 to 100 characters and a payload; an origin has 1 to 100 characters',
            schema = tg_table_schema,
            table = tg_table_name,
            column = 'on_stopped',
            constraint = 'job_bundle_on_stopped_check';
    end if;
    perform
        (new.on_stopped ->> 'priority')::bigint,
        (new.on_stopped ->> 'maxRetryCount')::integer,
        (new.on_stopped ->> 'startAt')::timestamptz;
    return new;
end
$$;

create trigger job_bundle_check_on_stopped_trigger
    before insert or update of on_stopped on job_bundle
    for each row
    when (new.on_stopped is not null)
    execute function check_on_stopped();

create function add_on_stopped_job() returns trigger
    language plpgsql
as $$
begin
    insert into job (
        id, "type", payload, priority, origin, max_retry_count, start_at, updated_at, created_at, completes_bundle_id
    )
    values (
        gen_random_uuid(),
        new.on_stopped ->> 'type',
        new.on_stopped -> 'payload',
        coalesce((new.on_stopped ->> 'priority')::bigint, 0),
        coalesce(new.on_stopped ->> 'origin', left(new.origin, 100)),
        coalesce((new.on_stopped ->> 'maxRetryCount')::integer, 0),
        (new.on_stopped ->> 'startAt')::timestamptz,
        new.stopped_at,
        new.stopped_at,
        new.id
    );
    return null;
end
$$;

create trigger job_bundle_on_stopped_trigger
    after update of num_jobs, num_jobs_stopped on job_bundle
    for each row
    when (
        new.num_jobs_stopped = new.num_jobs
        and old.num_jobs_stopped < old.num_jobs
        and new.on_stopped is not null
    )
    execute function add_on_stopped_job();

-- Its `job` must be the one beside its own table, whatever the search_path or the temporary tables of a session.
do $$
begin
    execute format(
        'alter function %1$I.add_on_stopped_job() set search_path = pg_catalog, %1$I, pg_temp', current_schema()
    );
end
$$;
