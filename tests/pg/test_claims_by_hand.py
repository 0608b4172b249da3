"""Jobs claimed by hand: which ones, and how such a claim ends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

import jobqueue
from jobqueue import (
    Discard,
    Fixed,
    InvalidJobError,
    Job,
    JobBundle,
    JobDesc,
    JobQueueError,
    LostClaimError,
    Never,
    PayloadError,
    Snooze,
    State,
)
from jobqueue.registry import default_registry
from tests.fixtures.stores import assert_counts_true, row_of
from tests.fixtures.waiting import wait_until

HOUR = timedelta(hours=1)
HANDLED = "test_claims_by_hand"
WAYS_TO_END = {
    "finish": lambda claim: claim.finish(1),
    "fail": lambda claim: claim.fail("no luck"),
    "release": lambda claim: claim.release(),
}
WAYS_TO_TAKE_AWAY = {
    "cancel": lambda service, job_id: service.cancel_job(job_id),
    "reset": lambda service, job_id: service.reset_job(job_id),
    "delete": lambda service, job_id: service.delete_job(job_id),
}

ends = pytest.mark.parametrize("end", WAYS_TO_END.values(), ids=WAYS_TO_END)
takes_away = pytest.mark.parametrize("take_away", WAYS_TO_TAKE_AWAY.values(), ids=WAYS_TO_TAKE_AWAY)


class NoLuckError(Exception):
    pass


@pytest.fixture
def handled():
    """Who registers handlers in the default registry, by which claims by hand go; they are forgotten with the test."""
    yield default_registry
    jobqueue.unregister(HANDLED)


def claim_one(service, *, type="t", **values):
    """Add a job and claim it."""
    job = service.enqueue(type, 1, **values)
    (claim,) = service.claim(type)
    assert claim.job == job
    return claim


def now(service, claim) -> Job:
    return service.get_job(claim.job.id)


# --- what is claimed


def test_a_claimed_job_is_running(service):
    """The job is this thread's, as far as the queue goes, and shows that it is alive."""
    claim = claim_one(service)
    job = now(service, claim)
    assert job.state is State.RUNNING
    assert (job.claim_id, job.payload) == (claim.job.claim_id, 1)
    assert job.claimed_by.endswith(f":{threading.current_thread().name}")
    assert job.worker_alive_at is not None
    assert (claim.has_ended, claim.is_lost) == (False, False)


@pytest.mark.parametrize(
    ("types", "found"),
    [
        ("a", ["a"]),
        ("a:*", ["a:1", "a:2"]),
        ("*", ["a", "a:1", "a:2", "b"]),
        (["b", "a"], ["a", "b"]),
        (iter(["b", "a:*"]), ["a:1", "a:2", "b"]),
        (["a", "a"], ["a"]),
        ([], []),
        ("c", []),
    ],
)
def test_types_and_patterns(service, types, found):
    """One type is claimed, or several, or all that a pattern stands for."""
    service.add_jobs([Job.new(type, 1) for type in ("a", "a:1", "a:2", "b")])
    assert sorted(claim.job.type for claim in service.claim(types, 10)) == found


def test_several_are_claimed_in_order(service):
    """No more are claimed than were asked for, the most urgent first; what is not due is left alone."""
    jobs = [service.enqueue("t", number, priority=number) for number in range(5)]
    service.enqueue("t", 9, priority=9, delay=HOUR)
    assert [claim.job for claim in service.claim("t", 3)] == jobs[:1:-1]
    assert [claim.job.payload for claim in service.claim("t", 3)] == [1, 0]
    assert service.claim("t") == []


def test_claiming_on_the_current_service(service):
    """``jobqueue.claim`` is the method of the current service."""
    job = service.enqueue("t", 1)
    with jobqueue.use_service(service):
        (claim,) = jobqueue.claim(["t"], n=2)
    assert claim.job == job


@pytest.mark.parametrize("types", ["", "a*b", "t" * 101, ["t", ""], ["t", None], 5, None, b"t"])
def test_what_is_no_type(service, types):
    """What is no type or pattern is refused, and nothing is claimed."""
    job = service.enqueue("t", 1)
    with pytest.raises(InvalidJobError) as caught:
        service.claim(types)
    assert caught.value.field == "types"
    assert service.get_job(job.id).state is State.AVAILABLE


@pytest.mark.parametrize("n", [0, -1, True, "1", 1.0])
def test_what_is_no_number_of_jobs(service, n):
    """At least one job is asked for."""
    with pytest.raises(InvalidJobError, match="n must be"):
        service.claim("t", n)


# --- how a claim ends


@pytest.mark.parametrize("result", [None, 0, {"a": [1, None]}])
def test_finish(service, result):
    """A job that is finished has succeeded, with its result."""
    claim = claim_one(service)
    claim.finish(result)
    job = now(service, claim)
    assert (job.state, job.result, job.run_count, job.worker_alive_at) == (State.SUCCEEDED, result, 1, None)
    assert (claim.has_ended, claim.is_lost) == (True, False)


def test_finish_with_what_a_handler_may_return(service):
    """Snooze and Discard mean what they mean when a handler returns them."""
    snoozed, discarded = claim_one(service), claim_one(service)
    snoozed.finish(Snooze(HOUR))
    discarded.finish(Discard("nobody cares"))
    job = now(service, snoozed)
    assert (job.state, job.current_retry_count, job.attempt_errors) == (State.RETRYING, 0, ())
    assert job.start_at > datetime.now(UTC) + HOUR / 2
    job = now(service, discarded)
    assert (job.state, job.error_msg) == (State.CANCELLED, "nobody cares")


def test_fail_without_retries(service):
    """A job that is failed, and has no retries, keeps the error as a worker would; a text will do."""
    by_error, by_text = claim_one(service), claim_one(service)
    by_error.fail(NoLuckError("today"))
    by_text.fail("tomorrow")
    job = now(service, by_error)
    assert (job.state, job.error_msg, job.run_count) == (State.FAILED, "today", 1)
    assert job.error_data["type"].endswith("NoLuckError")
    assert [error.error_msg for error in job.attempt_errors] == ["today"]
    assert now(service, by_text).error_msg == "tomorrow"


def test_fail_without_a_handler(service):
    """A job with retries left, and no handler here, is retried by the default policy."""
    claim = claim_one(service, max_retry_count=2)
    claim.fail("no luck")
    job = now(service, claim)
    assert (job.state, job.current_retry_count, job.error_msg) == (State.RETRYING, 1, None)
    assert [error.error_msg for error in job.attempt_errors] == ["no luck"]


@pytest.mark.parametrize(("policy", "state"), [(Fixed(HOUR), State.RETRYING), (Never(), State.FAILED)])
def test_fail_by_the_policy_of_the_handler(service, handled, policy, state):
    """The handler's policy says whether the job is retried, and when."""
    handled.handler(HANDLED, retry=policy)(lambda number: number)
    claim = claim_one(service, type=HANDLED, max_retry_count=1)
    claim.fail("no luck")
    job = now(service, claim)
    assert job.state is state
    assert (job.start_at is not None) == (state is State.RETRYING)


def test_fail_by_a_retry_schedule(service, handled):
    """A schedule is asked as by a worker: with the failed job as the current one, on the service of the claim."""
    asked: list[object] = []
    moment = datetime.now(UTC).replace(microsecond=0) + HOUR

    def schedule(ctx, job):
        asked.extend([job.error_msg, jobqueue.current_job(), jobqueue.current_service()])
        return moment

    handled.register_schedule_retry(HANDLED, schedule)
    claim = claim_one(service, type=HANDLED, max_retry_count=1)
    claim.fail("no luck")
    assert asked == ["no luck", claim.job, service]
    assert now(service, claim).start_at == moment
    assert jobqueue.current_job() is None


def test_release(service, db):
    """A released job is as if it had never been claimed, and is the next to be claimed."""
    job_id = service.enqueue("t", 1, max_retry_count=1).id
    before = row_of(db, job_id)
    (claim,) = service.claim("t")
    claim.release()
    after = row_of(db, job_id)
    assert {**after, "updated_at": None} == {**before, "updated_at": None}
    assert [again.job.id for again in service.claim("t")] == [job_id]


def test_members_of_a_bundle(service, db):
    """What is done by hand counts for bundles, too."""
    service.add_bundle(JobBundle.new("b", [JobDesc(number, type="t") for number in range(3)]))
    first, second, third = service.claim("t", 3)
    first.finish()
    second.fail("no luck")
    third.release()
    assert_counts_true(db)
    (third,) = service.claim("t")
    third.finish()
    assert_counts_true(db)
    assert service.get_job_bundle(first.job.bundle_id).stopped_at is not None


@ends
@pytest.mark.parametrize("first", WAYS_TO_END.values(), ids=WAYS_TO_END)
def test_a_claim_ends_once(service, first, end):
    """Whatever has ended a claim, nothing ends it again: that is a clear error, and changes nothing."""
    claim = claim_one(service)
    first(claim)
    before = now(service, claim)
    with pytest.raises(JobQueueError, match="ended already") as caught:
        end(claim)
    assert not isinstance(caught.value, LostClaimError)
    assert now(service, claim).updated_at == before.updated_at
    assert service.health()["lost_claims"] == 0


def test_two_threads_end_a_claim(service):
    """Of several threads that end the same claim, one does."""
    claim = claim_one(service)
    barrier = threading.Barrier(4)

    def finish(number: int) -> int | None:
        barrier.wait()
        try:
            claim.finish(number)
        except JobQueueError:
            return None
        return number

    with ThreadPoolExecutor(4) as threads:
        (winner,) = {number for number in threads.map(finish, range(4)) if number is not None}
    assert now(service, claim).result == winner


@pytest.mark.parametrize("result", [object(), float("nan"), "\0", {1: {"a": {1, object()}}}])
def test_a_result_that_is_no_json(service, result):
    """A result that cannot be stored is told of at once, and leaves the claim as it was."""
    claim = claim_one(service)
    with pytest.raises(PayloadError, match="cannot be stored as JSON"):
        claim.finish(result)
    assert not claim.has_ended
    claim.finish("something else")
    assert now(service, claim).result == "something else"


# --- as a context manager


def test_a_block_that_ends_finishes_the_job(service):
    """When its block ends, the job has succeeded, without a result."""
    with claim_one(service) as claim:
        assert now(service, claim).state is State.RUNNING
    job = now(service, claim)
    assert (job.state, job.result) == (State.SUCCEEDED, None)


@pytest.mark.parametrize("max_retry_count", [0, 1])
def test_a_block_that_an_error_ends_fails_the_job(service, max_retry_count):
    """An error fails the job, or has it retried, and goes its way."""
    claim = claim_one(service, max_retry_count=max_retry_count)
    with pytest.raises(NoLuckError, match="today"), claim:
        raise NoLuckError("today")
    job = now(service, claim)
    assert job.state is (State.RETRYING if max_retry_count else State.FAILED)
    (error,) = job.attempt_errors
    assert error.error_msg == "today"
    assert "raise NoLuckError" in error.traceback


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_block_that_is_interrupted_releases_the_job(service, interruption):
    """Whoever is told to stop gives the job back, and no retry is used up."""
    claim = claim_one(service)
    with pytest.raises(interruption), claim:
        raise interruption
    job = now(service, claim)
    assert (job.state, job.run_count, job.attempt_errors) == (State.AVAILABLE, 0, ())


@ends
@pytest.mark.parametrize("error", [None, NoLuckError, KeyboardInterrupt])
def test_a_block_leaves_a_claim_that_has_ended(service, end, error):
    """What was done within the block stays, however the block ends then."""
    claim = claim_one(service, max_retry_count=1)

    def work() -> None:
        with claim:
            end(claim)
            before.append(now(service, claim))
            if error:
                raise error

    before: list[Job] = []
    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert now(service, claim).updated_at == before[0].updated_at


# --- when it was taken away


def fate_of(service, job_id: UUID) -> list[object]:
    return [(job.state, job.updated_at) for job in service.list_jobs() if job.id == job_id]


@ends
@takes_away
def test_an_end_of_a_claim_that_was_taken_away(service, take_away, end):
    """Whoever ends a claim that is not his any more is told so, has changed nothing, and is counted once."""
    claim = claim_one(service)
    take_away(service, claim.job.id)
    before = fate_of(service, claim.job.id)
    with pytest.raises(LostClaimError, match=str(claim.job.id)):
        end(claim)
    assert claim.is_lost
    assert fate_of(service, claim.job.id) == before
    with pytest.raises(JobQueueError, match="ended already"):
        end(claim)
    assert service.health()["lost_claims"] == 1


def test_a_job_that_is_claimed_again_by_the_same_service(workers):
    """The claim that was taken away hears of it by a beat, although the job is alive in the hands of the other one."""
    service = workers.service(heartbeat_interval=timedelta(seconds=0.1), dead_for=timedelta(seconds=30))
    first = claim_one(service)
    service.reset_job(first.job.id)
    (second,) = service.claim("t")
    wait_until(lambda: first.is_lost)
    before = now(service, second).worker_alive_at
    wait_until(lambda: now(service, second).worker_alive_at > before)
    assert not second.is_lost
    with pytest.raises(LostClaimError):
        first.finish("first")
    second.finish("second")
    assert now(service, second).result == "second"
    assert service.health()["lost_claims"] == 1


def test_a_block_whose_claim_was_taken_away(service):
    """The block raises what finishing raises, as nothing else has gone wrong."""
    claim = claim_one(service)
    with pytest.raises(LostClaimError), claim:
        service.cancel_job(claim.job.id)
    assert now(service, claim).state is State.CANCELLED


def test_a_block_that_fails_on_what_was_taken_away(service, caplog):
    """The error that ends the block is not hidden by the loss, which is logged."""
    claim = claim_one(service)
    service.cancel_job(claim.job.id)
    with pytest.raises(NoLuckError), claim:
        raise NoLuckError
    assert now(service, claim).state is State.CANCELLED
    assert "is not saved" in caplog.text
