"""The checker of the chaos run finds what is broken about schedules and retention, in histories where one thing is."""

import attrs
import pytest

from tests.fixtures.chaos_story import ZERO, moment
from tests.fixtures.chaos_told import broken, history_of, told


@pytest.fixture
def story():
    return told()


# --- schedules


def test_a_tick_that_nobody_sees_to(story):
    """A schedule moves on over two ticks, of which one is noted."""
    story.alter(story.place_of("tick:all", "schedule"), "after", next_tick_at=moment(43))
    assert broken(history_of(story)) == {"each tick of a schedule is seen to once": {"tick:all"}}


def test_a_tick_that_is_seen_to_twice(story):
    """It leads to a second job, when the schedule is moved on once more."""
    story.insert(70, "tick:all", "schedule", next_tick_at=moment(71))
    for job in ("a tick", "the tick again"):
        story.change(71.1, "tick:all", next_tick_at=moment(72))
        story.tick(71.1, "tick:all", 71, job)
        story.work(71.2, job)
    assert broken(history_of(story)) == {"each tick of a schedule is seen to once": {"tick:all"}}


def test_a_tick_that_is_left_out(story):
    """It is noted as missed, although all that were missed are wanted."""
    [place] = [place for place, change in enumerate(story.changes) if change.after.get("skipped") == "overlap"]
    story.alter(place, "after", skipped="missed")
    assert broken(history_of(story)) == {"each tick of a schedule is seen to once": {"tick:alone"}}


def test_a_tick_by_nobody(story):
    """It is noted by a transaction that has not moved the schedule on."""
    place = story.place_of("tick:all", "schedule_tick insert")
    story.changes[place] = attrs.evolve(story.changes[place], transaction=-1)
    names = {"each tick of a schedule is seen to once", "each tick has its job, each job its tick"}
    assert broken(history_of(story)).keys() == names


def test_a_tick_whose_job_is_not_there(story):
    """Its job was not added with it."""
    place = story.place_of("tick:all", "schedule_tick insert")
    story.alter(place, "after", job_id="x")
    assert broken(history_of(story)) == {"each tick has its job, each job its tick": {"x", "first tick:all"}}


def test_a_tick_that_is_skipped_without_need(story):
    """A schedule whose jobs may overlap has a job for each tick."""
    story.insert(70, "tick:all", "schedule", next_tick_at=moment(71))
    story.change(71.1, "tick:all", next_tick_at=moment(72))
    story.tick(71.1, "tick:all", 71, None)
    assert broken(history_of(story)) == {"each tick has its job, each job its tick": {"tick:all"}}


def test_a_job_of_a_schedule_without_a_tick(story):
    """Nobody but a schedule adds jobs of its type."""
    story.add("x", type="tick:all")
    story.work(70, "x")
    assert broken(history_of(story)) == {"each tick has its job, each job its tick": {"x"}}


def test_jobs_that_overlap_though_they_must_not(story):
    """A job is added at a tick while one of the tick before goes on; by hand it may be."""
    name = "tick:alone"
    story.insert(70, name, "schedule", next_tick_at=moment(71))
    for second in (71, 72):
        story.change(second + 0.1, name, next_tick_at=moment(second + 1))
        story.tick(second + 0.1, name, second, f"job of {second}")
    for second in (71, 72):
        story.work(second + 2, f"job of {second}")
    assert broken(history_of(story)) == {"jobs of a schedule overlap only as allowed": {"job of 72"}}


def test_a_tick_that_is_skipped_while_nothing_goes_on(story):
    """The job of the tick before has come to its end before the schedule was changed last."""
    name = "tick:alone"
    story.insert(70, name, "schedule", next_tick_at=moment(71))
    story.change(71.1, name, next_tick_at=moment(72))
    story.tick(71.1, name, 71, "job")
    story.work(71.2, "job")
    for second in (72, 73):
        story.change(second + 0.1, name, next_tick_at=moment(second + 1))
        story.tick(second + 0.1, name, second, None)
    assert broken(history_of(story)) == {"jobs of a schedule overlap only as allowed": {name}}
    history = history_of(story)
    assert broken(attrs.evolve(history, changes=history.changes[:-2])) == {}  # it may have looked before that end


# --- retention


def test_a_job_that_is_gone(story):
    """It was taken out of the queue, and is nowhere."""
    del story.archived["old"]
    assert broken(history_of(story)).keys() == {
        "what retention took is in the archive",
        "no committed enqueue is lost",
    }


def test_a_job_that_has_changed_in_the_archive(story):
    """It is archived as something else than it was."""
    story.archived["old"] = {**story.archived["old"], "run_count": 2}
    assert broken(history_of(story)) == {"what retention took is in the archive": {"old"}}


def test_a_job_in_two_places(story):
    """It is archived, and still in the queue."""
    story.add("old", **story.archived["old"])
    assert broken(history_of(story)) == {"what retention took is in the archive": {"old"}}


def test_a_job_in_the_archive_that_nobody_took(story):
    """It has no business there."""
    story.archived["cancelled"] = story.rows.pop("cancelled")[1]
    assert broken(history_of(story)) == {"what retention took is in the archive": {"cancelled"}}


@pytest.mark.parametrize(("at", "is_old_enough"), [(53, False), (55, True)])
def test_a_job_that_was_not_old_enough(story, at, is_old_enough):
    """Succeeded jobs are kept for four seconds."""
    place = story.place_of("old", "job delete")
    story.changes[place] = attrs.evolve(story.changes[place], began=ZERO + at)
    assert broken(history_of(story)) == ({} if is_old_enough else {"what retention took was old enough": {"old"}})


def test_a_member_counts_from_when_its_bundle_was_complete(story):
    """A member stays as long as its bundle does."""
    story.alter(story.place_of("old bundle", "job_bundle delete"), "before", stopped_at=moment(57))
    assert broken(history_of(story)) == {"what retention took was old enough": {"old member"}}


def test_a_job_that_is_taken_before_its_end(story):
    """A job that runs is archived."""
    story.claim(70, "maybe", "last", stopped_at=None)
    story.archive(90, "maybe")
    assert broken(history_of(story))["what retention took was old enough"] == {"maybe"}


def test_a_bundle_that_goes_without_a_member(story):
    """One of its members goes in another transaction, or not at all."""
    place = story.place_of("old member", "job delete")
    story.changes[place] = attrs.evolve(story.changes[place], transaction=-1)
    assert broken(history_of(story)) == {"retention takes bundles whole": {"old bundle"}}


def test_a_member_that_goes_without_its_bundle(story):
    """The bundle stays."""
    story.archive(90, "rescued")
    assert broken(history_of(story))["retention takes bundles whole"] == {"bundle"}


def test_a_bundle_that_goes_before_its_completion_job(story):
    """That wants to read it."""
    place = story.place_of("completion", "job")
    gone = story.changes[story.place_of("old bundle", "job_bundle delete")]
    history = history_of(story)
    queue = {**history.queue, "completion": {**history.queue["completion"], "completes_bundle_id": "old bundle"}}
    changes = [*story.changes[:place], gone, *story.changes[place:]]
    found = broken(attrs.evolve(history, queue=queue, changes=changes))
    assert "old bundle" in found["retention takes bundles whole"]
