"""Listeners on PostgreSQL: every event once in every process, whoever made it."""

import threading
from collections import Counter
from datetime import timedelta

import psycopg
import pytest

from jobqueue import Discard, Fixed, Job, JobBundle, JobDesc, State
from tests.fixtures.listeners import Hearing
from tests.fixtures.stores import counts_of, fetch_all, make_bundle, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, wait_for_end

PATIENCE = 10
AT_ONCE = Fixed(timedelta(0))


@pytest.fixture
def two(workers):
    """Two services that hear everything, as two processes do."""
    return [Hearing(workers.service()) for _ in range(2)]


@pytest.fixture
def adding(workers):
    """A service without listeners."""
    return workers.service(poll_only=True)


# --- what is heard


def test_every_service_hears_every_event_once(two, workers, registry):
    """Both levels of both services hear each job that workers of a third one have ended, and each with its result."""
    registry.register_func_for_job_type("t", lambda number: number * 2)
    working = workers.service()
    workers.start_on(working, registry, 4)
    jobs = working.add_jobs([Job.new("t", number) for number in range(150)])
    for job in jobs:
        wait_for_end(working, job)
    for hearing in two:
        events, told, bundles = hearing.all()
        assert Counter(events) == Counter((job.id, "t", "tests", False) for job in jobs)
        assert Counter(told) == Counter((job, False) for job in jobs)
        assert all(job.result == job.payload * 2 for job, _ in told)
        assert bundles == []
        # The listener and the application's pool, which reads for it: no part is down.
        assert {part["state"] for part in hearing.service.health()["parts"].values()} == {"up"}
        assert hearing.service.health()["dropped_events"] == 0


def test_retries_are_heard(two, workers, registry):
    """A run that failed and will be retried is heard with will_retry, the last one without."""
    left = [2]

    @registry.handler("t", retry=AT_ONCE)
    def fail(_: int) -> None:
        if left[0]:
            left[0] -= 1
            raise ValueError("no luck")

    pool = workers.start(registry, 1)
    job = two[0].service.enqueue("t", 1, max_retry_count=2)
    assert wait_for_end(two[0].service, job).succeeded
    pool.finish(PATIENCE)
    for hearing in two:
        events, told, _ = hearing.all()
        assert [event[3] for event in events] == [True, True, False]
        assert told == [(job, True), (job, True), (job, False)]


def test_a_final_failure_is_heard_with_its_error(two, workers, registry):
    """A job that fails for good is heard once, and shows why."""

    def fail(_: int) -> None:
        raise ValueError("no luck")

    registry.register_func_for_job_type("t", fail)
    pool = workers.start(registry, 1)
    job = two[0].service.enqueue("t", 1)
    wait_for_end(two[0].service, job)
    pool.finish(PATIENCE)
    for hearing in two:
        _, [(heard, will_retry)], _ = hearing.all()
        assert (heard, will_retry, heard.state, heard.error_msg) == (job, False, State.FAILED, "no luck")


def test_cancelled_and_discarded_jobs_are_heard(two, workers, registry):
    """Cancelled while it waits, cancelled while it runs, discarded by its handler: each is heard once."""
    began, go_on = threading.Event(), threading.Event()

    @registry.handler("long")
    def long(_: int) -> None:
        began.set()
        go_on.wait(PATIENCE)

    registry.register_func_for_job_type("discarded", lambda _: Discard("not needed"))
    service = workers.service()
    pool = workers.start_on(service, registry, 2)
    waiting, running, discarded = (service.enqueue(kind, 1) for kind in ("nobody works for this", "long", "discarded"))
    assert began.wait(PATIENCE)
    assert service.cancel_job(running.id)
    assert service.cancel_job(waiting.id)
    wait_for_end(service, discarded)
    go_on.set()
    pool.finish(PATIENCE)
    for hearing in two:
        _, told, _ = hearing.all()
        assert Counter(told) == Counter((job, False) for job in (waiting, running, discarded))
        assert {job.state for job, _ in told} == {State.CANCELLED}


def test_a_job_that_the_reaper_fails_is_heard(two, workers, registry, db):
    """A job whose workers died too often is failed by the reaper, and heard like any other."""
    registry.register_func_for_job_type("other", lambda _: None)
    job = two[0].service.enqueue("t", 1)
    workers.start(registry, 1, max_rescues=0, **FAST_DEATH)
    db.execute(
        "update worker.job set started_at = now() - interval '1 hour', worker_alive_at = now() - interval '1 hour', "
        "claim_id = gen_random_uuid() where id = %s",
        [job.id],
    )
    wait_for_end(two[0].service, job, 20)
    for hearing in two:
        _, told, _ = hearing.all()
        assert told == [(job, False)]
        assert told[0][0].state is State.FAILED


def test_what_does_not_stop_is_not_heard(two, adding, workers, registry):
    """Neither adding, resetting and deleting, nor what is rolled back."""
    jobs = adding.add_jobs([make_job(), make_job()])
    adding.reset_job(jobs[0].id)
    adding.delete_job(jobs[0].id)
    adding.add_bundle(make_bundle(2))
    with psycopg.connect(workers.conninfo) as connection:
        connection.execute("update worker.job set started_at = now(), stopped_at = now()")
        connection.rollback()
    for hearing in two:
        assert hearing.all() == ([], [], [])


def test_a_bundle_is_heard_with_its_members_and_nothing_is_deleted(two, workers, registry, db):
    """The members, then the bundle with all of them, then the job that its end has added; all rows stay."""
    done = threading.Event()
    registry.register_func_for_job_type("t", lambda number: number)
    registry.register_func_for_job_type("after", lambda _: done.set())
    of_type = []
    two[0].service.set_job_bundle_of_type_stopped_listener("b", of_type.append)
    two[1].service.set_job_bundle_of_type_stopped_listener("other", pytest.fail)
    service = workers.service()
    pool = workers.start_on(service, registry, 2)
    bundle = service.add_bundle(
        JobBundle.new("b", [JobDesc(number, type="t") for number in range(5)], on_stopped=JobDesc(0, type="after"))
    )
    assert done.wait(PATIENCE)
    pool.finish(PATIENCE)
    for hearing in two:
        events, told, bundles = hearing.all()
        assert [job.type for job, _ in told] == ["t"] * 5 + ["after"]
        assert told[-1][0].completes_bundle_id == bundle.id
        assert {job for job, _ in told[:-1]} == set(bundle.jobs)
        assert bundles == [bundle]
        assert bundles[0].stopped
        assert [job.result for job in bundles[0].jobs] == list(range(5))
        assert [event for event in events if len(event) == 3] == [(bundle.id, "b", "tests")]
    assert of_type == [bundle]
    assert counts_of(db, bundle.id) == (5, 5, True)
    assert fetch_all(db, "select count(*) from worker.job where type <> 'marker'") == [6]


def test_a_bundle_is_heard_each_time_that_it_completes(two, adding):
    """A member that is reset, and ends again, completes its bundle again."""
    bundle = adding.add_bundle(make_bundle(1))
    for _ in range(2):
        adding.cancel_job(bundle.jobs[0].id)
        adding.reset_job(bundle.jobs[0].id)
    for hearing in two:
        assert hearing.all()[2] == [bundle] * 2


def test_events_of_go_are_heard(two, go):
    """What a process of go-jobqueue ends is heard here, its bundles too."""
    finished, failed = go.add_job("t"), go.add_job("t")
    bundle_id, [member] = go.add_job_bundle("go.Bundle", jobs=[{"type": "t"}])
    for _ in range(3):
        assert go.start_next_job_or_nil(["t"])
    go.set_job_result(finished, {"n": 1})
    go.set_job_error(failed, "no luck")
    go.set_job_result(member)
    for hearing in two:
        events, told, bundles = hearing.all()
        assert events == [
            (finished, "t", "go", False),
            (failed, "t", "go", False),
            (member, "t", "go", False),
            (bundle_id, "go.Bundle", "go"),
        ]
        assert [(job.id, job.result, job.error_msg) for job, _ in told] == [
            (finished, {"n": 1}, None),
            (failed, None, "no luck"),
            (member, {}, None),
        ]
        assert [(bundle.id, [job.id for job in bundle.jobs]) for bundle in bundles] == [(bundle_id, [member])]


# --- when it is heard


def test_what_ends_after_the_call_is_heard(workers, adding):
    """A call that adds a listener returns when what is committed from then on is heard: 50 times out of 50."""
    jobs = adding.add_jobs([make_job() for _ in range(50)])
    for number, job in enumerate(jobs):
        heard = threading.Event()
        with workers.service() as service:
            if number % 2:
                service.add_job_stopped_listener(lambda _, will_retry, heard=heard: heard.set())
            else:
                listener = Hearing(workers.service())
                listener.on_job_stopped = lambda *_, heard=heard: heard.set()
            adding.cancel_job(job.id)
            assert heard.wait(PATIENCE)


def test_several_threads_add_listeners_at_once(workers, adding):
    """Not only the thread that opens the connection waits for it: what each causes after its call is heard by it."""
    for _ in range(5):
        with workers.service() as service:
            jobs = adding.add_jobs([make_job() for _ in range(8)])
            together = threading.Barrier(len(jobs))
            heard = [threading.Event() for _ in jobs]

            def add(job, event, together=together, service=service):
                together.wait(PATIENCE)
                service.add_job_stopped_listener(lambda other, _: event.set() if other == job else None)
                adding.cancel_job(job.id)

            threads = [threading.Thread(target=add, args=pair) for pair in zip(jobs, heard, strict=True)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert all(event.wait(PATIENCE) for event in heard)


def test_a_lost_connection_is_made_again(workers, adding, db):
    """The listener's connection is killed: health() tells, a new one follows, and events are heard again."""
    hearing = Hearing(workers.service(application_name="hearing"))
    errors = []
    hearing.service.set_on_error(errors.append)
    for number in range(1, 4):
        before = hearing.service.health()["parts"]["listener"]["since"]
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'hearing' and query ilike '%%listen%%'"
        )
        wait_until(lambda number=number: len(errors) == number)
        wait_until(lambda: hearing.service.health()["parts"]["listener"]["state"] == "up")
        part = hearing.service.health()["parts"]["listener"]
        # What the driver makes of it depends on how far the server came in saying why.
        assert part["last_error"] in {"AdminShutdown", "OperationalError"}
        assert part["since"] > before
        job = adding.enqueue("t", number)
        adding.cancel_job(job.id)
        wait_until(lambda job=job: (job, False) in hearing.jobs)
    assert [job.payload for job, _ in hearing.jobs] == [1, 2, 3]
