"""One trip of a worker pool: outcomes out, claims in, in one statement."""

from typing import Final

from jobqueue_pg.queries.claiming import CLAIMING, NEXT_DUE, NO_JOB
from jobqueue_pg.queries.saving import SAVING

# Rows are ('saved', null, id), ('next', seconds) or ('claimed', null, job...). The order of the branches is the order
# of locks: all outcomes with their bundles are saved before the first claim, which never waits for a lock, is made.
MAKE_TRIP: Final = f"""
with recursive {CLAIMING}, {SAVING}
select 'saved', null::float8, id, {NO_JOB} from saved where (select count(*) from moved) >= 0
union all
select 'claimed', null, c.* from claimed c
union all
select 'next', ({NEXT_DUE}), null, {NO_JOB}
"""
