"""What a project's setting JOBQUEUE says."""

import difflib
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final, cast

import attrs
from attrs.validators import optional
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from jobqueue.errors import JobQueueError
from jobqueue.known_types import UnknownTypes, check_unknown_types
from jobqueue.limits import check_name
from jobqueue.retention import Retention, as_retention
from jobqueue.settings import WorkerSettings
from jobqueue.uniqueness import check_lock_timeout
from jobqueue.worker.lanes import check_lanes

NAME: Final = "JOBQUEUE"
"""How the setting is called."""

_ANY_NUMBER_OF_THREADS: Final = 2**31

_Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]


def _of(*kinds: type) -> _Validator:
    """Return a validator for values of *kinds*; a bool is no int."""

    def check(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise TypeError(f"{attribute.name} must be {names}, not {value!r:.60}")

    return check


def _at_least(lowest: int) -> list[_Validator]:
    def check(_: object, attribute: "attrs.Attribute[Any]", value: int) -> None:
        if value < lowest:
            raise ValueError(f"{attribute.name} must be {lowest} or more, not {value}")

    return [_of(int), check]


def _if_said(check: Callable[[str, object], object]) -> _Validator:
    """Return a validator that has *check*, which takes a name and a value, look at what is not None."""

    def check_said(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if value is not None:
            check(attribute.name, value)

    return check_said


def _schema(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{attribute.name} must be the name of a schema, such as 'worker', not {value!r:.60}")


def _start(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value != "auto" and not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be 'auto', True or False, not {value!r:.60}")


def _module_name(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.isidentifier()):
        raise ValueError(
            f"{attribute.name} must be the name of a module that apps may have, such as 'jobs', or None, "
            f"not {value!r:.60}"
        )


def _unknown_types(_: object, __: object, value: object) -> None:
    if value is not None:
        check_unknown_types(value)


@attrs.frozen(kw_only=True)
class Configuration:
    """The setting JOBQUEUE: it has a key in capitals for each of these, and for each of WorkerSettings."""

    database: str = attrs.field(default="default", validator=_of(str))
    """The alias of the database that holds the queue."""

    schema: str = attrs.field(default="worker", validator=_schema)
    """The schema in it."""

    threads: int = attrs.field(default=0, validator=_at_least(0))
    """How many worker threads each serving process has; 0: none, jobs are for ``manage.py jobqueue worker``."""

    start: bool | str = attrs.field(default="auto", validator=_start)
    """Where they start: "auto" in processes that serve requests, True in any that sets Django up, False nowhere."""

    lanes: Mapping[str, int] | None = None
    """How many of them are reserved for jobs of a type or pattern."""

    origin: str | None = attrs.field(default=None, validator=_if_said(check_name))
    """Where jobs come from that name no origin; None: the program's name."""

    autodiscover: str | None = attrs.field(default="jobs", validator=_module_name)
    """The module that is imported from each installed app that has it; None: none is."""

    unknown_types: UnknownTypes | None = attrs.field(default=None, validator=_unknown_types)
    """What is done about jobs without a handler; None: they are refused, since all apps' handlers were imported; where
    none were, a likely slip is warned of."""

    pool_size: int = attrs.field(default=4, validator=_at_least(1))
    """How many connections there may be for calls outside of the alias's transactions."""

    listen_database: str | None = attrs.field(default=None, validator=_of(str, type(None)))
    """An alias that leads past a pooler which does not pass notifications on."""

    poll_only: bool = attrs.field(default=False, validator=_of(bool))
    """Whether nothing listens, and jobs are found by looking for them."""

    prepared_statements: bool | None = attrs.field(default=None, validator=_of(bool, type(None)))
    """Whether statements are prepared; None: unless a pooler is before the database."""

    max_payload_bytes: int | None = attrs.field(default=None, validator=optional(_at_least(1)))
    """How large a payload may be as JSON; None: 1 MiB."""

    unique_lock_timeout: timedelta | None = attrs.field(default=None, validator=_if_said(check_lock_timeout))
    """How long a job with a unique key waits for an open transaction that has added one with it; None: 2 seconds."""

    retention: Retention | None = attrs.field(
        default=None, converter=as_retention, validator=_of(Retention, type(None))
    )
    """How long jobs are kept, as a Retention or a mapping of what it takes; None: what is usual."""

    workers: WorkerSettings = attrs.field(factory=WorkerSettings)
    """What the other keys say."""

    def __attrs_post_init__(self) -> None:
        check_lanes(self.lanes, self.threads or _ANY_NUMBER_OF_THREADS)


_WORKER_SETTINGS: Final = frozenset(field.name for field in attrs.fields(WorkerSettings))
_OWN: Final = frozenset(field.name for field in attrs.fields(Configuration)) - {"workers"}
KEYS: Final = tuple(sorted(name.upper() for name in _OWN | _WORKER_SETTINGS))
"""What the setting may have."""


@cache
def configuration() -> Configuration:
    """Return what the setting says, until ``forget`` is called.

    Raises:
        ImproperlyConfigured: as ``read``.
    """
    return read(getattr(settings, NAME, {}))


def forget() -> None:
    """Have the setting read anew."""
    configuration.cache_clear()


def read(said: object) -> Configuration:
    """Return what *said*, the value of the setting, says.

    Raises:
        ImproperlyConfigured: a key of it is none, or a value is not what it should be; the message names it.
    """
    if not isinstance(said, Mapping):
        raise ImproperlyConfigured(f'{NAME} must be a dict such as {{"THREADS": 4}}, not {said!r:.60}')
    values = {_name_of(key): value for key, value in cast("Mapping[object, Any]", said).items()}
    own = {name: value for name, value in values.items() if name in _OWN}
    workers = {name: value for name, value in values.items() if name not in _OWN}
    try:
        return Configuration(**own, workers=WorkerSettings(**workers))
    except (TypeError, ValueError, JobQueueError) as error:
        raise ImproperlyConfigured(_in_capitals(str(error))) from error


def _name_of(key: object) -> str:
    if key in KEYS:
        return str(key).lower()
    close = difflib.get_close_matches(str(key).upper(), KEYS, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(KEYS)}"
    raise ImproperlyConfigured(f"{NAME}[{key!r}] is no setting of the job queue: {hint}")


def _in_capitals(message: str) -> str:
    """Begin *message*, which names an attribute first, with the key as the project has written it."""
    first, _, rest = message.partition(" ")
    return f'{NAME}["{first.upper()}"] {rest}' if first.upper() in KEYS else f"{NAME}: {message}"
