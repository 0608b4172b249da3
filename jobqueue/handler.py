"""A function that handles the jobs of one type, and how their runs are to be treated."""

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import update_wrapper
from types import MethodType
from typing import Any, Final, Generic, Literal, Never, ParamSpec, Protocol, TypeVar, overload

from jobqueue.context import current_service
from jobqueue.errors import RegistrationError
from jobqueue.job_context import JobContext
from jobqueue.models import Job
from jobqueue.payload import load_json
from jobqueue.retry import RetryPolicy, Waits
from jobqueue.signature import HandlerCall, name_of
from jobqueue.uniqueness import OnConflict, UniqueFor

_P = ParamSpec("_P")
_R_co = TypeVar("_R_co", covariant=True)
_T = TypeVar("_T")
_T_contra = TypeVar("_T_contra", contravariant=True)


class _ServiceTimeout(enum.Enum):
    SERVICE_TIMEOUT = enum.auto()


SERVICE_TIMEOUT: Final = _ServiceTimeout.SERVICE_TIMEOUT
"""A handler's timeout: whatever the settings of the service say."""

HandlerTimeout = timedelta | None | Literal[_ServiceTimeout.SERVICE_TIMEOUT]


class Enqueue(Protocol[_T_contra]):
    """How a job is enqueued for a handler whose payloads are of one type."""

    def __call__(
        self,
        payload: _T_contra,
        *,
        origin: str | None = None,
        priority: int = 0,
        start_at: datetime | None = None,
        delay: timedelta | None = None,
        max_retry_count: int | None = None,
        retry: RetryPolicy | None = None,
        unique_key: str | None = None,
        unique_by: Sequence[str] | None = None,
        unique_for: UniqueFor | timedelta | None = None,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Add a job with *payload*; see ``Handler.enqueue``."""
        ...


class _TypedByFunction:
    """A method that type checkers see with the payload type of the handler's function.

    The overloads follow HandlerCall. A function that can be called with two values of any type (Never stands for that)
    beside its context takes the keys of an object; one that can be called with a single value takes the whole payload.
    """

    def __init__(self, method: Callable[..., Job]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(
        self, handler: Callable[[Never, Never, Never], object], owner: object = None, /
    ) -> Enqueue[Mapping[str, Any]]: ...
    @overload
    def __get__(self, handler: Callable[[JobContext, _T], object], owner: object = None, /) -> Enqueue[_T]: ...
    @overload
    def __get__(
        self, handler: Callable[[Never, Never], object], owner: object = None, /
    ) -> Enqueue[Mapping[str, Any]]: ...
    @overload
    def __get__(self, handler: Callable[[JobContext], object], owner: object = None, /) -> Enqueue[Any]: ...
    @overload
    def __get__(self, handler: Callable[[_T], object], owner: object = None, /) -> Enqueue[_T]: ...
    @overload
    def __get__(self, handler: object, owner: object = None, /) -> Enqueue[Mapping[str, Any]]: ...

    def __get__(self, handler: Any, owner: object = None, /) -> Any:
        return self if handler is None else MethodType(self._method, handler)


class Handler(Generic[_P, _R_co]):
    """A registered function, which can still be called as it is; made by Registry.

    Without a *call*, it is run with the context and the job as they are.

    Raises:
        RegistrationError: *max_retry_count*, *retry*, *timeout* or *atomic* is of the wrong type or negative.
    """

    def __init__(
        self,
        type: str,
        function: Callable[_P, _R_co],
        *,
        call: HandlerCall | None,
        max_retry_count: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: HandlerTimeout = SERVICE_TIMEOUT,
        atomic: bool | str = False,
    ) -> None:
        # First, since it copies the function's attributes, and those of a handler within a handler are its own.
        update_wrapper(self, function)
        name = name_of(function)
        self.type: Final = type
        self.function: Final = function
        self.retry: Final = _checked_policy(retry, name)
        usual_count = len(retry.waits) if isinstance(retry, Waits) else 0
        self.max_retry_count: Final = usual_count if max_retry_count is None else _checked_count(max_retry_count, name)
        self.timeout: Final = _checked_timeout(timeout, name)
        self.atomic: Final = _checked_atomic(atomic, name)
        self._call = call
        self._function: Callable[..., object] = function

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R_co:
        """Call the function itself; no job is involved."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Handler of {self.type!r}: {name_of(self.function)}>"

    @_TypedByFunction
    def enqueue(self, payload: object, **options: Any) -> Job:
        """Add a job for this handler through the current service; return it as it was stored.

        *payload* is what the function takes, or else a mapping with a value for each parameter that needs one. The
        options are those of ``Service.enqueue``; without a *max_retry_count*, the handler's counts.

        Raises:
            InvalidJobError: an option is of the wrong type or size; its ``field`` names it.
            PayloadError: the payload cannot be stored as JSON.
            DuplicateJobError: another job holds the unique key, and *on_conflict* says so; see ``Service.add_job``.
            NotInitializedError: there is no current service.
        """
        return current_service().enqueue(self, payload, **options)

    def run(self, context: JobContext) -> object:
        """Call the function for the context's job, and return what it returns.

        Raises:
            PayloadError: the job's payload is not what the function takes.
        """
        if self._call is None:
            return self._function(context, context.job)
        # Not the job's own payload: what a handler does to its arguments must not show there.
        args, kwargs = self._call.bind(context, load_json(context.job.payload_json))
        return self._function(*args, **kwargs)

    def timeout_or(self, service_timeout: timedelta | None) -> timedelta | None:
        """Return the handler's own timeout, or *service_timeout* when it has left that to the service."""
        return service_timeout if self.timeout is SERVICE_TIMEOUT else self.timeout


def _checked_count(count: object, name: str) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise RegistrationError(f"max_retry_count of {name} must be an int of 0 or more, not {count!r}")
    return count


def _checked_policy(policy: object, name: str) -> RetryPolicy | None:
    if policy is None:
        return None
    if isinstance(policy, type) or not isinstance(policy, RetryPolicy):
        raise RegistrationError(
            f"retry of {name} must be a policy with delay_before(), such as Fixed(timedelta(minutes=1)), not {policy!r}"
        )
    return policy


def _checked_timeout(timeout: object, name: str) -> HandlerTimeout:
    if timeout is None or timeout is SERVICE_TIMEOUT:
        return timeout
    if not isinstance(timeout, timedelta) or timeout < timedelta(0):
        raise RegistrationError(f"timeout of {name} must be a timedelta of zero or more, or None, not {timeout!r}")
    return timeout or None


def _checked_atomic(atomic: object, name: str) -> bool | str:
    if not isinstance(atomic, bool | str) or atomic == "":
        raise RegistrationError(
            f"atomic of {name} must be True or False, or the name of a transaction of the service's, not {atomic!r}"
        )
    return atomic
