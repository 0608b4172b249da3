"""Jobs managed while workers work: cancelled, replayed, rescheduled, and how running handlers hear of it."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

import jobqueue
import jobqueue_pg
from jobqueue import (
    Fixed,
    InvalidJobError,
    Job,
    JobBundle,
    JobContext,
    JobDesc,
    LostClaimError,
    State,
)
from tests.fixtures.stores import assert_counts_true, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

PATIENCE = 10
AT_ONCE = 5
"""Seconds; a beat is twice as far."""
HOUR = timedelta(hours=1)
HELD = "select payload::text::int from worker.job where type = 'held' and started_at is not null"


class NoLuckError(Exception):
    pass


@pytest.fixture
def service(workers):
    """A service whose workers listen, and neither poll nor beat as long as a test takes."""
    return workers.service()


@pytest.fixture
def manager(workers):
    """Another service, as another process has it."""
    return workers.service(poll_only=True)


class Stage:
    """A handler of type ``t`` that plays until it is let go, and looks whether it is still wanted."""

    def __init__(self, registry):
        self.may_end = threading.Event()
        self.contexts: list[JobContext] = []
        self.raised: list[BaseException] = []
        self.cooperative = True
        registry.handler("t")(self.play)

    def play(self, ctx: JobContext, number: int) -> int:
        self.contexts.append(ctx)
        while not self.may_end.wait(0.01):
            if self.cooperative:
                try:
                    ctx.check()
                except BaseException as error:
                    self.raised.append(error)
                    raise
        return number


@pytest.fixture
def stage(registry):
    made = Stage(registry)
    yield made
    made.may_end.set()


def ran(registry):
    """Register a handler for ``quick``, and return the list of the payloads that it was run with."""
    payloads: list[int] = []
    registry.register_func_for_job_type("quick", payloads.append)
    return payloads


# --- cancelling


def jobs_in_every_state(service) -> dict[str, UUID]:
    """Bring jobs into every state by hand, and return their ids."""
    ids = {"running": service.enqueue("running", 1).id, "unknown": uuid4()}
    assert service.claim("running")
    ids["waiting"] = service.enqueue("waiting", 1).id
    ids["delayed"] = service.enqueue("waiting", 1, delay=HOUR).id
    for name in ("retrying", "succeeded", "failed", "cancelled"):
        ids[name] = service.enqueue(name, 1, max_retry_count=int(name == "retrying")).id
        (claim,) = service.claim(name)
        if name == "cancelled":
            service.cancel_job(ids[name])
        elif name == "succeeded":
            claim.finish()
        else:
            claim.fail("no luck")
    return ids


@pytest.mark.parametrize(
    ("manage", "accepted"),
    [
        ("cancel_job", {"waiting", "delayed", "retrying", "running"}),
        ("replay_job", {"failed"}),
        ("reschedule_job", {"waiting", "delayed", "retrying"}),
    ],
)
def test_what_can_be_managed(service, manage, accepted):
    """Each call says whether it has changed anything: that depends on the job's state."""
    ids = jobs_in_every_state(service)
    arguments = [None] if manage == "reschedule_job" else []
    with jobqueue.use_service(service):
        assert {name for name, id in ids.items() if getattr(jobqueue, manage)(id, *arguments)} == accepted
    with pytest.raises(InvalidJobError, match="id must be"):
        getattr(service, manage)(str(ids["waiting"]), *arguments)


def test_cancelled_jobs_do_not_run(workers, service, manager, registry, stage):
    """What is cancelled before workers come to it is passed over, whether it was due or not."""
    payloads = ran(registry)
    service.enqueue("t", 1, priority=1)
    workers.start_on(service, registry, 1)
    wait_until(lambda: stage.contexts)
    jobs = [service.enqueue("quick", 1), service.enqueue("quick", 2, delay=timedelta(seconds=0.3))]
    assert [manager.cancel_job(job.id) for job in jobs] == [True, True]
    stage.may_end.set()
    wait_for_end(service, service.enqueue("quick", 3, delay=timedelta(seconds=0.4)))
    assert payloads == [3]
    assert [service.get_job(job.id).state for job in jobs] == [State.CANCELLED] * 2


def test_a_cancelled_retry_does_not_run(workers, service, manager, registry, db):
    """A job that waits for its next run is not run again."""
    runs: list[int] = []

    @registry.handler("t", retry=Fixed(HOUR))
    def fail(number: int) -> None:
        runs.append(number)
        raise NoLuckError

    workers.start_on(service, registry, 1)
    job = service.enqueue("t", 1, max_retry_count=5)
    wait_until(lambda: service.get_job(job.id).state is State.RETRYING)
    assert manager.cancel_job(job.id)
    db.execute("update worker.job set start_at = created_at where id = %s", [job.id])
    wait_for_end(service, service.enqueue("t", 2))
    assert runs == [1, 2]
    assert service.get_job(job.id).error_msg == "cancelled"


def test_a_cancelled_handler_hears_of_it(workers, service, manager, registry, stage):
    """A running handler is told at once, long before a beat; its thread takes the next job."""
    payloads = ran(registry)
    pool = workers.start_on(service, registry, 1)
    job = service.enqueue("t", 1, max_retry_count=3)
    wait_until(lambda: stage.contexts)
    assert manager.cancel_job(job.id)
    wait_until(lambda: stage.raised, AT_ONCE)
    assert isinstance(stage.raised[0], LostClaimError)
    assert stage.contexts[0].is_cancelled
    wait_for_end(service, service.enqueue("quick", 2))
    assert payloads == [2]
    assert pool.finish(PATIENCE)
    ended = service.get_job(job.id)
    assert (ended.state, ended.error_msg, ended.result, ended.attempt_errors) == (
        State.CANCELLED,
        "cancelled",
        None,
        (),
    )
    health = service.health()
    assert (health["lost_claims"], health["refused_outcomes"]) == (1, 1)


@pytest.mark.parametrize("result", ["succeeds", "fails"])
def test_what_a_cancelled_run_leads_to_is_refused(workers, service, manager, registry, result):
    """A handler that does not look goes on to its end, which changes nothing."""
    began, may_end = threading.Event(), threading.Event()

    @registry.handler("t")
    def deaf(_: int) -> str:
        began.set()
        may_end.wait(PATIENCE)
        if result == "fails":
            raise NoLuckError
        return "done"

    pool = workers.start_on(service, registry, 1)
    job = service.enqueue("t", 1, max_retry_count=1)
    assert began.wait(PATIENCE)
    assert manager.cancel_job(job.id)
    before = service.get_job(job.id)
    may_end.set()
    assert pool.finish(PATIENCE)
    after = service.get_job(job.id)
    assert (after.state, after.updated_at, after.run_count) == (State.CANCELLED, before.updated_at, 0)


def test_a_handler_in_another_process_hears_of_it(processes, migrated, connection):
    """The cancellation reaches whichever process runs the job, long before its next beat."""
    process = processes.start(threads=1, heartbeat=10, dead_for=60)
    with jobqueue_pg.connect(migrated, origin="tests") as service:
        job = service.enqueue("slow", 1.5)
        wait_until(lambda: fetch_all(connection, "select event from run") == ["began"])
        assert service.cancel_job(job.id)
        wait_until(lambda: fetch_all(connection, "select event from run order by at") == ["began", "lost"])
        assert process.finish() == {"lost_claims": 1, "refused_outcomes": 1}
        assert service.get_job(job.id).state is State.CANCELLED


@pytest.mark.parametrize(
    "take_away",
    [
        lambda service, job: service.reset_job(job.id),
        lambda service, job: service.delete_job(job.id),
        lambda service, job: service.delete_jobs_of_type("t"),
        lambda service, job: service.delete_job_bundle(job.bundle_id),
        lambda service, job: service.delete_all_jobs_and_bundles(),
    ],
    ids=["reset", "delete", "delete of its type", "delete of its bundle", "delete of everything"],
)
def test_every_way_to_lose_a_claim_is_told(workers, service, manager, registry, stage, take_away):
    """However a running job is taken away, its handler hears of it at once."""
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")]))
    pool = workers.start_on(service, registry, 1)
    wait_until(lambda: stage.contexts)
    pool.stop()
    take_away(manager, bundle.jobs[0])
    wait_until(lambda: stage.raised, AT_ONCE)
    assert pool.finish(PATIENCE)


def test_what_is_held_ahead_is_not_started(workers, manager, registry, stage, db, monkeypatch):
    """Jobs that a pool has claimed ahead, and that are cancelled before a thread comes to them, are not started."""
    monkeypatch.setattr("jobqueue.worker.keeper._HELD_TOO_LONG", 60.0)  # nor handed back before that
    service = workers.service(batch_size=16)
    payloads = ran(registry)
    held: list[int] = []
    registry.register_func_for_job_type("held", held.append)
    service.add_jobs(
        [
            *(Job.new("quick", number, priority=2) for number in range(60)),
            Job.new("t", 1, priority=1),
            *(Job.new("held", number) for number in range(8)),
        ]
    )
    workers.start_on(service, registry, 1)
    wait_until(lambda: stage.contexts)
    ahead = fetch_all(db, HELD)
    assert len(payloads) == 60
    assert ahead, "nothing was held ahead"
    cancelled = [job for job in service.list_jobs(type="held") if job.payload in ahead and manager.cancel_job(job.id)]
    wait_until(lambda: service.health()["lost_claims"] == len(cancelled), AT_ONCE)
    stage.may_end.set()
    rest = sorted({*range(8)} - {job.payload for job in cancelled})
    wait_until(lambda: len(held) >= len(rest) and not service.get_all_jobs_to_do())
    assert sorted(held) == rest
    assert {service.get_job(job.id).state for job in cancelled} == {State.CANCELLED}


# --- replaying and rescheduling


def test_a_replayed_job_runs_again(workers, service, manager, registry, db):
    """A failed job that is replayed is run at once, as often as when it was new; its bundle counts it truly."""
    luck: list[int] = []

    @registry.handler("t", retry=Fixed(timedelta(0)))
    def fail_thrice(ctx: JobContext, _: int) -> str:
        luck.append(ctx.job.current_retry_count)
        if len(luck) <= 3:
            raise NoLuckError
        return "at last"

    workers.start_on(service, registry, 1)
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t", max_retry_count=1)]))
    job = bundle.jobs[0]
    assert wait_for_end(service, job).state is State.FAILED
    wait_until(lambda: service.get_job_bundle(bundle.id).stopped_at)
    assert manager.replay_job(job.id)
    assert wait_for_end(service, job).result == "at last"
    assert luck == [0, 1, 0, 1]
    wait_until(lambda: service.get_job_bundle(bundle.id).stopped_at)
    assert_counts_true(db)


@pytest.mark.parametrize("later", [None, timedelta(0), timedelta(seconds=0.6)])
def test_a_job_is_brought_forward(workers, service, manager, registry, later):
    """A job that was to run much later starts soon after its new time, though nobody polls."""
    times: list[datetime] = []
    registry.register_func_for_job_type("t", lambda _: times.append(datetime.now(UTC)))
    job = service.enqueue("t", 1, delay=HOUR)
    workers.start_on(service, registry, 2)
    wait_for_end(service, service.enqueue("t", 2))
    start_at = datetime.now(UTC) + (later or timedelta(0))
    assert manager.reschedule_job(job.id, None if later is None else start_at)
    wait_for_end(service, job)
    assert timedelta(0) <= times[1] - start_at < timedelta(seconds=PATIENCE)


def test_a_retry_is_brought_forward(workers, service, manager, registry):
    """A job that waits for its retry can be had run now, and has used up that retry."""

    @registry.handler("t", retry=Fixed(HOUR))
    def fail_once(ctx: JobContext, _: int) -> int:
        if ctx.job.current_retry_count == 0:
            raise NoLuckError
        return ctx.job.current_retry_count

    workers.start_on(service, registry, 1)
    job = service.enqueue("t", 1, max_retry_count=1)
    wait_until(lambda: service.get_job(job.id).state is State.RETRYING)
    assert manager.reschedule_job(job.id, None)
    assert wait_for_end(service, job, PATIENCE).result == 1


def test_a_job_is_put_off(workers, service, manager, registry, stage):
    """A job that was due, and is put off, is not started before its new time."""
    payloads = ran(registry)
    workers.start_on(service, registry, 1)
    service.enqueue("t", 1)
    wait_until(lambda: stage.contexts)
    first, second = service.enqueue("quick", 1), service.enqueue("quick", 2)
    assert manager.reschedule_job(first.id, datetime.now(UTC) + HOUR)
    stage.may_end.set()
    wait_for_end(service, second)
    assert payloads == [2]
    start_at = datetime.now(UTC) + timedelta(seconds=0.5)
    assert manager.reschedule_job(first.id, start_at)
    assert wait_for_end(service, first).started_at >= start_at
    assert payloads == [2, 1]


@pytest.mark.parametrize("start_at", [datetime(2100, 1, 1), "2100-01-01", 5, HOUR])  # noqa: DTZ001 - naive
def test_what_is_no_moment(service, start_at):
    """A new time has a time zone, or is refused, and the job stays as it is."""
    job = service.enqueue("t", 1)
    with pytest.raises(InvalidJobError, match="start_at"):
        service.reschedule_job(job.id, start_at)
    assert service.get_job(job.id).start_at is None
