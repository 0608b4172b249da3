"""The checker of the chaos run finds what is broken, in histories in which one thing is."""

from pathlib import Path

import attrs
import pytest

from tests.fixtures.chaos_story import JOB, ZERO, moment
from tests.fixtures.chaos_told import broken, history_of, told
from tests.integration.chaos_parts.checker import INVARIANTS, check
from tests.integration.chaos_parts.history import Fate, Request, Run, Transaction
from tests.integration.chaos_parts.report import report


@pytest.fixture
def story():
    return told()


def test_every_invariant_looks_at_something_in_a_history_where_all_is_well(story):
    """All invariants hold, and none of them only because there was nothing to look at."""
    found = check(history_of(story))
    assert {name: findings.problems for name, findings in found.items()} == {name: [] for name in INVARIANTS}
    assert [name for name, findings in found.items() if not findings.looked_at] == []


def test_a_committed_job_that_is_not_there(story):
    """An enqueue that was committed, and is gone, is lost."""
    history = history_of(story)
    history = attrs.evolve(
        history, transactions=[*history.transactions, Transaction(id="5", jobs=("x",), fate=Fate.COMMITTED)]
    )
    assert broken(history) == {"no committed enqueue is lost": {"x"}}


def test_a_job_that_was_rolled_back_and_is_there(story):
    """It must not exist, although it has come to a good end."""
    story.add("never")
    story.claim(20, "never", "n")
    story.run("never", "n", 20.1, 20.2)
    story.finish(20.3, "never", "n")
    assert broken(history_of(story)) == {"nothing that was rolled back exists or ran": {"never"}}


def test_a_job_that_was_rolled_back_and_has_run(story):
    """It must not have run, although nothing of it is left; and it ran without a claim."""
    story.runs.append(Run(job="never", claim="n", type="steady", pid=1, began_at=1, ended_at=2, outcome="finished"))
    assert broken(history_of(story)) == {
        "nothing that was rolled back exists or ran": {"never"},
        "runs have a claim, and a claim one run": {"never"},
    }


def test_half_a_transaction(story):
    """Of a transaction whose fate is unknown, one of two jobs is there."""
    history = history_of(story)
    queue = {**history.queue, "gone": history.jobs["maybe"]}
    assert broken(attrs.evolve(history, queue=queue)) == {"a transaction of unknown fate is whole": {"gone"}}


def test_a_job_that_nobody_added(story):
    """A row that no transaction, bundle or atomic run accounts for."""
    history = history_of(story)
    queue = {**history.queue, "stranger": history.jobs["maybe"]}
    assert broken(attrs.evolve(history, queue=queue)) == {"no job comes from nowhere": {"stranger"}}


def test_a_job_that_is_left(story):
    """A job that was never claimed is not final."""
    story.rows["maybe"] = ("job", JOB)
    assert broken(history_of(story)) == {"every job is final": {"maybe"}}


def test_a_job_that_is_left_running(story):
    """A claim that has not ended leaves a job that is not final, and running."""
    story.claim(20, "rescued", "last", stopped_at=None)
    assert broken(history_of(story)).keys() >= {"every job is final", "nothing is left running"}


def test_a_job_that_should_have_failed(story):
    """A job that succeeds although all its runs were to fail has not ended as planned."""
    story.rows["failing"] = ("job", {**story.rows["failing"][1], "error_msg": None})
    assert broken(history_of(story)) == {"every job ended as planned": {"failing"}}


@pytest.mark.parametrize("answer", [False, None])
def test_a_cancel_that_nobody_asked_for(story, answer):
    """A cancelled job without a cancel that may have been done is an error; with one of unknown fate, it is none."""
    history = history_of(story)
    requests = [attrs.evolve(request, answer=answer) for request in history.requests]
    names = {"every job ended as planned", "cancels were done as confirmed"}
    assert broken(attrs.evolve(history, requests=requests)).keys() == (names if answer is False else set())


def test_a_confirmed_cancel_that_was_not_done(story):
    """Somebody was told that a job was cancelled, and it was not."""
    history = history_of(story)
    requests = [*history.requests, Request(act="cancel", job="maybe", answer=True)]
    assert broken(attrs.evolve(history, requests=requests)) == {"cancels were done as confirmed": {"maybe"}}


def test_a_claim_in_place_of_a_valid_one(story):
    """A second claim is made although the first has not ended."""
    story.add("twice")
    story.claim(20, "twice", "a")
    story.claim(21, "twice", "b")
    assert "claims of a job follow one another" in broken(history_of(story))


def test_a_claim_that_is_run_twice(story):
    """One claim, two runs, one after the other."""
    story.run("rescued", "zombie", 1.05, 1.08)
    assert broken(history_of(story)) == {"runs have a claim, and a claim one run": {"rescued"}}


def test_a_run_before_its_claim(story):
    """A run that begins before anybody has committed its claim."""
    [run] = [run for run in story.runs if run.claim == "second"]
    story.runs[story.runs.index(run)] = attrs.evolve(run, began_at=4.9)
    assert broken(history_of(story)) == {"runs have a claim, and a claim one run": {"rescued"}}


def test_a_run_while_another_is_valid(story):
    """A second run begins before the first one's claim was taken away."""
    [run] = [run for run in story.runs if run.claim == "second"]
    story.runs[story.runs.index(run)] = attrs.evolve(run, began_at=3.5)
    assert broken(history_of(story))["valid runs of a job never overlap"] == {"rescued"}


def test_a_zombie_may_run_on(story):
    """A run whose claim was taken away may overlap with others, however long."""
    [run] = [run for run in story.runs if run.claim == "zombie"]
    story.runs[story.runs.index(run)] = attrs.evolve(run, ended_at=None, outcome=None)
    assert broken(history_of(story)) == {}


def test_a_zombie_may_begin_late(story):
    """A run that begins when its claim is lost already was never valid, whoever runs by then."""
    [run] = [run for run in story.runs if run.claim == "zombie"]
    story.runs[story.runs.index(run)] = attrs.evolve(run, began_at=5.5)
    assert broken(history_of(story)) == {}


def test_the_outcome_of_a_zombie(story):
    """What a zombie's run led to was saved for the claim of another."""
    story.add("stolen")
    story.claim(20, "stolen", "a")
    story.run("stolen", "a", 20.1, 29)
    story.take_away(24, "stolen")
    story.claim(25, "stolen", "b")
    story.run("stolen", "b", 25.1, 31)
    story.finish(29.1, "stolen", "a")
    assert broken(history_of(story))["an outcome is of its own claim's run"] == {"stolen"}


def test_an_outcome_before_its_run_has_ended(story):
    """An outcome that is there before the run has come to its end can be nobody's."""
    [run] = [run for run in story.runs if run.claim == "maybe"]
    story.runs[story.runs.index(run)] = attrs.evolve(run, ended_at=20)
    assert broken(history_of(story)) == {"an outcome is of its own claim's run": {"maybe"}}


def test_an_outcome_of_another_kind(story):
    """A run that failed was saved as finished."""
    [run] = [run for run in story.runs if run.claim == "maybe"]
    story.runs[story.runs.index(run)] = attrs.evolve(run, outcome="failed")
    assert broken(history_of(story)) == {"an outcome is of its own claim's run": {"maybe"}}


@pytest.mark.parametrize("started_at", [3.0, 4.5])
def test_a_claim_that_was_taken_too_early(story, started_at):
    """Silence counts from when the server was up: 1 s of it is not enough, and what comes later does not matter."""
    history = attrs.evolve(history_of(story), server_starts=[ZERO, ZERO + started_at])
    names = {"no claim is taken before its silence counts": {"rescued"}}
    assert broken(history) == (names if started_at < 4 else {})


def test_a_claim_that_was_taken_from_a_live_worker(story):
    """The row shows a beat of just now."""
    taken = next(change for change in story.changes if change.after["rescue_count"] == 1)
    before = {**taken.before, "worker_alive_at": moment(3.9)}
    story.changes[taken.seq] = attrs.evolve(taken, before=before)
    assert broken(history_of(story)) == {"no claim is taken before its silence counts": {"rescued"}}


def test_a_job_that_was_given_up(story):
    """A job fails because it was taken up too often, although there is no end to that here."""
    story.add("poison", type="hopeless")
    story.claim(20, "poison", "a")
    story.change(25, "poison", stopped_at=moment(25), error_msg="fell silent")
    assert broken(history_of(story)) == {
        "no job is given up before its limit": {"poison"},
        "no job comes from nowhere": {"poison"},
    }


@pytest.mark.parametrize(
    "effects", [[], [("atomic", "effective")] * 2, [("atomic", "effective"), ("rescued", "zombie")]]
)
def test_effects_that_are_not_there_once(story, effects):
    """An effect is missing, doubled, or there although its run was not saved."""
    history = attrs.evolve(history_of(story), effects=effects)
    assert broken(history).keys() == {"atomic effects are there exactly once"}


def test_a_follow_up_job_of_a_run_that_was_not_saved(story):
    """What an atomic run enqueued must go with it."""
    story.rows["follow-up"][1]["payload"] = {"of_job": "atomic", "of_claim": "another"}
    assert broken(history_of(story)) == {"atomic effects are there exactly once": {"atomic"}}


def test_a_bundle_that_is_complete_too_early(story):
    """It is marked as stopped while a member has not stopped."""
    place = next(change.seq for change in story.changes if change.id == "bundle")
    story.changes[place] = attrs.evolve(story.changes[place], seq=-1)
    assert broken(history_of(story)) == {"a bundle is complete after all members, once": {"bundle"}}


def test_a_bundle_whose_completion_is_not_marked(story):
    """Its counter is full, and it is not marked as stopped; or it was marked before."""
    place = next(change.seq for change in story.changes if change.id == "bundle")
    for side in ("before", "after"):
        changed = {**getattr(story.changes[place], side), "stopped_at": moment(1) if side == "before" else None}
        history = history_of(story)
        changes = [*story.changes]
        changes[place] = attrs.evolve(changes[place], **{side: changed})
        assert broken(attrs.evolve(history, changes=changes)) == {
            "a bundle is complete after all members, once": {"bundle"}
        }


@pytest.mark.parametrize("number", [0, 2])
def test_completion_jobs_that_are_not_there_once(story, number):
    """A completion without its job, and one with two."""
    story.rows["completion"][1]["completes_bundle_id"] = "bundle" if number else None
    if number:
        story.rows["maybe"][1]["completes_bundle_id"] = "bundle"
    assert broken(history_of(story))["one completion job per completion"] == {"bundle"}


def test_counters_that_are_wrong(story):
    """A bundle that shows more jobs than it has."""
    story.rows["bundle"][1]["num_jobs"] = 2
    assert broken(history_of(story))["counters equal a recount"] == {"bundle"}


def test_each_invariant_is_shown_broken(story):
    """There is a test for every invariant, above, or in the modules for those of features."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_chaos_checker*.py"))
    assert [name for name in INVARIANTS if f'"{name}"' not in text] == []


def test_the_report_tells_the_story_of_what_is_broken(story):
    """It counts what was looked at, names the broken invariant, and tells what is known of its job, in order."""
    history = attrs.evolve(history_of(story), server_starts=[ZERO + 3])
    lines = list(report({"worker killed": 3, "network cut": 2}, history, check(history)))
    text = "\n".join(lines)
    assert "faults injected" in lines[0]
    assert lines[0].endswith(" 5")
    assert "BROKEN: no claim is taken before its silence counts" in lines
    tale = [line for line in lines if "claim zombie by process" in line or "claim second ended" in line]
    assert len(tale) == 2
    assert text.index(tale[0]) < text.index(tale[1])
    assert "BROKEN" not in "\n".join(report({}, history_of(story), check(history_of(story))))
