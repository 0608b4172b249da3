"""How the processes of a chaos run are set up."""

from datetime import timedelta
from typing import Final

from jobqueue import Retention, WorkerSettings
from tests.integration.chaos_parts.plan import AGES, AGES_BY_TYPE, DEAD_FOR, HEARTBEAT

RETENTION: Final = Retention(**AGES, by_type=AGES_BY_TYPE, mode="archive")


def worker_settings(batch_size: int) -> WorkerSettings:
    """Return settings by which silence is noticed soon, and no job is given up because of it."""
    return WorkerSettings(
        heartbeat_interval=HEARTBEAT,
        dead_for=DEAD_FOR,
        poll_interval=timedelta(seconds=1),
        batch_size=batch_size,
        max_rescues=1000,
    )
