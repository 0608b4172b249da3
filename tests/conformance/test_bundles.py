"""Bundles count their members, and come to a completion: once for each time that the last open member stops."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue import Fixed, Job, JobBundle, JobDesc
from jobqueue.outcomes import Outcome
from tests.conformance.acts import (
    DEAD_FOR,
    ERROR,
    FAILED,
    FATES,
    FUTURE,
    HOUR,
    MORTAL,
    SECOND,
    STOPPED,
    Act,
    cancelled,
    discarded,
    failed,
    given_up,
    retries,
    runs,
    succeeded,
    waits,
)
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job

AFTER = JobDesc("done", type="after")


def completions(backend: Backend) -> int:
    """Return how many jobs were added by completions."""
    return backend.store.get_status().by_type.get("after", 0)


# --- what completes a bundle


@pytest.mark.parametrize("fate", FATES)
def test_completion(backend: Backend, fate: Act) -> None:
    """Whatever stops the last member completes the bundle at that moment, and adds its job; nothing else does."""
    bundle = backend.add_bundle(2, on_stopped=AFTER)
    first, last = backend.claim(2, claimant=MORTAL)
    backend.save(Outcome.finished(first))
    assert (backend.counts(bundle), completions(backend)) == ((2, 1, False), 0)
    backend.clock.advance(SECOND)
    fate(backend, last)
    stops = fate in STOPPED
    assert (backend.counts(bundle), completions(backend)) == ((2, 1 + stops, stops), int(stops))
    now = backend.store.get_job_bundle(bundle.id)
    assert now.stopped_at == (backend.clock.moment if stops else None)
    assert now.has_error == (stops and fate is not succeeded)


def test_a_member_that_waits_can_be_cancelled(backend: Backend) -> None:
    """A member that was cancelled before it ran counts as stopped, and may be the last."""
    bundle = backend.add_bundle(2, on_stopped=AFTER)
    for number, job in enumerate(bundle.jobs, start=1):
        backend.store.cancel_jobs([job.id])
        assert backend.counts(bundle) == (2, number, number == 2)
    assert completions(backend) == 1


def test_members_that_stop_together(backend: Backend) -> None:
    """Members that stop by one call complete their bundle once."""
    by_saving, by_cancelling, by_reaping = bundles = [backend.add_bundle(5, on_stopped=AFTER) for _ in range(3)]
    backend.save(*(Outcome.finished(job) for job in backend.claim(5)))
    assert (backend.counts(by_saving), completions(backend)) == ((5, 5, True), 1)
    backend.store.cancel_jobs(job.id for job in by_cancelling.jobs)
    assert (backend.counts(by_cancelling), completions(backend)) == ((5, 5, True), 2)
    assert set(backend.claim(5, ["t"], MORTAL)) == set(by_reaping.jobs)
    backend.clock.advance(SECOND)
    backend.worker_store.reap_jobs(DEAD_FOR, 0)
    assert ([backend.counts(bundle) for bundle in bundles], completions(backend)) == ([(5, 5, True)] * 3, 3)


def test_several_bundles_in_one_set(backend: Backend) -> None:
    """Outcomes for members of several bundles, and for loose jobs, count each for its own."""
    bundles = [backend.add_bundle(size) for size in (1, 3, 5)]
    backend.add(make_job(), make_job())
    kinds: list[Callable[[Job], Outcome]] = [
        Outcome.finished, lambda job: Outcome.failed(job, ERROR), lambda job: Outcome.discarded(job, "no"),
    ]  # fmt: skip
    backend.save(
        *(
            (Outcome.released if job.payload == 4 else kinds[number % 3])(job)
            for number, job in enumerate(backend.claim(20))
        )
    )
    assert [backend.counts(bundle) for bundle in bundles] == [(1, 1, True), (3, 3, True), (5, 4, False)]


def test_an_outcome_counts_once(backend: Backend) -> None:
    """An outcome that is sent again, as after a lost answer, changes nothing and counts for nothing."""
    bundle = backend.add_bundle(2)
    outcome = Outcome.finished(backend.claim_one())
    assert len(backend.save(outcome)) == 1
    assert backend.save(outcome) == frozenset()
    assert backend.counts(bundle) == (2, 1, False)


def test_one_job_twice_in_one_set(backend: Backend) -> None:
    """Two outcomes for one claim in one set count once."""
    bundle = backend.add_bundle(2)
    job = backend.claim_one()
    assert backend.save(Outcome.finished(job), Outcome.finished(job)) == {job.id}
    assert backend.counts(bundle) == (2, 1, False)


def test_deleting_the_last_open_member_completes(backend: Backend) -> None:
    """A bundle completes when the member that it still waited for is deleted."""
    bundle = backend.add_bundle(2, on_stopped=AFTER)
    first, last = backend.claim(2)
    backend.save(Outcome.finished(first))
    now = backend.clock.advance(SECOND)
    backend.store.delete_jobs([last.id])
    assert (backend.counts(bundle), completions(backend)) == ((1, 1, True), 1)
    assert backend.store.get_job_bundle(bundle.id).stopped_at == now


def test_deleting_the_only_member_completes(backend: Backend) -> None:
    """A bundle whose only member is deleted has nothing left to wait for."""
    bundle = backend.add_bundle(1, on_stopped=AFTER)
    backend.store.delete_jobs([bundle.jobs[0].id])
    assert (backend.counts(bundle), completions(backend)) == ((0, 0, True), 1)


def test_deleting_a_stopped_member_completes_nothing(backend: Backend) -> None:
    """Deleting a stopped member of a bundle that is complete, or that waits for another one, is not a completion."""
    bundle = backend.add_bundle(3, on_stopped=AFTER)
    first, second, third = backend.claim(3)
    backend.save(Outcome.finished(first))
    backend.store.delete_jobs([first.id])
    assert (backend.counts(bundle), completions(backend)) == ((2, 0, False), 0)
    backend.save(Outcome.finished(second), Outcome.finished(third))
    stopped_at = backend.store.get_job_bundle(bundle.id).stopped_at
    backend.clock.advance(SECOND)
    backend.store.delete_jobs([second.id])
    assert (backend.counts(bundle), completions(backend)) == ((1, 1, True), 1)
    assert backend.store.get_job_bundle(bundle.id).stopped_at == stopped_at


@pytest.mark.parametrize("act", ["reset_jobs", "replay_jobs"])
def test_completion_anew(backend: Backend, act: str) -> None:
    """A member that is reset or replayed opens its bundle again; when it stops again, that is another completion."""
    bundle = backend.add_bundle(2, on_stopped=AFTER)
    backend.save(*(Outcome.failed(job, ERROR) for job in backend.claim(2)))
    for number in (1, 2, 3):
        assert (backend.counts(bundle), completions(backend)) == ((2, 2, True), number)
        getattr(backend.store, act)([bundle.jobs[0].id])
        assert (backend.counts(bundle), completions(backend)) == ((2, 1, False), number)
        now = backend.clock.advance(SECOND)
        backend.save(Outcome.failed(backend.claim_one("t"), ERROR))
        assert backend.store.get_job_bundle(bundle.id).stopped_at == now


# --- the job that a completion adds


def test_the_job_of_a_completion(backend: Backend) -> None:
    """The job that a completion adds is as the bundle describes it, knows the bundle, and is no member of it."""
    desc = JobDesc(
        {"a": [1]},
        type="after",
        origin="elsewhere",
        priority=-7,
        max_retry_count=3,
        start_at=FUTURE,
        retry=Fixed(SECOND, only_for=OSError),
    )
    bundle = backend.add_bundle(1, on_stopped=desc)
    now = backend.clock.advance(SECOND)
    backend.save(Outcome.finished(backend.claim_one()))
    (after,) = backend.store.get_all_jobs_to_do()
    shown = backend.shown(after)
    expected = {
        "id": after.id, "type": "after", "payload": {"a": [1]}, "origin": "elsewhere", "priority": -7,
        "max_retry_count": 3, "start_at": FUTURE, "created_at": now, "updated_at": now,
        "completes_bundle_id": bundle.id, "retry_policy": desc.retry,
    }  # fmt: skip
    assert shown == {**dict.fromkeys(shown), "attempt_errors": (), **dict.fromkeys(
        ("run_count", "rescue_count", "current_retry_count"), 0), **expected}  # fmt: skip


def test_defaults_of_the_job_of_a_completion(backend: Backend) -> None:
    """A description of no more than type and payload gives a job of the bundle's origin that is due at once."""
    backend.add_bundle(1, origin="ours", on_stopped=AFTER)
    backend.save(Outcome.finished(backend.claim_one()))
    after = backend.claim_one("after")
    assert (after.payload, after.origin, after.priority, after.max_retry_count) == ("done", "ours", 0, 0)
    assert after.start_at is None


def test_the_job_of_a_completion_counts_for_nobody(backend: Backend) -> None:
    """Whatever becomes of the job that a completion added, the bundle stays as it was."""
    bundle = backend.add_bundle(1, on_stopped=AFTER)
    backend.save(Outcome.finished(backend.claim_one()))
    before = backend.store.get_job_bundle(bundle.id)
    after = backend.claim_one("after")
    for act in (failed, lambda backend, job: backend.store.reset_jobs([job.id]), cancelled):
        act(backend, after)
        assert (backend.counts(bundle), completions(backend)) == ((1, 1, True), 1)
    backend.store.delete_jobs([after.id])
    now = backend.store.get_job_bundle(bundle.id)
    assert (now.stopped_at, now.updated_at, now.jobs) == (before.stopped_at, before.updated_at, before.jobs)


def test_the_job_of_a_completion_outlives_the_bundle(backend: Backend) -> None:
    """The job that a completion added stays when the bundle is deleted, and can be worked off."""
    bundle = backend.add_bundle(1, on_stopped=AFTER)
    backend.save(Outcome.finished(backend.claim_one()))
    backend.store.delete_job_bundles([bundle.id])
    after = backend.claim_one("after")
    assert after.completes_bundle_id == bundle.id
    assert backend.save(Outcome.finished(after)) == {after.id}


def test_a_bundle_without_a_job_for_its_end(backend: Backend) -> None:
    """A bundle that describes no job adds none."""
    backend.add_bundle(1)
    backend.save(Outcome.finished(backend.claim_one()))
    assert backend.store.get_status().num_jobs == 1


# --- counters

ACTS: dict[str, Callable[[Backend, Job], Any]] = {
    "reset": lambda backend, job: backend.store.reset_jobs([job.id]),
    "replay": lambda backend, job: backend.store.replay_jobs([job.id]),
    "cancel": lambda backend, job: backend.store.cancel_jobs([job.id]),
    "reschedule": lambda backend, job: backend.store.reschedule_job(job.id, START + HOUR),
    "delete": lambda backend, job: backend.store.delete_jobs([job.id]),
}


def counts_after(act: str, fate: Act) -> tuple[int, int, bool]:
    """Return the counts of a bundle of three of which one has succeeded and another one met *fate*, then *act*."""
    if act == "delete":
        return 2, 1, False
    if act == "reset" or (act == "replay" and fate in FAILED):
        return 3, 1, False
    return 3, 1 + (act == "cancel" or fate in STOPPED), False


@pytest.mark.parametrize("fate", FATES)
def test_counters(backend: Backend, fate: Act) -> None:
    """Whatever is done to a member in any state moves the counters by what it did, and once, however often."""
    for act, do in ACTS.items():
        bundle = backend.add_bundle(3, member_type=act)
        first, second = backend.claim(2, [act], MORTAL)
        backend.save(Outcome.finished(second))
        fate(backend, first)
        assert backend.counts(bundle) == (3, 1 + (fate in STOPPED), False)
        for _ in range(2):
            do(backend, first)
            backend.assert_counts_true()
            assert backend.counts(bundle) == counts_after(act, fate)
        backend.store.delete_jobs(job.id for job in bundle.jobs)


def test_the_same_member_twice_in_one_call(backend: Backend) -> None:
    """An id that is given twice is counted once."""
    bundle = backend.add_bundle(3)
    ids = [bundle.jobs[0].id] * 2
    expected = {"cancel_jobs": (3, 1, False), "reset_jobs": (3, 0, False), "delete_jobs": (2, 0, False)}
    for act, counts in expected.items():
        getattr(backend.store, act)(ids)
        assert backend.counts(bundle) == counts


STEPS: dict[str, Callable[[Backend, Job], Any]] = {
    **ACTS,
    "wait": lambda backend, _: backend.clock.advance(2 * HOUR),
    "die": lambda backend, _: (backend.claim(1, ["t"], MORTAL), given_up(backend, _)),
    "fall silent": lambda backend, _: (backend.claim(1, ["t"], MORTAL), backend.clock.advance(SECOND),
                                       backend.worker_store.reap_jobs(DEAD_FOR, 99)),
    **{
        fate.__name__: lambda backend, _, fate=fate: [fate(backend, job) for job in backend.claim(1, ["t"])]
        for fate in (waits, runs, succeeded, failed, retries, discarded)
    },
}  # fmt: skip


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 2)), min_size=5, max_size=20))
def test_any_history(backend: Backend, steps: list[tuple[str, int]]) -> None:
    """After every step of any history the counters are true, and each completion has added one job."""
    backend.store.delete_all_jobs_and_bundles()
    bundle = backend.add_bundle(3, on_stopped=AFTER)
    complete, expected = False, 0
    for step, number in steps:
        STEPS[step](backend, bundle.jobs[number])
        backend.assert_counts_true()
        was_complete, complete = complete, backend.counts(bundle)[2]
        expected += complete and not was_complete
        assert completions(backend) == expected


# --- bundles that go by themselves


@pytest.mark.parametrize("fate", FATES)
def test_a_bundle_goes_when_all_have_succeeded(backend: Backend, fate: Act) -> None:
    """A bundle that asked for it goes with its members when all of them have succeeded, and in no other case."""
    bundle = backend.add_bundle(2, delete_when_succeeded=True)
    first, last = backend.claim(2, claimant=MORTAL)
    backend.save(Outcome.finished(first))
    fate(backend, last)
    gone = fate is succeeded
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == int(gone)
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    assert backend.store.get_status().num_job_bundles == int(not gone)
    assert len(backend.store.get_jobs(job.id for job in bundle.jobs)) == (0 if gone else 2)


def test_a_bundle_that_did_not_ask_stays(backend: Backend) -> None:
    """A bundle that did not ask for its deletion stays, whatever goes beside it."""
    asked, unasked = backend.add_bundle(1, delete_when_succeeded=True), backend.add_bundle(1)
    backend.save(*(Outcome.finished(job) for job in backend.claim(2)))
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 1
    assert backend.store.get_job_bundle(unasked.id).stopped
    assert backend.store.get_jobs([asked.jobs[0].id]) == []


def test_a_bundle_is_kept_for_those_who_want_to_read_it(backend: Backend) -> None:
    """A bundle goes no sooner than so long after it was complete."""
    backend.add_bundle(1, delete_when_succeeded=True)
    backend.save(Outcome.finished(backend.claim_one()))
    assert backend.worker_store.delete_succeeded_bundles(2 * SECOND) == 0
    backend.clock.advance(SECOND)
    assert backend.worker_store.delete_succeeded_bundles(2 * SECOND) == 0
    backend.clock.advance(SECOND)
    assert backend.worker_store.delete_succeeded_bundles(2 * SECOND) == 1


def completed(backend: Backend) -> tuple[JobBundle, Job]:
    """Return a bundle that is complete and asked to go, and the job that its completion added, claimed."""
    bundle = backend.add_bundle(1, delete_when_succeeded=True, on_stopped=AFTER)
    backend.save(Outcome.finished(backend.claim_one("t")))
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    return bundle, backend.claim_one("after", claimant=MORTAL)


@pytest.mark.parametrize("fate", FATES)
def test_a_bundle_waits_for_the_job_of_its_completion(backend: Backend, fate: Act) -> None:
    """A bundle stays until the job that its completion added has succeeded; that job itself stays."""
    bundle, after = completed(backend)
    fate(backend, after)
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == int(fate is succeeded)
    assert backend.store.get_status().num_job_bundles == int(fate is not succeeded)
    assert backend.read(after).completes_bundle_id == bundle.id


def test_a_bundle_does_not_wait_for_a_job_that_is_gone(backend: Backend) -> None:
    """A bundle whose completion's job was deleted goes."""
    _, after = completed(backend)
    backend.store.delete_jobs([after.id])
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 1


def test_a_bundle_waits_for_the_jobs_of_all_its_completions(backend: Backend) -> None:
    """A bundle that completed twice waits for both jobs."""
    bundle, first = completed(backend)
    backend.save(Outcome.finished(first))
    backend.store.reset_jobs([bundle.jobs[0].id])
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    backend.save(Outcome.finished(backend.claim_one("t")))
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    backend.save(Outcome.finished(backend.claim_one("after")))
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 1


@pytest.mark.parametrize("act", ["replay", "delete"])
def test_a_failure_can_be_mended(backend: Backend, act: str) -> None:
    """A bundle goes when the member that had failed was deleted, or succeeded in a replay."""
    bundle = backend.add_bundle(2, delete_when_succeeded=True)
    first, last = backend.claim(2)
    backend.save(Outcome.finished(first), Outcome.failed(last, ERROR))
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    ACTS[act](backend, last)
    backend.save(*(Outcome.finished(job) for job in backend.claim(1)))
    assert backend.counts(bundle)[2]
    assert backend.worker_store.delete_succeeded_bundles(timedelta(0)) == 1
    assert backend.store.get_status().is_zero
