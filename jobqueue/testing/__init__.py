"""For tests of applications: run what is due, see what is enqueued, move the clock; run jobs at once, or ignore them.

Nothing of this starts a thread, or waits.
"""

from jobqueue.testing.asserting import assert_enqueued, assert_not_enqueued, enqueued_jobs
from jobqueue.testing.clock import Clock
from jobqueue.testing.draining import drain
from jobqueue.testing.joining import joining
from jobqueue.testing.modes import ignore_job_bundles, ignore_jobs, synchronous_jobs
from jobqueue.testing.runs import Drained, DrainError, Run

__all__ = [
    "Clock",
    "DrainError",
    "Drained",
    "Run",
    "assert_enqueued",
    "assert_not_enqueued",
    "drain",
    "enqueued_jobs",
    "ignore_job_bundles",
    "ignore_jobs",
    "joining",
    "synchronous_jobs",
]
