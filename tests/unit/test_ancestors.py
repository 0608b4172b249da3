"""What docs/ancestors.md and docs/manual.md say to those who come from other queues, without a database."""

import logging
from contextlib import closing
from datetime import timedelta
from typing import Final

import pytest

import jobqueue
from jobqueue import Exponential, Job, Registry, Waits
from tests.fixtures.pages import CODE, ROOT, exists, names_in, rows_of
from tests.fixtures.waiting import wait_until

PAGE: Final = ROOT / "docs" / "ancestors.md"
NO_NAMES: Final = {"backoff", "claim_lost", "logging", "with"}
"""An attribute of the reader's exceptions, a channel, another package, a word of Python."""
SECOND: Final = timedelta(seconds=1)

MANUAL: Final = ROOT / "docs" / "manual.md"
ROUTES: Final = [row for row in rows_of(MANUAL) if "is run by" in row]


def test_the_manual_tells_of_routes():
    """There are rows to be tested; each names a type, its handlers, and one of them or nobody."""
    assert len(ROUTES) >= 8
    for row in ROUTES:
        assert len(CODE.findall(row["a job of the type"])) == 1
        assert row["is run by"].startswith("nobody") or CODE.findall(row["is run by"])[0] in handlers_of(row)


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: row["is run by"])
def test_the_table_of_routes(row):
    """Of the handlers in a row of the manual, whatever their order, the one that is named runs the job, or nobody."""
    [job_type] = CODE.findall(row["a job of the type"])
    wanted = None if row["is run by"].startswith("nobody") else CODE.findall(row["is run by"])[0]
    for patterns in (handlers_of(row), handlers_of(row)[::-1]):
        registry = Registry()
        for pattern in patterns:
            registry.register_func_for_job_type(pattern, lambda payload: payload)
        found = registry.find(job_type)
        assert (found and found.type) == wanted
        with closing(jobqueue.connect("memory://", origin="tests")) as service:
            service.add_job(Job.new(job_type, 1))
            claims = service.claim(registry.patterns())
            assert [claim.job.type for claim in claims] == ([job_type] if wanted else [])


def handlers_of(row: dict[str, str]) -> list[str]:
    return CODE.findall(row["where there are handlers for"])


def test_whatever_is_here_is_shown_by_a_test():
    """Each row that tells of a feature, or of a bug that is not here, links a test, unless it says no."""
    rows = [row for row in rows_of(PAGE) if "shown by" in row]
    assert len([row for row in rows if "feature" in row]) == 78
    assert [int(row["no."]) for row in rows if "no." in row] == [*range(1, 20), *range(1, 13), *range(1, 20)]
    unproven = [row for row in rows if "](../tests/" not in row["shown by"] and not answer_of(row).startswith("no ")]
    assert unproven == []


def test_every_name_has_gone_somewhere():
    """Each row about a name of theirs tells what to use here, and whatever of ours it names is there."""
    rows = [row for row in rows_of(PAGE) if "what to know" in row]
    assert len(rows) > 100
    assert [row for row in rows if not row["here"]] == []
    ours = names_in(answer_of(row) for row in rows_of(PAGE)) - NO_NAMES
    assert len(ours) > 80
    assert sorted(name for name in ours if not exists(name)) == []


def answer_of(row: dict[str, str]) -> str:
    return row.get("jobqueue") or row["here"]


@pytest.mark.parametrize("runs", range(1, 20))
def test_the_waits_of_others(runs):
    """The policies that the page names wait as those queues do after so many runs: pgqueue's on average."""
    base, most = 3 * SECOND, 100 * SECOND
    assert Exponential(base=base, cap=most, jitter=False).delay_before(runs) == min(base * 2 ** (runs - 1), most)
    longest = Exponential(base=4 * SECOND, cap=timedelta(days=365), jitter=False).delay_before(runs)
    assert longest / 2 == 2**runs * SECOND


def test_the_waits_of_pgq():
    """A list of waits means as many retries."""
    minutes = [timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=30)]
    job = Job.new("t", 1, retry=Waits(minutes))
    assert job.max_retry_count == 3
    assert [job.retry_policy.delay_before(retry) for retry in (1, 2, 3)] == minutes


def test_looks_in_vain_are_not_logged(polling, caplog):
    """Workers that look again and again, and find nothing, say nothing of it at any level."""
    caplog.set_level(logging.DEBUG)
    polling.ask_all(3)
    looks = len(polling.store.limits)
    wait_until(lambda: len(polling.store.limits) >= looks + 3)
    assert caplog.messages == []
