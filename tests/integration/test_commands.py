"""Commands as processes of their own: what a terminal and a script see of them."""

import json
import signal
import subprocess
import sys
from contextlib import closing

import psycopg
import pytest
from click.testing import CliRunner

import jobqueue_pg
from jobqueue import Job
from jobqueue.cli.commands import program
from jobqueue_pg.schema import _Migration
from tests.fixtures.commands import PROJECT
from tests.fixtures.waiting import wait_until


def test_watching_ends_by_ctrl_c(command_line):
    """That is how it is meant to end: the exit code is 0, and nothing is said of it."""
    command = command_line.start("status", "--watch", "0.1", "--json")
    wait_until(lambda: command.said.count("\n") > 1, 20)
    command.signal(signal.SIGINT)
    assert command.wait() == 0
    assert all(json.loads(line)["jobs"]["total"] == 0 for line in command.said.splitlines())


def test_ctrl_c_before_a_command_has_begun():
    """A command that is ended while it is being loaded says nothing."""
    code = """
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "rich":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from jobqueue.cli import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, check=False, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_job_that_is_added_and_looked_at(command_line):
    """Without options, the database is the one that JOBQUEUE_DSN names; output is for programs to read."""
    added = command_line.start("jobs", "enqueue", "add", '{"a": 1, "b": 2}')
    assert added.wait() == 0
    listed = command_line.start("jobs", "list", "--state", "available", "--json")
    assert listed.wait() == 0
    assert json.loads(listed.said)["id"] == added.said.strip()


def test_a_reader_that_has_had_enough(queue):
    """Who reads the output through head is told nothing of it."""
    with jobqueue_pg.connect(queue, origin="tests") as service:
        service.add_jobs([Job.new("t", "x" * 1000) for _ in range(100)])
    command = subprocess.Popen(
        [sys.executable, "-m", "jobqueue.cli", "jobs", "list", "--json", "--dsn", queue],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.readline()
    command.stdout.close()
    assert command.stderr.read() == ""
    command.stderr.close()
    command.wait(20)


def test_whether_a_schema_is_up_to_date(database):
    """It is told by the exit code, and nothing is changed."""
    check = ["migrate", "--check", "--dsn", database]
    for _ in range(2):
        result = CliRunner().invoke(program, check)
        assert (result.exit_code, "holds no queue yet" in result.stderr) == (1, True)
    assert CliRunner().invoke(program, check[:1] + check[2:]).exit_code == 0
    assert CliRunner().invoke(program, check).stdout == 'schema "worker" is up to date\n'


@pytest.mark.parametrize("to", [0, 1, 4])
@pytest.mark.parametrize("schema", ["worker", 'a "b" 100%s'])
def test_what_a_migration_would_run(database, schema, to):
    """What is printed brings the schema up to date when it is run as psql does, from wherever it is, and notes so."""
    if to:
        jobqueue_pg.migrate(database, schema=schema, to=to)
    command = ["migrate", "--dsn", database, "--schema", schema]
    told = CliRunner().invoke(program, [*command, "--sql"])
    assert told.exit_code == 0, told.output
    assert CliRunner().invoke(program, [*command, "--check"]).exit_code == 1
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        for statement in _Migration(0, "", told.stdout).statements:
            connection.execute(statement.encode())
    assert CliRunner().invoke(program, [*command, "--check"]).exit_code == 0
    assert CliRunner().invoke(program, command).stdout == f'schema "{schema}" is up to date\n'
    assert CliRunner().invoke(program, [*command, "--sql"]).stdout == f'-- schema "{schema}" is up to date\n'
