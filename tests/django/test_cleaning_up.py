"""What is done around each job, and where it is not."""

from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from jobqueue.contrib.django.cleaning_up import like_a_request


def test_around_a_job(project):
    """Before and after the block, connections are closed that are too old to be kept."""
    connection.ensure_connection()
    with like_a_request():
        assert connection.connection is None
        connection.ensure_connection()
    assert connection.connection is None


def test_within_a_transaction(project):
    """Within a transaction, as that of a test, no connection is closed, and no query forgotten."""
    connections["again"].ensure_connection()
    with CaptureQueriesContext(connection) as queries, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select 1")
        with like_a_request():
            cursor.execute("select 2")
        assert connections["again"].connection is not None
    assert len(queries) == 4
