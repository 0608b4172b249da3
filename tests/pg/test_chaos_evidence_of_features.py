"""What the database writes down of keys, pauses, schedules and the archive in a chaos run is what has happened."""

from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

import jobqueue_pg
from jobqueue import JobBundle, JobDesc, Retention
from tests.integration.chaos_parts.checker import check
from tests.integration.chaos_parts.evidence import take_evidence
from tests.integration.chaos_parts.lives import Ending, lives_of
from tests.integration.chaos_parts.loading import load_history
from tests.integration.chaos_parts.pause_checks import pauses_of
from tests.integration.chaos_parts.plan import EVERY
from tests.integration.chaos_parts.recorder import Recorder

KEY_TIMES = "a key is held as long as its scope lasts"
AGO = {"ago": timedelta(seconds=10)}
AT_ONCE = Retention(succeeded=timedelta(0), failed=timedelta(0), cancelled=None, mode="archive")


@pytest.fixture
def conninfo(migrated):
    take_evidence(migrated)
    return migrated


@pytest.fixture
def service(conninfo):
    with closing(jobqueue_pg.connect(conninfo, retention=AT_ONCE, poll_only=True)) as service:
        yield service


@pytest.fixture
def execute(conninfo):
    """Does something behind the back of the queue."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        yield connection.execute


@pytest.fixture
def load(conninfo, tmp_path):
    """Reads what was written down."""
    recorder = Recorder(tmp_path, "test")
    recorder.note("server started", since=0)
    yield lambda: load_history(tmp_path, conninfo)
    recorder.close()


def work(service, type):
    [claim] = service.claim([type])
    with claim:
        claim.finish()


def broken(history):
    return {name for name, findings in check(history).items() if findings.problems}


@pytest.mark.parametrize("scope", ["waiting", "waiting_and_running", "until_succeeded", timedelta(hours=1)])
def test_a_key_of_each_scope(service, load, scope):
    """A key is seen from when its job is added, until its scope ends."""
    service.enqueue("steady", {}, unique_key="a", unique_for=scope)
    work(service, "steady")
    found = check(load())
    assert found[KEY_TIMES].looked_at >= 2
    assert found[KEY_TIMES].problems == []
    assert found["a key is held by one job at a time"].looked_at == 1


def test_a_key_that_is_freed_behind_the_back_of_the_queue(service, load, execute):
    """It is found out."""
    service.enqueue("steady", {}, unique_key="a", unique_for="waiting")
    execute("update worker.job set unique_key = null, unique_key_spent = unique_key")
    assert KEY_TIMES in broken(load())


def test_a_key_that_is_freed_by_the_trigger(service, load, execute):
    """What the trigger does after a statement that knows nothing of keys is of the same transaction."""
    service.enqueue("steady", {}, unique_key="a", unique_for="waiting")
    execute("update worker.job set started_at = now()")
    assert KEY_TIMES not in broken(load())


def test_a_pause(service, load):
    """It is seen from its beginning to its end, and so is one that was set anew."""
    service.pause("steady")
    service.pause("steady", until=timedelta(hours=1))
    service.enqueue("steady", {})
    assert service.claim(["steady"]) == []
    service.resume("steady")
    work(service, "steady")
    history = load()
    first, second = pauses_of(history)
    assert first.since < first.until <= second.since < second.until
    assert "nothing of a paused type is claimed" not in broken(history)


def test_a_claim_in_spite_of_a_pause(service, load, execute):
    """A claim that does not look is found out, when it came long enough after the pause."""
    service.enqueue("steady", {})
    service.pause("steady")
    execute("update worker.job set started_at = now(), claim_id = gen_random_uuid()")
    paused_at = "(select at from evidence.change where subject = 'paused_type insert')"
    execute(f"update evidence.change set began_at = {paused_at} where subject = 'job'")
    assert "nothing of a paused type is claimed" not in broken(load())
    execute("update evidence.change set began_at = began_at + '1 s', at = at + '1 s' where subject = 'job'")
    assert "nothing of a paused type is claimed" in broken(load())


def test_ticks(service, load, execute):
    """Each tick is seen with its job, in the transaction that moves the schedule on."""
    service.add_schedule("tick:all", "tick:all", every=EVERY, missed="all")
    execute("update worker.schedule set start_at = start_at - %(ago)s, next_tick_at = next_tick_at - %(ago)s", AGO)
    jobs = service.tick_schedules()
    assert len(jobs) >= 10
    history = load()
    found = check(history)
    assert found["each tick of a schedule is seen to once"].looked_at >= 30
    assert found["each tick has its job, each job its tick"].looked_at == 2 * len(jobs)
    assert broken(history) == {"every job is final"}
    execute("update worker.schedule set next_tick_at = next_tick_at + interval '1 s'")
    assert "each tick of a schedule is seen to once" in broken(load())


def test_a_job_that_is_archived_when_it_stops(service, load):
    """The end of its last run is seen, although its row never showed it; nothing is missing."""
    job = service.enqueue("deaf", {})
    work(service, "deaf")
    history = load()
    assert history.queue == {}
    [life] = lives_of(history).all.values()
    assert (life.job, life.ending) == (str(job.id), Ending.FINISHED)
    # Nobody has written down who added it, or that it was run.
    assert broken(history) == {
        "no job comes from nowhere",
        "an outcome is of its own claim's run",
    }


def test_a_bundle_that_is_archived(service, load):
    """It is seen as it was, and goes with its members."""
    bundle = service.add_bundle(JobBundle.new("bundle", [JobDesc({}, type="deaf")] * 2))
    work(service, "deaf")
    work(service, "deaf")
    service.clean(Retention(succeeded=timedelta(0), mode="archive"))
    history = load()
    assert history.bundles.keys() == {str(bundle.id)}
    assert len(history.archive) == 2
    found = check(history)
    assert found["retention takes bundles whole"].looked_at == 2
    assert not {"retention takes bundles whole", "counters equal a recount"} & broken(history)


def test_a_job_that_is_deleted(service, load, execute):
    """What is taken out of the queue, and not archived, is found out."""
    service.enqueue("deaf", {})
    execute("delete from worker.job")
    assert broken(load()) == {"what retention took is in the archive", "what retention took was old enough"}
