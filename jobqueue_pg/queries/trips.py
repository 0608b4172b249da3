"""One trip of a worker pool: outcomes out, claims in, in one statement."""

from typing import Final

from jobqueue_pg.queries.claiming import (
    ASIDE,
    CLAIMING,
    CLAIMING_TYPES,
    NARROW_ASIDE,
    NARROW_CLAIMING,
    NO_JOB,
    WATCHFUL_ASIDE,
)
from jobqueue_pg.queries.saving import SAVING

# Rows are ('refused', null, id) for outcomes whose claims were lost, ('claimed', null, job...) and, at last, the aside.
# The order of the branches is the order of locks: all outcomes with their bundles are saved before the first claim,
# which never waits for a lock, is made.
SAVED_AND_CLAIMED: Final = f"""
select 'refused', null::float8, o.id, {NO_JOB}
from outcome o
where (select count(*) from moved) >= 0 and not exists (select from saved s where s.id = o.id)
union all
select 'claimed', null, c.* from claimed c
union all
"""

MAKE_TRIP: Final = f"with recursive {CLAIMING}, {SAVING} {SAVED_AND_CLAIMED} {ASIDE}"
MAKE_TRIP_FOR_TYPES: Final = f"with recursive {CLAIMING_TYPES}, {SAVING} {SAVED_AND_CLAIMED} {ASIDE}"

# The same, if the next trip may be a narrow one.
MAKE_WATCHFUL_TRIP: Final = f"with recursive {CLAIMING}, {SAVING} {SAVED_AND_CLAIMED} {WATCHFUL_ASIDE}"

MAKE_NARROW_TRIP: Final = f"with {NARROW_CLAIMING}, {SAVING} {SAVED_AND_CLAIMED} {NARROW_ASIDE}"
