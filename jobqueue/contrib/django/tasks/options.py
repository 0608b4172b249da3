"""What OPTIONS of the backend may say."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, cast

import attrs

from jobqueue.contrib.django.tasks.framework import InvalidTaskBackend
from jobqueue.errors import InvalidJobError
from jobqueue.handler import SERVICE_TIMEOUT, HandlerTimeout
from jobqueue.retry import RetryPolicy
from jobqueue.stored_policy import check_retry, check_retry_count


@attrs.frozen(kw_only=True)
class Options:
    """How the tasks of a backend are treated, unless they say otherwise."""

    max_retry_count: int | None = None
    """How often a run that failed is repeated; None: as often as *retry* lists waits, else not at all."""
    retry: RetryPolicy | None = None
    timeout: HandlerTimeout = SERVICE_TIMEOUT
    """What ``job_timeout`` is for other handlers; None: no limit."""
    atomic: bool | str = False
    """Whether each task runs in a transaction that commits together with its completion: as ``handler(atomic=...)``."""

    @property
    def of_runs(self) -> tuple[HandlerTimeout, bool | str]:
        """What goes for a queue's runs, and not for single jobs."""
        return self.timeout, self.atomic

    @classmethod
    def of(cls, alias: str, said: object) -> "Options":
        """Read OPTIONS of the backend *alias*. Raises InvalidTaskBackend."""
        if not isinstance(said, Mapping):
            raise _wrong(alias, f"must be a dict, not {said!r}")
        given = cast("Mapping[str, Any]", said)
        known = [field.name for field in attrs.fields(cls)]
        for name in given:
            if name not in known:
                near = get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
                hint = f": did you mean {near[0]!r}?" if near else f": there are {', '.join(known)}"
                raise _wrong(alias, f"{name!r} is no option{hint}")
        options = cls(**given)
        options.check(alias)
        return options

    def check(self, alias: str) -> None:
        """Raise InvalidTaskBackend if a value is of the wrong type."""
        try:
            check_retries(self.max_retry_count, self.retry)
        except InvalidJobError as error:
            raise _wrong(alias, str(error)) from error
        if not _is_timeout(self.timeout):
            raise _wrong(alias, f"'timeout' must be a timedelta, or None for no limit, not {self.timeout!r}")
        if not _is_atomic(self.atomic):
            raise _wrong(alias, f"'atomic' must be True or False, or an alias of DATABASES, not {self.atomic!r}")


def _is_timeout(value: object) -> bool:
    return value is None or value is SERVICE_TIMEOUT or (isinstance(value, timedelta) and value >= timedelta(0))


def _is_atomic(value: object) -> bool:
    return isinstance(value, bool | str) and value != ""


def check_names(alias: str, queues: object) -> None:
    """Raise InvalidTaskBackend unless QUEUES of the backend *alias* are several strings, and not one."""
    if isinstance(queues, str) or not isinstance(queues, Iterable):
        raise InvalidTaskBackend(f"TASKS[{alias!r}]['QUEUES'] must be a list of names, not {queues!r}")
    for name in cast("Iterable[object]", queues):
        if not isinstance(name, str):
            raise InvalidTaskBackend(f"TASKS[{alias!r}]['QUEUES'] must be a list of names, and {name!r} is none")


def check_retries(count: int | None, policy: RetryPolicy | None) -> None:
    """Raise InvalidJobError unless jobs can be added with this number of retries, and this policy."""
    if policy is not None:
        check_retry("retry", policy)
    check_retry_count(count, policy)


def _wrong(alias: str, what: str) -> InvalidTaskBackend:
    return InvalidTaskBackend(f"TASKS[{alias!r}]['OPTIONS']: {what}")
