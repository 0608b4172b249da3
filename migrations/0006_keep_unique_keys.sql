-- Keep unique keys with jobs: of the jobs of one type, one at a time holds a key.
--
-- Why: The statement that ends the scope of a key moves it to unique_key_spent, so that the index holds it no longer. An
--      index that tested the state of jobs instead would have to be changed by each finish, and no finish would be HOT.
-- Locks: ACCESS EXCLUSIVE on job, for a moment: columns are added that are empty, and a trigger. It is asked for as in
--      0004. Then SHARE UPDATE EXCLUSIVE, while the index is built, which holds nobody up; the build waits for
--      transactions that were open before.
-- Run: before the new code. Running processes of go-jobqueue have to be restarted, as after 0004. Whoever could claim
--      goes on; migrations/grant_roles.sql, if you use it, has to be run again for the rest.
-- transaction: none
--
-- This file names no schema; see 0001_create_queue.sql. It cannot run with --single-transaction. Each of its statements
-- can be run again, after an attempt that was broken off.

-- Frees a key whose scope has ended by a statement that knows nothing of keys, as go-jobqueue's. Ours set the columns
-- themselves, by the same conditions, which are in queries/uniqueness.py: a job is not written twice then.
create or replace function free_unique_key() returns trigger
    language plpgsql
as $$
begin
    if (
        new.unique_for = 'waiting' and new.started_at is not null
        or new.unique_for in ('waiting', 'waiting_and_running', 'until_succeeded')
            and new.stopped_at is not null
            and (new.error_msg is null or new.current_retry_count >= new.max_retry_count)
            and (new.unique_for <> 'until_succeeded' or new.error_msg is null or new.cancelled_at is not null)
    ) then
        update job set unique_key = null, unique_key_spent = unique_key where id = new.id and unique_key is not null;
    end if;
    return null;
end
$$;

do $$
begin
    -- Its `job` must be the one beside its own table, whatever the search_path or the temporary tables of a session.
    execute format(
        'alter function %1$I.free_unique_key() set search_path = pg_catalog, %1$I, pg_temp', current_schema()
    );
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
            alter table job
                add column if not exists unique_key text,
                add column if not exists unique_key_spent text,
                add column if not exists unique_for text,
                add column if not exists unique_until timestamptz;
            drop trigger if exists job_unique_key_trigger on job;
            -- AFTER: for a BEFORE trigger, each row would have to be read and locked once more. The condition is short,
            -- as it is read anew for each statement; most jobs have no key.
            create trigger job_unique_key_trigger
                after update of started_at, stopped_at on job
                for each row
                when (new.unique_key is not null)
                execute function free_unique_key();
            return;
        exception
            when lock_not_available then perform pg_sleep(0.05);
        end;
    end loop;
    raise lock_not_available using message = 'table job was in use all the time: look in pg_stat_activity for a '
        'transaction that has been open for long, end it, and migrate again';
end
$$;

comment on column job.unique_key is 'what no other job of the type may have while this one holds it';
comment on column job.unique_key_spent is 'the key that the job had, and does not hold any more';
comment on column job.unique_for is
    'until when it is held: waiting (its first claim), waiting_and_running (its end), until_succeeded, period';
comment on column job.unique_until is 'the end of a period, when the key is free for whoever wants it next';

-- Claims and outcomes free keys: who may change how far a job is, column by column, must be able to go on.
do $$
declare
    writer record;
begin
    for writer in
        select acl.grantee as id, acl.grantee::regrole::text as name
        from pg_attribute, aclexplode(attacl) as acl
        where attrelid = 'job'::regclass and attname = 'started_at' and acl.privilege_type = 'UPDATE'
    loop
        execute 'grant update (unique_key, unique_key_spent) on job to '
            || case writer.id when 0 then 'public' else writer.name end;
    end loop;
end
$$;

-- An earlier attempt that was broken off has left a part of it.
drop index concurrently if exists job_unique_key_idx;

create unique index concurrently job_unique_key_idx on job ("type" collate "C", unique_key collate "C")
    where unique_key is not null;
