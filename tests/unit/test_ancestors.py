"""What docs/manual.md and docs/ancestors.md say to those who come from other queues, without a database."""

from contextlib import closing
from typing import Final

import pytest

import jobqueue
from jobqueue import Job, Registry
from tests.fixtures.pages import CODE, ROOT, rows_of

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
