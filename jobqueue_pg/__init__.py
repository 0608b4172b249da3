"""The PostgreSQL backend of jobqueue, on psycopg 3."""

from jobqueue_pg.connect import connect, init_job_queue, init_job_queue_reset_interrupted_jobs
from jobqueue_pg.schema import migrate

__all__ = ["connect", "init_job_queue", "init_job_queue_reset_interrupted_jobs", "migrate"]
