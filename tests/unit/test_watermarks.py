"""What a worker store remembers of its looks at the queue, and how it looks next."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from jobqueue import Job
from jobqueue.outcomes import Claimant, Outcome
from jobqueue_pg.watermarks import Front, Look, Seen, Watermarks

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CLAIMANT = Claimant(name="n", lease=SECOND)
GREATEST = 2**63 - 1
START = "-infinity"
TYPES = ["t"]


class Clock:
    seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watermarks(clock: Clock) -> Watermarks:
    return Watermarks(clock)


def job(priority: int = 0, type: str = "t", *, age: int = 0) -> Job:
    made = Job.new(type, 1, origin="o", priority=priority)
    return attrs.evolve(made, created_at=NOW - age * SECOND, started_at=NOW, claim_id=made.id)


def look_fully(
    watermarks: Watermarks, number: int = 100, *, types: Sequence[str] = TYPES, look: Look | None = None
) -> None:
    """Make a full look that brings all that it was asked for."""
    watermarks.note_full_batch(look or watermarks.full_look(types), [job()] * number, Seen(types, [0]), NOW)


def is_narrow(watermarks: Watermarks, types: Sequence[str] = TYPES) -> bool:
    return not watermarks.next_look(types).is_full


def gaps(front: Front) -> list[tuple[Any, ...]]:
    return [(gap["type"], gap["low"], gap["high"]) for gap in front.gaps()]


def runs(front: Front) -> list[tuple[Any, ...]]:
    return [(run["type"], run["priority"], run["at"]) for run in front.runs() or []]


# --- how to look next


def test_full_at_first(watermarks: Watermarks) -> None:
    """The first looks are full, until they have brought a hundred jobs in a row."""
    assert not is_narrow(watermarks)
    look_fully(watermarks, 99)
    assert not is_narrow(watermarks)
    look_fully(watermarks, 1)
    assert is_narrow(watermarks)
    look_fully(watermarks, 99)
    watermarks.note_too_few(watermarks.full_look(TYPES))
    look_fully(watermarks, 99)
    assert not is_narrow(watermarks)


def test_full_after_a_quarter_of_a_second(watermarks: Watermarks, clock: Clock) -> None:
    """What a full look has seen is trusted for 250 ms from its beginning, however many narrow looks follow."""
    look_fully(watermarks)
    for _ in range(4):
        clock.seconds += 0.0624
        look = watermarks.next_look(TYPES)
        assert not look.is_full
        watermarks.note_full_batch(look, [job()], None, NOW)
    clock.seconds += 0.001
    assert not is_narrow(watermarks)
    look_fully(watermarks, 1)
    assert is_narrow(watermarks)


@pytest.mark.parametrize(("took", "trusted"), [(0.01, 0.25), (0.02, 0.4), (0.04, 0.8), (0.2, 1.0)])
def test_slow_looks_are_trusted_for_longer(watermarks: Watermarks, clock: Clock, took: float, trusted: float) -> None:
    """A full look is trusted for twenty times as long as it took more than a narrow one, but for a second at most."""
    look_fully(watermarks)
    look = watermarks.next_look(TYPES)
    clock.seconds += 0.125
    watermarks.note_full_batch(look, [job()], None, NOW)
    look = watermarks.full_look(TYPES)
    clock.seconds += 0.125 + took
    look_fully(watermarks, look=look)
    clock.seconds = look.began + trusted - 0.001
    assert is_narrow(watermarks)
    clock.seconds += 0.002
    assert not is_narrow(watermarks)


def test_looks_in_vain_become_rare(watermarks: Watermarks) -> None:
    """After each narrow look that brings too few, twice as many jobs are to be claimed before the next."""
    for needed in (100, 200, 400):
        look_fully(watermarks, needed - 1)
        assert not is_narrow(watermarks)
        look_fully(watermarks, 1)
        watermarks.note_too_few(watermarks.next_look(TYPES))
    for _ in range(20):
        look_fully(watermarks, 6400)
        assert is_narrow(watermarks)
        watermarks.note_too_few(watermarks.next_look(TYPES))
    look_fully(watermarks, 6400)
    watermarks.note_full_batch(watermarks.next_look(TYPES), [job()], None, NOW)
    watermarks.note_too_few(watermarks.full_look(TYPES))
    look_fully(watermarks, 100)
    assert is_narrow(watermarks)


def test_each_set_of_types_has_its_own(watermarks: Watermarks) -> None:
    """What is known of some types says nothing of others."""
    look_fully(watermarks)
    assert is_narrow(watermarks)
    assert not is_narrow(watermarks, ["t", "u"])
    for number in range(20):
        look_fully(watermarks, types=[f"t{number}"])
    assert is_narrow(watermarks, ["t19"])
    assert not is_narrow(watermarks)


@pytest.mark.parametrize(
    ("outcome", "looks_fully"),
    [
        (Outcome.finished(job()), False),
        (Outcome.snoozed(job(), SECOND), False),
        (Outcome.released(job()), True),
        (Outcome.rescued(job()), True),
    ],
)
def test_what_is_given_back(watermarks: Watermarks, outcome: Outcome, looks_fully: bool) -> None:
    """A job that is given back at its old place is looked for at once; one that is put off comes after all others."""
    look_fully(watermarks)
    watermarks.note_outcomes([Outcome.finished(job()), outcome])
    assert is_narrow(watermarks) != looks_fully


def test_looks_that_began_before(watermarks: Watermarks) -> None:
    """A look that began before something was given back, or before another full look ended, teaches nothing."""
    look_fully(watermarks)
    before = watermarks.full_look(TYPES)
    watermarks.look_fully()
    look_fully(watermarks, look=before)
    assert not is_narrow(watermarks)
    narrow = watermarks.next_look(TYPES)
    look_fully(watermarks)
    known = watermarks.next_look(TYPES).runs
    watermarks.note_full_batch(narrow, [job(age=-5)], None, NOW)
    assert watermarks.next_look(TYPES).runs == known


def test_a_narrow_look_goes_on(watermarks: Watermarks) -> None:
    """A narrow look begins where the last one ended."""
    look_fully(watermarks)
    last = job(age=-5)
    watermarks.note_full_batch(watermarks.next_look(TYPES), [last], None, NOW)
    (run,) = json.loads(watermarks.next_look(TYPES).runs or "")
    assert run == {"type": "t", "priority": 0, "at": (NOW + 5 * SECOND).isoformat(), "id": str(last.id)}


# --- where it goes on


def test_a_front_that_nobody_has_seen() -> None:
    """Without a full look, nobody knows where to go on."""
    assert Front().runs() is None


def test_where_to_go_on() -> None:
    """Above the last priority, with what is due since; on it, after the last job of each type; gaps are between."""
    front = Front()
    front.begin([job(9), job(5, age=9), job(5, age=8), job(5, "u", age=7)], Seen(["t", "u", "v"], [9, 7, 5]), NOW)
    now = NOW.isoformat()
    assert runs(front) == [
        *(("t", 9, now), ("u", 9, now), ("v", 9, now), ("t", 7, now), ("u", 7, now), ("v", 7, now)),
        ("t", 5, (NOW - 8 * SECOND).isoformat()),
        ("u", 5, (NOW - 7 * SECOND).isoformat()),
        ("v", 5, START),
    ]
    assert [gap for gap in gaps(front) if gap[0] == "v"] == [("v", 10, GREATEST), ("v", 8, 8), ("v", 6, 6)]


def test_ends_of_the_range() -> None:
    """The greatest and the least priority have nothing above, or below, them."""
    front = Front()
    front.begin([job(GREATEST), job(-GREATEST - 1)], Seen(TYPES, [GREATEST, -GREATEST - 1]), NOW)
    assert gaps(front) == [("t", -GREATEST, GREATEST - 1)]


def test_priorities_that_were_used_up() -> None:
    """A priority that had jobs before is still gone on with: those that were claimed may lie there, dead."""
    front = Front()
    front.begin([job(9)], Seen(TYPES, [9]), NOW)
    front.begin([job(5)], Seen(TYPES, [5]), NOW + SECOND)
    assert runs(front) == [("t", 9, (NOW + SECOND).isoformat()), ("t", 5, NOW.isoformat())]
    front.begin([job(9)], Seen(TYPES, [9]), NOW)
    assert [run[1] for run in runs(front)] == [9]


def test_a_full_look_goes_back() -> None:
    """A full look that has found jobs in front of where others were claimed is gone on with from there."""
    front = Front()
    front.begin([job(age=1)], Seen(TYPES, [0]), NOW)
    front.begin([job(age=60)], Seen(TYPES, [0]), NOW)
    assert runs(front) == [("t", 0, (NOW - 60 * SECOND).isoformat())]
    front.advance([job(age=50)])
    front.advance([job(age=55)])
    assert runs(front) == [("t", 0, (NOW - 50 * SECOND).isoformat())]


def test_many_priorities() -> None:
    """Of very many priorities, the last is gone on with, unless something comes up above them all."""
    front = Front()
    priorities = list(range(100, 0, -1))
    front.begin([job(priority) for priority in priorities], Seen(TYPES, priorities), NOW)
    assert [run[1] for run in runs(front)] == [1]
    assert gaps(front) == [("t", 101, GREATEST)]


def test_very_many_types() -> None:
    """Of very many types, none is gone on with: a full look costs no more."""
    front = Front()
    front.begin([job()], Seen([f"t{number}" for number in range(65)], [0]), NOW)
    assert front.runs() is None


def test_types_that_are_gone() -> None:
    """Places of types that have no jobs any more are forgotten: there may be a new type for every job."""
    front = Front()
    front.begin([job(type="old")], Seen(["old"], [0]), NOW)
    front.begin([job()], Seen(TYPES, [0]), NOW)
    front.begin([job()], Seen(["t", "old"], [0]), NOW)
    assert runs(front) == [("t", 0, NOW.isoformat()), ("old", 0, START)]


def test_moments_before_the_calendar() -> None:
    """Nobody goes on after a job that was due when Python has no calendar: the row may say something else."""
    front = Front()
    front.begin([job()], Seen(TYPES, [0]), NOW)
    front.begin([attrs.evolve(job(), start_at=datetime(1, 1, 2, tzinfo=UTC))], Seen(TYPES, [0]), NOW)
    assert runs(front) == [("t", 0, START)]


def test_a_type_that_was_not_seen_before() -> None:
    """Where others have come to on a priority says nothing of a type that was paused then: it is looked for anew."""
    front = Front()
    front.begin([job(priority=3)], Seen(["t"], [5, 3]), NOW)
    front.begin([job(priority=5)], Seen(["t", "u"], [5]), NOW)
    runs = front.runs()
    assert runs is not None
    assert [(run["type"], run["at"] == "-infinity") for run in runs] == [("t", False), ("u", True)]
