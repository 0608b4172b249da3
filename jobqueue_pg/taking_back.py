"""Jobs that are made as good as new take their unique keys back, unless somebody else is faster."""

from collections.abc import Callable
from typing import Final, TypeVar

from psycopg.errors import UniqueViolation

from jobqueue.errors import RefusedError

_TIMES_TO_TAKE_KEYS_BACK: Final = 3

_T = TypeVar("_T")


def taking_keys_back(act: Callable[[bool], _T]) -> _T:
    """Call ``act(takes_keys_back)`` until nobody takes a key that it takes back; at last without taking any."""
    for _ in range(_TIMES_TO_TAKE_KEYS_BACK):
        try:
            return act(True)  # noqa: FBT003 - it has a name where it is called
        except RefusedError as error:
            if not isinstance(error.__cause__, UniqueViolation):
                raise
    return act(False)  # noqa: FBT003 - as above
