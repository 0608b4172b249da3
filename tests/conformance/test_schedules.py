"""Schedules are added, changed, paused, resumed, run by hand, declared and removed, on every backend."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import (
    DuplicateScheduleError,
    Fixed,
    InvalidScheduleError,
    Missed,
    Overlap,
    PayloadError,
    ScheduleNotFoundError,
    Waits,
)
from tests.fixtures.scheduling import DAY, HOUR, MINUTE, SECOND, Scheduling, minutes
from tests.fixtures.stores import START

# --- what is kept


def test_a_schedule_is_read_as_it_was_added(at: Scheduling) -> None:
    """All that it was told is stored, and what it was not told has its defaults."""
    retry = Waits([SECOND])
    told = at.service.add_schedule(
        "s",
        "t",
        {"a": [1]},
        cron="0 6 * * *",
        tz="Europe/Vienna",
        missed="all",
        overlap="skip",
        priority=3,
        retry=retry,
        origin="o",
    )
    assert at.service.get_schedule("s") == told
    assert (told.type, told.payload, told.cron, told.every, told.tz) == (
        "t",
        {"a": [1]},
        "0 6 * * *",
        None,
        "Europe/Vienna",
    )
    assert (told.missed, told.overlap, told.priority, told.origin) == (Missed.ALL, Overlap.SKIP, 3, "o")
    assert (told.max_retry_count, told.retry_policy, told.declared) == (1, retry, None)
    assert (told.next_tick_at, told.created_at, told.paused) == (START + 5 * HOUR, START, False)
    bare = at.service.add_schedule("r", "t", every=HOUR)
    assert (bare.payload, bare.tz, bare.missed, bare.overlap, bare.priority) == ({}, "UTC", "one", "allow", 0)
    assert (bare.origin, bare.max_retry_count, bare.retry_policy) == ("tests", 0, None)
    assert (bare.every, bare.start_at, bare.next_tick_at) == (HOUR, START + HOUR, START + HOUR)
    assert at.service.get_schedules() == [bare, told]


def test_a_name_is_taken_once(at: Scheduling) -> None:
    """A second schedule of the same name is refused, and the first one stays as it is."""
    first = at.add()
    with pytest.raises(DuplicateScheduleError, match=r"'s'.*change_schedule") as caught:
        at.add(every=HOUR)
    assert caught.value.name == "s"
    assert at.service.get_schedules() == [first]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"cron": "* * *"}, "cron"),
        ({"cron": "60 * * * *"}, "cron"),
        ({"cron": 5}, "cron"),
        ({"cron": "* * * * *", "every": MINUTE}, "cron"),
        ({}, "cron"),
        ({"every": timedelta(0)}, "every"),
        ({"every": -MINUTE}, "every"),
        ({"every": SECOND / 2}, "every"),
        ({"every": 60}, "every"),
        ({"every": timedelta.max}, "every"),
        ({"every": MINUTE, "tz": "Mars/Olympus"}, "tz"),
        ({"cron": "* * * * *", "tz": "Mars/Olympus"}, "tz"),
        ({"cron": "* * * * *", "tz": "localtime"}, "tz"),
        ({"cron": "* * * * *", "tz": "posix/localtime"}, "tz"),
        ({"cron": "0 0 29 2 *", "start_at": datetime(9999, 1, 1, tzinfo=UTC)}, "start_at"),
        ({"every": MINUTE, "missed": "some"}, "missed"),
        ({"every": MINUTE, "overlap": "maybe"}, "overlap"),
        ({"every": MINUTE, "start_at": datetime(2030, 1, 1)}, "start_at"),  # noqa: DTZ001 - is refused
        ({"every": MINUTE, "priority": "high"}, "priority"),
    ],
)
def test_what_makes_no_schedule_is_refused(at: Scheduling, options: dict[str, Any], field: str) -> None:
    """Nothing is stored of what could not tick; the error names the schedule, and what is wrong with it."""
    with pytest.raises(InvalidScheduleError, match="'s'") as caught:
        at.service.add_schedule("s", "t", **options)
    assert caught.value.field == field
    assert at.service.get_schedules() == []


@pytest.mark.parametrize("job_type", [5, None, "", "*", "x" * 101])
def test_what_is_no_type_is_refused(at: Scheduling, job_type: Any) -> None:
    """Whatever it is, the error is one about the schedule."""
    with pytest.raises(InvalidScheduleError, match="'s'") as caught:
        at.service.add_schedule("s", job_type, every=MINUTE)
    assert caught.value.field == "type"


def test_a_payload_is_checked_as_a_jobs(at: Scheduling) -> None:
    """What is no JSON is no payload of a schedule, either."""
    with pytest.raises(PayloadError):
        at.service.add_schedule("s", "t", float("nan"), every=MINUTE)


def test_who_is_not_there_is_named(at: Scheduling) -> None:
    """Each call about a schedule that is not there says which, and where to look; to remove it does nothing."""
    service = at.service
    for call in (
        service.get_schedule,
        service.change_schedule,
        service.pause_schedule,
        service.resume_schedule,
        service.run_schedule_now,
        service.get_schedule_ticks,
    ):
        with pytest.raises(ScheduleNotFoundError, match=r"'missing'.*get_schedules") as caught:
            call("missing")
        assert caught.value.name == "missing"
    assert service.remove_schedule("missing") is False


# --- changes


def test_a_paused_schedule_does_not_tick(at: Scheduling) -> None:
    """Not when it is due already, nor later; ticks of the time of the pause do not happen when it is resumed."""
    at.add(missed="all")
    at.backend.clock.advance(MINUTE)
    paused = at.service.pause_schedule("s")
    assert (paused.paused, paused.next_tick_at) == (True, None)
    assert at.service.pause_schedule("s") == paused
    assert at.tick_after(5 * MINUTE) == []
    resumed = at.service.resume_schedule("s")
    assert (resumed.paused, resumed.next_tick_at) == (False, START + 7 * MINUTE)
    assert at.service.resume_schedule("s") == resumed
    assert at.tick_after(MINUTE) == minutes(7)


def test_changes_while_paused(at: Scheduling) -> None:
    """A paused schedule that is changed stays paused, and goes on as it was changed."""
    at.add()
    at.service.pause_schedule("s")
    assert at.service.change_schedule("s", cron="0 * * * *").next_tick_at is None
    assert at.tick_after(2 * HOUR) == []
    assert at.service.resume_schedule("s").next_tick_at == START + 3 * HOUR


def test_what_is_not_about_time_leaves_the_next_tick(at: Scheduling) -> None:
    """A change of the job is one of the next jobs, also of a tick that is due already."""
    at.add()
    at.backend.clock.advance(MINUTE)
    changed = at.service.change_schedule("s", payload={"n": 2}, priority=5, type="u", retry=Waits([SECOND]))
    assert changed.next_tick_at == START + MINUTE
    assert len(at.service.tick_schedules()) == 1
    (job,) = at.backend.store.get_all_jobs_to_do()
    assert (job.type, job.payload, job.priority, job.max_retry_count) == ("u", {"n": 2}, 5, 1)


def test_another_retry_policy_leaves_the_number_of_retries(at: Scheduling) -> None:
    """Of the policies, only Waits say how often; where another one is named alone, the number stays as it was."""
    at.add(max_retry_count=3)
    assert at.service.change_schedule("s", retry=Fixed(SECOND)).max_retry_count == 3
    assert at.service.change_schedule("s", retry=Waits([SECOND])).max_retry_count == 1
    assert at.service.change_schedule("s", retry=Waits([SECOND]), max_retry_count=5).max_retry_count == 5


def test_a_change_of_time_sets_the_next_tick(at: Scheduling) -> None:
    """Ticks that are due by then, and were not enqueued, do not happen; cron replaces every, and every cron."""
    at.add()
    at.backend.clock.advance(MINUTE)
    changed = at.service.change_schedule("s", cron="30 * * * *")
    assert (changed.every, changed.next_tick_at) == (None, START + 30 * MINUTE)
    assert at.service.tick_schedules() == []
    assert at.service.change_schedule("s", tz="Asia/Kolkata").next_tick_at == START + HOUR
    again = at.service.change_schedule("s", every=HOUR)
    assert (again.cron, again.start_at, again.next_tick_at) == (None, START + MINUTE + HOUR, START + MINUTE + HOUR)


def test_cron_in_place_of_an_interval_ticks_soon(at: Scheduling) -> None:
    """The first tick of the interval keeps no tick of the expression from happening, unless it is told to."""
    at.add(every=30 * DAY)
    changed = at.service.change_schedule("s", cron="* * * * *")
    assert (changed.start_at, changed.next_tick_at) == (None, START + MINUTE)
    at.service.change_schedule("s", every=30 * DAY)
    later = at.service.change_schedule("s", cron="* * * * *", start_at=START + HOUR)
    assert (later.start_at, later.next_tick_at) == (START + HOUR, START + HOUR)
    assert at.service.change_schedule("s", cron="*/2 * * * *").next_tick_at == START + HOUR


def test_a_change_that_cannot_be_is_refused(at: Scheduling) -> None:
    """The schedule stays as it is."""
    before = at.add()
    for changes in (
        {"cron": "never"},
        {"every": None},
        {"every": HOUR, "cron": "* * * * *"},
        {"missed": "x"},
        {"colour": "blue"},
        {"origin": None},
    ):
        with pytest.raises(InvalidScheduleError, match="'s'"):
            at.service.change_schedule("s", **changes)
    assert at.service.get_schedule("s") == before


def test_a_job_by_hand_leaves_the_ticks_alone(at: Scheduling) -> None:
    """It is as the schedule has it, to be run at once, paused or not; the next tick is where it was."""
    at.add(priority=2)
    jobs = [at.service.run_schedule_now("s") for _ in range(2)]
    assert [(job.payload, job.priority, job.start_at) for job in jobs] == [({"n": 1}, 2, None)] * 2
    assert at.tick_after(MINUTE) == minutes(1)
    by_hand = [tick for tick in at.service.get_schedule_ticks("s") if tick.by_hand]
    assert {tick.job_id for tick in by_hand} == {job.id for job in jobs}
    at.service.pause_schedule("s")
    assert at.service.run_schedule_now("s").id in {job.id for job in at.backend.store.get_all_jobs_to_do()}


def test_a_job_by_hand_at_the_moment_of_a_tick(at: Scheduling) -> None:
    """The tick of the same moment happens all the same."""
    at.add()
    at.backend.clock.advance(MINUTE)
    at.service.run_schedule_now("s")
    assert at.tick_after(timedelta(0)) == minutes(1)


def test_a_removed_schedule_is_gone(at: Scheduling) -> None:
    """It does not tick, even when it was due; its history goes, its jobs stay; its name is free."""
    at.add()
    at.tick_after(MINUTE)
    at.backend.clock.advance(MINUTE)
    assert at.service.remove_schedule("s") is True
    assert at.service.tick_schedules() == []
    with pytest.raises(ScheduleNotFoundError):
        at.service.get_schedule_ticks("s")
    assert len(at.backend.store.get_all_jobs_to_do()) == 1
    at.add()
    assert at.service.get_schedule_ticks("s") == []


# --- declared by code


def test_code_declares_a_schedule(at: Scheduling) -> None:
    """It is added when it is not there, and not touched when the code says what it said before."""
    first = at.declare(every=MINUTE)
    assert (first.type, first.payload, first.origin, first.next_tick_at) == ("s", {}, "tests", START + MINUTE)
    at.backend.clock.advance(30 * SECOND)
    assert at.declare(every=MINUTE) == first


def test_what_was_changed_at_run_time_stays_until_the_code_changes(at: Scheduling) -> None:
    """The last to change it wins, operator or code; a pause stays in any case."""
    at.declare(every=MINUTE)
    at.service.change_schedule("s", every=HOUR, priority=3)
    at.service.pause_schedule("s")
    kept = at.declare(every=MINUTE)
    assert (kept.every, kept.priority, kept.paused) == (HOUR, 3, True)
    new = at.declare(every=MINUTE, priority=1)
    assert (new.every, new.priority, new.paused, new.next_tick_at) == (MINUTE, 1, True, None)


def test_a_new_declaration_keeps_the_next_tick_unless_it_is_about_time(at: Scheduling) -> None:
    """Code that changes the payload does not put the tick off; code that changes when it ticks sets it anew."""
    at.declare(every=MINUTE)
    at.backend.clock.advance(45 * SECOND)
    assert at.declare(every=MINUTE, payload={"a": 1}).next_tick_at == START + MINUTE
    assert at.declare(cron="0 * * * *").next_tick_at == START + HOUR


def test_code_takes_over_what_was_added_at_run_time(at: Scheduling) -> None:
    """A schedule of that name which nobody has declared yet becomes what the code says."""
    at.add()
    taken = at.declare(cron="@daily")
    assert (taken.type, taken.cron, taken.every, taken.next_tick_at) == ("s", "@daily", None, START + DAY)
