"""Claims by hand that go on: what keeps them alive, what they survive, and what becomes of them when all ends."""

import gc
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from jobqueue import (
    ClosedError,
    Job,
    JobBundle,
    JobDesc,
    JobQueueError,
    LostClaimError,
    State,
    UnavailableError,
)
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, connections_of, wait_for_end

BEAT = timedelta(seconds=0.1)
DEAD_FOR = timedelta(seconds=1)
FAST = {"heartbeat_interval": BEAT, "dead_for": DEAD_FOR}
NAME = "by hand"
LOCKED_OUT = "select 1 from pg_stat_activity where application_name = %s and wait_event_type = 'Lock'"
BY_NAME = "select pid from pg_stat_activity where application_name = %s"
RUNNING = "select count(*) from worker.job where started_at is not null and stopped_at is null"


@pytest.fixture
def watching(workers):
    """A service that only looks on."""
    return workers.service(application_name="watching", poll_only=True)


@pytest.fixture
def proxy(queue):
    """The network between a service and the server."""
    place = psycopg.conninfo.conninfo_to_dict(queue)
    with FaultProxy(str(place["host"]), int(place["port"])) as proxy:
        yield proxy


@pytest.fixture
def routed(queue, proxy):
    """Services beyond that network."""
    made = Workers(proxy.route(queue))
    yield made
    proxy.heal()
    made.end()


@pytest.fixture
def reaper(workers, registry):
    """A worker pool that takes up what falls silent, and runs it."""
    registry.register_func_for_job_type("t", lambda _: "taken up")
    pool_service = workers.service(application_name="reaper", **FAST)

    def start():
        workers.start_on(pool_service, registry, 1)
        return pool_service

    return start


def cut(db, name=NAME):
    """End all connections of a service."""
    pids = fetch_all(db, BY_NAME, name)
    for pid in pids:
        db.execute("select pg_terminate_backend(%s)", [pid])
    wait_until(lambda: not set(fetch_all(db, BY_NAME, name)) & set(pids))


def claims_of(service, n=1):
    service.add_jobs([Job.new("t", number) for number in range(n)])
    claims = service.claim("t", n)
    assert len(claims) == n
    return claims


def drop(claims):
    """Forget one of *claims*; return its job."""
    job = claims.pop().job
    gc.collect()
    return job


# --- staying alive


def test_claims_stay_alive(workers, reaper):
    """Claims are beaten for, entered or not, for several times as long as one lives that nobody holds any more."""
    service = workers.service(**FAST)
    claims, doomed = claims_of(service, 3), claims_of(service, 3)
    pool_service = reaper()
    with claims[0]:
        for _ in range(3):
            before = [service.get_job(claim.job.id).worker_alive_at for claim in claims]
            ended = wait_for_end(pool_service, drop(doomed))
            assert (ended.result, ended.rescue_count) == ("taken up", 1)
            after = [service.get_job(claim.job.id).worker_alive_at for claim in claims]
            assert all(late > early for late, early in zip(after, before, strict=True))
    for claim in claims[1:]:
        claim.finish()
    jobs = [service.get_job(claim.job.id) for claim in claims]
    assert [(job.state, job.rescue_count, job.result) for job in jobs] == [(State.SUCCEEDED, 0, None)] * 3
    assert service.health()["lost_claims"] == 0


def test_without_heartbeats(workers, reaper):
    """When heartbeats are off nobody beats, the claim shows no life, and nobody takes it for dead."""
    service = workers.service(heartbeat_interval=None, dead_for=DEAD_FOR)
    (claim,) = claims_of(service)
    pool_service = reaper()
    threading.Event().wait(2 * DEAD_FOR.total_seconds())
    assert pool_service.get_job(claim.job.id).worker_alive_at is None
    claim.finish()
    assert service.get_job(claim.job.id).rescue_count == 0


@pytest.mark.parametrize("way", ["reset_job", "cancel_job", "delete_job"])
def test_a_beat_finds_a_lost_claim(workers, way, caplog):
    """A claim that was taken away knows it after a beat; that is logged and counted once, and so is its end."""
    service = workers.service(**FAST)
    lost, kept = claims_of(service, 2)
    getattr(service, way)(lost.job.id)
    wait_until(lambda: lost.is_lost)
    assert not kept.is_lost
    assert not lost.has_ended
    with pytest.raises(LostClaimError):
        lost.finish()
    kept.finish()
    assert service.health()["lost_claims"] == 1
    assert len([record for record in caplog.records if "lost the claim" in record.getMessage()]) == 1


def test_locked_rows_do_not_silence_the_others(workers, reaper, db, other_db):
    """While many threads wait for a bundle that somebody has locked, all other claims are beaten for."""
    service = workers.service(**FAST)
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(number, type="t") for number in range(40)]))
    members = service.claim("t", 40)
    (other,) = claims_of(service)
    reaper()
    with other_db.transaction(), ThreadPoolExecutor(40) as threads:
        other_db.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        ends = [threads.submit(claim.finish) for claim in members]
        for _ in range(8):
            threading.Event().wait(DEAD_FOR.total_seconds() / 4)
            (silent_for,) = fetch_all(
                db,
                "select extract(epoch from clock_timestamp() - worker_alive_at) from worker.job where id = %s",
                other.job.id,
            )
            assert silent_for < DEAD_FOR.total_seconds()
        errors = [end.exception() for end in ends]
    assert {type(error).__name__ for error in errors} == {"LockTimeoutError"}
    for claim in (*members, other):
        claim.finish()
    assert service.get_job_bundle(bundle.id).stopped_at is not None


# --- surviving the database


ENDINGS = {
    "finish": (lambda claim: claim.finish(7), State.SUCCEEDED),
    "fail": (lambda claim: claim.fail("no luck"), State.FAILED),
    "release": (lambda claim: claim.release(), State.AVAILABLE),
}


@pytest.mark.parametrize(("end", "state"), ENDINGS.values(), ids=ENDINGS)
def test_a_database_that_goes_away(workers, watching, db, other_db, end, state):
    """Whoever loses the database while it is to save an end is told so, and may try again: the claim goes on."""
    service = workers.service(application_name=NAME, poll_only=True)
    (claim,) = claims_of(service)
    with other_db.transaction(), ThreadPoolExecutor(1) as thread:
        other_db.execute("select from worker.job for update")
        ending = thread.submit(end, claim)
        wait_until(lambda: fetch_all(db, LOCKED_OUT, NAME))
        cut(db)
        with pytest.raises(UnavailableError):
            ending.result(10)
    assert not claim.has_ended
    assert watching.get_job(claim.job.id).state is State.RUNNING
    end(claim)
    assert watching.get_job(claim.job.id).state is state


def test_beats_survive_their_connection(workers, routed, proxy, watching, reaper, caplog):
    """Beats that get no answer are told of once, and go on: the claim outlives what nobody beats for."""
    caplog.set_level("INFO")
    service = routed.service(poll_only=True, heartbeat_interval=BEAT, dead_for=2 * DEAD_FOR)
    (claim,) = claims_of(service)
    doomed = claims_of(workers.service(poll_only=True, **FAST))
    pool_service = reaper()
    job = drop(doomed)
    for number in range(1, 4):
        proxy.cut_answer(str(claim.job.claim_id).encode(), times=2)
        wait_until(lambda number=number: proxy.num_cut_answers == 2 * number)
        wait_until(lambda number=number: caplog.text.count("are beaten for again") == number)
    assert caplog.text.count("cannot be beaten for") == 3
    assert wait_for_end(pool_service, job).result == "taken up"
    claim.finish("still here")
    assert watching.get_job(claim.job.id).result == "still here"


def lose_answers(service, monkeypatch):
    """Have saves reach the database, and their answers reach nobody."""
    store = service._claims._store
    save = store.save_outcomes

    def save_unheard(outcomes):
        save(outcomes)
        raise UnavailableError("the connection was lost before the answer came")

    monkeypatch.setattr(store, "save_outcomes", save_unheard)


@pytest.mark.parametrize(("end", "state"), ENDINGS.values(), ids=ENDINGS)
def test_an_answer_that_is_lost(workers, end, state):
    """When the end was saved, and the answer lost, the second try succeeds and changes nothing."""
    service = workers.service()
    (claim,) = claims_of(service)
    with pytest.MonkeyPatch.context() as patch:
        lose_answers(service, patch)
        with pytest.raises(UnavailableError):
            end(claim)
    before = service.get_job(claim.job.id)
    end(claim)
    after = service.get_job(claim.job.id)
    assert (after.state, after.updated_at) == (state, before.updated_at)
    assert claim.has_ended
    assert service.health()["lost_claims"] == 0


def test_claims_that_are_lost_during_an_outage(routed, proxy, watching):
    """When the end was not saved, and the claim is gone at the second try, that is no false success."""
    service = routed.service(poll_only=True)
    claims = claims_of(service, 2)
    proxy.refuse()
    proxy.cut()
    with ThreadPoolExecutor(2) as threads:
        errors = [threads.submit(claim.finish).exception for claim in claims]
        assert [type(error(20)) for error in errors] == [UnavailableError] * 2
    watching.reset_job(claims[0].job.id)
    watching.cancel_job(claims[1].job.id)
    proxy.accept()
    for claim in claims:
        with pytest.raises(LostClaimError):
            claim.finish()
    assert service.health()["lost_claims"] == 2


# --- ending


def test_closing_releases_claims(workers, db):
    """close() gives back what has not ended, and leaves no thread and no connection."""
    service = workers.service(application_name=NAME, **FAST)
    finished, waiting, entered = claims_of(service, 3)
    finished.finish()
    with entered:
        service.close()
    with pytest.raises(JobQueueError, match="ended already"):
        entered.finish()
    assert sorted(fetch_all(db, "select payload::text from worker.job where started_at is null")) == ["1", "2"]
    assert waiting.has_ended
    assert not [thread.name for thread in threading.enumerate() if thread.name == "jobqueue-claims"]
    wait_until(lambda: connections_of(db, NAME) == 0)
    with pytest.raises(ClosedError):
        service.claim("t")


def test_closing_without_a_database(migrated, pg_dsn, caplog):
    """close() does not wait for a database that is gone, however many claims there are, and says what is left."""
    workers = Workers(migrated)
    service = workers.service(application_name=NAME, poll_only=True, **FAST)
    claims = claims_of(service, 20)
    with psycopg.connect(pg_dsn, autocommit=True) as admin:
        name = psycopg.conninfo.conninfo_to_dict(migrated)["dbname"]
        admin.execute(psycopg.sql.SQL("alter database {} allow_connections false").format(psycopg.sql.Identifier(name)))
        cut(admin)
        service.close()
    assert "20 jobs, claimed by hand, are not released" in caplog.text
    with pytest.raises(ClosedError):
        claims[0].finish()


def test_closing_under_a_server_that_hangs(migrated, connection, caplog):
    """close() waits for the release of a claim no longer than some seconds, though its row stays locked for longer."""
    service = Workers(migrated).service(poll_only=True, **FAST)
    (claim,) = claims_of(service)
    may_answer = threading.Event()
    store = service._claims._store
    assert store is not None
    save = store.save_outcomes

    def hang(outcomes):
        may_answer.wait(30)
        return save(outcomes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "save_outcomes", hang)
        began = time.monotonic()
        service.close()
        assert time.monotonic() - began < 20
        assert "not released" in caplog.text
        assert not claim.has_ended
        may_answer.set()
        wait_until(lambda: "jobqueue-claims" not in {thread.name for thread in threading.enumerate()})


def _end_in_child(claim, pipe):
    try:
        claim.finish()
    except ClosedError as error:
        pipe.send(str(error))
    else:
        pipe.send("no error")
    pipe.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_claim_in_a_forked_process(workers):
    """A forked process cannot end its parent's claim, whose connection it would spoil; the parent can."""
    service = workers.service(**FAST)
    claim, other = claims_of(service, 2)
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=_end_in_child, args=(claim, there))
    child.start()
    there.close()
    assert here.poll(20)
    assert "fork" in here.recv()
    child.join(20)
    claim.finish()
    other.finish()
    assert service.get_job(other.job.id).succeeded


def test_claiming_while_closing(workers, db, monkeypatch):
    """What is being claimed while the service closes is waited for, and given back, too."""
    service = workers.service(poll_only=True)
    claims_of(service)[0].finish()
    store = service._claims._store
    claim_jobs = store.claim_jobs
    claimed, may_return = threading.Event(), threading.Event()

    def claim_slowly(*arguments):
        jobs = claim_jobs(*arguments)
        claimed.set()
        may_return.wait(10)
        return jobs

    monkeypatch.setattr(store, "claim_jobs", claim_slowly)
    service.enqueue("t", 1)
    with ThreadPoolExecutor(2) as threads:
        claiming = threads.submit(service.claim, "t")
        assert claimed.wait(10)
        closing = threads.submit(service.close)
        wait_until(lambda: service._claims._closed)
        with pytest.raises(ClosedError):
            service.claim("t")
        assert not closing.done()
        may_return.set()
        (claim,) = claiming.result(10)
        closing.result(10)
    assert claim.has_ended
    assert fetch_all(db, RUNNING) == [0]


def test_two_services_keep_their_own_claims(workers):
    """Each service beats for its own claims, and gives back its own when it closes."""
    first, second = workers.service(**FAST), workers.service(**FAST)
    (mine,), (yours,) = claims_of(first), claims_of(second)
    first.close()
    assert second.get_job(mine.job.id).state is State.AVAILABLE
    before = second.get_job(yours.job.id).worker_alive_at
    wait_until(lambda: second.get_job(yours.job.id).worker_alive_at > before)
    yours.finish()
