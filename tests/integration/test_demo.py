"""The real `jobqueue demo`, with a real kill in it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import attrs
import psycopg
import pytest

import jobqueue_pg
from jobqueue.cli.demo.census import Census, source_files, total_of
from jobqueue.cli.demo.report import Report
from jobqueue.cli.demo.work import ONE_IN, SCHEMA
from jobqueue_pg.embedded import EmbeddedServer, find_bindir
from tests.fixtures.processes import heed_ctrl_c

COMMAND = [sys.executable, "-c", "from jobqueue.cli import main; main()", "demo"]
NUM_FILES = len(source_files())
PATIENCE = 110


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that a server of whichever user may reach, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


def demo(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *options],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )


def ids_after(word: str, output: str) -> set[UUID]:
    return {UUID(found) for found in re.findall(rf"^  {word} +([0-9a-f-]{{36}})\b", output, re.MULTILINE)}


def check_output(result: "subprocess.CompletedProcess[str]") -> int:
    """Check what every good run says; return the id of the process that was killed."""
    output = result.stdout
    assert result.returncode == 0, output
    killed = re.search(r"Killed worker process (\d+) \(SIGKILL\), which held (\d+) jobs", output)
    assert killed, output
    held, rescued = ids_after("held", output), ids_after("rescued", output)
    assert len(held) == int(killed[2]) > 0
    assert rescued == held
    assert f"{NUM_FILES:,} succeeded" in output
    assert f"{NUM_FILES // ONE_IN} failed in their first run on purpose" in output
    assert "the totals agree" in output
    assert not re.search("DIFFERENT|PROBLEM|WARNING|ERROR|Traceback|\x1b", output), output
    return int(killed[1])


def test_on_a_database_of_somebody_and_what_it_would_say_of_a_wrong_row(database):
    """The demo works on the database that --dsn names, keeps to its own schema, and would see a row that is wrong."""
    result = demo("--dsn", database)
    pid = check_output(result)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert f"left in schema {SCHEMA}" in result.stdout.replace('"', "")
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        schemas = {name for (name,) in connection.execute("select nspname::text from pg_namespace").fetchall()}
        assert SCHEMA in schemas
        assert "worker" not in schemas
        with closing(jobqueue_pg.connect(database, schema=SCHEMA)) as service:
            [member] = service.list_jobs(limit=1)
            assert member.bundle_id is not None
            bundle = service.get_job_bundle(member.bundle_id)
            report = Report(
                bundle=bundle,
                direct=total_of(Census(**job.result) for job in bundle.jobs),
                held=frozenset(ids_after("held", result.stdout)),
                seconds=1,
                seconds_paused=0,
            )
            assert report.problems() == []
            changed = member.result | {"lines": member.result["lines"] + 1}
            connection.execute(f"update {SCHEMA}.job set result = %s where id = %s", [json.dumps(changed), member.id])
            tampered = attrs.evolve(report, bundle=service.get_job_bundle(member.bundle_id))
    assert [problem.partition(":")[0] for problem in tampered.problems()] == ["lines"]


def test_on_a_server_of_its_own_whose_data_are_kept(open_place):
    """Without --dsn the demo brings its server; --keep leaves the rows where they can be looked at again."""
    data_dir = open_place / "kept"
    result = demo("--keep", str(data_dir))
    check_output(result)
    assert f"kept in {data_dir}" in result.stdout
    assert not (data_dir / "postmaster.pid").exists()
    with (
        EmbeddedServer(find_bindir(), data_dir=data_dir) as server,
        closing(jobqueue_pg.connect(server.conninfo, schema=SCHEMA)) as service,
    ):
        assert service.get_status().num_jobs == NUM_FILES


@pytest.mark.parametrize("moment", ["Started PostgreSQL", "threads work them off"])
def test_ctrl_c_ends_it_cleanly(moment):
    """Interrupted, the demo ends its threads and its server, and shows no traceback."""
    with subprocess.Popen(
        [*COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - it takes no lock
    ) as running:
        assert running.stdout is not None
        output = ""
        while moment not in output:
            line = running.stdout.readline()
            assert line, output
            output += line
        running.send_signal(signal.SIGINT)
        output += running.communicate(timeout=PATIENCE)[0]
    assert running.returncode == 1
    assert "Aborted!" in output
    assert "Traceback" not in output
    server = re.search(r"\(process (\d+)\)", output)
    assert server
    with pytest.raises(ProcessLookupError):
        os.kill(int(server[1]), 0)
