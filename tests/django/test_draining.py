"""Jobs that are run within the transaction of a test."""

import pytest
from django.db import transaction

import jobqueue
from jobqueue.testing import drain


@pytest.mark.usefixtures("project")
def test_callbacks_of_what_is_undone():
    """Of on_commit() that is kept, and in its order, which belongs to what is kept: as worker threads would have it."""
    called = []

    @jobqueue.handler("h", atomic="default")
    def h(ctx: jobqueue.JobContext, payload: str) -> None:
        with transaction.atomic():
            transaction.on_commit(lambda: called.append(payload))
        if payload == "fails":
            raise ValueError
        if payload == "is cancelled":
            jobqueue.cancel_job(ctx.job.id)

    with transaction.atomic():
        transaction.on_commit(lambda: called.append("before"))
        for payload in ("fails", "a", "is cancelled", "b"):
            h.enqueue(payload)
        drain(raise_errors=False)
    assert called == ["before", "a", "b"]
