"""Transactions of Django, for handlers that are atomic in one of its databases: ``@handler(..., atomic="default")``."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobqueue.contrib.django.cleaning_up import like_a_request
from jobqueue.contrib.django.databases import aliases


def transactions() -> Mapping[str, Callable[[], AbstractContextManager[BaseDatabaseWrapper]]]:
    """Return how to begin a transaction on each alias that leads to the queue's own database."""
    return {alias: partial(in_transaction, alias) for alias in aliases()}


@contextmanager
def in_transaction(alias: str) -> Generator[BaseDatabaseWrapper]:
    """Have what is done within the block committed together, or rolled back: as ``transaction.atomic(using=alias)``."""
    with like_a_request(), transaction.atomic(using=alias):
        yield connections[alias]
