"""What a worker process is to do, in a form that can be handed to a new process."""

import importlib
import logging
import traceback
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeGuard

import attrs

from jobqueue.context import current_service
from jobqueue.errors import JobQueueError
from jobqueue.middleware import LogRuns
from jobqueue.queue_service import QueueService
from jobqueue.registry import Registry, default_registry
from jobqueue.service import Service
from jobqueue.worker import WorkerPool
from jobqueue.worker.lanes import types_within

_USUAL_THREADS: Final = 4
_PACKAGE: Final = Path(__file__).parents[1]
_FORMAT: Final = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"


NOT_DONE: Final = (Exception, SystemExit, KeyboardInterrupt)
"""What code of users may raise that cannot go on: a module that lacks its settings may well end its process."""


class PlanError(JobQueueError):
    """A worker process cannot begin as it was told to: what the user should know, in a line."""


@attrs.frozen(kw_only=True)
class Plan:
    """How each worker process sets its application up, and what its pool is like.

    *set_up* names a function, as ``package.module:function``, which each process calls with *arguments* in its main
    thread, before anything else. It makes the application ready (imports what registers handlers, configures logging)
    and returns what is to work: a WorkerPool that was not started, a Service, or None for the current service. A pool
    is taken as it is; for a service, one is made of the default registry by the other values. Whatever it raises ends
    the process with a message of one line.

    Everything has to be picklable, as processes are spawned.
    """

    set_up: str
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    threads: int | None = None
    """None: 4."""
    types: Sequence[str] = ()
    """Of which alone jobs are claimed: types and patterns; none: all that have a handler."""
    lanes: Mapping[str, int] = attrs.field(factory=dict[str, int])
    log_runs: bool = False
    finish_within: timedelta | None = timedelta(seconds=30)
    """How long running jobs may go on once the process is asked to end; None: as long as they take."""

    def make_pool(self) -> WorkerPool:
        """Set the application up, and return its pool. Raises PlanError."""
        made = self._set_up()
        log_somewhere()
        try:
            return self._pool_of(made)
        except (JobQueueError, ValueError, TypeError) as error:
            raise PlanError(in_one_line(error)) from error

    def _set_up(self) -> object:
        try:
            made = _function_named(self.set_up)(**self.arguments)
            return current_service() if made is None else made
        except JobQueueError as error:
            raise PlanError(in_one_line(error)) from error
        except NOT_DONE as error:
            raise PlanError(described(error)) from error

    def _pool_of(self, made: object) -> WorkerPool:
        if isinstance(made, WorkerPool):
            return self._checked(made)
        if not is_service(made):
            raise PlanError(f"{self.set_up} has returned {made!r:.60}, which is neither a service nor a worker pool")
        if not default_registry.patterns():
            raise PlanError(
                "no handlers are registered: decorate functions with @jobqueue.handler(...) in a module that is "
                "imported, or name a pool that has a registry of its own"
            )
        pool = WorkerPool(
            made,
            self._registry(),
            threads=_USUAL_THREADS if self.threads is None else self.threads,
            lanes=self.lanes,
        )
        if self.log_runs:
            pool.use(LogRuns())
        return pool

    def _registry(self) -> Registry:
        if not self.types:
            return default_registry
        within = {each: types_within(each, default_registry) for each in self.types}
        if missing := [each for each, types in within.items() if not types]:
            known = ", ".join(default_registry.patterns())
            raise PlanError(f"jobs of type {missing[0]!r} have no handler here: there are handlers for {known}")
        return default_registry.only(name for types in within.values() for name in types)

    def _checked(self, pool: WorkerPool) -> WorkerPool:
        if pool.is_running:
            raise PlanError("this worker pool was started already: let the command start it")
        if self.threads is not None or self.types or self.lanes or self.log_runs:
            raise PlanError(
                "this worker pool has threads, types, lanes and middleware of its own: set them where it is made"
            )
        if not pool.registry.patterns():
            raise PlanError("no handlers are registered in the registry of this worker pool")
        return pool


def is_service(thing: object) -> TypeGuard[Service]:
    """Whether *thing* is a Service, for all that can be told."""
    if isinstance(thing, type):
        return False
    return isinstance(thing, QueueService) or all(hasattr(thing, name) for name in ("store", "notifier", "attach"))


def log_somewhere() -> None:
    """Have logs go to the standard error, unless the application has said where they go."""
    if not logging.getLogger("jobqueue").hasHandlers():
        logging.basicConfig(level=logging.INFO, format=_FORMAT)


def in_one_line(error: BaseException) -> str:
    """Return what an error says, or else what it is called."""
    return " ".join(str(error).split()) or type(error).__qualname__


def _function_named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def described(error: BaseException) -> str:
    """Return what an error is, what it says, and the last line of code outside of this package that it came through."""
    places = [place for place in traceback.extract_tb(error.__traceback__) if not _is_ours(place.filename)]
    place = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__qualname__}: {in_one_line(error)}{place}"


def _is_ours(filename: str) -> bool:
    return filename.startswith(("<frozen ", importlib.__path__[0])) or Path(filename).is_relative_to(_PACKAGE)
