"""One run of a job: what its outcome is, whatever the handler did."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import attrs
import pytest

from jobqueue.answers import Discard, Snooze
from jobqueue.errors import (
    JobInterruptedError,
    JobTimeoutError,
    LostClaimError,
    PayloadError,
)
from jobqueue.execution import MAX_ERROR_BYTES, execute, run_error_of
from jobqueue.job_context import JobContext, current_job
from jobqueue.models import Job
from jobqueue.outcomes import OutcomeKind
from jobqueue.payload import RawJSON
from jobqueue.registry import Registry
from jobqueue.retry import Exponential, Fixed, Never, Waits

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)
REPLACED = "\ufffd"


class BadLuckError(Exception):
    """Anything that goes wrong."""


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def claimed(payload=None, *, retry=None, **columns):
    """Make a job as a worker has it."""
    job = Job.new("report", {} if payload is None else payload, retry=retry)
    return attrs.evolve(job, started_at=NOW, claim_id=uuid4(), **columns)


def run(function, job=None, *, context=None, schedule_retry=None, **options):
    """Execute *job* with a handler made of *function*."""
    job = claimed() if job is None else job
    handler = Registry().handler("report", **options)(function)
    return execute(job, JobContext(job) if context is None else context, handler, schedule_retry)


def returning(result):
    return lambda: result


def raising(error):
    def fail():
        raise error

    return fail


def test_a_result_finishes_the_job():
    """What the handler returns is stored as JSON, with the fence and the bundle of the job."""
    job = claimed(bundle_id=uuid4())
    outcome = run(returning({"pages": [1, 2]}), job)
    assert (outcome.kind, outcome.result_json) == (OutcomeKind.FINISHED, '{"pages":[1,2]}')
    assert (outcome.fence, outcome.bundle_id) == (job.fence, job.bundle_id)
    assert outcome.error is None


@pytest.mark.parametrize(
    ("result", "text"),
    [(None, None), (0, "0"), (False, "false"), ("", '""'), (RawJSON("[1 ]"), "[1 ]"), (MINUTE, "60.0")],
)
def test_only_none_is_no_result(result, text):
    """None is stored as no result; whatever else is false is a result."""
    assert run(returning(result)).result_json == text


@pytest.mark.parametrize(
    "result",
    [float("nan"), object(), "\0", "\ud800", 10**5000],
    ids=["nan", "object", "nul", "surrogate", "5,001 digits"],
)
def test_a_result_that_is_no_json_fails_the_job_for_good(result):
    """A result that cannot be stored is a final failure that says so, even with retries left."""
    outcome = run(returning(result), claimed(max_retry_count=5))
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error.message.startswith("the result cannot be stored as JSON: ")
    assert outcome.error.type == "jobqueue.errors.PayloadError"


def test_a_snooze_is_no_failure():
    """Snooze puts the job off, and is no result."""
    outcome = run(returning(Snooze(MINUTE)))
    assert (outcome.kind, outcome.delay, outcome.error) == (OutcomeKind.SNOOZED, MINUTE, None)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("too late", "too late"),
        ("", "discarded by its handler"),
        (" \n", "discarded by its handler"),
        ("a\0b\ud800", f"a{REPLACED}b{REPLACED}"),
        ("ü" * MAX_ERROR_BYTES, "ü" * (MAX_ERROR_BYTES // 2)),
        (5, "5"),
    ],
    ids=["plain", "empty", "blank", "unclean", "long", "no text"],
)
def test_a_discard_cancels_with_its_reason(reason, message):
    """Discard's reason is the message, cleaned and cut; without one there is a default."""
    outcome = run(returning(Discard(reason)))
    assert (outcome.kind, outcome.error.message) == (OutcomeKind.DISCARDED, message)


@pytest.mark.parametrize(
    "error", [BadLuckError("no"), SystemExit("no"), KeyboardInterrupt("no"), GeneratorExit("no"), BaseException("no")]
)
def test_every_error_fails_the_run_and_none_gets_out(error):
    """Whatever a handler raises, even what ends interpreters, is a failed run."""
    outcome = run(raising(error))
    assert (outcome.kind, outcome.error.message) == (OutcomeKind.FAILED, "no")
    assert outcome.error.type == f"{type(error).__module__}.{type(error).__qualname__}"


def test_an_error_is_kept_with_traceback_and_data():
    """Message, type and traceback are kept, and once more as JSON, with what the error itself carries."""
    error = BadLuckError("first\nsecond")
    error.error_data = {"at": NOW, "codes": [1]}
    kept = run(raising(error)).error
    assert kept.message == "first\nsecond"
    assert kept.type == f"{__name__}.BadLuckError"
    assert "in fail" in kept.traceback
    assert kept.traceback.endswith("BadLuckError: first\nsecond\n")
    assert json.loads(kept.data_json) == {
        "type": kept.type,
        "traceback": kept.traceback,
        "error_data": {"at": NOW.isoformat(), "codes": [1]},
    }


def test_an_error_without_data_has_none():
    """Only an error with an ``error_data`` attribute has it in its JSON; None is data."""
    assert set(json.loads(run_error_of(BadLuckError("no")).data_json)) == {"type", "traceback"}
    error = BadLuckError("no")
    error.error_data = None
    assert json.loads(run_error_of(error).data_json)["error_data"] is None


@pytest.mark.parametrize("data", [object(), float("nan"), "\0"], ids=["an object", "nan", "nul"])
def test_error_data_that_is_no_json_says_so(data):
    """Error data that cannot be stored leaves a note in its place, and the rest stays."""
    error = BadLuckError("no")
    error.error_data = data
    kept = json.loads(run_error_of(error).data_json)
    assert kept["error_data"].startswith("cannot be made JSON: ")
    assert kept["type"] == f"{__name__}.BadLuckError"


def test_error_data_that_raises_says_so():
    """A property that raises is no better than data that is no JSON."""

    class BrokenError(Exception):
        @property
        def error_data(self):
            raise BadLuckError("worse")

    assert json.loads(run_error_of(BrokenError()).data_json)["error_data"] == "cannot be made JSON: worse"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BadLuckError(), "BadLuckError"),
        (BadLuckError("  "), "BadLuckError"),
        (UnspeakableError(), "UnspeakableError, whose message cannot be read: RuntimeError"),
        (BadLuckError("a\0b"), f"a{REPLACED}b"),
        (BadLuckError("a\ud800\udfff"), f"a{REPLACED}{REPLACED}"),
        (KeyError("key"), "'key'"),
    ],
)
def test_every_error_has_a_message_that_can_be_stored(error, message):
    """An error without words goes by its class; NUL and lone surrogates are replaced, in the traceback too."""
    kept = run_error_of(error)
    assert kept.message == message
    for text in (kept.message, kept.traceback, kept.data_json):
        assert "\0" not in text
        assert r"\u0000" not in text
        text.encode()


@pytest.mark.parametrize("character", ["x", "ü", "€", "🎉"])
def test_messages_and_tracebacks_are_cut(character):
    """Of a message the first 16 kB are kept, of a traceback the last, never half a character."""
    size = len(character.encode())
    fits = character * (MAX_ERROR_BYTES // size)
    assert run_error_of(BadLuckError(fits)).message == fits
    kept = run_error_of(BadLuckError(f"<{fits}>"))
    assert MAX_ERROR_BYTES - size < len(kept.message.encode()) <= MAX_ERROR_BYTES
    assert f"<{fits}".startswith(kept.message)
    assert MAX_ERROR_BYTES - size < len(kept.traceback.encode()) <= MAX_ERROR_BYTES
    assert kept.traceback.endswith(f"{character}>\n")


def test_a_traceback_that_cannot_be_made_does_not_hide_the_error(monkeypatch):
    """An error whose formatting fails is kept without its traceback."""
    with monkeypatch.context() as broken:
        broken.setattr("traceback.format_exception", lambda error: raising(BadLuckError("worse"))())
        kept = run_error_of(BadLuckError("message"))
    assert kept.message == "message"
    assert kept.traceback == "the traceback cannot be formatted: BadLuckError"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"size": "many"}, r"\$\.size"),
        ({}, "is missing"),
        (RawJSON("9" * 5000), "cannot be read"),
        ([], "not an object"),
    ],
    ids=["misfit", "missing", "5,000 digits", "no object"],
)
def test_an_unfit_payload_fails_the_run(payload, reason):
    """A payload that cannot be decoded or structured is an error like any other, retried if there are retries."""

    def handle(*, size: int):
        raise AssertionError("never called")

    outcome = run(handle, claimed(payload))
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error.type == "jobqueue.errors.PayloadError"
    with pytest.raises(PayloadError, match=reason):
        raise PayloadError(outcome.error.message)
    assert run(handle, claimed(payload, max_retry_count=1)).kind is OutcomeKind.RETRY


def test_without_a_handler_the_run_fails():
    """A job whose handler is not there fails with an error that says so."""
    job = claimed()
    outcome = execute(job, JobContext(job), None)
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error.type == "jobqueue.errors.HandlerNotFoundError"
    assert "'report'" in outcome.error.message


@pytest.mark.parametrize(
    ("current", "most", "kind"),
    [
        (0, 0, OutcomeKind.FAILED),
        (0, 1, OutcomeKind.RETRY),
        (1, 2, OutcomeKind.RETRY),
        (2, 2, OutcomeKind.FAILED),
        (3, 2, OutcomeKind.FAILED),
    ],
)
def test_a_failed_run_is_retried_while_retries_are_left(current, most, kind):
    """The maximum counts extra runs: with 2 of them used up, the next failure is final."""
    job = claimed(current_retry_count=current, max_retry_count=most)
    outcome = run(raising(BadLuckError("no")), job)
    assert (outcome.kind, outcome.error.message) == (kind, "no")


def test_the_handler_s_policy_says_when():
    """The policy is asked with the number of the retry, 1 for the first."""

    class Asked:
        def __init__(self):
            self.retries = []

        def delay_before(self, retry):
            self.retries.append(retry)
            return retry * MINUTE

    policy = Asked()
    for current in (0, 1):
        outcome = run(raising(BadLuckError()), claimed(current_retry_count=current, max_retry_count=9), retry=policy)
        assert (outcome.delay, outcome.start_at) == ((current + 1) * MINUTE, None)
    assert policy.retries == [1, 2]


def test_without_a_policy_the_default_says_when():
    """A handler without a policy, or no handler, gets exponential delays with jitter: at most 1 s before the first."""
    job = claimed(max_retry_count=1)
    for outcome in (run(raising(BadLuckError()), job), execute(job, JobContext(job), None)):
        assert outcome.kind is OutcomeKind.RETRY
        assert timedelta(0) <= outcome.delay <= timedelta(seconds=1)


def test_a_policy_may_give_up():
    """A policy that returns None makes the failure final, with the error as it was."""
    outcome = run(raising(BadLuckError("no")), claimed(max_retry_count=5), retry=Never())
    assert (outcome.kind, outcome.error.message) == (OutcomeKind.FAILED, "no")


def test_a_retry_schedule_goes_before_the_policy():
    """A retry schedule is called with the context and the job, which shows the error, and says the moment."""
    seen = []

    def schedule(context, job):
        seen.append((context, job, job.error_msg, job.error_data["type"], current_job()))
        return NOW + MINUTE

    job = claimed(max_retry_count=1)
    context = JobContext(job)
    outcome = run(raising(BadLuckError("no")), job, context=context, schedule_retry=schedule, retry=Fixed(MINUTE))
    assert (outcome.kind, outcome.start_at, outcome.delay) == (OutcomeKind.RETRY, NOW + MINUTE, None)
    assert seen == [(context, job, "no", f"{__name__}.BadLuckError", job)]


def test_the_jobs_own_policy_goes_before_all_others():
    """What is stored with the job is obeyed, whatever handler and retry schedule say."""
    job = claimed(max_retry_count=5, retry=Fixed(3 * MINUTE))
    outcome = run(raising(BadLuckError("no")), job, schedule_retry=lambda *_: None, retry=Never())
    assert (outcome.kind, outcome.delay) == (OutcomeKind.RETRY, 3 * MINUTE)


@pytest.mark.parametrize(("error", "kind"), [(OSError("no"), OutcomeKind.RETRY), (KeyError("no"), OutcomeKind.FAILED)])
@pytest.mark.parametrize("of_job", [True, False])
def test_only_chosen_errors_are_retried(error, kind, of_job):
    """A policy for some errors fails the job for others at once, though it has retries left."""
    policy = Exponential(only_for=OSError)
    job = claimed(max_retry_count=5, retry=policy if of_job else None)
    assert run(raising(error), job, retry=None if of_job else policy).kind is kind


def test_a_policy_may_look_like_nothing():
    """A handler's own policy is asked whatever truth it has, as a list of waits that is empty."""

    class Nothing(list):
        def delay_before(self, retry):
            return 7 * MINUTE

    assert run(raising(BadLuckError("no")), claimed(max_retry_count=1), retry=Nothing()).delay == 7 * MINUTE


def test_waits_of_a_handler_say_how_often():
    """A handler with a list of waits has its jobs retried once for each of them, unless it says otherwise."""
    registry = Registry()
    three, one = Waits([MINUTE] * 3), {"retry": Waits([MINUTE] * 3), "max_retry_count": 1}
    assert registry.handler("a", retry=three)(lambda: None).max_retry_count == 3
    assert registry.handler("b", **one)(lambda: None).max_retry_count == 1


def test_a_retry_schedule_is_not_asked_without_need():
    """Neither a run that succeeds nor a final failure asks when to run again."""
    never = raising(AssertionError("asked"))
    assert run(returning(1), claimed(max_retry_count=1), schedule_retry=never).kind is OutcomeKind.FINISHED
    assert run(raising(BadLuckError("no")), claimed(), schedule_retry=never).error.message == "no"


class BadPolicy:
    def __init__(self, delay):
        self.delay = delay

    def delay_before(self, retry):
        if isinstance(self.delay, BaseException):
            raise self.delay
        return self.delay


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"schedule_retry": lambda *_: raising(BadLuckError("worse"))()}, "test_execution.BadLuckError: worse"),
        ({"schedule_retry": lambda *_: raising(SystemExit("worse"))()}, "builtins.SystemExit: worse"),
        ({"schedule_retry": lambda *_: None}, "aware datetime, not None"),
        ({"schedule_retry": lambda *_: MINUTE}, "aware datetime, not datetime.timedelta"),
        ({"schedule_retry": lambda *_: datetime(2030, 1, 1)}, "aware datetime, not datetime.datetime(2030"),  # noqa: DTZ001
        ({"retry": BadPolicy(BadLuckError("worse"))}, "test_execution.BadLuckError: worse"),
        ({"retry": BadPolicy(60)}, "timedelta or None, not 60"),
    ],
    ids=["raises", "exits", "None", "a delay", "naive", "policy raises", "policy's seconds"],
)
@pytest.mark.parametrize("message", ["no", "x" * 100_000], ids=len)
def test_a_retry_that_cannot_be_scheduled_is_a_final_failure(options, reason, message, caplog):
    """A schedule or policy that fails, or says nothing usable, ends the job with both errors in its message."""
    outcome = run(raising(BadLuckError(message)), claimed(max_retry_count=5), **options)
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error.message.startswith(message[:1000])
    assert reason in outcome.error.message
    assert len(outcome.error.message.encode()) <= MAX_ERROR_BYTES
    assert outcome.error.type == f"{__name__}.BadLuckError"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def checking(context):
    """Make a handler that is told to stop by *context*, whatever its own is."""
    return context.check


@pytest.mark.parametrize("tell", [JobContext.interrupt, JobContext.lose])
def test_a_run_that_was_told_to_stop_releases_its_job(tell, caplog):
    """A run ended by the error that told it to stop burns no retry, and is nobody's failure."""
    job = claimed()
    context = JobContext(job)
    tell(context)
    outcome = run(checking(context), job, context=context)
    assert (outcome.kind, outcome.error, outcome.fence) == (OutcomeKind.RELEASED, None, job.fence)
    assert caplog.records == []


@pytest.mark.parametrize("tell", [JobContext.interrupt, JobContext.lose])
@pytest.mark.parametrize(
    ("function", "kind"), [(returning(1), OutcomeKind.FINISHED), (raising(BadLuckError("no")), OutcomeKind.FAILED)]
)
def test_a_run_that_did_not_listen_has_its_own_outcome(tell, function, kind):
    """A run that ends in its own way has the outcome of that, although it was told to stop."""
    job = claimed()
    context = JobContext(job)
    tell(context)
    assert run(function, job, context=context).kind is kind


@pytest.mark.parametrize("error", [JobInterruptedError("no"), LostClaimError("no"), JobTimeoutError("no")])
def test_only_who_was_told_to_stop_is_released(error):
    """Those errors are failures like any other in a run that nobody told to stop; a timeout always is."""
    assert run(raising(error)).kind is OutcomeKind.FAILED


def test_a_retry_schedule_that_is_told_to_stop_releases_the_job():
    """A stop that is noticed only while the retry is scheduled costs no retry either."""
    job = claimed(max_retry_count=1)
    context = JobContext(job)

    def schedule(context, job):
        context.interrupt()
        context.check()

    outcome = run(raising(BadLuckError("no")), job, context=context, schedule_retry=schedule)
    assert outcome.kind is OutcomeKind.RELEASED


def test_a_timeout_is_a_failure_that_may_be_retried():
    """A run that finds its timeout reached has failed."""
    job = claimed(max_retry_count=1)
    context = JobContext(job, timeout=timedelta(0))
    outcome = run(checking(context), job, context=context)
    assert (outcome.kind, outcome.error.type) == (OutcomeKind.RETRY, "jobqueue.errors.JobTimeoutError")


setting: ContextVar[str] = ContextVar("setting", default="outside")


def test_each_run_has_a_context_of_its_own():
    """A handler sees the caller's ContextVars and the current job; what it sets ends with the run."""
    seen = []

    def handle():
        seen.append((setting.get(), current_job()))
        setting.set("inside")

    job = claimed()
    for _ in range(2):
        run(handle, job)
    assert seen == [("outside", job)] * 2
    assert current_job() is None


@pytest.mark.parametrize(
    ("most", "level", "text"),
    [(1, "WARNING", "failed and will be retried: first"), (0, "ERROR", "failed: first")],
)
def test_a_failure_is_one_line_in_the_log(most, level, text, caplog):
    """A failed run is logged once, with the error's first line, the job in the extras, and never the payload."""
    job = claimed({"secret": 1}, max_retry_count=most)

    def fail(payload):
        raise BadLuckError("first\nsecond")

    run(fail, job)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, f"job {job.id} (report) {text}")
    assert (record.job_id, record.job_type) == (str(job.id), "report")
    assert "secret" not in str(vars(record))


def test_success_is_not_logged(caplog):
    """A run that did not fail says nothing."""
    caplog.set_level(logging.DEBUG)
    run(returning(1))
    run(returning(Snooze(MINUTE)))
    run(returning(Discard("late")))
    assert caplog.records == []


def test_what_a_payload_holds_is_not_logged(caplog):
    """A payload that does not fit is told of in the job's error, and without its values in the log."""

    def handle(number: int) -> None:
        raise AssertionError(number)

    outcome = run(handle, claimed("secret"))
    assert outcome.kind is OutcomeKind.FAILED
    assert "int is expected" in outcome.error.message
    assert "secret" not in caplog.text
