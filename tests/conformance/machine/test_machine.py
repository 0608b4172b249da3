"""Any history of a queue is as the model says.

A few histories are tried each time. For a long search name how many (PostgreSQL does two or three a second):

    JOBQUEUE_TEST_HISTORIES=5000 pytest -o faulthandler_timeout=0 tests/conformance/machine -k postgresql

Hypothesis keeps the histories that failed in `.hypothesis`, and tries them first the next time. Where it finds the
variable CI in the environment, it tries the same histories each time.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conformance.acts import SECOND
from tests.conformance.machine.machine import QueueMachine
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job

HISTORIES = int(os.environ.get("JOBQUEUE_TEST_HISTORIES", "20"))
STEPS = 40


def test_any_history(backend: Backend) -> None:
    """Whatever is done to a queue, in any order, it does, returns, shows and tells what the model says."""
    hearing = backend.hear()
    backend.add(make_job(start_at=START - SECOND))
    tells_by_clock = bool(hearing.heard())
    run_state_machine_as_test(
        lambda: QueueMachine(backend, hearing, tells_by_clock=tells_by_clock),
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
