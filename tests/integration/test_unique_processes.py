"""Many processes that enqueue the same unique key."""

import json
import subprocess
import sys
from pathlib import Path

from tests.fixtures.stores import Connection, fetch_all
from tests.fixtures.thorough import THOROUGH

PROGRAM = Path(__file__).with_name("enqueuing_processes.py")
TIMES = 1000 if THOROUGH else 100
PATIENCE = 300


def test_twenty_processes_add_one_job(migrated: str, connection: Connection) -> None:
    """Of twenty processes that enqueue the same unique key again and again one adds a job, and all are given that."""
    command = [sys.executable, str(PROGRAM), migrated, str(TIMES)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True).stdout
    told = [json.loads(line) for line in said.splitlines()]
    (job_id,) = fetch_all(connection, "select id::text from worker.job")
    assert sum(each["added"] for each in told) == 1
    assert [each["ids"] for each in told] == [[job_id]] * 20
