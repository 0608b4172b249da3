-- Index claims by when they were made.
--
-- Why: The reaper looks for running jobs. Among millions that are finished it finds them by this index, which only a
--      claim, a release and a retry have to change: the updates of finishing and beating stay HOT.
--      Half of each page of job is left free from now on, as in job_bundle: a batch that is claimed goes to a few pages,
--      and its updates at the end are HOT only while there is room for them.
-- Locks: SHARE UPDATE EXCLUSIVE on job: everybody reads, adds and works meanwhile. The build waits for transactions
--      that were open before, and for an autovacuum of the table.
-- Run: before the new code.
-- transaction: none
--
-- This file names no schema; see 0001_create_queue.sql. It cannot run with --single-transaction.

-- An earlier attempt that was broken off has left a part of it.
drop index concurrently if exists job_started_at_idx;

create index concurrently job_started_at_idx on job (started_at) where started_at is not null;

alter table job set (fillfactor = 50);
