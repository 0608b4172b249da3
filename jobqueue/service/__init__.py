"""What an application holds to add, read, reset and delete jobs: the port, whatever stands behind it."""

from jobqueue.service.adds import JobType
from jobqueue.service.whole import AddingMiddleware, Finishable, Service

__all__ = ["AddingMiddleware", "Finishable", "JobType", "Service"]
