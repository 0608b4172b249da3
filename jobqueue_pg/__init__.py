"""The PostgreSQL backend of jobqueue, on psycopg 3."""

from jobqueue_pg.connect import ConnectOptions, connect, init_job_queue, init_job_queue_reset_interrupted_jobs
from jobqueue_pg.schema import migrate, migration_script, pending_script

__all__ = [
    "ConnectOptions",
    "connect",
    "init_job_queue",
    "init_job_queue_reset_interrupted_jobs",
    "migrate",
    "migration_script",
    "pending_script",
]
