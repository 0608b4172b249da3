"""manage.py jobqueue: the commands of the queue, on the project's own."""

import json
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

import jobqueue
import jobqueue_pg


def run(*arguments):
    """Run the command; return what it says."""
    said = StringIO()
    call_command("jobqueue", *arguments, stdout=said)
    return said.getvalue()


def test_status(project):
    """The status is that of the project's queue."""
    jobqueue.enqueue("mail", 1)
    assert json.loads(run("status", "--json"))["jobs"]["by_type"]["mail"]["available"] == 1


def test_jobs(project):
    """Jobs can be looked at, and acted on."""
    job = jobqueue.enqueue("mail", 1)
    assert str(job.id) in run("jobs", "list")
    run("jobs", "cancel", str(job.id))
    assert jobqueue.get_job(job.id).cancelled_at is not None


def test_migrate(new_project):
    """The tables are made, and Django knows it; whether they are is told by the exit code."""
    for _ in range(2):
        with pytest.raises(CommandError, match="holds no queue yet") as refused:
            run("migrate", "--check")
        assert refused.value.returncode == 1
    assert "applied 0001_create_queue" in run("migrate")
    assert "applied" not in run("migrate")
    assert jobqueue_pg.migrate(new_project) == []
    assert run("migrate", "--check") == 'schema "worker" is up to date\n'
    said = StringIO()
    call_command("migrate", "jobqueue", stdout=said)
    assert "No migrations to apply" in said.getvalue()


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help(project, arguments):
    """Help names the commands, for the project's queue alone: there is no --dsn."""
    try:
        told = run(*arguments)
    except CommandError as error:
        told = str(error)
    for name in ("migrate", "worker", "status", "jobs"):
        assert name in told
    assert "--dsn" not in run("worker", "--help")
    assert "--processes" in run("worker", "--help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["statsu"], "No such command 'statsu'"),
        (["worker", "--threadz", "3"], "No such option '--threadz'"),
        (["jobs", "show", "7"], "'7' is not a valid UUID"),
        (["jobs", "show", str(uuid4())], "no job .* can be seen"),
        (["migrate", "--check", "--adopt"], "--check and --adopt do not go together"),
    ],
    ids=["command", "option", "value", "job", "pair"],
)
def test_mistakes(project, arguments, message):
    """What a user got wrong is said in a line, by a CommandError."""
    with pytest.raises(CommandError, match=message):
        run(*arguments)


def test_not_migrated(new_project):
    """Where there are no tables, the command says how they are made."""
    with pytest.raises(CommandError, match=r"python manage\.py migrate"):
        run("status")


@override_settings(JOBQUEUE={"DATABASE": "lite"})
def test_wrong_settings(project):
    """A wrong setting is a CommandError, too, where no check has run."""
    with pytest.raises(CommandError, match="a job queue needs PostgreSQL"):
        run("status")
