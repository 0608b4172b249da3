"""Have all that a test does with jobs be a part of its own transaction."""

from collections.abc import Generator
from contextlib import contextmanager

from jobqueue.context import current_service
from jobqueue.service import Service


@contextmanager
def joining(connection: object, *, service: Service | None = None) -> Generator[None]:
    """Have each call of the service in this thread be a part of the transaction on *connection*, within the block.

    For code under test that enqueues without a ``connection=`` of its own; ``drain`` and the assertions then need none
    either. None: calls stay what they are.

    Raises:
        TypeError: *connection* is nothing whose transaction can be joined.
    """
    with (current_service() if service is None else service).store.within(connection):
        yield
