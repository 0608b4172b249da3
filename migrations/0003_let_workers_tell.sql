-- Let workers tell of stopped jobs by the statements that stop them.
--
-- Why: A trigger on each row takes about as long as all else that the end of a short job costs the server. Worker pools
--      notify in the statement that saves what their jobs led to; for whoever else stops a job the trigger does it.
-- Locks: ACCESS EXCLUSIVE on job, for a moment. It is asked for again and again, each time for 0.1 s, so that others
--      wait no longer for it; now and then for as long as it takes to be preferred to an autovacuum, deadlock_timeout.
--      After 40 s or so it is given up.
-- Run: before the new code. Workers of the version before, which do not notify themselves, go on to be told of.
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

drop trigger job_stopped_trigger on job;

create trigger job_stopped_trigger
    after update of stopped_at on job
    for each row
    when (
        old.stopped_at is null
        and new.stopped_at is not null
        and coalesce(current_setting('jobqueue.tells_of_stopped', true), '') <> 'on'
        and coalesce(current_setting('jobqueue.notify', true), '') <> 'off'
    )
    execute function notify_job_stopped();
