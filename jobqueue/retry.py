"""When a job is run again after a failed run: policies are values, and know nothing of the job."""

import math
import random
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any, Final, Protocol, cast, runtime_checkable

import attrs

_ZERO: Final = timedelta(0)
_HOUR: Final = timedelta(hours=1)


@runtime_checkable
class RetryPolicy(Protocol):
    """How long to wait before each retry of a job."""

    def delay_before(self, retry: int) -> timedelta | None:
        """Return how long to wait before *retry* (1 is the first one), or None to give up."""
        ...


def _check_not_negative(_: object, attribute: "attrs.Attribute[timedelta]", value: object) -> None:
    if not isinstance(value, timedelta):
        raise ValueError(f"{attribute.name} must be a timedelta, not {value!r}")  # noqa: TRY004 - one error for all
    if value < _ZERO:
        raise ValueError(f"{attribute.name} must not be negative, but is {value}")


def _check_positive(owner: object, attribute: "attrs.Attribute[timedelta]", value: object) -> None:
    _check_not_negative(owner, attribute, value)
    if value == _ZERO:
        raise ValueError(f"{attribute.name} must be longer than zero")


def _check_factor(_: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    if not isinstance(value, int | float) or not 1 <= value < math.inf:
        raise ValueError(f"{attribute.name} must be a finite number of at least 1, not {value!r}")


def _check_bool(_: object, attribute: "attrs.Attribute[bool]", value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be True or False, not {value!r:.60}")  # noqa: TRY004 - as above


def _check_waits(owner: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, tuple) or not value:
        raise ValueError(f"{attribute.name} must be one timedelta or more, not {value!r}")
    for wait in cast("tuple[object, ...]", value):
        _check_not_negative(owner, attribute, wait)


def _tuple_of(waits: Any) -> tuple[timedelta, ...]:
    # What is none, the validator refuses.
    return tuple(cast("Iterable[timedelta]", waits)) if isinstance(waits, Iterable) else waits


def kinds_of(error: BaseException) -> frozenset[str]:
    """Return the names of the classes that an error is of, as ErrorFilter takes them."""
    return frozenset(_name(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException))


def _names_of(kinds: Any) -> tuple[str, ...]:
    if isinstance(kinds, Iterable) and not isinstance(kinds, str | type):
        return tuple(_name(kind) for kind in cast("Iterable[object]", kinds))
    return (_name(kinds),)


def _name(kind: object) -> str:
    if isinstance(kind, str) and kind:
        return kind
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return f"{kind.__module__}.{kind.__qualname__}"
    raise ValueError(f"errors are given as exception classes, or as their names, not as {kind!r}")


@attrs.frozen(kw_only=True)
class ErrorFilter:
    """After which errors there is a retry at all: those of *only_for*, if any are named, but never of *never_for*.

    Both are exception classes, which stand for those that are derived from them, or their names (``module.Class``).

    Raises:
        ValueError: something else is given.
    """

    only_for: tuple[str, ...] = attrs.field(default=(), converter=_names_of)
    never_for: tuple[str, ...] = attrs.field(default=(), converter=_names_of)

    def retries_after(self, kinds: AbstractSet[str]) -> bool:
        """Whether there is a retry after an error of these *kinds*, as ``kinds_of`` names them."""
        return kinds.isdisjoint(self.never_for) and (not self.only_for or not kinds.isdisjoint(self.only_for))


@attrs.frozen
class Never:
    """Give up after the first failed run, however many retries the job has."""

    def delay_before(self, retry: int) -> timedelta | None:  # noqa: ARG002 - the port's signature
        """Return None: there is no retry."""
        return None


@attrs.frozen
class Fixed(ErrorFilter):
    """Wait equally long before every retry.

    Raises:
        ValueError: *delay* is not a timedelta of zero or more; as ErrorFilter.
    """

    delay: timedelta = attrs.field(validator=_check_not_negative)

    def delay_before(self, retry: int) -> timedelta | None:  # noqa: ARG002 - the port's signature
        """Return the delay."""
        return self.delay


def _an_hour_or(step: object) -> timedelta:
    # What is no timedelta is refused later, by its name.
    return max(step, _HOUR) if isinstance(step, timedelta) else _HOUR


@attrs.frozen
class Linear(ErrorFilter):
    """Wait *step* before the first retry, longer by as much before each further one, and never over *cap*.

    Without a *cap* it is an hour, or *step* when that is longer.

    Raises:
        ValueError: *step* is not a timedelta above zero, or *cap* is less than *step*; as ErrorFilter.
    """

    step: timedelta = attrs.field(validator=_check_positive)
    cap: timedelta = attrs.field(
        default=attrs.Factory(lambda policy: _an_hour_or(policy.step), takes_self=True),
        validator=_check_positive,
        kw_only=True,
    )

    def __attrs_post_init__(self) -> None:
        if self.cap < self.step:
            raise ValueError(f"cap must not be less than step ({self.step}), but is {self.cap}")

    def delay_before(self, retry: int) -> timedelta | None:
        """Return how long to wait before *retry*; never None."""
        return self.cap if retry > self.cap // self.step else self.step * retry


@attrs.frozen
class Waits(ErrorFilter):
    """Wait as long as listed before each retry; the last one holds for all further retries.

    A handler with this policy that does not say how often its jobs are run again does so once for each of *waits*.

    Raises:
        ValueError: *waits* is not one timedelta of zero or more, or several; as ErrorFilter.
    """

    waits: tuple[timedelta, ...] = attrs.field(converter=_tuple_of, validator=_check_waits)

    def delay_before(self, retry: int) -> timedelta | None:
        """Return how long to wait before *retry*; never None."""
        return self.waits[min(retry, len(self.waits)) - 1]


@attrs.frozen(kw_only=True)
class Exponential(ErrorFilter):
    """Wait up to *base* before the first retry, *factor* times as long before each further one, and never over *cap*.

    With *jitter*, the wait is drawn evenly from zero to that, so that jobs that failed together do not return together.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog ("full jitter").

    Raises:
        ValueError: *base* is not a timedelta above zero, *cap* is less than *base*, *factor* is below 1, or *jitter* no
            bool; as ErrorFilter.
    """

    base: timedelta = attrs.field(default=timedelta(seconds=1), validator=_check_positive)
    cap: timedelta = attrs.field(default=_HOUR, validator=_check_positive)
    factor: float = attrs.field(default=2.0, validator=_check_factor)
    jitter: bool = attrs.field(default=True, validator=_check_bool)

    def __attrs_post_init__(self) -> None:
        if self.cap < self.base:
            raise ValueError(f"cap must not be less than base ({self.base}), but is {self.cap}")

    def delay_before(self, retry: int) -> timedelta | None:
        """Return how long to wait before *retry*; never None."""
        longest = self._longest_before(retry)
        return longest * random.random() if self.jitter else longest  # noqa: S311 - nothing to guess here

    def _longest_before(self, retry: int) -> timedelta:
        try:
            # An int would be raised to its power exactly, which takes as long as the number is.
            return min(self.cap, self.base * float(self.factor) ** (retry - 1))
        except OverflowError:
            return self.cap


DEFAULT_POLICY: Final[RetryPolicy] = Exponential()
"""For jobs that have retries left, and whose handler names no policy."""
