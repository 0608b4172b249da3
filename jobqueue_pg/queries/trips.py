"""One trip of a worker pool: outcomes out, claims in, in one statement."""

from typing import Final

from jobqueue_pg.queries.claiming import ASIDE, CLAIMING, NO_JOB
from jobqueue_pg.queries.saving import SAVING

# Rows are ('refused', null, id) for outcomes whose claims were lost, ('claimed', null, job...) and, at last, ASIDE. The
# order of the branches is the order of locks: all outcomes with their bundles are saved before the first claim, which
# never waits for a lock, is made.
MAKE_TRIP: Final = f"""
with recursive {CLAIMING}, {SAVING}
select 'refused', null::float8, o.id, {NO_JOB}
from outcome o
where (select count(*) from moved) >= 0 and not exists (select from saved s where s.id = o.id)
union all
select 'claimed', null, c.* from claimed c
union all
{ASIDE}
"""
