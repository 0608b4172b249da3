"""What Django does around each request, around each run of a job."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from django.db import close_old_connections, connections, reset_queries

from jobqueue.job_context import JobContext


@contextmanager
def like_a_request() -> Generator[None]:
    """Close connections before and after the block that are broken, or older than their CONN_MAX_AGE.

    Within a transaction, as that of a test, nothing is done.
    """
    if any(connection.in_atomic_block for connection in connections.all(initialized_only=True)):
        yield
        return
    reset_queries()
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


class LikeARequest:
    """Work middleware for worker threads of a Django project."""

    def __call__(self, context: JobContext, run: Callable[[], object]) -> object:  # noqa: ARG002 - as all of them
        """Run the job."""
        with like_a_request():
            return run()

    def end_thread(self) -> None:
        """Close the connections of this thread, which ends."""
        connections.close_all()
