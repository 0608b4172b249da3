"""What docs/production.md shows: its commands are there, its times fit, and gunicorn takes the hooks as they stand."""

import inspect
import json
import re
import shlex
from datetime import timedelta
from typing import Final

import attrs
import click
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

import jobqueue_pg
from jobqueue import WorkerSettings
from jobqueue.cli.commands import program
from jobqueue_pg.pool import WORKER_CONNECTIONS
from tests.fixtures.pages import CODE, ROOT, rows_of, text_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until

PAGE: Final = ROOT / "docs" / "production.md"
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", text_of(PAGE), re.MULTILINE | re.DOTALL)
NOT_OURS: Final = {"--preload", "--init", "--stop-timeout"}
"""Options of gunicorn and Docker."""

APPLICATION: Final = """
import threading
import jobqueue

@jobqueue.handler("wait")
def wait(seconds: float) -> None:
    threading.Event().wait(seconds)

def application(environ, start_response):
    job = jobqueue.enqueue("wait", float(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [f'"{job.id}"'.encode()]
"""


def commands() -> list[list[str]]:
    """Return the commands of ours that blocks show: in shells, in a unit, and as lists of arguments."""
    text = "\n".join(block for _, block in BLOCKS)
    shown = [shlex.split(line, comments=True) for line in re.findall(r"^jobqueue .*$", text, re.MULTILINE)]
    units = [shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)]
    lists = [json.loads(line) for line in re.findall(r'^(?:CMD| *args:) (\["jobqueue".*\])$', text, re.MULTILINE)]
    assert [len(shown), len(units), len(lists)] == [4, 1, 2]
    return [command[1:] for command in [*shown, *units, *lists]]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands(command):
    """Each command that is shown is one, with options and values that it takes."""
    found, rest = program, list(command)
    while isinstance(found, click.Group):
        name = rest.pop(0)
        found = found.commands[name]
    assert found.make_context(name, rest).params


def test_options():
    """Each option that the page names is one of our commands'."""
    ours = {name for command in every_command(program) for param in command.params for name in param.opts}
    assert set(re.findall(r"--[a-z-]+\w", text_of(PAGE))) <= ours | NOT_OURS


def every_command(group: click.Group):
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from every_command(command)


def test_times():
    """Whatever kills comes 10 s or more after the longest time that running jobs are given."""
    text = text_of(PAGE)
    finishing = [int(found) for found in re.findall(r'--finish-within"?,? "?(\d+)s', text)]
    kills = re.findall(
        r"(?:TimeoutStopSec=|terminationGracePeriodSeconds: |stop-timeout |stop_grace_period: )(\d+)", text
    )
    assert finishing == [60, 60, 60]
    assert len(kills) == 4
    assert min(map(int, kills)) >= max(finishing) + 10


def test_numbers():
    """Connections, ages and times that the page states are those of the code."""
    text = text_of(PAGE)
    pool_size = inspect.signature(jobqueue_pg.connect).parameters["pool_size"].default
    settings = WorkerSettings()
    assert f"`pool_size` ({pool_size})" in text
    assert f"| worker threads, however many | {WORKER_CONNECTIONS} |" in text
    assert f"`atomic_connections` ({settings.atomic_connections})" in text
    assert settings.dead_for == timedelta(seconds=int(re.findall(r"`dead_for` \((\d+) s\)", text)[0]))
    assert settings.job_timeout == timedelta(minutes=int(re.findall(r"`job_timeout` \((\d+) min\)", text)[0]))
    assert {"heartbeat_interval", "poll_interval"} <= {field.name for field in attrs.fields(WorkerSettings)}


def test_alarms(migrated):
    """What the table of alarms looks at is in the JSON of status, and a database that is not there is exit code 1."""
    alarms = {CODE.findall(row["alarm"])[0] for row in rows_of(PAGE) if "alarm" in row}
    assert alarms == {"oldest_due_seconds", "jobs.by_state.failed", "workers", "paused", "--watch"}
    told = CliRunner().invoke(program, ["status", "--json", "--dsn", migrated])
    status = json.loads(told.stdout)
    assert {"oldest_due_seconds", "workers", "paused"} <= status.keys()
    assert status["jobs"]["by_state"]["failed"] == 0
    assert CliRunner().invoke(program, ["status", "--json", "--dsn", "host=127.0.0.1 port=1"]).exit_code == 1


@pytest.mark.parametrize("preload", [False, True], ids=["load in workers", "preload"])
def test_gunicorn(gunicorn, migrated, connection, tmp_path, preload):
    """With the hooks that are shown, workers do jobs, and a running one ends before its worker does."""
    [settings] = [block for kind, block in BLOCKS if kind == "python" and block.startswith("# gunicorn.conf.py\n")]
    (tmp_path / "gunicorn.conf.py").write_text(settings)
    (tmp_path / "served.py").write_text(APPLICATION)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    env = {names[key]: str(value) for key, value in conninfo_to_dict(migrated).items() if key in names}
    options = ("--config", str(tmp_path / "gunicorn.conf.py"))
    server = gunicorn("served", chdir=tmp_path, env=env, preload=preload, options=options)
    server.get("0")
    wait_until(lambda: fetch_all(connection, "select type from worker.job where stopped_at is not null"))
    server.get("0.5")
    wait_until(lambda: fetch_all(connection, "select count(*) from worker.job where started_at is not null") == [2])
    server.ask_to_end()
    assert server.wait() == 0
    assert fetch_all(connection, "select count(*) from worker.job where stopped_at is not null and run_count = 1") == [
        2
    ]
    assert "Traceback" not in server.said, server.said
