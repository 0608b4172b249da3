"""When a job is run again after a failed run: policies are values, and know nothing of the job."""

import math
import random
from datetime import timedelta
from typing import Final, Protocol, runtime_checkable

import attrs

_ZERO: Final = timedelta(0)


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


@attrs.frozen
class Never:
    """Give up after the first failed run, however many retries the job has."""

    def delay_before(self, retry: int) -> timedelta | None:  # noqa: ARG002 - the port's signature
        """Return None: there is no retry."""
        return None


@attrs.frozen
class Fixed:
    """Wait equally long before every retry.

    Raises:
        ValueError: *delay* is not a timedelta of zero or more.
    """

    delay: timedelta = attrs.field(validator=_check_not_negative)

    def delay_before(self, retry: int) -> timedelta | None:  # noqa: ARG002 - the port's signature
        """Return the delay."""
        return self.delay


@attrs.frozen(kw_only=True)
class Exponential:
    """Wait up to *base* before the first retry, *factor* times as long before each further one, and never over *cap*.

    With *jitter*, the wait is drawn evenly from zero to that, so that jobs that failed together do not return together.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog ("full jitter").

    Raises:
        ValueError: *base* is not a timedelta above zero, *cap* is less than *base*, or *factor* is below 1.
    """

    base: timedelta = attrs.field(default=timedelta(seconds=1), validator=_check_positive)
    cap: timedelta = attrs.field(default=timedelta(hours=1), validator=_check_positive)
    factor: float = attrs.field(default=2.0, validator=_check_factor)
    jitter: bool = True

    def __attrs_post_init__(self) -> None:
        if self.cap < self.base:
            raise ValueError(f"cap must not be less than base ({self.base}), but is {self.cap}")

    def delay_before(self, retry: int) -> timedelta | None:
        """Return how long to wait before *retry*; never None."""
        longest = self._longest_before(retry)
        return longest * random.random() if self.jitter else longest  # noqa: S311 - nothing to guess here

    def _longest_before(self, retry: int) -> timedelta:
        try:
            return min(self.cap, self.base * self.factor ** (retry - 1))
        except OverflowError:
            return self.cap


DEFAULT_POLICY: Final[RetryPolicy] = Exponential()
"""For jobs that have retries left, and whose handler names no policy."""
