"""What type checkers know of the services that stand in for a real one: checked by mypy and pyright, never run."""

from typing import assert_type

from jobqueue.backends.nothing import DoNothingService, ServiceWithError
from jobqueue.models import Job
from jobqueue.service import Service

services: list[Service] = [DoNothingService(), DoNothingService(origin="here"), ServiceWithError(ValueError("why"))]
assert_type(ServiceWithError(KeyError()).enqueue("t", 1), Job)
