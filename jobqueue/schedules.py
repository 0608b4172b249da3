"""What a schedule is: which job to enqueue, and when, again and again."""

import enum
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, Self, TypedDict

import attrs

from jobqueue.errors import InvalidJobError, InvalidScheduleError, PayloadError
from jobqueue.limits import BIGINT, check_int, check_moment, check_name, check_payload
from jobqueue.payload import MAX_PAYLOAD_BYTES, load_json
from jobqueue.recurrence import Cron, Every, Recurrence, check_interval, zone_named
from jobqueue.retry import RetryPolicy, Waits
from jobqueue.stored_policy import check_retry, check_retry_count, policy_of_json

_MICROSECOND: Final = timedelta(microseconds=1)
_DEFINING: Final = (
    "type",
    "payload_json",
    "cron",
    "every",
    "tz",
    "start_at",
    "missed",
    "overlap",
    "priority",
    "max_retry_count",
    "retry_policy_json",
    "origin",
)
_TIMING: Final = frozenset({"cron", "every", "tz", "start_at"})


class Missed(enum.StrEnum):
    """What becomes of ticks that nobody has enqueued within 30 seconds: no process was running, or none could."""

    SKIP = "skip"
    """No job is enqueued for them."""
    ONE = "one"
    """One job, for the last tick that is due by then."""
    ALL = "all"
    """A job for each of them: for the last 1,000, if there are more."""


class Overlap(enum.StrEnum):
    """What becomes of a tick while an earlier job of the schedule has not stopped."""

    ALLOW = "allow"
    """A job is enqueued."""
    SKIP = "skip"
    """None is."""


class ScheduleChanges(TypedDict, total=False):
    """What can be changed about a schedule; see ``Service.add_schedule``."""

    type: str
    payload: object
    cron: str | None
    every: timedelta | None
    tz: str
    start_at: datetime | None
    missed: Missed | str
    overlap: Overlap | str
    priority: int
    max_retry_count: int | None
    retry: RetryPolicy | None
    origin: str


@attrs.frozen(kw_only=True)
class Schedule:
    """A schedule as it was when it was read; before that, as it is to be added. Moments are aware.

    It recurs by *cron* in the time zone *tz*, or by *every*: one of them is None.
    """

    name: str
    type: str
    payload_json: str = attrs.field(repr=False)
    cron: str | None = None
    every: timedelta | None = None
    tz: str = "UTC"
    start_at: datetime | None = None
    """No tick is before it. With *every*, it is the first one; None until it is added, when it is one interval away."""
    missed: Missed = Missed.ONE
    overlap: Overlap = Overlap.ALLOW
    priority: int = 0
    max_retry_count: int = 0
    retry_policy_json: str | None = attrs.field(default=None, repr=False)
    origin: str | None = None
    """Of the jobs; None until it is added, when the service fills in its own."""

    next_tick_at: datetime | None = None
    """None while it is paused; or when it never ticks again."""
    paused_at: datetime | None = None
    version: int = attrs.field(default=1, repr=False)
    """Raised by whatever changes the schedule, ticks too."""
    declared: str | None = attrs.field(default=None, repr=False)
    """How the code defined it that keeps it in the database; None when it was added at run time."""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    """When it was last changed; ticks are no changes."""

    @classmethod
    def new(
        cls,
        name: str,
        type: str,
        payload: object = None,
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        **options: Any,
    ) -> Self:
        """Describe a schedule that is not in the database yet. The options are those of ``Service.add_schedule``.

        Raises:
            InvalidScheduleError: a value is of the wrong type or size; its ``field`` names it.
            PayloadError: the payload cannot be stored as JSON.
        """
        try:
            check_name("name", name)
        except InvalidJobError as error:
            raise InvalidScheduleError(f"this names no schedule: {error}", field="name") from error
        bare = cls(name=name, type="?", payload_json="{}")
        return bare.changed({"type": type, "payload": payload, **options}, max_payload_bytes)

    def changed(self, changes: Any, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> Self:
        """Return it with *changes* (see ScheduleChanges), checked. Raises as ``new``."""
        try:
            after = attrs.evolve(self, **_checked(dict(changes), max_payload_bytes))
            _check_recurrence(after)
        except PayloadError:
            raise
        except InvalidJobError as error:
            raise InvalidScheduleError(f"schedule {self.name!r}: {error}", field=error.field) from error
        return after

    @property
    def paused(self) -> bool:
        """Whether it does not tick until it is resumed."""
        return self.paused_at is not None

    @cached_property
    def payload(self) -> Any:
        """The payload of each job, as a plain JSON value. Raises PayloadError when Python cannot hold it."""
        return load_json(self.payload_json)

    @cached_property
    def retry_policy(self) -> RetryPolicy | None:
        """The retry policy that is stored with each job, if any."""
        return None if self.retry_policy_json is None else policy_of_json(self.retry_policy_json)

    @property
    def recurrence(self) -> Recurrence:
        """When it ticks. Raises InvalidScheduleError when it is not known here, as a time zone may be."""
        if self.cron is not None:
            return Cron(self.cron, self.tz)
        if self.every is None or self.start_at is None:
            raise InvalidScheduleError(f"schedule {self.name!r} has no first tick yet", field="start_at")
        return Every(self.every, self.start_at)

    @property
    def definition(self) -> str:
        """What code says of it, spelt so that two can be compared."""
        values = {name: getattr(self, name) for name in _DEFINING}
        return json.dumps(values, default=str, sort_keys=True)

    def timed_from(self, now: datetime) -> Self:
        """Return it with the next tick after *now*; ticks that it has missed by then are forgotten. None if paused.

        Raises InvalidScheduleError when there is none in the calendar.
        """
        try:
            start_at = now + self.every if self.start_at is None and self.every is not None else self.start_at
            timed = attrs.evolve(self, start_at=start_at)
            since = now if start_at is None else max(now, start_at - _MICROSECOND)
        except OverflowError:
            raise InvalidScheduleError(
                f"schedule {self.name!r}: the first tick is out of the calendar", field="every"
            ) from None
        first = next(timed.recurrence.after(since), None)
        if first is None:
            raise InvalidScheduleError(
                f"schedule {self.name!r} would never tick: after {since} there is no such moment in the calendar",
                field="start_at",
            )
        return attrs.evolve(timed, next_tick_at=None if self.paused else first)

    def redefined(self, changes: Any, now: datetime, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> Self:
        """Return it with *changes*: with the next tick after *now*, if they are about when it ticks. Raises as ``new``.

        One of *cron* and *every* replaces the other, with its *start_at*, and *every* begins anew.
        """
        changes = dict(changes)
        if changes.get("origin", "") is None:
            raise InvalidScheduleError(f"schedule {self.name!r}: jobs need an origin", field="origin")
        if changes.get("cron") is not None:
            changes.setdefault("every", None)
            if self.every is not None:
                changes.setdefault("start_at", None)
        elif changes.get("every") is not None:
            changes.setdefault("cron", None)
            changes.setdefault("start_at", None)
        after = self.changed(changes, max_payload_bytes)
        if all(getattr(after, name) == getattr(self, name) for name in _TIMING & changes.keys()):
            return after
        return after.timed_from(now)

    def declared_as(self, declaration: Self, now: datetime) -> Self:
        """Return it as *declaration* has it, if that is not what was declared before; a pause stays."""
        if self.declared == declaration.declared:
            return self
        values = {name: getattr(declaration, name) for name in _DEFINING}
        if values["origin"] is None:
            values["origin"] = self.origin
        if values["start_at"] is None and (values["cron"], values["every"]) == (self.cron, self.every):
            values["start_at"] = self.start_at
        after = attrs.evolve(self, **values, declared=declaration.declared)
        return after if all(values[name] == getattr(self, name) for name in _TIMING) else after.timed_from(now)


def _checked(changes: dict[str, Any], max_payload_bytes: int) -> dict[str, Any]:
    """Return what *changes* mean for the fields of a Schedule. Raises InvalidJobError."""
    if unknown := changes.keys() - ScheduleChanges.__annotations__.keys():
        raise InvalidScheduleError(
            f"a schedule has no {', '.join(sorted(unknown))}, but {', '.join(ScheduleChanges.__annotations__)}",
            field=min(unknown),
        )
    fields = dict[str, Any]()
    if "payload" in changes:
        fields["payload_json"] = (
            "{}" if changes["payload"] is None else check_payload(changes["payload"], max_payload_bytes)
        )
    count, retry = changes.get("max_retry_count"), changes.get("retry")
    if count is not None or isinstance(retry, Waits):  # no other policy says how often
        fields["max_retry_count"] = check_retry_count(count, retry)
    if "retry" in changes:
        fields["retry_policy_json"] = check_retry("retry", changes["retry"])
    for name in changes.keys() - {"payload", "max_retry_count", "retry"}:
        fields[name] = _CHECKS[name](name, changes[name])
    return fields


def _check_recurrence(schedule: Schedule) -> None:
    if (schedule.cron is None) == (schedule.every is None):
        which = "neither" if schedule.cron is None else "both"
        raise InvalidScheduleError(
            f"{which} of cron= and every= are given, and exactly one is needed: cron='0 6 * * *', or "
            "every=timedelta(minutes=5)",
            field="cron",
        )
    zone_named(schedule.tz)
    if schedule.cron is not None:
        Cron(schedule.cron, schedule.tz)


def _check_type(field: str, value: object) -> str:
    job_type = check_name(field, value)
    if "*" in job_type:
        raise InvalidScheduleError(f"{job_type!r} is a pattern: name the type of the jobs", field=field)
    return job_type


def _check_choice(choices: type[enum.StrEnum]) -> Callable[[str, Any], enum.StrEnum]:
    def check(field: str, value: Any) -> enum.StrEnum:
        try:
            return choices(value)
        except ValueError:
            raise InvalidScheduleError(
                f"{field} must be one of {', '.join(choices)}, not {value!r:.40}", field=field
            ) from None

    return check


_CHECKS: Final[dict[str, Callable[[str, Any], object]]] = {
    "type": _check_type,
    "cron": lambda _, value: value,
    "every": lambda _, value: None if value is None else check_interval(value),
    "tz": check_name,
    "start_at": check_moment,
    "missed": _check_choice(Missed),
    "overlap": _check_choice(Overlap),
    "priority": lambda field, value: check_int(field, value, BIGINT),
    "origin": lambda field, value: None if value is None else check_name(field, value),
}
