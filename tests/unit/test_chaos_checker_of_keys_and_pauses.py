"""The checker of the chaos run finds what is broken about unique keys and pauses, in histories where one thing is."""

import attrs
import pytest

from tests.fixtures.chaos_story import ZERO, moment
from tests.fixtures.chaos_told import broken, history_of, told
from tests.integration.chaos_parts.history import Answer, Fate, KeyedAdd, Transaction

KEY = {"unique_key": "a", "unique_for": "waiting_and_running"}
SPENT = {"unique_key": None, "unique_key_spent": "a"}


@pytest.fixture
def story():
    return told()


def with_add(history, fate=Fate.COMMITTED, **facts):
    """Return a history in which one more job with a key was asked for."""
    facts = {"job": "x", "type": "steady", "key": "a", "asked_at": ZERO + 21, "answered_at": ZERO + 21.1, **facts}
    jobs = (facts["job"],) if facts["answer"] is Answer.ADDED else ()
    transaction = Transaction(id="7", jobs=jobs, keyed=(KeyedAdd(**facts),), fate=fate)
    return attrs.evolve(history, transactions=[*history.transactions, transaction])


# --- unique keys


def test_a_key_with_two_holders(story):
    """A second job gets a key while the first one has it; of another type it may."""
    story.insert(70, "first", **KEY)
    story.insert(70, "other", **KEY, type="deaf")
    story.insert(70.1, "second", **KEY)
    assert broken(history_of(story))["a key is held by one job at a time"] == {"second"}


def test_a_key_that_is_taken_back_from_another_holder(story):
    """A job that is reset must not take its key back when another one holds it."""
    story.insert(70, "new holder", **KEY)
    reset = {"started_at": None, "stopped_at": None, "run_count": 0, "unique_key": "a", "unique_key_spent": None}
    story.change(71, "holder", **reset)
    assert broken(history_of(story))["a key is held by one job at a time"] == {"holder"}


@pytest.mark.parametrize("scope", ["waiting", "waiting_and_running", "until_succeeded"])
def test_a_key_that_is_held_too_long(story, scope):
    """The scope has ended, and no statement of the transaction has freed the key."""
    story.insert(70, "x", unique_key="z", unique_for=scope)
    story.work(71, "x")
    assert broken(history_of(story))["a key is held as long as its scope lasts"] == {"x"}


def test_a_key_of_a_failure_is_held_until_it_succeeds(story):
    """Until it succeeds means that a failure does not end it, and a cancel does."""
    story.insert(70, "x", type="hopeless", unique_key="z", unique_for="until_succeeded")
    story.work(71, "x", error_msg="claim x")
    name = "a key is held as long as its scope lasts"
    assert name not in broken(history_of(story))
    story.change(72, "x", cancelled_at=moment(72))
    assert broken(history_of(story))[name] == {"x"}


@pytest.mark.parametrize(
    "facts", [KEY, {**KEY, "unique_for": "until_succeeded"}, {"unique_for": "period", "unique_until": moment(80)}]
)
def test_a_key_that_is_given_up_early(story, facts):
    """A claim ends the shortest scope alone, and a period lasts until its end."""
    story.insert(70, "x", **{**facts, "unique_key": "z"})
    story.claim(71, "x", "x", unique_key=None, unique_key_spent="z")
    assert broken(history_of(story))["a key is held as long as its scope lasts"] == {"x"}


@pytest.mark.parametrize(("until", "is_over"), [(80, True), (100, False)])
def test_a_key_that_goes_with_its_job(story, until, is_over):
    """What retention takes out of the queue must not hold a key for a while that is not over."""
    story.insert(70, "x", unique_key="z", unique_for="period", unique_until=moment(until))
    story.work(71, "x")
    story.archive(90, "x")
    name = "a key is held as long as its scope lasts"
    assert broken(history_of(story)).get(name) == (None if is_over else {"x"})


def test_a_key_that_is_forgotten(story):
    """What is given up must be known, so that it can be taken back."""
    place = story.place_of("for a while", "job") + 2
    story.alter(place, "after", unique_key_spent=None)
    assert broken(history_of(story)) == {"a key is held as long as its scope lasts": {"for a while"}}


def test_a_key_that_is_taken_back_by_a_job_that_has_stopped(story):
    """Only what is as good as new may take its key back."""
    story.change(70, "waits", unique_key="a", unique_key_spent=None)
    assert broken(history_of(story)) == {"a key is held as long as its scope lasts": {"waits"}}


@pytest.mark.parametrize(
    ("holder", "asked_at", "fits"),
    [("holder", 21, True), ("holder", 22.0, False), ("next holder", 21, False), ("nobody", 21, False)],
)
def test_a_duplicate_of_somebody_who_does_not_hold_the_key(story, holder, asked_at, fits):
    """Told of a job that holds the key no more, not yet, or never, an enqueuer was misled."""
    times = {"asked_at": ZERO + asked_at, "answered_at": ZERO + asked_at + 0.1}
    history = with_add(history_of(story), answer=Answer.DUPLICATE, holder=holder, **times)
    assert broken(history) == ({} if fits else {"duplicates are of those who hold the key": {holder}})


def test_a_duplicate_within_a_transaction(story):
    """What somebody has added just before, in the same transaction, counts, and nobody else needs to have seen it."""
    facts = {"type": "steady", "key": "a", "asked_at": ZERO + 70, "answered_at": ZERO + 70}
    first = KeyedAdd(job="x", answer=Answer.ADDED, holder="x", **facts)
    second = KeyedAdd(job="y", answer=Answer.DUPLICATE, holder="x", **facts)
    history = history_of(story)
    added = Transaction(id="7", jobs=("x",), keyed=(first, second), fate=Fate.ROLLED_BACK)
    assert broken(attrs.evolve(history, transactions=[*history.transactions, added])) == {}


def test_a_job_with_a_key_that_is_not_there(story):
    """Somebody was told that it was added, and has committed."""
    history = with_add(history_of(story), answer=Answer.ADDED, holder="x")
    assert broken(history) == {"no committed enqueue is lost": {"x"}, "jobs with keys are there as told": {"x"}}


@pytest.mark.parametrize("answer", [Answer.DUPLICATE, Answer.PENDING])
def test_a_job_that_was_left_out_and_is_there(story, answer):
    """Somebody was told that another job is there in its place; and it is there, too."""
    history = with_add(history_of(story), job="maybe", answer=answer, holder="holder")
    assert broken(history) == {"jobs with keys are there as told": {"maybe"}}


# --- pauses


@pytest.mark.parametrize(
    ("began", "ended", "type", "is_allowed"),
    [
        (31, 31.1, "steady", False),
        (31, 31.1, "deaf", True),
        (33.5, 33.6, "snoozing", False),
        (30.1, 31, "steady", True),
        (29.9, 31, "steady", True),
        (31.9, 32.1, "steady", True),
        (33.9, 34.1, "steady", True),
    ],
)
def test_a_claim_of_a_paused_type(story, began, ended, type, is_allowed):
    """A statement that began when the pause was there, and ended before that did, must not claim; others may."""
    story.add("x", type=type, max_retry_count=0)
    story.claim(ended, "x", "x")
    place = len(story.changes) - 1
    story.changes[place] = attrs.evolve(story.changes[place], began=ZERO + began)
    found = broken(history_of(story)).get("nothing of a paused type is claimed")
    assert found == (None if is_allowed else {"x"})


def test_a_claim_while_all_back_off(story):
    """A back-off that processes share holds like any other pause, until it ends by itself."""
    story.insert(70, "flaky", "paused_type", until=moment(71), back_off="00:00:01")
    story.add("x", type="flaky")
    story.claim(70.5, "x", "x")
    assert broken(history_of(story))["nothing of a paused type is claimed"] == {"x"}
