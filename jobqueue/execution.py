"""Run one job and tell what came of it: no store, no thread, and no error that gets out."""

import logging
import re
import traceback
from collections.abc import Sequence
from contextvars import copy_context
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from jobqueue.answers import Discard, Snooze
from jobqueue.bundle import JobBundle
from jobqueue.context import make_current
from jobqueue.errors import HandlerNotFoundError, JobInterruptedError, LostClaimError, PayloadError
from jobqueue.handler import Handler
from jobqueue.job_context import JobContext, current_job_context
from jobqueue.limits import check_size
from jobqueue.middleware import WorkMiddleware, run_through
from jobqueue.models import Job
from jobqueue.outcomes import Outcome, RunError
from jobqueue.payload import MAX_PAYLOAD_BYTES, dump_json
from jobqueue.registry import Registry, ScheduleRetry, default_registry
from jobqueue.retry import DEFAULT_POLICY, ErrorFilter, kinds_of
from jobqueue.service import Service

logger = logging.getLogger(__name__)

MAX_ERROR_BYTES: Final = 16 * 1024
"""The longest error message, and the longest traceback, that is kept of a run, in UTF-8."""

_ABSENT: Final = object()
_MAX_LOGGED: Final = 200
_MOST_CAUSES: Final = 10
_PAYLOAD_ERROR: Final = f"{PayloadError.__module__}.{PayloadError.__qualname__}"
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def execute(
    job: Job,
    context: JobContext,
    handler: Handler[..., Any] | None,
    schedule_retry: ScheduleRetry | None = None,
    middleware: Sequence[WorkMiddleware] = (),
) -> Outcome:
    """Run a claimed *job* with its *handler*, through *middleware*; return what is to become of it.

    What the run raises is never raised.

    A failed run is retried, as long as the job has retries left, when *schedule_retry* says, else when the handler's
    policy does, else by DEFAULT_POLICY. A run that was told to stop, and ended by the error that told it, is released:
    also when its claim is lost, since it is for the store's fence to say whether it really is. An atomic run that has
    failed because its connection is gone is rescued.
    """
    return copy_context().run(_run, job, context, handler, schedule_retry, middleware)


def do_job(job: Job, registry: Registry = default_registry, *, connection: object = None) -> object:
    """Run the handler of *job* here and now, without a queue; return its result, be it Snooze or Discard.

    Of the timeouts only the handler's own applies. Whatever the handler raises is raised. An atomic handler works on
    *connection*, whose transaction stays the caller's; without one, ``ctx.connection`` raises JobQueueError.

    Raises:
        HandlerNotFoundError: *registry* has no handler for the job's type.
        PayloadError: the payload is not what the handler takes.
    """
    return run_now(job, registry, connection=connection)


def run_now(
    job: Job,
    registry: Registry,
    *,
    service: Service | None = None,
    bundle: JobBundle | None = None,
    connection: object = None,
) -> object:
    """Run as ``do_job`` does, with *service* as the current one, if there is one, and *bundle* as the job's bundle."""
    handler = registry.find(job.type)
    timeout = None if handler is None else handler.timeout_or(None)
    context = JobContext(job, timeout=timeout, service=service, bundle=bundle, connection=connection)
    return copy_context().run(_call, job, context, handler, ())


def run_error_of(error: BaseException) -> RunError:
    """Tell what is kept of an *error*, in a form that the database accepts.

    An attribute ``error_data`` of the error is kept, too, as far as it can be made JSON.
    """
    kind = _storable(f"{type(error).__module__}.{type(error).__qualname__}")
    trace = _end_of(_traceback_of(error))
    return RunError(
        message=_start_of(_message_of(error)),
        type=kind,
        traceback=trace,
        data_json=_data_json_of(error, kind, trace),
        kinds=kinds_of(error),
        back_off=_is_true(error, "backoff"),
        back_off_is_shared=_is_true(error, "shared"),
    )


def outcome_of_failure(
    job: Job,
    context: JobContext,
    handler: Handler[..., Any] | None,
    schedule_retry: ScheduleRetry | None,
    error: RunError,
) -> Outcome:
    """Return what is to become of a *job* whose run has failed: another run, if one is left and can be scheduled."""
    if job.current_retry_count >= job.max_retry_count:
        return _failed(job, error)
    try:
        if schedule_retry is None or job.retry_policy_json is not None:
            retry = _by_policy(job, handler, error)
        else:
            retry = _scheduled(job, context, schedule_retry, error)
    except BaseException as problem:  # noqa: BLE001 - as above: policies are applications' code, too
        if _told_to_stop(context, problem):
            return Outcome.released(job)
        _tell_of(problem, context)
        return _failed(job, _unscheduled(job, error, problem))
    if retry is None:
        return _failed(job, error)
    logger.warning("job %s (%s) failed and will be retried: %s", job.id, job.type, _first_line(error), extra=_ids(job))
    return retry


def outcome_of_success(job: Job, result: object, *, max_result_bytes: int) -> Outcome:
    """Return what is to become of a *job* whose run has ended with *result*.

    Raises:
        PayloadError: *result* cannot be stored as JSON, or not in *max_result_bytes*.
    """
    if isinstance(result, Snooze):
        return Outcome.snoozed(job, result.delay)
    if isinstance(result, Discard):
        return Outcome.discarded(job, reason_of(result))
    return Outcome.finished(job, None if result is None else check_size("result", dump_json(result), max_result_bytes))


def reason_of(discard: Discard) -> str:
    """Say why a job was discarded, in a form that the database accepts."""
    reason = _start_of(_storable(str(discard.reason)))
    return reason if reason.strip() else "discarded by its handler"


def enter(context: JobContext) -> None:
    """Make *context* the run that goes on, and its service the current one: in a copied context, which ends with it."""
    current_job_context.set(context)
    if context.service is not None:
        make_current(context.service)


def _call(
    job: Job, context: JobContext, handler: Handler[..., Any] | None, middleware: Sequence[WorkMiddleware]
) -> object:
    if handler is None:
        raise HandlerNotFoundError(f"no handler is registered for jobs of type {job.type!r} (job {job.id})")
    enter(context)
    return run_through(middleware, context, lambda: handler.run(context)) if middleware else handler.run(context)


def _run(
    job: Job,
    context: JobContext,
    handler: Handler[..., Any] | None,
    schedule_retry: ScheduleRetry | None,
    middleware: Sequence[WorkMiddleware],
) -> Outcome:
    try:
        result = _call(job, context, handler, middleware)
        return Outcome.finished(job) if result is None else _after_success(job, context, result)
    except BaseException as error:  # noqa: BLE001 - not even SystemExit in a handler may end a worker thread
        if context.is_cut_off:
            return Outcome.rescued(job)
        if _told_to_stop(context, error):
            return Outcome.released(job)
        _tell_of(error, context)
        return outcome_of_failure(job, context, handler, schedule_retry, run_error_of(error))


def _tell_of(error: BaseException, context: JobContext) -> None:
    if context.service is not None:
        context.service.vitals.tell_of(error)


def _told_to_stop(context: JobContext, error: BaseException) -> bool:
    return context.is_cancelled and isinstance(error, JobInterruptedError | LostClaimError)


def _after_success(job: Job, context: JobContext, result: object) -> Outcome:
    max_bytes = MAX_PAYLOAD_BYTES if context.service is None else context.service.max_payload_bytes
    try:
        return outcome_of_success(job, result, max_result_bytes=max_bytes)
    except PayloadError as error:
        unstored = run_error_of(error)
        return _failed(job, attrs.evolve(unstored, message=f"the result cannot be stored as JSON: {unstored.message}"))


def _scheduled(job: Job, context: JobContext, schedule_retry: ScheduleRetry, error: RunError) -> Outcome:
    failed = attrs.evolve(job, error_msg=error.message, error_data_json=error.data_json)
    return Outcome.retry(job, error, start_at=_checked_moment(schedule_retry(context, failed)))


def _by_policy(job: Job, handler: Handler[..., Any] | None, error: RunError) -> Outcome | None:
    policy = job.retry_policy
    if policy is None:
        policy = DEFAULT_POLICY if handler is None or handler.retry is None else handler.retry
    if isinstance(policy, ErrorFilter) and not policy.retries_after(error.kinds):
        return None
    delay = policy.delay_before(job.current_retry_count + 1)
    return None if delay is None else Outcome.retry(job, error, delay=_checked_delay(delay))


def _checked_moment(value: object) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise TypeError(f"a retry schedule must return an aware datetime, not {value!r}")
    return value


def _checked_delay(value: object) -> timedelta:
    if not isinstance(value, timedelta):
        raise TypeError(f"a retry policy must return a timedelta or None, not {value!r}")
    return value


def _unscheduled(job: Job, error: RunError, problem: BaseException) -> RunError:
    why = run_error_of(problem)
    logger.error("retry could not be scheduled: %s", _first_line(why), extra=_ids(job), exc_info=problem)
    half = MAX_ERROR_BYTES // 2 - 100
    return attrs.evolve(
        error,
        message=f"{_start_of(error.message, half)}\n"
        f"There are retries left, but none could be scheduled: {why.type}: {_start_of(why.message, half)}",
    )


def _failed(job: Job, error: RunError) -> Outcome:
    logger.error("job %s (%s) failed: %s", job.id, job.type, _first_line(error), extra=_ids(job))
    return Outcome.failed(job, error)


def _ids(job: Job) -> dict[str, str]:
    return {"job_id": str(job.id), "job_type": job.type}


def _first_line(error: RunError) -> str:
    """Tell of an error in the log: shortly, and without what a payload holds, which the job's own error_msg has."""
    if error.type == _PAYLOAD_ERROR:
        return "the payload does not fit its handler, or the result is no JSON"
    return error.message.partition("\n")[0][:_MAX_LOGGED]


def _message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as problem:  # noqa: BLE001 - __str__ is anybody's code
        text = f"{type(error).__qualname__}, whose message cannot be read: {type(problem).__qualname__}"
    return _storable(text if text.strip() else type(error).__qualname__)


def _traceback_of(error: BaseException) -> str:
    try:
        return _storable("".join(traceback.format_exception(error)))
    except BaseException as problem:  # noqa: BLE001 - as above; and it must not hide the error itself
        return f"the traceback cannot be formatted: {type(problem).__qualname__}"


def _data_json_of(error: BaseException, kind: str, trace: str) -> str:
    facts: dict[str, object] = {"type": kind, "traceback": trace}
    try:
        data = getattr(error, "error_data", _ABSENT)
        return dump_json(facts if data is _ABSENT else {**facts, "error_data": data})
    except BaseException as problem:  # noqa: BLE001 - a property is anybody's code
        facts["error_data"] = f"cannot be made JSON: {_message_of(problem)}"
    return dump_json(facts)


def _storable(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", text)


def _is_true(error: BaseException, name: str) -> bool:
    """Whether an error, or one that it was raised from, has a true attribute that is no method."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        try:
            value = getattr(cause, name, False)
            if value and not callable(value):
                return True
        except BaseException:  # noqa: BLE001 - a property is anybody's code
            return False
        cause = cause.__cause__
    return False


def _start_of(text: str, size: int = MAX_ERROR_BYTES) -> str:
    encoded = text.encode()
    return text if len(encoded) <= size else encoded[:size].decode(errors="ignore")


def _end_of(text: str, size: int = MAX_ERROR_BYTES) -> str:
    encoded = text.encode()
    return text if len(encoded) <= size else encoded[-size:].decode(errors="ignore")
