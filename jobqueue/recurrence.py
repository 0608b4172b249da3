"""When something recurs: as a cron expression says in a time zone, or at equal intervals. No clock, no I/O."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import takewhile
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import attrs
from cronsim import CronSim, CronSimError

from jobqueue.errors import InvalidScheduleError

SHORTEST_INTERVAL: Final = timedelta(seconds=1)

_SECOND: Final = timedelta(seconds=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_HALF_A_DAY: Final = timedelta(hours=12)
_MAX_EXPRESSION_LENGTH: Final = 200
_NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Recurrence(Protocol):
    """A rule for moments, in whole seconds or not."""

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments after *moment*, in UTC and in order, each once; it ends where the calendar does."""
        ...


@attrs.frozen
class Every:
    """*first*, and then a moment each *interval*: counted from the first, so that nothing adds up.

    Raises:
        InvalidScheduleError: *interval* is no timedelta of a second or more.
    """

    interval: timedelta
    first: datetime

    def __attrs_post_init__(self) -> None:
        check_interval(self.interval)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments after *moment*."""
        number = max(0, (moment - self.first) // self.interval + 1)
        try:
            while True:
                yield self.first + number * self.interval
                number += 1
        except OverflowError:
            return


@attrs.frozen
class Cron:
    """The moments that a cron expression names in the time zone *tz*.

    An expression that names hours and minutes (neither of these fields begins with ``*``) goes by the clock on the
    wall: a time that the clocks leave out comes right after that gap, once, and one that they show twice comes the
    first time only. Any other one goes by the time that passes: ``* * * * *`` is each minute, whatever the clocks do.
    Source: cron(8) of Debian, which says so of expressions without seconds.

    Raises:
        InvalidScheduleError: nobody can read the expression, or it never comes true; or nobody knows the time zone.
    """

    expression: str
    tz: str = "UTC"

    def __attrs_post_init__(self) -> None:
        _check_expression(self.expression)
        zone_named(self.tz)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return zone_named(self.tz)

    @cached_property
    def _plain(self) -> str:
        """The expression without a nickname."""
        return _NICKNAMES.get(self.expression.strip().lower(), self.expression)

    @property
    def _names_times(self) -> bool:
        *_, minute, hour, _day, _month, _weekday = self._plain.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments after *moment*."""
        start = moment.astimezone(UTC).replace(microsecond=0)
        try:
            yield from self._by_the_clock(start) if self._names_times else self._by_time_that_passes(start)
        except OverflowError:
            return

    def _by_the_clock(self, moment: datetime) -> Iterator[datetime]:
        last = moment
        for local in self._matches_after(moment.astimezone(self._zone)):
            instant = _first_instant_of(local, self._zone)
            if instant > last:
                yield instant
                last = instant

    def _by_time_that_passes(self, moment: datetime) -> Iterator[datetime]:
        """Go through one stretch of time after the other in which the clocks are not changed."""
        after = since = moment
        while True:
            offset = _offset_at(since, self._zone)
            end: datetime | None = None
            for local in self._matches_after(after + offset):
                instant = local.replace(tzinfo=UTC) - offset
                end = _change_between(since, instant, self._zone)
                if end is not None:
                    break
                yield instant
                since = instant
            if end is None:
                return
            after, since = end - _SECOND, end

    def _matches_after(self, shown: datetime) -> Iterator[datetime]:
        """Yield what clocks show, if nobody changes them, whenever the expression is true."""
        return CronSim(self._plain, shown.replace(tzinfo=None, fold=0))


def latest(recurrence: Recurrence, first: datetime, until: datetime, number: int) -> list[datetime]:
    """Return the last *number* moments from *first*, which is one, to *until*; fewer if there are not so many.

    The effort depends on *number*, not on how long ago *first* is: the past is searched backwards, in longer and longer
    steps.
    """
    step = number * SHORTEST_INTERVAL
    while True:
        is_all = until - first <= step
        start = first if is_all else until - step
        found = deque([first] if is_all else (), maxlen=number)
        found.extend(
            takewhile(lambda moment: moment <= until, recurrence.after(start if is_all else start - _MICROSECOND))
        )
        if is_all or len(found) == number:
            return list(found)
        step *= 4


def zone_named(tz: object) -> ZoneInfo:
    """Return a time zone by its name. Raises InvalidScheduleError."""
    if not isinstance(tz, str):
        raise InvalidScheduleError(f"tz must be the name of a time zone, not {type(tz).__qualname__}", field="tz")
    if tz.rpartition("/")[2].lower() == "localtime":
        raise InvalidScheduleError(
            f"tz {tz[:60]!r} is another time zone on each machine: name the one that is meant, such as 'Europe/Vienna'",
            field="tz",
        )
    try:
        return ZoneInfo(tz)
    except (LookupError, ValueError, OSError):
        raise InvalidScheduleError(
            f"there is no time zone {tz[:60]!r} on this machine: names are like 'Europe/Vienna' or 'UTC'; where all "
            "are missing, install the package tzdata",
            field="tz",
        ) from None


def check_interval(value: object) -> timedelta:
    """Return an interval of a second or more. Raises InvalidScheduleError."""
    if not isinstance(value, timedelta):
        raise InvalidScheduleError(f"every must be a timedelta, not {type(value).__qualname__}", field="every")
    if value < SHORTEST_INTERVAL:
        raise InvalidScheduleError(f"every must be a second or more, not {value}", field="every")
    return value


def _check_expression(value: object) -> None:
    if not isinstance(value, str):
        raise InvalidScheduleError(f"cron must be a str, not {type(value).__qualname__}", field="cron")
    if len(value) > _MAX_EXPRESSION_LENGTH:
        raise InvalidScheduleError(
            f"cron has at most {_MAX_EXPRESSION_LENGTH} characters, not {len(value)}", field="cron"
        )
    plain = _NICKNAMES.get(value.strip().lower(), value)
    try:
        is_ever_true = next(CronSim(plain, datetime(2000, 1, 1)), None) is not None  # noqa: DTZ001 - any clock will do
    except CronSimError as error:
        raise InvalidScheduleError(
            f"cron {value!r} cannot be read, or never comes true ({error}): it has 5 fields, "
            "minute hour day-of-month month day-of-week, or 6 with seconds before them, or is one of "
            f"{', '.join(_NICKNAMES)}",
            field="cron",
        ) from error
    if not is_ever_true:
        raise InvalidScheduleError(f"cron {value!r} does not come true in 50 years", field="cron")


def _offset_at(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _first_instant_of(local: datetime, zone: ZoneInfo) -> datetime:
    """Return when clocks first show *local*; when they never do, the moment at which they leap over it."""
    instant = local.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == local:
        return instant
    # With the offset from before the leap it is too late, with the other one too early.
    leap = _change_between(local.replace(tzinfo=zone, fold=1).astimezone(UTC), instant, zone)
    return instant if leap is None else leap


def _change_between(start: datetime, end: datetime, zone: ZoneInfo) -> datetime | None:
    """Return when clocks are changed first after *start*, if that is at *end* or before."""
    offset = _offset_at(start, zone)
    while start < end:
        probe = min(start + _HALF_A_DAY, end)
        if _offset_at(probe, zone) != offset:
            return _bisect(start, probe, zone)
        start = probe
    return None


def _bisect(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    offset = _offset_at(before, zone)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0) if middle.replace(microsecond=0) > before else middle
        before, after = (middle, after) if _offset_at(middle, zone) == offset else (before, middle)
    return after
