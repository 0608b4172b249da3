"""The PostgreSQL backend of jobqueue, on psycopg 3."""

from jobqueue_pg.connect import connect, init_job_queue
from jobqueue_pg.schema import migrate

__all__ = ["connect", "init_job_queue", "migrate"]
