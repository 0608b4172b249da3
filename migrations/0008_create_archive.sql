-- Create the archive: where jobs go that are kept longer than in the queue.
--
-- Why: What has stopped long ago need not be in the way of what is to be done. The archive has the columns of job but
--      those of claims, and nothing of it is unique but the id: a job that is added once more, with the same id, and is
--      archived once more, takes the place of the one before.
-- Locks: none that matter; everything here is new.
-- Run: before the new code. migrations/grant_roles.sql, if you use it, has to be run again: until then workers remove
--      nothing that is old.
--
-- This file names no schema; see 0001_create_queue.sql.

create table job_archive (
    id                  uuid        not null,
    bundle_id           uuid, -- no foreign key: bundles are not kept
    "type"              text        not null,
    payload             jsonb       not null,
    priority            bigint      not null,
    origin              text        not null,
    max_retry_count     integer     not null,
    current_retry_count integer     not null,
    start_at            timestamptz,
    started_at          timestamptz,
    stopped_at          timestamptz,
    error_msg           text,
    error_data          jsonb,
    result              jsonb,
    updated_at          timestamptz not null,
    created_at          timestamptz not null,

    claimed_by          text,
    run_count           integer     not null,
    rescue_count        integer     not null,
    attempt_errors      jsonb,
    cancelled_at        timestamptz,
    progress            jsonb,
    completes_bundle_id uuid,
    retry_policy        jsonb,

    archived_at         timestamptz not null default now(),

    constraint job_archive_pkey primary key (id)
);

comment on table job_archive is 'jobs that have stopped and were old enough to leave the queue; nobody deletes them';
comment on column job_archive.archived_at is 'when the job left the queue';

create index job_archive_created_at_idx on job_archive (created_at, id);
