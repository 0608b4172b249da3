"""What docs/coming-from.md says of ours: its examples add the jobs that they should, and its names are there."""

import re
from contextlib import closing
from datetime import timedelta
from typing import Final

import pytest

import jobqueue
from jobqueue import Registry
from jobqueue.cli.commands import program
from jobqueue.contrib.django.configuration import KEYS
from tests.fixtures.pages import CODE, ROOT, exists, names_in, rows_of, text_of

PAGE: Final = ROOT / "docs" / "coming-from.md"
SYSTEMS: Final = ["Celery", "RQ", "Procrastinate", "django-q2"]
ADDED: Final = {
    "Celery": ("mail:receipt", {"order_id": 7, "copy": True}, 5, timedelta(seconds=60), 0, None),
    "RQ": ("count-words", "https://example.com", 3, timedelta(minutes=5), -1, None),
    "Procrastinate": ("reports:build", {"month": 7}, 10, timedelta(minutes=5), 0, "report 7"),
    "django-q2": ("mail:receipt", 7, 0, timedelta(0), 0, None),
}
NO_NAMES: Final = {"f.enqueue", "jobs.py", "JOBQUEUE", "TestCase", "catch_up", "retry_exceptions"}
"""What is the reader's, Django's, or the other queue's."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_examples(system, monkeypatch):
    """What is written after the move adds a job of its type, with its payload, retries, delay, priority and key."""
    registry = Registry()
    monkeypatch.setattr(jobqueue, "handler", registry.handler)
    monkeypatch.setattr(jobqueue, "scheduled", registry.scheduled)
    section = text_of(PAGE).partition(f"\n## {system}\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"^```python\n# after\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    with closing(jobqueue.connect("memory://", origin="tests")) as service, jobqueue.use_service(service):
        exec(code, {"jobqueue": jobqueue, "timedelta": timedelta})
        [job] = service.list_jobs()
    delay = timedelta(0) if job.start_at is None else job.start_at - job.created_at
    kind, payload, retries, wait, priority, key = ADDED[system]
    assert (job.type, job.payload, job.max_retry_count) == (kind, payload, retries)
    assert (job.priority, job.unique_key) == (priority, key)
    assert abs(delay - wait) < timedelta(seconds=5)


def test_each_name_has_gone_somewhere():
    """Each row tells what to use here, and whatever of ours it names is there."""
    rows = [row for row in rows_of(PAGE) if "here" in row]
    assert {next(iter(row)) for row in rows} == set(SYSTEMS)
    assert [row for row in rows if not row["here"]] == []
    ours = names_in(row["here"] for row in rows) - NO_NAMES
    assert len(ours) > 30
    assert sorted(name for name in ours if not is_there(name)) == []


def is_there(name: str) -> bool:
    """Whether *name* is public, a part of a job's context (``ctx.``), or a key of the setting in Django."""
    if name.startswith("ctx."):
        return hasattr(jobqueue.JobContext, name.removeprefix("ctx."))
    return exists(name) or name in KEYS


def test_each_command_is_there():
    """Each command of ours that a row names can be typed."""
    codes = [code for row in rows_of(PAGE) if "here" in row for code in CODE.findall(row["here"])]
    words = [code.split()[1:] for code in codes if code.startswith("jobqueue ")]
    assert len(words) > 8
    for first, *rest in words:
        assert first in program.commands
        options = {name for param in program.commands[first].params for name in param.opts}
        if not hasattr(program.commands[first], "commands"):
            assert {word for word in rest if word.startswith("--")} <= options
