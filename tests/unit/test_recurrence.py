"""When cron expressions and intervals recur, above all where clocks are changed."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue import InvalidScheduleError
from jobqueue.recurrence import Cron, Every, Recurrence, latest

SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
CHANGES = {
    "Vienna, forward": ("Europe/Vienna", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    "Vienna, back": ("Europe/Vienna", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "New York, forward": ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    "New York, back": ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    "Lord Howe, forward by half an hour": ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    "Lord Howe, back by half an hour": ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    "Sao Paulo, forward at midnight": ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    "Sao Paulo, back at midnight": ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),
    "Kolkata, never": ("Asia/Kolkata", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    "UTC": ("UTC", datetime(2026, 3, 29, 1, tzinfo=UTC)),
}
"""Time zones, and when clocks are changed there."""

changes = st.sampled_from(sorted(CHANGES)).map(CHANGES.__getitem__)


def between(recurrence: Recurrence, start: datetime, end: datetime) -> list[datetime]:
    return list(takewhile(lambda moment: moment <= end, recurrence.after(start)))


def shown(recurrence: Cron, start: datetime, number: int) -> list[str]:
    """Return what the clocks on the wall show at the next moments."""
    zone = ZoneInfo(recurrence.tz)
    return [f"{moment.astimezone(zone):%d. %H:%M:%S%z}" for moment in islice(recurrence.after(start), number)]


# --- cron where clocks are changed


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * *", ["28. 02:30:00+0100", "29. 03:00:00+0200", "30. 02:30:00+0200"]),
        ("0,30 2 * * *", ["28. 02:00:00+0100", "28. 02:30:00+0100", "29. 03:00:00+0200", "30. 02:00:00+0200"]),
        ("0 2,3 * * *", ["28. 02:00:00+0100", "28. 03:00:00+0100", "29. 03:00:00+0200", "30. 02:00:00+0200"]),
        ("15 30 2 * * *", ["28. 02:30:15+0100", "29. 03:00:00+0200", "30. 02:30:15+0200"]),
    ],
)
def test_a_time_that_clocks_leave_out(expression, expected):
    """It comes right after the gap, once, however many times of the expression are in it."""
    start = datetime(2026, 3, 28, tzinfo=UTC)
    assert shown(Cron(expression, "Europe/Vienna"), start, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * *", ["24. 02:30:00+0200", "25. 02:30:00+0200", "26. 02:30:00+0100"]),
        ("30 1,2,3 25 * *", ["25. 01:30:00+0200", "25. 02:30:00+0200", "25. 03:30:00+0100", "25. 01:30:00+0100"]),
        ("0 30 2 * * *", ["24. 02:30:00+0200", "25. 02:30:00+0200", "26. 02:30:00+0100"]),
    ],
)
def test_a_time_that_clocks_show_twice(expression, expected):
    """It comes the first time only."""
    start = datetime(2026, 10, 24, tzinfo=UTC)
    assert shown(Cron(expression, "Europe/Vienna"), start, len(expected)) == expected


def test_expressions_of_all_hours_go_by_the_time_that_passes():
    """Whatever clocks show, they come at equal intervals."""
    midnight = datetime(2026, 10, 25, tzinfo=UTC)
    moments = between(Cron("*/20 * * * *", "Europe/Vienna"), midnight, midnight + 3 * HOUR)
    assert [after - before for before, after in pairwise(moments)] == [20 * MINUTE] * 8


def test_within_the_hour_that_is_shown_twice():
    """Who asks in its second half is told of no time of its first."""
    [moment] = islice(Cron("30 2 * * *", "Europe/Vienna").after(datetime(2026, 10, 25, 1, 10, tzinfo=UTC)), 1)
    assert moment == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


# --- cron compared with a look at each minute

some_minutes = st.lists(st.integers(0, 59), min_size=1, max_size=3, unique=True)
some_hours = st.lists(st.sampled_from([0, 1, 2, 3, 4, 23]), min_size=1, max_size=4, unique=True)


def minutes_of(start: datetime, end: datetime) -> list[datetime]:
    return [start + number * MINUTE for number in range(1, int((end - start) / MINUTE) + 1)]


def seen_by_passing(tz: str, start: datetime, end: datetime, is_named: Callable[[datetime], bool]) -> list[datetime]:
    """Look at a clock each minute."""
    return [minute for minute in minutes_of(start, end) if is_named(minute.astimezone(ZoneInfo(tz)))]


def seen_by_the_clock(tz: str, start: datetime, end: datetime, is_named: Callable[[datetime], bool]) -> list[datetime]:
    """For each time of the day, look when a clock first shows it, or something later."""
    clock = {
        minute: minute.astimezone(ZoneInfo(tz)).replace(tzinfo=None) for minute in minutes_of(start - 5 * HOUR, end)
    }
    first, last = min(clock.values()), clock[end]
    times = [first + number * MINUTE for number in range(int((last - first) / MINUTE) + 1)]
    found = {next(minute for minute, time in clock.items() if time >= named) for named in times if is_named(named)}
    return sorted(moment for moment in found if moment > start)


@settings(deadline=None)
@given(change=changes, minute=some_minutes, hour=some_hours)
def test_expressions_with_times(change, minute, hour):
    """They come when a clock first shows such a time, or passes it over; each once."""
    tz, changed_at = change
    start, end = changed_at - 6 * HOUR, changed_at + 30 * HOUR
    expression = f"{','.join(map(str, minute))} {','.join(map(str, hour))} * * *"
    expected = seen_by_the_clock(tz, start, end, lambda time: time.minute in minute and time.hour in hour)
    assert between(Cron(expression, tz), start, end) == expected


@settings(deadline=None)
@given(change=changes, minute=some_minutes, every_minute=st.booleans(), hour=some_hours)
def test_expressions_without_times(change, minute, every_minute, hour):
    """They come in each minute in which a clock shows what they name."""
    tz, changed_at = change
    start, end = changed_at - 6 * HOUR, changed_at + 6 * HOUR
    if every_minute:
        expression = f"* {','.join(map(str, hour))} * * *"
        expected = seen_by_passing(tz, start, end, lambda time: time.hour in hour)
    else:
        expression = f"{','.join(map(str, minute))} * * * *"
        expected = seen_by_passing(tz, start, end, lambda time: time.minute in minute)
    assert between(Cron(expression, tz), start, end) == expected


expressions = st.sampled_from(
    [
        "30 2 * * *",
        "0 0 * * *",
        "*/7 * * * *",
        "59 59 1 * * *",
        "*/20 * * * * *",
        "0 */2 * * *",
        "*/15 2,3 * * *",
        "@hourly",
    ]
)


@settings(deadline=None)
@given(
    change=changes,
    expression=expressions,
    seconds=st.integers(-20_000, 20_000),
    fraction=st.sampled_from([0, 1, 999_999]),
)
def test_moments_come_in_order_from_wherever_one_begins(change, expression, seconds, fraction):
    """Each is later than the one before, and whoever begins in between is told of the same ones."""
    tz, changed_at = change
    start, end = changed_at - 8 * HOUR, changed_at + 8 * HOUR
    moments = between(Cron(expression, tz), start, end)
    assert all(before < after for before, after in pairwise(moments))
    middle = changed_at + seconds * SECOND + timedelta(microseconds=fraction)
    assert between(Cron(expression, tz), middle, end) == [moment for moment in moments if moment > middle]


# --- expressions


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@yearly", "2027-01-01 00:00:00"),
        ("@Monthly ", "2026-07-01 00:00:00"),
        ("@weekly", "2026-06-14 00:00:00"),
        ("@daily", "2026-06-13 00:00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00:00"),
        ("0 9 * * mon-fri", "2026-06-15 09:00:00"),
        ("0 0 * * 7", "2026-06-14 00:00:00"),
        ("0 0 1 * mon", "2026-06-15 00:00:00"),
        ("0 0 L * *", "2026-06-30 00:00:00"),
        ("*/10 * * * * *", "2026-06-12 12:00:10"),
    ],
)
def test_what_an_expression_may_say(expression, expected):
    """Names, nicknames, seconds, the last day, and that either of two kinds of days is enough."""
    [moment] = islice(Cron(expression).after(datetime(2026, 6, 12, 12, tzinfo=UTC)), 1)
    assert f"{moment:%Y-%m-%d %H:%M:%S}" == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "0 24 * * *",
        "*/0 * * * *",
        "@reboot",
        "0 0 31 4,6 *",
        "0 0 30 feb *",
        "0 0 */31 2 mon#5",
        "*" * 201,
        "٣ * * * *",
    ],
)
def test_what_cannot_be_read_or_never_comes_true(expression):
    """It is refused, with what an expression looks like."""
    with pytest.raises(InvalidScheduleError, match="cron") as caught:
        Cron(expression)
    assert caught.value.field == "cron"


@settings(deadline=None, max_examples=300)
@given(st.text("0123456789*/-,#LW @dayFEBmon", max_size=30))
def test_any_text_is_read_or_refused(text):
    """Whatever is no expression is refused as that, and an expression leads to a moment."""
    try:
        cron = Cron(text)
    except InvalidScheduleError:
        return
    assert next(cron.after(datetime(2026, 1, 1, tzinfo=UTC))) > datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("tz", ["Mars/Olympus", "", "..", "/etc/localtime", "Europe", "a\0b", "x" * 5000])
def test_nobody_knows_the_time_zone(tz):
    """A name of none is refused, whatever it looks like."""
    with pytest.raises(InvalidScheduleError) as caught:
        Cron("* * * * *", tz)
    assert caught.value.field == "tz"


def test_the_end_of_the_calendar():
    """Where no moment can be told any more, there is none."""
    end = datetime.max.replace(tzinfo=UTC)
    assert list(Cron("0 0 1 1 *").after(end - 30 * DAY)) == []
    assert list(Cron("0 0 1 * *", "Asia/Kolkata").after(end - 60 * DAY)) == [datetime(9999, 11, 30, 18, 30, tzinfo=UTC)]
    assert list(Every(HOUR, end - HOUR).after(end - HOUR)) == [end]


# --- intervals, and the latest moments


@given(seconds=st.integers(-10_000, 10_000), interval=st.integers(1, 500), number=st.integers(1, 20))
def test_intervals_are_counted_from_the_first(seconds, interval, number):
    """Each moment is a whole number of intervals after the first, from whatever moment one asks."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    asked = first + seconds * SECOND
    moments = list(islice(Every(interval * SECOND, first).after(asked), number))
    assert moments[0] == max(first, first + (seconds // interval + 1) * interval * SECOND)
    assert all(after - before == interval * SECOND for before, after in pairwise(moments))


RECURRENCES: Sequence[Recurrence] = [
    Cron("* * * * * *"),
    Cron("*/5 * * * *"),
    Cron("* 3 * * * *"),
    Cron("30 2 * * *", "Europe/Vienna"),
    Every(7 * SECOND, datetime(2026, 10, 24, tzinfo=UTC)),
]


@settings(deadline=None)
@given(
    recurrence=st.sampled_from(RECURRENCES),
    skipped=st.integers(0, 500),
    number=st.integers(1, 50),
    seconds=st.integers(0, 5000),
)
def test_the_latest_moments(recurrence, skipped, number, seconds):
    """They are the end of the list of all, however they are spread."""
    first = next(islice(recurrence.after(datetime(2026, 10, 24, 12, tzinfo=UTC)), skipped, None))
    until = first + seconds * SECOND
    assert latest(recurrence, first, until, number) == [first, *between(recurrence, first, until)][-number:]
