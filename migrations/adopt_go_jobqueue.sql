-- Give go-jobqueue's tables, of 0.5 to 0.7, the columns, defaults and storage that 0001_create_queue.sql creates, and
-- take its triggers away.
--
-- Why: A queue that is in use cannot be created anew. Nothing of go-jobqueue's is dropped but what is replaced.
-- Locks: ACCESS EXCLUSIVE on both tables, for as long as it takes to change the catalog: no row is read or written.
-- Run: before the new code, by `jobqueue migrate --adopt` alone. In the same transaction it goes on with the triggers of
--      0001; then it fills in what is missing in rows, batch by batch, and builds the indexes of 0001 concurrently.
--
-- Like 0001, this file names no schema.

alter table job_bundle
    alter column id set default gen_random_uuid(),
    alter column num_jobs_stopped set default 0,
    alter column updated_at set default now(),
    alter column created_at set default now(),
    add column stopped_at timestamptz,
    add column on_stopped jsonb,
    add column delete_when_succeeded boolean not null default false,
    set (
        fillfactor = 50,
        autovacuum_vacuum_scale_factor = 0.01,
        autovacuum_analyze_scale_factor = 0.01
    );

-- Version 0.5 has no worker_alive_at.
alter table job
    alter column id set default gen_random_uuid(),
    alter column max_retry_count set default 0,
    alter column current_retry_count set default 0,
    alter column updated_at set default now(),
    alter column created_at set default now(),
    add column if not exists worker_alive_at timestamptz,
    add column claim_id uuid,
    add column lease interval,
    add column claimed_by text,
    add column run_count integer not null default 0,
    add column rescue_count integer not null default 0,
    add column attempt_errors jsonb,
    add column cancelled_at timestamptz,
    add column progress jsonb,
    add column completes_bundle_id uuid,
    set (
        fillfactor = 65,
        autovacuum_vacuum_scale_factor = 0.01,
        autovacuum_analyze_scale_factor = 0.01,
        toast.autovacuum_vacuum_scale_factor = 0.01
    );

-- By this it is known that nothing is to be removed from it by itself, unless somebody says so.
comment on table job is 'taken over from go-jobqueue';

drop trigger if exists job_available_insert_trigger on job;
drop trigger if exists job_available_update_trigger on job;
drop trigger if exists job_stopped_trigger on job;
drop trigger if exists job_bundle_stopped_trigger on job_bundle;

-- A function that somebody else's trigger calls stays.
do $$
declare
    name text;
begin
    foreach name in array array['job_available', 'job_stopped', 'job_bundle_stopped'] loop
        begin
            execute format('drop function if exists %I.%I()', current_schema(), name);
        exception when dependent_objects_still_exist then
            null;
        end;
    end loop;
end
$$;
