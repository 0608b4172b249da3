-- Make the roles of a queue, with the least that each needs; see docs/security.md.
--
--     jobqueue_enqueuer   adds jobs and bundles. It can neither read, change nor delete any: of its own it sees the ids.
--                         Of all it sees the types and the unique keys, and can free those whose time is over.
--     jobqueue_worker     runs jobs, and adds those that follow from them: reads all, changes how far jobs are, and not
--                         what they are (type, payload, origin, bundle). Deletes bundles that asked for it, and what
--                         was kept for long enough, or moves it to the archive. Pauses types.
--                         Keeps the schedules that its code declares, and sees to all of them; removes none.
--     jobqueue_observer   reads everything, and changes nothing.
--     jobqueue_manager    all that a service can do: it adds, reads, resets, cancels, pauses and deletes. Not DDL.
--
-- They cannot log in: grant them to users that can, `grant jobqueue_worker to app`. What they are called begins with
-- the setting jobqueue.role_prefix, for clusters where several queues need different users.
--
-- Run: after migrations, by the owner of the tables. Roles that are missing are made, for which that user needs
-- CREATEROLE. Again after each upgrade, or whenever you like: on the schema and its tables, a role then has the rights
-- that are named here, and no more of those that this user, or whoever owns them, has granted.
-- Locks: none that matter.
--
-- This file names no schema: it means the first one of the search_path. With psql:
--     PGOPTIONS=-csearch_path=worker psql --single-transaction --file=grant_roles.sql
--     PGOPTIONS='-csearch_path=billing -cjobqueue.role_prefix=billing' psql --single-transaction --file=grant_roles.sql

do $$
declare
    prefix constant text := coalesce(nullif(current_setting('jobqueue.role_prefix', true), ''), 'jobqueue');
    enqueuer constant text := prefix || '_enqueuer';
    worker constant text := prefix || '_worker';
    observer constant text := prefix || '_observer';
    manager constant text := prefix || '_manager';
    role_name text;
begin
    -- The first schema of the search_path that exists; null, and then everything else is, if none does.
    if to_regclass(quote_ident(current_schema()) || '.job') is null then
        raise exception 'there is no queue on the search_path (%): set it to the schema that the queue is in',
            current_setting('search_path');
    end if;

    foreach role_name in array array[enqueuer, worker, observer, manager] loop
        if not exists (select from pg_catalog.pg_roles where rolname = role_name) then
            execute format('create role %I nologin', role_name);
        end if;
        execute format(
            'revoke all on job, job_bundle, job_archive, paused_type, schedule, schedule_tick, migration from %I', role_name
        );
        execute format('revoke all on schema %I from %I', current_schema(), role_name);
        -- What a service is refused without: it looks whether the schema is what its version needs.
        execute format('grant usage on schema %I to %I', current_schema(), role_name);
        execute format('grant select on migration to %I', role_name);
    end loop;

    -- The ids, so that a duplicate can be named: PostgreSQL tells them only to those who may read them.
    execute format('grant insert, select (id) on job, job_bundle to %I', enqueuer);
    -- What it takes to leave a duplicate out.
    execute format(
        'grant select ("type", unique_key, unique_until), update (unique_key, unique_key_spent, updated_at) on job '
        'to %I', enqueuer
    );

    execute format('grant select, insert, delete on job, job_bundle to %I', worker);
    execute format('grant select, insert, update on job_archive to %I', worker);
    execute format(
        'grant update ('
        'start_at, started_at, worker_alive_at, stopped_at, claim_id, lease, claimed_by, current_retry_count, '
        'run_count, rescue_count, error_msg, error_data, attempt_errors, result, progress, cancelled_at, updated_at, '
        'unique_key, unique_key_spent'
        ') on job to %I', worker
    );
    execute format('grant update (num_jobs, num_jobs_stopped, updated_at) on job_bundle to %I', worker);

    -- A worker looks at what is paused, and backs off.
    execute format('grant select, insert, update, delete on paused_type to %I', worker);
    -- Schedules that its code declares, and the ticks of all.
    execute format('grant select, insert, update on schedule to %I', worker);
    execute format('grant select, insert, delete on schedule_tick to %I', worker);

    execute format('grant select on job, job_bundle, job_archive, paused_type, schedule, schedule_tick to %I', observer);

    execute format(
        'grant select, insert, update, delete on job, job_bundle, job_archive, paused_type, schedule, schedule_tick to %I', manager
    );
end
$$;
