"""``jobqueue migrate --adopt``: what it shows, and how it ends."""

import logging
from contextlib import closing

import psycopg
from click.testing import CliRunner, Result

from jobqueue.cli.commands import program
from tests.fixtures.go_schema import create_go_schema
from tests.fixtures.tables import add_job


def run(*args: str) -> Result:
    return CliRunner().invoke(program, ["migrate", *args])


def test_steps_and_findings_are_shown(database: str) -> None:
    """The steps, the warnings, and what was applied can be read; the exit code is 0."""
    create_go_schema(database, "0.6")
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        add_job(connection, started_at="2020-01-01")
    result = run("--dsn", database, "--adopt")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("warning: the tables are those of go-jobqueue 0.6: processes older than 0.7 fail")
    assert "changing the tables" in lines
    assert "filling in job.worker_alive_at: 1 rows" in lines
    assert "building index job_claim_idx (1 of 7)" in lines
    assert [line for line in lines if line.startswith("warning: index worker_job_stopped_at_idx has stopped_at")]
    assert "applied 0001_create_queue" in lines
    assert lines[-1] == 'schema "worker" is up to date'


def test_progress_does_not_mix_with_the_result(database: str) -> None:
    """What is said of the take-over goes to the standard error; a second run has nothing to say."""
    create_go_schema(database, "0.7")
    result = run("--dsn", database, "--adopt")
    assert result.stdout.splitlines()[0] == "applied 0001_create_queue"
    assert "changing the tables" in result.stderr
    again = run("--dsn", database, "--adopt")
    assert (again.exit_code, again.stderr) == (0, "")


def test_without_adopt_the_way_is_shown(database: str) -> None:
    """Tables of go-jobqueue are left alone, with exit code 1 and a line that names the option."""
    create_go_schema(database, "0.7", schema="other")
    result = run("--dsn", database, "--schema", "other")
    assert result.exit_code == 1
    assert "`jobqueue migrate --adopt --schema other`" in result.output
    assert "upgrade them to 0.7 first" in result.output
    assert result.output.count("\n") == 1


def test_look_alikes_are_told_in_a_line(database: str) -> None:
    """Tables that are not go-jobqueue's are refused with exit code 1 and what differs."""
    create_go_schema(database, "0.7")
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        connection.execute("alter table worker.job add column tenant text, drop column result")
    result = run("--dsn", database, "--adopt")
    assert result.exit_code == 1
    assert "column job.result is missing and not jsonb; column job.tenant is unknown" in result.output
    assert result.output.count("\n") == 1


def test_nothing_is_left_of_the_display(database: str) -> None:
    """Logging is afterwards as it was before."""
    logger = logging.getLogger("jobqueue_pg.adoption")
    before = (logger.level, list(logger.handlers))
    run("--dsn", database, "--adopt")
    assert (logger.level, logger.handlers) == before
