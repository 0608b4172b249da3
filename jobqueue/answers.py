"""What a handler may return besides a result."""

from datetime import timedelta
from typing import Any

import attrs


def _check_delay(_: object, __: object, value: Any) -> None:
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise ValueError(f"Snooze needs a delay of zero or more as a timedelta, not {value!r}")


@attrs.frozen
class Snooze:
    """Returned by a handler: run the job again after *delay*, as if this run had not been; no retry is used up."""

    delay: timedelta = attrs.field(validator=_check_delay)


@attrs.frozen
class Discard:
    """Returned by a handler: the job is not worth running any more; it is cancelled, with *reason* as its message."""

    reason: str
