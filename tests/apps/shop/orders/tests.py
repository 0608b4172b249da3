"""The shop's own tests, as Django runs them."""

import os
import threading
from uuid import UUID

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

import jobqueue
from orders.jobs import ship
from orders.models import Order


def threads() -> list[str]:
    """Name the threads that work for the queue here."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("jobqueue-worker")]


class OrderTest(TestCase):
    """Within a transaction that is rolled back."""

    def test_order(self) -> None:
        """What a request enqueues can be seen, though nothing is committed."""
        answer = self.client.get("/order/book").json()
        assert jobqueue.get_job(UUID(answer["job"])).payload == answer["order"]
        assert connection.settings_dict["NAME"].startswith("test_")
        assert not threads()

    def test_empty(self) -> None:
        """Nothing is left of the other test."""
        assert jobqueue.get_status().num_jobs == 0
        assert not Order.objects.exists()


class CommittedTest(TransactionTestCase):
    """With transactions that commit, and tables that are emptied after each test."""

    def test_committed(self) -> None:
        """A job is committed with its order, in the database of the tests."""
        with transaction.atomic():
            order = Order.objects.create(item="book")
            job = ship.enqueue(order.pk)
        assert jobqueue.get_job(job.id).payload == order.pk
        assert jobqueue.get_status().num_jobs == 1
        assert not threads()

    def test_shipped(self) -> None:
        """A worker ships, in the transaction that ends the job."""
        order = Order.objects.create(item="book")
        job = ship.enqueue(order.pk)
        with jobqueue.WorkerPool(jobqueue.current_service(), threads=1):
            assert jobqueue.wait_for_job(job.id, 10).succeeded
        order.refresh_from_db()
        assert order.is_shipped
        assert connection.Database.__name__ == os.environ.get("SHOP_DRIVER", "psycopg")

    def test_requests(self) -> None:
        """Requests of tests start no threads."""
        self.client.get("/order/book")
        assert jobqueue.get_status().num_jobs == 1
        assert not threads()
