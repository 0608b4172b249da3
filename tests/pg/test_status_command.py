"""``jobqueue status``: what it shows of a queue, to people and to programs, once and again and again."""

import json
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import jobqueue
import jobqueue_pg
from jobqueue import Registry, Service
from jobqueue.cli.commands import program
from jobqueue.cli.operating import operator_group
from jobqueue.cli.status import show_status
from tests.fixtures.stores import Connection, insert_job

KEYS = {"at", "connection", "jobs", "oldest_due_seconds", "throughput", "workers", "paused", "schedules"}


def run(queue: str, *args: str) -> Result:
    return CliRunner().invoke(program, ["status", "--dsn", queue, *args], env={"COLUMNS": "120"})


@pytest.fixture
def filled(queue: str, db: Connection, service: Service) -> datetime:
    """A queue with something of everything; return when that was."""
    now = datetime.now(UTC)
    insert_job(db, type="mail", created_at=now - timedelta(minutes=2))
    insert_job(db, type="mail", start_at=now + timedelta(days=1))
    insert_job(
        db,
        type="mail",
        started_at=now - timedelta(minutes=5),
        worker_alive_at=now - timedelta(minutes=3),
        claimed_by="a:1:t",
    )
    for number in range(6):
        columns: dict[str, Any] = {"started_at": now, "stopped_at": now, "claimed_by": "b:2:t"}
        insert_job(db, type="report", **columns, error_msg="broken" if number < 2 else None)
    long_ago = now - timedelta(hours=1)
    insert_job(db, type="report", started_at=long_ago, stopped_at=long_ago, claimed_by="c:3:t")
    service.pause("mail", reason="the provider is away")
    service.add_schedule("nightly", "report", cron="0 3 * * *")
    return now


def test_json_tells_all(queue: str, filled: datetime) -> None:
    """It is one object with everything by stable keys: numbers, ages in seconds, moments in ISO 8601."""
    result = run(queue, "--json")
    assert result.exit_code == 0
    [line] = result.stdout.splitlines()
    told = json.loads(line)
    assert told.keys() == KEYS
    assert told["jobs"]["by_type"]["mail"] == {
        "available": 1, "scheduled": 1, "running": 1, "retrying": 0, "succeeded": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert (told["jobs"]["total"], told["jobs"]["by_state"]["failed"], told["jobs"]["estimated_states"]) == (10, 2, [])
    assert 120 <= told["oldest_due_seconds"]["mail"] < 180
    assert told["throughput"] == {
        "stopped": 6, "failed": 2, "within_seconds": 60.0, "stopped_per_second": pytest.approx(0.1),
    }  # fmt: skip
    assert [(each["name"], each["running"], each["is_silent"]) for each in told["workers"]] == [
        ("a:1", 1, True),
        ("b:2", 0, False),
    ]
    assert [(each["type"], each["reason"], each["until"]) for each in told["paused"]] == [
        ("mail", "the provider is away", None)
    ]
    [schedule] = told["schedules"]
    assert (schedule["name"], schedule["cron"]) == ("nightly", "0 3 * * *")
    assert datetime.fromisoformat(schedule["next_tick_at"]) > filled
    assert told["connection"]["backend"] == "PostgreSQL"
    assert 0 < told["connection"]["round_trip_seconds"] < 5
    assert (told["connection"]["is_read_only"], told["connection"]["is_pooled"]) == (False, False)


def test_the_screen(queue: str, filled: datetime) -> None:
    """It has a row for each type, with its states and its oldest due job, and what goes on beside."""
    text = run(queue).stdout
    rows = {line.strip().partition("  ")[0]: line for line in text.splitlines()}
    assert "2 min" in rows["mail (paused)"]
    assert rows.keys() >= {"report", "all", "a:1", "b:2", "mail", "nightly", "Paused", "Schedules"}
    assert "silent" in rows["a:1"]
    assert "in the last 1 min 6 have stopped (0.1 a second), 2 of them failed" in text
    assert "round trip" in text


def test_a_single_job(queue: str, db: Connection) -> None:
    """One is not spoken of as several."""
    now = datetime.now(UTC)
    insert_job(db, type="report", started_at=now, stopped_at=now, claimed_by="a:1:t")
    assert "\n1 job; in the last 1 min 1 has stopped (0.0 a second), 0 of them failed" in run(queue).stdout


def test_an_empty_queue(queue: str) -> None:
    """There is nothing to show but how the database is reached; nothing is a warning."""
    told = json.loads(run(queue, "--json").stdout)
    assert told["throughput"]["stopped"] == told["jobs"]["total"] == 0
    assert run(queue).exit_code == 0


def test_watching(queue: str, filled: datetime) -> None:
    """It looks again and again; as JSON, that is an object a line."""
    result = run(queue, "--watch", "0.1", "--times", "3", "--json")
    assert result.exit_code == 0
    assert [json.loads(line).keys() for line in result.stdout.splitlines()] == [KEYS] * 3
    assert run(queue, "--watch", "0.1", "--times", "2").stdout.count("nightly") >= 1


def test_watching_through_a_restart(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that is away is told of, and looked for again."""
    with closing(jobqueue_pg.connect(server.conninfo, poll_only=True, pool_size=1)) as service:
        show_status(service, watch=0.1, times=1, as_json=True)
        server.stop("immediate")
        show_status(service, watch=0.1, times=1, as_json=True)
        server.start()
        show_status(service, watch=0.1, times=20, as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0].keys() == told[-1].keys() == KEYS
    assert told[1].keys() == {"at", "error"}


def test_on_the_service_of_an_application(service: Service) -> None:
    """Commands for a framework's command line take its service, and have no options that name a database."""
    service.enqueue("t", 1)
    group = operator_group(lambda: nullcontext(service), name="queue")
    assert {"status", "jobs", "pause", "resume"} == group.commands.keys()
    assert json.loads(CliRunner().invoke(group, ["status", "--json"]).stdout)["jobs"]["total"] == 1
    assert CliRunner().invoke(group, ["status", "--dsn", "x"]).exit_code == 2
    assert service.list_jobs() != []
    twice = click.Group(commands=[*operator_group(lambda: nullcontext(service)).commands.values()])
    assert CliRunner().invoke(twice, ["jobs", "list", "--json"]).stdout.count("\n") == 1


# --- what the service tells


def test_activity_counts_what_has_stopped_in_time(service: Service, db: Connection, filled: datetime) -> None:
    """Jobs that stopped within the last minute count; workers that had no job for long are left out."""
    activity = service.recent_activity()
    assert (activity.num_stopped, activity.num_failed, activity.within) == (6, 2, timedelta(minutes=1))
    assert [worker.name for worker in activity.workers] == ["a:1", "b:2"]


def test_activity_of_many_claims(service: Service, db: Connection) -> None:
    """Of more claims than it looks at, it takes the newest, and the time that these have taken."""
    db.execute(
        """
        insert into worker.job (type, payload, priority, origin, started_at, stopped_at, claimed_by)
        select 't', '1', 0, 'o', now() - n * interval '1 ms', now(), 'a:1:t' from generate_series(1, 8000) n
        """
    )
    activity = service.recent_activity()
    assert activity.num_stopped == 5000
    assert 5 <= activity.within.total_seconds() < 15
    assert activity.per_second == pytest.approx(activity.num_stopped / activity.within.total_seconds())


def test_activity_of_a_pool(workers: Any, service: Service) -> None:
    """A worker pool is seen by its host and process, and what it has done counts."""
    registry = Registry()
    registry.register_func_for_job_type("t", lambda _: None)
    job = service.enqueue("t", 1)
    workers.start(registry)
    service.wait_for_job(job.id, 10)
    activity = service.recent_activity()
    assert activity.num_stopped == 1
    assert [worker.name.count(":") for worker in activity.workers] == [1]


def test_activity_of_other_programs(service: Service, db: Connection) -> None:
    """What go-jobqueue has run counts, though it does not say who it is; what was cancelled has not run to its end."""
    now = datetime.now(UTC)
    insert_job(db, started_at=now, stopped_at=now)
    insert_job(db, started_at=now, stopped_at=now, error_msg="broken", current_retry_count=0)
    insert_job(db, started_at=now)
    for claimed_by in (None, "a:1:t"):
        insert_job(db, started_at=now, stopped_at=now, cancelled_at=now, error_msg="cancelled", claimed_by=claimed_by)
    activity = service.recent_activity()
    assert (activity.num_stopped, activity.num_failed) == (2, 1)
    assert [worker.name for worker in activity.workers] == ["a:1"]


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_odd_moments_do_no_harm(service: Service, db: Connection, moment: str) -> None:
    """Whatever another program has written as a time, the rest is told."""
    insert_job(db, started_at=moment, claimed_by="a:1:t")
    insert_job(db, started_at="2020-01-01", worker_alive_at=moment, claimed_by="b:2:t")
    assert len(service.recent_activity().workers) == 2


def test_memory_tells_the_same() -> None:
    """A queue in memory has activity and a connection, too."""
    with closing(jobqueue.connect("memory://", origin="tests")) as service:
        job = service.enqueue("t", 1)
        service.enqueue("t", 2)
        assert service.recent_activity().workers == ()
        one, other = service.claim("t", 2)
        one.fail("broken")
        activity = service.recent_activity()
        assert (activity.num_stopped, activity.num_failed, activity.workers[0].num_running) == (1, 1, 1)
        assert service.check_connection().backend == "memory"
        assert service.get_job(job.id).stopped
        other.finish()
