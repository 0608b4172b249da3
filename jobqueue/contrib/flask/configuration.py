"""What the configuration of an application says about its queue."""

import difflib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, cast

import attrs
import click
from attrs.validators import ge, instance_of, optional

from jobqueue.errors import JobQueueError
from jobqueue.known_types import UnknownTypes, check_unknown_types
from jobqueue.limits import check_name
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.retention import Retention, as_retention
from jobqueue.settings import WorkerSettings
from jobqueue.uniqueness import check_lock_timeout
from jobqueue.worker.lanes import check_lanes

PREFIX: Final = "JOBQUEUE_"
"""What all keys begin with."""

_ANY_NUMBER_OF_THREADS: Final = 2**31


class ConfigurationError(click.ClickException, JobQueueError, ValueError):
    """What ``app.config`` says about the queue cannot be meant; the message names the key.

    The program ``flask``, which loads the application before it knows any command of ours, shows it as a line.
    """


def _as_duration(value: Any) -> Any:
    """Take a number for seconds: what comes from the environment is no timedelta."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return timedelta(seconds=value) if is_number else value
    except (OverflowError, ValueError):
        return value  # which the validator refuses by its name


def _as_modules(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in cast("list[Any]", value)):
        raise TypeError(f'imports must be a list of modules, such as ["shop.jobs"], not {value!r:.60}')
    return tuple(cast("list[str]", value))


def _not_bool(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be an int, not {value}")


def _at_least(lowest: int) -> list[Any]:
    return [_not_bool, instance_of(int), ge(lowest)]


def _schema(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{attribute.name} must be the name of a schema, such as 'worker', not {value!r:.60}")


def _start(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError(f"{attribute.name} must be 'auto', True or False, not {value!r:.60}")


def _unknown_types(_: object, __: "attrs.Attribute[Any]", value: object) -> None:
    check_unknown_types(value)


def _origin(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None:
        check_name(attribute.name, value)


def _lock_timeout(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    check_lock_timeout(attribute.name, value)


@attrs.frozen(kw_only=True)
class Configuration:
    """The keys of ``app.config``: JOBQUEUE_ and each of these in capitals, and each of WorkerSettings."""

    dsn: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    """The database; None: that of Flask-SQLAlchemy, else what libpq's environment variables say."""

    schema: str = attrs.field(default="worker", validator=_schema)
    """The schema that holds the queue."""

    threads: int = attrs.field(default=0, validator=_at_least(0))
    """How many worker threads each process has that serves the application; 0: none."""

    lanes: Mapping[str, int] | None = None
    """How many of them are reserved for jobs of a type or pattern."""

    start: bool | str = attrs.field(default="auto", validator=_start)
    """Whether they start by themselves; "auto" and True are the same."""

    imports: tuple[str, ...] = attrs.field(default=(), converter=_as_modules)
    """Modules with handlers, which are imported before the queue is used."""

    origin: str | None = attrs.field(default=None, validator=_origin)
    """Where jobs come from that name no origin; None: the application's name."""

    pool_size: int = attrs.field(default=4, validator=_at_least(1))
    """How many connections there may be for calls outside of Flask-SQLAlchemy's session."""

    listen_dsn: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    """A way past a pooler that does not pass notifications on."""

    poll_only: bool = attrs.field(default=False, validator=instance_of(bool))
    """Whether nothing listens, and jobs are found by looking for them."""

    prepared_statements: bool | None = attrs.field(default=None, validator=optional(instance_of(bool)))
    """Whether statements are prepared; None: unless a pooler is before the database."""

    max_payload_bytes: int = attrs.field(default=MAX_PAYLOAD_BYTES, validator=_at_least(1))
    """How large a payload may be as JSON."""

    unique_lock_timeout: timedelta = attrs.field(
        default=timedelta(seconds=2), converter=_as_duration, validator=_lock_timeout
    )
    """How long a job with a unique key waits for an open transaction that has added one with it."""

    unknown_types: UnknownTypes = attrs.field(default="refuse", validator=_unknown_types)
    """What is done about a job whose type has no handler in this process: "refuse", "warn" or "allow"."""

    retention: Retention | None = attrs.field(
        default=None, converter=as_retention, validator=optional(instance_of(Retention))
    )
    """How long jobs are kept, as a Retention or a mapping of what it takes; None: what is usual."""

    workers: WorkerSettings = attrs.field(factory=WorkerSettings)
    """What the other keys say."""

    def __attrs_post_init__(self) -> None:
        check_lanes(self.lanes, self.threads or _ANY_NUMBER_OF_THREADS)


_DURATIONS: Final = frozenset({"heartbeat_interval", "dead_for", "job_timeout", "poll_interval"})
_OF_WORKERS: Final = frozenset(field.name for field in attrs.fields(WorkerSettings))
_OWN: Final = frozenset(field.name for field in attrs.fields(Configuration)) - {"workers"}
KEYS: Final = tuple(sorted(f"{PREFIX}{name.upper()}" for name in _OWN | _OF_WORKERS))
"""All keys that there are."""


def read_configuration(config: Mapping[str, Any]) -> Configuration:
    """Return what *config* says, of all that it says about an application.

    Raises:
        ConfigurationError: a key of ours is none, or a value is not what it should be.
    """
    values = {_name_of(key): value for key, value in config.items() if key.startswith(PREFIX)}
    own = {name: value for name, value in values.items() if name in _OWN}
    workers: dict[str, Any] = {
        name: _as_duration(value) if name in _DURATIONS else value for name, value in values.items() if name not in _OWN
    }
    try:
        return Configuration(**own, workers=WorkerSettings(**workers))
    except (TypeError, ValueError, JobQueueError) as error:
        raise ConfigurationError(_with_key(error)) from error


def _name_of(key: str) -> str:
    if key in KEYS:
        return key.removeprefix(PREFIX).lower()
    close = difflib.get_close_matches(key.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in KEYS], n=1)
    hint = f"did you mean {PREFIX}{close[0]}?" if close else f"there are {', '.join(KEYS)}"
    raise ConfigurationError(f"app.config has {key}, which is no setting of the job queue: {hint}")


def _with_key(error: Exception) -> str:
    """Tell of *error*, whose message begins with the name of an attribute or has it in quotes, by the key's name."""
    message = str(error.args[0] if error.args else error)
    first, _, rest = message.partition(" ")
    key = f"{PREFIX}{first.strip(chr(39)).upper()}"
    return f"{key} {rest}" if key in KEYS else f"{PREFIX}*: {message}"
