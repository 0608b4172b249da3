"""go-jobqueue works on our tables: its statements have its effects, and cause its events."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.fixtures.go_client import GoClient
from tests.fixtures.listening import Ear

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
DEAD_FOR = timedelta(seconds=60)


@pytest.fixture
def go(connection: "psycopg.Connection[Any]") -> GoClient:
    return GoClient(connection)


@pytest.fixture
def other(migrated: str) -> Iterator[GoClient]:
    """Another process."""
    with closing(psycopg.connect(migrated, autocommit=True)) as connection:
        yield GoClient(connection)


@pytest.fixture
def ear(migrated: str) -> Iterator[Ear]:
    with Ear(migrated) as ear:
        yield ear


def test_add_claim_finish(go: GoClient, ear: Ear) -> None:
    """A job is added, claimed, kept alive and finished; it is announced when it comes and when it stops."""
    job_id = go.add_job("t", {"to": "you"}, origin="o", priority=3)
    assert ear.heard() == [("job_available", {"id": str(job_id), "type": "t", "origin": "o", "count": 1})]

    job = go.start_next_job_or_nil(["other", "t"])
    assert job is not None
    assert (job["id"], job["payload"], job["priority"], job["origin"]) == (job_id, {"to": "you"}, 3, "o")
    assert job["started_at"] == job["worker_alive_at"] == job["updated_at"] > job["created_at"]
    assert go.start_next_job_or_nil(["other", "t"]) is None

    go.set_job_worker_alive(job_id)
    beaten = go.get_job(job_id)
    assert beaten is not None
    assert beaten["worker_alive_at"] > job["worker_alive_at"]
    assert ear.heard() == []

    go.set_job_result(job_id, {"ok": True})
    assert ear.heard() == [("job_stopped", {"id": str(job_id), "type": "t", "origin": "o", "willRetry": False})]
    done = go.get_job(job_id)
    assert done is not None
    assert (done["result"], done["worker_alive_at"], done["error_msg"]) == ({"ok": True}, None, None)
    go.set_job_worker_alive(job_id)
    assert go.get_job(job_id) == done


def test_columns_unknown_to_go(go: GoClient) -> None:
    """Whatever go-jobqueue does not set has a value that means: never claimed by us, never run, never rescued."""
    job = go.get_job(go.add_job())
    assert job is not None
    assert set(list(job.values())[17:]) == {None, 0}
    bundle = go.get_job_bundle(go.add_job_bundle()[0])
    assert bundle is not None
    assert (bundle["stopped_at"], bundle["on_stopped"], bundle["delete_when_succeeded"]) == (None, None, False)


def test_claims_go_by_priority_and_age(go: GoClient) -> None:
    """Claims take the highest priority first, then the oldest; neither what is delayed nor other types."""
    go.add_job("t", "delayed", priority=9, start_at=FUTURE)
    go.add_job("unknown", "of another type", priority=9)
    for payload, priority in [("low", -1), ("first", 5), ("second", 5)]:
        go.add_job("t", payload, priority=priority)
    claimed = [go.start_next_job_or_nil(["t"]) for _ in range(4)]
    assert [job and job["payload"] for job in claimed] == ["first", "second", "low", None]


def test_claims_skip_locked_rows(go: GoClient, other: GoClient, connection: "psycopg.Connection[Any]") -> None:
    """Two processes that claim at the same time get different jobs, and none waits."""
    ids = {go.add_job("t"), go.add_job("t")}
    with connection.transaction():
        mine = go.start_next_job_or_nil(["t"])
        theirs = other.start_next_job_or_nil(["t"])
    assert mine is not None
    assert theirs is not None
    assert {mine["id"], theirs["id"]} == ids


def test_final_error(go: GoClient, ear: Ear) -> None:
    """A terminal error raises the retry count to its limit, so that nobody is told of a retry."""
    job_id = go.add_job("t", max_retry_count=2)
    go.start_next_job_or_nil(["t"])
    ear.heard()
    go.set_job_error(job_id, "broken", {"line": 3})
    assert [(channel, payload["willRetry"]) for channel, payload in ear.heard()] == [("job_stopped", False)]
    (job,) = go.get_all_jobs_with_errors()
    assert (job["error_msg"], job["error_data"], job["current_retry_count"]) == ("broken", {"line": 3}, 2)


@pytest.mark.parametrize(("start_at", "events"), [(PAST, ["job_available"]), (FUTURE, [])])
@pytest.mark.parametrize("method", ["schedule_retry", "set_job_start"])
def test_retry(go: GoClient, ear: Ear, method: str, start_at: datetime, events: list[str]) -> None:
    """A retry makes the job claimable again at its time, and announces it if that has come."""
    job_id = go.add_job("t", max_retry_count=2)
    go.start_next_job_or_nil(["t"])
    ear.heard()
    if method == "schedule_retry":
        go.schedule_retry(job_id, start_at, 1)
    else:
        go.set_job_start(job_id, start_at)
    assert [channel for channel, _ in ear.heard()] == events
    job = go.get_job(job_id)
    assert job is not None
    assert (job["start_at"], job["started_at"], job["worker_alive_at"]) == (start_at, None, None)
    assert job["current_retry_count"] == (1 if method == "schedule_retry" else 0)
    assert (go.start_next_job_or_nil(["t"]) is not None) == (start_at == PAST)


def test_reset_job(go: GoClient, ear: Ear) -> None:
    """A reset makes a finished job as good as new and announces it; one that waits anyway is not announced."""
    job_id = go.add_job("t", origin="o", max_retry_count=1)
    go.start_next_job_or_nil(["t"])
    go.set_job_error(job_id, "broken")
    ear.heard()
    go.reset_job(job_id)
    assert ear.heard() == [("job_available", {"id": str(job_id), "type": "t", "origin": "o"})]
    job = go.get_job(job_id)
    assert job is not None
    assert (job["started_at"], job["stopped_at"], job["error_msg"], job["current_retry_count"]) == (None, None, None, 0)
    go.reset_job(job_id)
    assert ear.heard() == []


def test_bundle(go: GoClient, ear: Ear) -> None:
    """A bundle completes with its last member, whatever the members came to, and is announced once."""
    bundle_id, (first, second) = go.add_job_bundle("b", origin="o", jobs=[{"type": "t"}, {"type": "t"}])
    ear.heard()
    go.start_next_job_or_nil(["t"])
    go.start_next_job_or_nil(["t"])
    go.set_job_error(first, "broken")
    assert [channel for channel, _ in ear.heard()] == ["job_stopped"]
    go.set_job_result(second)
    stopped, bundle_stopped = ear.heard()
    assert stopped[0] == "job_stopped"
    assert bundle_stopped == ("job_bundle_stopped", {"id": str(bundle_id), "type": "b", "origin": "o"})
    bundle = go.get_job_bundle(bundle_id)
    assert bundle is not None
    assert (bundle["num_jobs"], bundle["num_jobs_stopped"], len(bundle["jobs"])) == (2, 2, 2)
    assert bundle["stopped_at"] == bundle["updated_at"]


def test_reset_jobs_of_a_bundle(go: GoClient, ear: Ear) -> None:
    """Resetting counted members takes them out of the count; the bundle completes, and says so, once more."""
    bundle_id, jobs = go.add_job_bundle("b", jobs=[{"type": "t"}, {"type": "t"}])
    for job_id in jobs:
        go.start_next_job_or_nil(["t"])
        go.set_job_result(job_id)
    ear.heard()
    go.reset_jobs(jobs)
    assert [channel for channel, _ in ear.heard()] == ["job_available", "job_available"]
    bundle = go.get_job_bundle(bundle_id)
    assert bundle is not None
    assert (bundle["num_jobs_stopped"], bundle["stopped_at"]) == (0, None)
    for job_id in jobs:
        go.start_next_job_or_nil(["t"])
        go.set_job_result(job_id)
    assert [channel for channel, _ in ear.heard()] == ["job_stopped", "job_stopped", "job_bundle_stopped"]


def test_reaping(go: GoClient, ear: Ear, connection: "psycopg.Connection[Any]") -> None:
    """Its reaper frees the jobs whose heartbeat has stopped, keeping their retry counts, and announces them."""
    dead, alive, silent = (go.add_job("t", max_retry_count=1) for _ in range(3))
    go.start_next_job_or_nil(["t"])
    go.start_next_job_or_nil(["t"])
    go.start_next_job_or_nil(["t"], heartbeats=False)
    connection.execute(
        "update worker.job set worker_alive_at = now() - interval '1 hour', current_retry_count = 1 where id = %s",
        [dead],
    )
    ear.heard()
    assert go.reset_interrupted_jobs(DEAD_FOR) == 1
    assert [(channel, payload["id"]) for channel, payload in ear.heard()] == [("job_available", str(dead))]
    freed = go.get_job(dead)
    assert freed is not None
    assert (freed["started_at"], freed["worker_alive_at"], freed["current_retry_count"]) == (None, None, 1)
    assert {job["id"] for job in go.get_all_jobs_started_before(FUTURE)} == {alive, silent}


def test_reaping_what_an_older_worker_left(go: GoClient, connection: "psycopg.Connection[Any]") -> None:
    """Its reaper frees jobs that failed with a retry left, and were never rescheduled."""
    job_id = go.add_job("t", max_retry_count=1)
    go.start_next_job_or_nil(["t"])
    connection.execute(
        "update worker.job set stopped_at = now() - interval '1 hour', error_msg = 'broken', worker_alive_at = null"
    )
    assert go.reset_interrupted_jobs(DEAD_FOR) == 1
    job = go.start_next_job_or_nil(["t"])
    assert job is not None
    assert (job["id"], job["error_msg"], job["stopped_at"]) == (job_id, None, None)


def test_reading(go: GoClient) -> None:
    """Its lists of jobs hold what they should, in their order."""
    later, sooner, unset = go.add_job("t", start_at=FUTURE), go.add_job("t", start_at=PAST), go.add_job("u")
    failed = go.add_job("v")
    go.start_next_job_or_nil(["v"])
    go.set_job_error(failed, "broken")
    assert [job["id"] for job in go.get_all_jobs_to_do()] == [unset, sooner, later]
    assert [job["id"] for job in go.get_all_jobs_with_errors()] == [failed]
    assert go.get_all_jobs_started_before(FUTURE) == []
    assert go.get_status() == (4, 0)


def test_deleting_jobs(go: GoClient) -> None:
    """Jobs are deleted by id, origin, type, and when they have finished well outside of a bundle."""
    by_id, _, _, kept = go.add_job(), go.add_job(origin="gone"), go.add_job("gone"), go.add_job("kept")
    go.delete_job(by_id)
    go.delete_jobs_from_origin("gone")
    go.delete_jobs_of_type("gone")
    assert [job["id"] for job in go.get_all_jobs_to_do()] == [kept]

    failed, _, bundled = go.add_job("f"), go.add_job("s"), go.add_job_bundle(jobs=[{"type": "b"}])[1][0]
    for type_ in "fsb":
        job = go.start_next_job_or_nil([type_])
        assert job is not None
        if type_ == "f":
            go.set_job_error(job["id"], "broken")
        else:
            go.set_job_result(job["id"])
    go.delete_finished_jobs()
    assert go.get_job(failed) is not None
    assert go.get_job(bundled) is not None
    assert go.get_status() == (3, 1)


def test_deleting_bundles(go: GoClient, ear: Ear) -> None:
    """Bundles are deleted by id, origin and type, their members with them; nobody is told."""
    by_id, _ = go.add_job_bundle()
    go.add_job_bundle(origin="gone")
    go.add_job_bundle("gone")
    go.add_job_bundle("kept", jobs=[{}, {}])
    ear.heard()
    go.delete_job_bundle(by_id)
    go.delete_job_bundles_from_origin("gone")
    go.delete_job_bundles_of_type("gone")
    assert go.get_status() == (2, 1)
    go.delete_all_jobs_and_bundles()
    assert go.get_status() == (0, 0)
    assert ear.heard() == []
