-- Keep a job's own retry policy with it.
--
-- Why: A worker that has not the code of whoever added a job obeys what is stored with the job.
-- Locks: ACCESS EXCLUSIVE on job, for a moment: a column is added that is empty. It is asked for again and again, each
--      time for 0.1 s, so that others wait no longer for it; now and then for as long as it takes to be preferred to an
--      autovacuum, deadlock_timeout. After 40 s or so it is given up.
-- Run: before the new code. Running processes of go-jobqueue have to be restarted: they have prepared statements that
--      return all columns, which PostgreSQL refuses once there is another one.
--
-- This file names no schema; see 0001_create_queue.sql.

do $$
begin
    for attempt in 1..200 loop
        perform set_config(
            'lock_timeout',
            case attempt % 20
                when 0 then extract(epoch from current_setting('deadlock_timeout')::interval) * 1000 + 200
                else 100
            end::int::text,
            true
        );
        begin
            lock table job in access exclusive mode;
            return;
        exception
            when lock_not_available then perform pg_sleep(0.05);
        end;
    end loop;
    raise lock_not_available using message = 'table job was in use all the time: look in pg_stat_activity for a '
        'transaction that has been open for long, end it, and migrate again';
end
$$;

alter table job add column retry_policy jsonb;

comment on column job.retry_policy is 'when to run the job again after a failed run; null: as its handler says';

create or replace function add_on_stopped_job() returns trigger
    language plpgsql
as $$
begin
    insert into job (
        id, "type", payload, priority, origin, max_retry_count, retry_policy, start_at, updated_at, created_at,
        completes_bundle_id
    )
    values (
        gen_random_uuid(),
        new.on_stopped ->> 'type',
        new.on_stopped -> 'payload',
        coalesce((new.on_stopped ->> 'priority')::bigint, 0),
        coalesce(new.on_stopped ->> 'origin', left(new.origin, 100)),
        coalesce((new.on_stopped ->> 'maxRetryCount')::integer, 0),
        nullif(new.on_stopped -> 'retryPolicy', 'null'),
        (new.on_stopped ->> 'startAt')::timestamptz,
        new.stopped_at,
        new.stopped_at,
        new.id
    );
    return null;
end
$$;

-- Its `job` must be the one beside its own table, whatever the search_path or the temporary tables of a session.
do $$
begin
    execute format(
        'alter function %1$I.add_on_stopped_job() set search_path = pg_catalog, %1$I, pg_temp', current_schema()
    );
end
$$;
