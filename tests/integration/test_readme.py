"""The README's first job, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_first_job(database):
    """The script of the README adds a row and a job in one transaction, and the job runs."""
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) <= 25
    script = script.replace("postgresql://localhost/app", database)
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        output = ""
        # The prompt may come in between.
        while not all(words in output for words in ("sending a mail to", "ann@example.com")):
            line = running.stdout.readline()
            assert line, output
            output += line
        running.stdin.write("\n")
        running.stdin.close()
        assert running.wait(30) == 0
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from customer").fetchone() == (1,)
        row = connection.execute("select type, origin, result from worker.job where stopped_at is not null").fetchone()
    assert row == ("send-welcome", "-c", "sent")
