"""What is paused is not claimed, until its pause ends; what a process leaves out of its patterns is not either."""

from datetime import timedelta

import pytest

from jobqueue.events import JobAvailable
from jobqueue.pauses import PausedType
from tests.conformance.acts import FUTURE, SECOND
from tests.fixtures.backends import Backend
from tests.fixtures.stores import CLAIMANT, START, make_job

MILLISECONDS = timedelta(milliseconds=1)


def pause(backend: Backend, type: str, **values) -> PausedType | None:
    return backend.store.pauses.pause(type, **{"until": None, "lasts": None, "reason": None, **values})


def add_of(backend: Backend, *types: str) -> None:
    backend.add(*(make_job(type=name, payload=name) for name in types))


def claimed(backend: Backend, *types: str, **options) -> list[str]:
    trip = backend.worker_store.make_trip([], types or ("*",), 10, CLAIMANT, **options)
    return sorted(job.type for job in trip.claimed)


# --- pauses


@pytest.mark.parametrize(
    ("paused", "left"),
    [
        ("mail", ["report:day", "report:day:x", "reports"]),
        ("report:*", ["mail", "reports"]),
        ("report:day:*", ["mail", "report:day", "reports"]),
        ("report:day", ["mail", "report:day:x", "reports"]),
        ("other", ["mail", "report:day", "report:day:x", "reports"]),
        ("*", []),
    ],
)
@pytest.mark.parametrize(
    "wanted", [["*"], ["mail", "report:*", "reports"], ["mail", "report:day:*", "report:day", "reports"]]
)
def test_what_is_paused_is_not_claimed(backend: Backend, paused: str, left: list[str], wanted: list[str]) -> None:
    """A paused name takes its jobs from exact handlers and patterns, a paused pattern those of all that it covers."""
    add_of(backend, "mail", "report:day", "report:day:x", "reports")
    pause(backend, paused)
    assert claimed(backend, *wanted) == left
    backend.store.pauses.resume(paused)
    assert sorted([*left, *claimed(backend, *wanted)]) == ["mail", "report:day", "report:day:x", "reports"]


def test_a_type_is_paused_as_often_as_it_is_covered(backend: Backend) -> None:
    """To resume one of two pauses that cover a type does not have it claimed."""
    add_of(backend, "report:day")
    pause(backend, "report:day")
    pause(backend, "report:*")
    assert backend.store.pauses.resume("report:day")
    assert claimed(backend) == []


def test_a_pause_shows_what_it_was_given(backend: Backend) -> None:
    """Type, end, reason and beginning are read as they were set; a second pause of the type replaces the first."""
    pause(backend, "mail", reason="the relay is down")
    assert pause(backend, "*", until=FUTURE) == PausedType(type="*", until=FUTURE, paused_at=START)
    backend.clock.advance(SECOND)
    again = pause(backend, "mail", lasts=SECOND)
    assert again == PausedType(type="mail", until=START + 2 * SECOND, paused_at=START + SECOND)
    assert backend.store.pauses.paused_types() == (PausedType(type="*", until=FUTURE, paused_at=START), again)
    assert backend.store.get_status().paused == backend.store.pauses.paused_types()


def test_a_pause_ends_by_itself(backend: Backend) -> None:
    """From its end on jobs are claimed, it is not shown, and to resume it says that there was none."""
    add_of(backend, "mail")
    pause(backend, "mail", lasts=SECOND)
    backend.clock.advance(SECOND - MILLISECONDS)
    assert claimed(backend) == []
    backend.clock.advance(MILLISECONDS)
    assert backend.store.pauses.paused_types() == ()
    assert not backend.store.pauses.resume("mail")
    assert claimed(backend) == ["mail"]


def test_a_pause_that_would_be_over_is_none(backend: Backend) -> None:
    """A moment that has passed by the backend's clock is refused, and leaves the pause that there is."""
    assert pause(backend, "mail", until=START) is None
    assert backend.store.pauses.paused_types() == ()
    kept = pause(backend, "mail")
    assert pause(backend, "mail", until=START - SECOND) is None
    assert backend.store.pauses.paused_types() == (kept,)


def test_only_what_was_paused_is_resumed(backend: Backend) -> None:
    """Neither a type that a paused pattern covers nor one that was never paused can be resumed."""
    pause(backend, "report:*")
    assert not backend.store.pauses.resume("report:day")
    assert not backend.store.pauses.resume("*")
    assert backend.store.pauses.resume("report:*")
    assert not backend.store.pauses.resume("report:*")


@pytest.mark.parametrize(
    ("paused", "wanted", "concerns"),
    [
        ("mail", "mail", True),
        ("mail", "*", True),
        ("mail", "report:*", False),
        ("mail", "report:day", False),
        ("report:*", "report:day", True),
        ("report:*", "report:day:*", True),
        ("report:day:*", "report:*", True),
        ("report:day", "report:*", True),
        ("report:*", "reports", False),
        ("*", "mail", True),
    ],
)
def test_the_end_of_a_pause_is_a_moment_to_look_again(
    backend: Backend, paused: str, wanted: str, concerns: bool
) -> None:
    """A claim that finds too little knows when a pause ends that concerns what it asks for, and of no other."""
    pause(backend, paused, lasts=5 * SECOND)
    assert backend.worker_store.make_trip([], [wanted], 1, CLAIMANT).next_due_in == (5 * SECOND if concerns else None)


def test_what_is_due_before_the_end_of_a_pause_comes_first(backend: Backend) -> None:
    """Of the next job that is due and the next pause that ends, the earlier one counts; paused jobs do not."""
    pause(backend, "mail", lasts=5 * SECOND)
    backend.add(make_job(type="mail", start_at=START + SECOND))
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).next_due_in == 5 * SECOND
    backend.add(make_job(type="other", start_at=START + 2 * SECOND))
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).next_due_in == 2 * SECOND


def test_resuming_tells_of_what_waits(backend: Backend) -> None:
    """Each type that waits is told of once, be it due or not; what does not wait, or is not covered, is not."""
    add_of(backend, "report:a", "report:a", "report:c", "other")
    backend.claim_one("report:c")
    backend.add(make_job(type="report:b", start_at=FUTURE))
    pause(backend, "report:*")
    hearing = backend.hear(JobAvailable)
    backend.store.pauses.resume("report:*")
    assert sorted(event.type for event in hearing.heard()) == ["report:a", "report:b"]


def test_a_pause_with_an_end_tells_of_what_waits(backend: Backend) -> None:
    """Workers that know of a later end have to look for the new one; without an end there is nothing to look for."""
    add_of(backend, "mail")
    hearing = backend.hear(JobAvailable)
    pause(backend, "mail", lasts=SECOND)
    pause(backend, "mail")
    assert [event.type for event in hearing.heard()] == ["mail"]


# --- what a process leaves out


@pytest.mark.parametrize(
    ("wanted", "without", "left"),
    [
        (["*"], ["mail"], ["report:day", "report:day:x", "reports"]),
        (["*"], ["report:*"], ["mail", "reports"]),
        (["mail", "*"], ["mail"], ["mail", "report:day", "report:day:x", "reports"]),
        (["*", "report:day:*"], ["report:*"], ["mail", "report:day:x", "reports"]),
        (["*", "report:*"], ["*"], ["mail", "report:day", "report:day:x", "reports"]),
    ],
)
def test_what_patterns_do_not_stand_for(
    backend: Backend, wanted: list[str], without: list[str], left: list[str]
) -> None:
    """A pattern leaves out what is handled by something more special; what is asked for by its own name is claimed."""
    add_of(backend, "mail", "report:day", "report:day:x", "reports")
    assert claimed(backend, *wanted, without=without) == left


# --- backing off


def back_off(backend: Backend, ran_for: timedelta = timedelta(0)) -> timedelta:
    """Back off from mail; return for how long that holds."""
    backend.worker_store.back_off("mail", "back-off: 429", ran_for)
    (found,) = backend.store.pauses.paused_types()
    assert found.until is not None
    return found.until - backend.clock.advance(timedelta(0))


def test_back_offs_double_up_to_a_minute(backend: Backend) -> None:
    """Each failure after the last pause makes the next one twice as long: 100 ms at first, 60 s at last."""
    seen = []
    for _ in range(12):
        seen.append(back_off(backend))
        backend.clock.advance(seen[-1])
    assert seen[:4] == [100 * MILLISECONDS, 200 * MILLISECONDS, 400 * MILLISECONDS, 800 * MILLISECONDS]
    assert seen[9:] == [51_200 * MILLISECONDS, 60 * SECOND, 60 * SECOND]


def test_a_back_off_is_a_pause(backend: Backend) -> None:
    """It holds up the jobs of its type, and is shown with its reason, as what it is."""
    add_of(backend, "mail", "other")
    back_off(backend)
    assert claimed(backend) == ["other"]
    (found,) = backend.store.get_status().paused
    assert (found.type, found.reason, found.is_back_off) == ("mail", "back-off: 429", True)
    backend.clock.advance(SECOND)
    assert claimed(backend) == ["mail"]


def test_jobs_that_fail_together_count_once(backend: Backend) -> None:
    """A failure of a job that began before the last pause had ended does not double it: that only goes on."""
    back_off(backend)
    backend.clock.advance(50 * MILLISECONDS)
    assert back_off(backend, ran_for=60 * MILLISECONDS) == 100 * MILLISECONDS
    backend.clock.advance(150 * MILLISECONDS)
    assert back_off(backend, ran_for=51 * MILLISECONDS) == 100 * MILLISECONDS
    backend.clock.advance(150 * MILLISECONDS)
    assert back_off(backend, ran_for=50 * MILLISECONDS) == 200 * MILLISECONDS


def test_a_success_begins_anew(backend: Backend) -> None:
    """After a success the next back-off is the shortest again; the pause that holds goes on to its end."""
    for _ in range(3):
        backend.clock.advance(back_off(backend))
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).backed_off == {"mail"}
    backend.worker_store.end_back_off("mail")
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).backed_off == frozenset()
    assert back_off(backend) == 100 * MILLISECONDS
    backend.worker_store.end_back_off("mail")
    (found,) = backend.store.pauses.paused_types()
    assert found.until == backend.clock.advance(timedelta(0)) + 100 * MILLISECONDS
    backend.clock.advance(100 * MILLISECONDS)
    assert back_off(backend) == 100 * MILLISECONDS


def test_a_pause_of_an_operator_stands(backend: Backend) -> None:
    """It is neither shortened nor overwritten by a failure, nor taken for a back-off; an ended one is replaced."""
    kept = pause(backend, "mail", lasts=SECOND, reason="moving house")
    backend.worker_store.back_off("mail", "back-off: 429", SECOND)
    backend.worker_store.end_back_off("mail")
    assert backend.store.pauses.paused_types() == (kept,)
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).backed_off == frozenset()
    backend.clock.advance(SECOND)
    assert back_off(backend) == 100 * MILLISECONDS


def test_an_operator_may_pause_what_was_backed_off_from(backend: Backend) -> None:
    """The pause of a person takes the place of a back-off, and to resume ends one, and what it would double."""
    back_off(backend)
    kept = pause(backend, "mail")
    backend.worker_store.back_off("mail", "back-off: 429", timedelta(0))
    assert backend.store.pauses.paused_types() == (kept,)
    assert backend.store.pauses.resume("mail")
    assert back_off(backend) == 100 * MILLISECONDS
    assert backend.store.pauses.resume("mail")
    assert back_off(backend) == 100 * MILLISECONDS
