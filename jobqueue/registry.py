"""Which function handles which type of job: handlers, and the registry that finds them."""

import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload
from weakref import WeakSet

import attrs

from jobqueue.errors import DuplicateHandlerError, InvalidJobError, PayloadError, RegistrationError, RegistryFrozenError
from jobqueue.handler import SERVICE_TIMEOUT, Handler, HandlerTimeout
from jobqueue.job_context import JobContext
from jobqueue.limits import PATTERN_BOUNDARIES, check_type_or_pattern
from jobqueue.models import Job
from jobqueue.payload import job_type_of
from jobqueue.retry import RetryPolicy
from jobqueue.schedules import Missed, Overlap, Schedule
from jobqueue.signature import HandlerCall, check_takes_context_and_job, name_of

__all__ = ["SERVICE_TIMEOUT", "Handler", "Registry", "ScheduleRetry", "default_registry"]

ScheduleRetry = Callable[[JobContext, Job], datetime]
"""Says when a job whose run has failed is to be run again."""

_CACHED_TYPES: Final = 1000

_P = ParamSpec("_P")
_R = TypeVar("_R")
_V = TypeVar("_V")
_Class = type[Any]


class HandlerOptions(TypedDict, total=False):
    """How the runs of a handler are to be treated; see ``Registry.handler``."""

    max_retry_count: int | None
    retry: RetryPolicy | None
    timeout: HandlerTimeout
    atomic: bool | str


class _ByType(Generic[_V]):
    """What is registered for job types and patterns, never changed: a registry replaces the whole of it."""

    def __init__(self, values: Mapping[str, _V]) -> None:
        self.values: Final = values
        self.patterns: Final = tuple(sorted(values))
        self._by_pattern = lru_cache(maxsize=_CACHED_TYPES)(self._find_by_pattern)

    def find(self, job_type: str) -> _V | None:
        """Return what is registered for the type itself, or else for the longest pattern that it matches."""
        exact = self.values.get(job_type)
        return self._by_pattern(job_type) if exact is None else exact

    def _find_by_pattern(self, job_type: str) -> _V | None:
        for end in range(len(job_type), 0, -1):
            if job_type[end - 1] in PATTERN_BOUNDARIES and (found := self.values.get(f"{job_type[:end]}*")) is not None:
                return found
        return self.values.get("*")


class Registry:
    """Handlers by job type, and who schedules the retries of a type.

    A job type is 1 to 100 characters, without ``*``. In its place, a pattern may be registered: ``report:*`` (or with
    ``.`` or ``/`` before the star) for all types that begin so, ``*`` for all. The exact type is preferred to the
    longest pattern, that to shorter ones. While a worker pool runs on the registry, it is frozen: then whatever
    changes its handlers raises RegistryFrozenError.
    """

    def __init__(self) -> None:
        self._begin_anew()
        _registries.add(self)
        self._handlers: _ByType[Handler[..., Any]] = _ByType({})
        self._retry_schedules: _ByType[ScheduleRetry] = _ByType({})
        self._schedules = dict[str, Schedule]()

    def _begin_anew(self) -> None:
        """Be thawed, and nobody's: the threads of its parent, one of which may hold the lock, are not in a child."""
        # A signal handler that finishes a pool may interrupt whoever holds it.
        self._lock = threading.RLock()
        self._freezes = 0

    # A class can be called, too, and is taken for a payload's; so the first overload has to come first.
    @overload
    def handler(  # type: ignore[overload-overlap]
        self,
        type: str | _Class | None = None,
        *,
        max_retry_count: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: HandlerTimeout = SERVICE_TIMEOUT,
        atomic: bool | str = False,
    ) -> Callable[[Callable[_P, _R]], Handler[_P, _R]]: ...
    @overload
    def handler(self, type: Callable[_P, _R], /) -> Handler[_P, _R]: ...

    def handler(self, type: Any = None, **options: Any) -> Any:
        """Make the decorated function the handler of a job type; ``@registry.handler`` alone is enough.

        *type* is a name, a pattern or a payload class; None takes the class that the payload parameter is annotated
        with. *max_retry_count* is for jobs that do not say themselves how often they are run again after a failure
        (None: as often as *retry* lists Waits, else not at all), *retry* says when and after which errors (None:
        exponentially later, see DEFAULT_POLICY). *timeout* None (or zero) means no limit; the
        default is the service's ``job_timeout``. An *atomic* handler works on ``ctx.connection``, in a transaction that
        commits together with the job's completion, or not at all; where *atomic* is a name, in the transaction that
        the application calls so (``jobqueue_pg.connect(transactions=...)``). What parameters the function may have,
        HandlerCall tells.

        Raises:
            RegistrationError: the function, the type or an option is not fit for this.
            DuplicateHandlerError: the type has a handler.
            RegistryFrozenError: a worker pool is running.
        """
        if type is not None and not isinstance(type, str) and not inspect.isclass(type):
            return self._register_call(None, type)

        def register(function: Callable[_P, _R]) -> Handler[_P, _R]:
            return self._register_call(type, function, **options)

        return register

    def register(self, type: str, function: Callable[[JobContext, Job], object]) -> None:
        """Have jobs of *type* handled by ``function(context, job)``, which reads the payload from the job itself.

        Raises as ``handler`` does.
        """
        check_takes_context_and_job(function)
        self._add(Handler(_checked_type(type), function, call=None))

    def register_func(self, function: Callable[_P, _R]) -> Handler[_P, _R]:
        """Have *function* handle the jobs of the class that its payload parameter is annotated with.

        Raises as ``handler`` does.
        """
        return self._register_call(None, function)

    def register_func_for_job_type(self, type: str, function: Callable[_P, _R]) -> Handler[_P, _R]:
        """Have *function* handle the jobs of *type*. Raises as ``handler`` does."""
        return self._register_call(_checked_type(type), function)

    def unregister(self, *types: str) -> None:
        """Forget handlers and retry schedules: those of *types* (names or patterns), or all when none is named.

        So are the schedules that were registered with these handlers; those in the database stay.
        A type that has none is none afterwards either: it is passed over.

        Raises:
            RegistryFrozenError: a worker pool is running.
        """
        with self._lock:
            self._check_thawed()
            gone = set(types) or {*self._handlers.values, *self._retry_schedules.values}
            self._handlers = _without(self._handlers, gone)
            self._retry_schedules = _without(self._retry_schedules, gone)
            self._schedules = {name: schedule for name, schedule in self._schedules.items() if name not in gone}

    def register_schedule_retry(self, type: str, function: ScheduleRetry) -> None:
        """Have ``function(context, job)`` say when a job of *type* is run again, in place of a retry policy.

        It is called after a failed run, if there are retries left, with the job showing the error. *type* may be a
        pattern, and worker pools may be running.

        Raises:
            RegistrationError: *type* is no type or pattern, or *function* cannot be called like this.
            DuplicateHandlerError: the type has a retry schedule.
        """
        check_takes_context_and_job(function)
        _checked_type(type)
        with self._lock:
            if (other := self._retry_schedules.values.get(type)) is not None:
                raise DuplicateHandlerError(
                    f"retries of {type!r} are scheduled by {name_of(other)}; {name_of(function)} cannot do it, too"
                )
            self._retry_schedules = _ByType({**self._retry_schedules.values, type: function})

    def scheduled(
        self,
        name: str,
        *,
        payload: object = None,
        cron: str | None = None,
        every: timedelta | None = None,
        tz: str = "UTC",
        start_at: datetime | None = None,
        missed: Missed | str = Missed.ONE,
        overlap: Overlap | str = Overlap.ALLOW,
        priority: int = 0,
        origin: str | None = None,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Callable[_P, _R]], Handler[_P, _R]]:
        """Make the decorated function the handler of the job type *name*, and have such a job enqueued at each tick.

        When a worker pool starts on this registry, the schedule *name* is kept in the database: added if it is not
        there, and changed if the code says something else than it did before. So what is changed at run time stays
        until the code changes; a pause stays in any case. When this code is gone, the schedule goes on until somebody
        calls ``remove_schedule``. The values are those of ``Service.add_schedule``, the *options* those of ``handler``.

        Raises:
            InvalidScheduleError: as ``add_schedule``; RegistrationError: as ``handler``, and when *payload* does not
                fit the function's parameters; DuplicateHandlerError, RegistryFrozenError: as ``handler``.
        """
        schedule = Schedule.new(
            name,
            name,
            payload,
            cron=cron,
            every=every,
            tz=tz,
            start_at=start_at,
            missed=missed,
            overlap=overlap,
            priority=priority,
            origin=origin,
        )

        def register(function: Callable[_P, _R]) -> Handler[_P, _R]:
            _check_payload_fits(schedule, function)
            made = self._register_call(name, function, **options)
            whole = attrs.evolve(schedule, max_retry_count=made.max_retry_count)
            with self._lock:
                self._schedules[name] = attrs.evolve(whole, declared=whole.definition)
            return made

        return register

    def schedules(self) -> list[Schedule]:
        """List what was registered by ``scheduled``, by name."""
        return [self._schedules[name] for name in sorted(self._schedules)]

    def find(self, job_type: str) -> Handler[..., Any] | None:
        """Return the handler for jobs of a type: its own, or else that of the longest matching pattern."""
        return self._handlers.find(job_type)

    def schedule_retry_of(self, job_type: str) -> ScheduleRetry | None:
        """Return what schedules the retries of a type, found as handlers are."""
        return self._retry_schedules.find(job_type)

    def is_registered(self, type: str) -> bool:
        """Whether jobs of *type* have a handler here."""
        return self.find(type) is not None

    def registered_job_types(self) -> list[str]:
        """List the types and patterns that have a handler, sorted."""
        return list(self._handlers.patterns)

    def patterns(self) -> tuple[str, ...]:
        """Return the types and patterns for which to claim jobs."""
        return self._handlers.patterns

    def is_atomic(self, job_type: str) -> bool:
        """Whether jobs of a type, or those that a pattern stands for, have a handler with a transaction of our own."""
        handler = self.find(job_type)
        return handler is not None and handler.atomic is True

    def transactions(self) -> frozenset[str]:
        """Return the names of those transactions of the application in which handlers run."""
        return frozenset(
            handler.atomic for handler in self._handlers.values.values() if isinstance(handler.atomic, str)
        )

    def only(self, types: Iterable[str]) -> "Registry":
        """Return a registry of the same handlers, retry schedules and schedules, for jobs of *types* alone.

        These may be patterns. A type that only a pattern covers has the handler of that.

        Raises:
            RegistrationError: one of *types* has no handler.
        """
        made = Registry()
        for name in types:
            if (found := self.find(_checked_type(name))) is None:
                raise RegistrationError(f"jobs of type {name!r} have no handler here")
            made._handlers = _ByType({**made._handlers.values, name: found})
        made._retry_schedules, made._schedules = self._retry_schedules, self._schedules
        return made

    def freeze(self) -> None:
        """Refuse changes of handlers until ``thaw`` has been called as often as this."""
        with self._lock:
            self._freezes += 1

    def thaw(self) -> None:
        """Take back one ``freeze``. Raises RegistrationError when there is none."""
        with self._lock:
            if self._freezes == 0:
                raise RegistrationError("the registry is not frozen: thaw() takes back one freeze()")
            self._freezes -= 1

    def _register_call(self, type: str | _Class | None, function: Callable[_P, _R], **options: Any) -> Handler[_P, _R]:
        call = HandlerCall.of(function)
        named = type if isinstance(type, str) else _type_from_class(type or call.payload_type, call.name)
        handler = Handler(_checked_type(named), function, call=call, **options)
        self._add(handler)
        return handler

    def _add(self, handler: Handler[..., Any]) -> None:
        with self._lock:
            self._check_thawed()
            if (other := self._handlers.values.get(handler.type)) is not None:
                raise DuplicateHandlerError(
                    f"jobs of type {handler.type!r} are handled by {name_of(other.function)}; "
                    f"{name_of(handler.function)} cannot handle them, too"
                )
            self._handlers = _ByType({**self._handlers.values, handler.type: handler})

    def _check_thawed(self) -> None:
        if self._freezes:
            raise RegistryFrozenError(
                "handlers cannot come or go while worker threads run: register them before start_threads(), "
                "or finish_threads() first"
            )


def _without(table: _ByType[_V], gone: set[str]) -> _ByType[_V]:
    return _ByType({type_: value for type_, value in table.values.items() if type_ not in gone})


def _check_payload_fits(schedule: Schedule, function: Callable[..., object]) -> None:
    try:
        HandlerCall.of(function).check_fits(schedule.payload)
    except PayloadError as error:
        raise RegistrationError(
            f"schedule {schedule.name!r} would have failing jobs, by its payload=: {error}"
        ) from error


def _type_from_class(payload_class: object, function_name: str) -> str:
    if payload_class is None:
        raise RegistrationError(
            f"{function_name} does not tell its job type, for which its one payload parameter must be annotated with a "
            "class: name the type"
        )
    try:
        return job_type_of(payload_class)
    except InvalidJobError as error:
        raise RegistrationError(f"{function_name} does not tell its job type: {error}") from error


def _checked_type(type: str) -> str:
    try:
        return check_type_or_pattern("type", type)
    except InvalidJobError as error:
        raise RegistrationError(f"this is no job type: {error}") from error


def _begin_anew_in_child() -> None:
    for registry in list(_registries):
        registry._begin_anew()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - a registry's own business


_registries: Final = WeakSet[Registry]()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_begin_anew_in_child)

default_registry: Final = Registry()
"""Where the functions of the package, such as ``jobqueue.handler``, register."""


@attrs.frozen
class Registered:
    """What has a handler in any registry of this process."""

    registries: Sequence[Registry]

    @property
    def names(self) -> list[str]:
        """The types and patterns."""
        return sorted({name for registry in self.registries for name in registry.patterns()})

    def covers(self, job_type: str) -> bool:
        """Whether jobs of *job_type* have a handler."""
        return any(registry.find(job_type) is not None for registry in self.registries)


def registered_anywhere() -> Registered:
    """Look at all registries of this process."""
    return Registered(list(_registries))


handler = default_registry.handler
scheduled = default_registry.scheduled
register = default_registry.register
register_func = default_registry.register_func
register_func_for_job_type = default_registry.register_func_for_job_type
register_schedule_retry = default_registry.register_schedule_retry
unregister = default_registry.unregister
is_registered = default_registry.is_registered
registered_job_types = default_registry.registered_job_types
