-- Keep which types of jobs are not to be claimed for a while.
--
-- Why: All processes obey what one of them has paused, and back off together from what is down.
-- Locks: none that matter: a table is made.
-- Run: before the new code. Who may read the jobs may read what is paused; migrations/grant_roles.sql, if you use it,
--      has to be run again for the rest.
--
-- This file names no schema; see 0001_create_queue.sql.

create table paused_type (
    "type"    text        collate "C" not null primary key,
    until     timestamptz,
    reason    text,
    paused_at timestamptz not null default now(),
    back_off  interval
);

comment on table paused_type is 'types, and patterns of types, of which no jobs are claimed; claims of go-jobqueue do not look';
comment on column paused_type.until is 'a moment after which the row does not count any more; null: until it is deleted';
comment on column paused_type.back_off is
    'set by a failure that asked for it, not by a person: for how long; what the next such failure doubles';

-- Claims read it: whoever could claim must be able to go on.
do $$
declare
    reader record;
begin
    for reader in
        select acl.grantee as id, acl.grantee::regrole::text as name
        from pg_class, aclexplode(relacl) as acl
        where pg_class.oid = 'job'::regclass and acl.privilege_type = 'SELECT' and acl.grantee <> pg_class.relowner
    loop
        execute 'grant select on paused_type to ' || case reader.id when 0 then 'public' else reader.name end;
    end loop;
end
$$;
