"""Which job types have a handler in this process, and what is done about a job that is added for another one."""

import logging
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final, Literal, cast, get_args

from jobqueue.errors import InvalidJobError
from jobqueue.registry import default_registry, registered_anywhere
from jobqueue.service import JobType

logger = logging.getLogger(__name__)

UnknownTypes = Literal["allow", "warn", "refuse"]
"""What is done about a job whose type has no handler in this process: nothing, a warning if it is almost one, an error.

Other processes may have one: who only adds jobs needs no handlers.
"""

_WAYS: Final[Sequence[str]] = get_args(UnknownTypes)
_LIKE_A_SLIP: Final = 0.8
_LIKE_ENOUGH_TO_NAME: Final = 0.6
_MOST_JUDGED: Final = 1000
_MOST_NAMED: Final = 3


def check_unknown_types(value: object) -> UnknownTypes:
    """Return what to do about unknown types. Raises ValueError."""
    if isinstance(value, str) and value in _WAYS:
        return cast("UnknownTypes", str.__str__(value))
    raise ValueError(f"unknown_types must be one of {', '.join(map(repr, _WAYS))}, not {value!r:.60}")


class KnownTypes:
    """Checks the types of jobs that are added, at the price of a look-up for those that have a handler."""

    def __init__(self, unknown: UnknownTypes) -> None:
        self._unknown = check_unknown_types(unknown)
        self._judged = set[str]()

    def check(self, type_or_handler: str | JobType) -> JobType | None:
        """Return the handler that is meant, or None when a type has none here.

        If that is not allowed, raise InvalidJobError, or warn.
        """
        if not isinstance(type_or_handler, str):
            return type_or_handler
        handler = default_registry.find(type_or_handler)
        if handler is None and self._unknown != "allow" and type_or_handler not in self._judged:
            self._judge(type_or_handler)
        return handler

    def check_all(self, job_types: Iterable[str]) -> None:
        """Check each of *job_types*, once."""
        if self._unknown != "allow":
            for job_type in dict.fromkeys(job_types):
                self.check(job_type)

    def _judge(self, job_type: str) -> None:
        if self._unknown == "refuse":
            self._refuse(job_type)
        else:
            self._warn(job_type)

    def _refuse(self, job_type: str) -> None:
        known = registered_anywhere()
        if known.covers(job_type):
            return
        meant = _similar(job_type, known.names, _LIKE_ENOUGH_TO_NAME)
        raise InvalidJobError(
            f"no handler is registered for jobs of type {job_type!r}: {_hint(meant, known.names)}", field="type"
        )

    def _warn(self, job_type: str) -> None:
        """Warn of a type that is almost one that has a handler: when it is first added, since to judge takes long."""
        if len(self._judged) >= _MOST_JUDGED:
            return
        self._judged.add(job_type)
        known = registered_anywhere()
        if known.covers(job_type):
            return
        if meant := _similar(job_type, known.names, _LIKE_A_SLIP):
            logger.warning(
                "a job of type %r is added, for which no handler is registered here: did you mean %s? If another "
                "process handles it, unknown_types='allow' says so",
                job_type,
                _either(meant),
            )


def _similar(job_type: str, names: Sequence[str], cutoff: float) -> Sequence[str]:
    return get_close_matches(job_type, names, n=_MOST_NAMED, cutoff=cutoff)


def _hint(meant: Sequence[str], names: Sequence[str]) -> str:
    if meant:
        return f"did you mean {_either(meant)}?"
    if names:
        return "is the module imported that has it? unknown_types='allow' lets jobs be added that others handle"
    return (
        "nor for any other, in this process. Import the modules that have them, or let jobs be added that others "
        "handle, by unknown_types='allow'"
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))
