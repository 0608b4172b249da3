"""Which ticks of schedules lead to jobs, and which do not, on every backend."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from jobqueue import InvalidScheduleError, Missed, Skipped, Waits
from jobqueue.events import ScheduleChanged
from jobqueue.outcomes import Outcome
from jobqueue.ticking import tick_all
from jobqueue.ticks import MOST_MADE_UP_FOR, TICKS_KEPT, Plan, job_of
from tests.fixtures.scheduling import DAY, HOUR, MINUTE, SECOND, Scheduling, minutes
from tests.fixtures.stores import START
from tests.fixtures.waiting import wait_until

# --- ticks


def test_a_tick_enqueues_a_job(at: Scheduling) -> None:
    """It is what the schedule says, due at the tick; nothing happens before, nor twice."""
    schedule = at.add(priority=7, retry=Waits([SECOND, SECOND]), origin="o")
    assert at.tick_after(MINUTE - SECOND) == []
    assert at.tick_after(SECOND) == minutes(1)
    assert at.tick_after(timedelta(0)) == []
    (job,) = at.backend.store.get_all_jobs_to_do()
    assert (job.type, job.payload, job.priority, job.origin) == ("t", {"n": 1}, 7, "o")
    assert (job.max_retry_count, job.retry_policy) == (2, schedule.retry_policy)
    assert (job.start_at, job.created_at) == (START + MINUTE, START + MINUTE)
    (tick,) = at.service.get_schedule_ticks("s")
    assert (tick.tick_at, tick.job_id, tick.skipped, tick.noted_at) == (START + MINUTE, job.id, None, START + MINUTE)
    assert at.service.get_schedule("s").next_tick_at == START + 2 * MINUTE


def test_intervals_do_not_drift(at: Scheduling) -> None:
    """However late a tick is enqueued, the next ones come at whole intervals from the first."""
    at.add(start_at=START + 10 * SECOND)
    assert at.tick_after(25 * SECOND) == [START + 10 * SECOND]
    assert at.tick_after(MINUTE) == [START + 70 * SECOND]
    assert at.service.get_schedule("s").next_tick_at == START + 130 * SECOND


def test_a_first_tick_in_the_past_sets_the_beat(at: Scheduling) -> None:
    """Ticks before the schedule was added do not happen; those after it are counted from the first one."""
    assert at.add(start_at=START - 90 * SECOND).next_tick_at == START + 30 * SECOND
    assert at.add("c", every=None, cron="* * * * *", start_at=START + HOUR).next_tick_at == START + HOUR


def test_several_that_are_due_tick_at_once(at: Scheduling) -> None:
    """One call sees to all schedules, and to several ticks of each that are late by no more than 30 seconds."""
    at.add("a", every=10 * SECOND)
    at.add("b", every=None, cron="*/15 * * * * *")
    ticks = at.tick_after(30 * SECOND)
    assert sorted(ticks) == [START + n * SECOND for n in (10, 15, 20, 30, 30)]
    assert at.tick_after(timedelta(0)) == []


def test_workers_hear_of_a_tick(at: Scheduling) -> None:
    """The job is told of, and claimed, as any other."""
    at.add(start_at=datetime.now(UTC) - timedelta(days=1))  # the triggers go by the database's own clock
    hearing = at.backend.hear()
    at.backend.clock.moment = datetime.now(UTC) + SECOND
    assert at.service.run_schedule_now("s").type == "t"
    (told,) = hearing.heard()
    assert (told.type, told.origin) == ("t", "tests")
    assert at.backend.claim_one("t").payload == {"n": 1}


# --- missed ticks


@pytest.mark.parametrize(
    ("missed", "made_up_for", "passed_over"),
    [
        ("skip", [], (START + MINUTE, START + 9 * MINUTE, "missed")),
        ("one", [9], (START + MINUTE, START + 8 * MINUTE, "missed")),
        ("all", [1, 2, 3, 4, 5, 6, 7, 8, 9], None),
    ],
)
def test_missed_ticks(at: Scheduling, missed: str, made_up_for: list[int], passed_over: Any) -> None:
    """After nine minutes without anybody, none, the last or all of nine ticks lead to jobs; the history tells of it."""
    at.add(missed=missed)
    assert at.tick_after(9 * MINUTE + 31 * SECOND) == minutes(*made_up_for)
    assert [note for note in at.history() if note[2]] == ([passed_over] if passed_over else [])
    assert at.tick_after(29 * SECOND) == minutes(10)


@pytest.mark.parametrize("missed", Missed)
def test_what_is_late_by_30_seconds_is_not_missed(at: Scheduling, missed: Missed) -> None:
    """Whatever the policy, each tick of the last half minute leads to a job of its own."""
    at.add(every=SECOND, missed=missed)
    assert at.tick_after(31 * SECOND) == [START + n * SECOND for n in range(1, 32)]


@pytest.mark.parametrize(("missed", "ticks"), [("skip", []), ("one", [1]), ("all", [1])])
def test_a_single_missed_tick(at: Scheduling, missed: str, ticks: list[int]) -> None:
    """A tick that is late by more than 30 seconds is missed although no other has become due since."""
    at.add(every=DAY, start_at=START + MINUTE, missed=missed)
    assert at.tick_after(MINUTE + 31 * SECOND) == minutes(*ticks)
    assert at.history() == [(START + MINUTE, None, None if ticks else "missed")]
    assert at.service.get_schedule("s").next_tick_at == START + MINUTE + DAY


def test_ticks_on_time_after_missed_ones(at: Scheduling) -> None:
    """Who skips what was missed still does what has just become due; who makes up for it once does it once."""
    at.add("skip", every=10 * SECOND, missed="skip")
    at.add("one", every=10 * SECOND, missed="one")
    at.tick_after(5 * MINUTE + SECOND)
    on_time = [(START + n * SECOND, None, None) for n in (280, 290, 300)]
    assert at.history("skip") == [(START + 10 * SECOND, START + 270 * SECOND, "missed"), *on_time]
    assert at.history("one") == [(START + 10 * SECOND, START + 290 * SECOND, "missed"), on_time[-1]]


def test_no_more_than_a_thousand_are_made_up_for(at: Scheduling) -> None:
    """Of very many missed ticks the last 1,000 lead to jobs, each to one, and the history says so of the others."""
    at.add(every=SECOND, missed="all")
    ticks = at.tick_after(timedelta(seconds=5000))
    assert ticks == [START + n * SECOND for n in range(5001 - MOST_MADE_UP_FOR, 5001)]
    assert at.tick_after(SECOND) == [START + 5001 * SECOND]
    noted = at.history()
    assert noted[0] == (START + SECOND, START + 4000 * SECOND, "missed")
    assert len(at.tick_after(500 * SECOND)) == 500
    notes = at.service.get_schedule_ticks("s", 10_000)
    assert TICKS_KEPT <= len(notes) <= TICKS_KEPT + 100
    assert notes[0].tick_at == START + 5501 * SECOND


def test_the_first_of_too_many_is_noted(at: Scheduling) -> None:
    """As long as it is kept, a note tells from when to when ticks were passed over."""
    at.add(every=SECOND, missed="all")
    at.backend.clock.advance(timedelta(seconds=1500))
    plan = at.plan()
    assert plan.ticks[0].skipped is Skipped.MISSED
    assert (plan.ticks[0].tick_at, plan.ticks[0].through_at) == (START + SECOND, START + 500 * SECOND)
    assert plan.next_tick_at == START + 601 * SECOND


def test_years_are_made_up_for_at_once(at: Scheduling) -> None:
    """A schedule of seconds that nobody has seen to for years costs no more than one of an hour ago."""
    at.add(every=None, cron="* * * * * *", missed="one")
    assert at.tick_after(3000 * DAY) == [START + 3000 * DAY]


# --- overlap


def test_a_tick_may_overlap_with_earlier_jobs(at: Scheduling) -> None:
    """Unless the schedule says otherwise, a tick enqueues a job whatever became of those before."""
    at.add()
    assert at.tick_after(MINUTE) == minutes(1)
    assert at.tick_after(MINUTE) == minutes(2)


def test_a_tick_is_skipped_while_an_earlier_job_has_not_stopped(at: Scheduling) -> None:
    """Waiting or running, it keeps ticks from becoming jobs, which is noted; one that has stopped, or is gone, not."""
    at.add(overlap="skip")
    assert at.tick_after(MINUTE) == minutes(1)
    assert at.tick_after(MINUTE) == []
    running = at.backend.claim_one("t")
    assert at.tick_after(MINUTE) == []
    at.backend.save(Outcome.finished(running))
    assert at.tick_after(MINUTE) == minutes(4)
    assert [skipped for *_, skipped in at.history()] == [None, "overlap", "overlap", None]
    (waiting,) = at.backend.store.get_all_jobs_to_do()
    at.service.delete_job(waiting.id)
    assert at.tick_after(MINUTE) == minutes(5)


def test_jobs_by_hand_count_as_earlier_ones(at: Scheduling) -> None:
    """A job that was enqueued by hand is one of the schedule's; one that is not the schedule's does not matter."""
    at.add(overlap="skip")
    at.service.enqueue("t", {})
    job = at.service.run_schedule_now("s")
    assert at.tick_after(MINUTE) == []
    at.stop(job)
    assert at.tick_after(MINUTE) == minutes(2)


def test_of_missed_ticks_one_does_not_overlap(at: Scheduling) -> None:
    """Where all are made up for that must not overlap, the first one is, and the others are skipped."""
    at.add(missed="all", overlap="skip")
    assert at.tick_after(3 * MINUTE + 31 * SECOND) == minutes(1)
    assert at.history() == [
        (moment, None, skipped) for moment, skipped in zip(minutes(1, 2, 3), [None, "overlap", "overlap"], strict=True)
    ]


# --- guards


def test_who_comes_second_does_nothing(at: Scheduling) -> None:
    """Of two who have seen the same tick, one enqueues it."""
    at.add()
    at.backend.clock.advance(MINUTE)
    store = at.backend.store.schedules
    plans = [at.plan() for _ in range(2)]
    assert store.tick(plans[0]) == {plans[0].jobs[0].id}
    assert store.tick(plans[1]) is None
    assert at.backend.store.get_all_jobs_to_do() == list(plans[0].jobs)


@pytest.mark.parametrize(
    "act", ["pause_schedule", "resume", "change", "remove_schedule", "run_schedule_now", "replace"]
)
def test_who_has_seen_another_schedule_does_nothing(at: Scheduling, act: str) -> None:
    """Whatever somebody does to a schedule between a look and its tick wins over the tick."""
    at.add()
    at.backend.clock.advance(MINUTE)
    store = at.backend.store.schedules
    plan = at.plan()
    match act:
        case "resume":
            at.service.pause_schedule("s")
            at.service.resume_schedule("s")
        case "change":
            at.service.change_schedule("s", payload={"n": 2})
        case "replace":
            at.service.remove_schedule("s")
            at.add()
        case _:
            getattr(at.service, act)("s")
    before = at.backend.store.get_all_jobs_to_do()
    assert store.tick(plan) is None
    assert store.run(plan.schedule, plan.jobs[0]) is None
    assert at.backend.store.get_all_jobs_to_do() == before


def test_a_schedule_that_was_removed_and_added_again_is_another_one(at: Scheduling) -> None:
    """Who has seen the first one does nothing to the second, though it is as old in changes and ticks when that did."""
    seen = at.add(start_at=START + HOUR)
    at.service.remove_schedule("s")
    at.backend.clock.advance(SECOND)
    other = at.add(start_at=START + HOUR, priority=1)
    assert (other.version, other.next_tick_at) == (seen.version, seen.next_tick_at)
    store = at.backend.store.schedules
    job = job_of(seen, None)
    assert store.run(seen, job) is None
    assert store.tick(Plan(seen, [], [], START + DAY)) is None
    assert store.run(other, job) == job


def test_a_tick_that_was_noted_is_never_enqueued_again(at: Scheduling) -> None:
    """Not even when the next tick is set back, as by a clock that is; the schedule goes on."""
    at.add()
    assert at.tick_after(MINUTE) == minutes(1)
    at.backend.clock.advance(-MINUTE)
    assert at.service.change_schedule("s", start_at=START).next_tick_at == START + MINUTE
    assert at.tick_after(MINUTE) == []
    assert at.service.get_schedule("s").next_tick_at == START + 2 * MINUTE
    assert len(at.backend.store.get_all_jobs_to_do()) == 1


def test_one_that_cannot_tick_keeps_no_other(at: Scheduling) -> None:
    """What is wrong with a schedule is raised when the others have ticked."""
    at.add("a", every=None, cron="* * * * *")
    at.add("b")
    at.backend.store.schedules.change("a", lambda schedule, _: attrs.evolve(schedule, tz="Mars/Olympus"))
    at.backend.clock.advance(MINUTE)
    with pytest.raises(InvalidScheduleError, match="Mars/Olympus"):
        at.service.tick_schedules()
    assert [job.start_at for job in at.backend.store.get_all_jobs_to_do()] == minutes(1)
    ticked = tick_all(at.service, at.backend.store.schedules)
    assert (list(ticked.failures), ticked.next_in) == (["a"], MINUTE)


def test_everybody_hears_of_changes_and_not_of_ticks(at: Scheduling) -> None:
    """Who listens is told whenever schedules may have to be looked at anew."""
    heard: list[Any] = []
    end = at.backend.notifier.subscribe(heard.append, ScheduleChanged)
    wait_until(lambda: heard)  # that it is connected
    at.add()
    at.tick_after(MINUTE)
    at.service.pause_schedule("s")
    at.service.run_schedule_now("s")
    at.service.resume_schedule("s")
    at.service.change_schedule("s", cron="* * * * *")
    at.service.remove_schedule("s")
    at.add("last")
    wait_until(lambda: heard[-1:] == [ScheduleChanged(name="last")])
    end()
    assert heard[-6:] == [ScheduleChanged(name="s")] * 5 + [ScheduleChanged(name="last")]
