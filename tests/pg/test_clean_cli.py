"""``jobqueue clean``: what it removes, what it says, and what it asks."""

from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobqueue.cli.clean import AgeType, retention_of
from jobqueue.cli.commands import program
from tests.fixtures.stores import Connection, fetch_all, insert_job

USUAL = {"succeeded": None, "failed": None, "cancelled": None}


def run(queue: str, *args: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(program, ["clean", "--dsn", queue, *args], input=answer)


def stopped(db: Connection, days: int, type: str = "t", **columns: Any) -> Any:
    """Insert a job that has stopped so many *days* ago."""
    ago = fetch_all(db, "select now() - make_interval(days => %s)", days)[0]
    return insert_job(db, type=type, created_at=ago, started_at=ago, stopped_at=ago, **columns)


def left(db: Connection) -> set[Any]:
    return set(fetch_all(db, "select id from worker.job"))


@pytest.fixture
def young(db: Connection) -> set[Any]:
    """Jobs that stay by default; and, in the same table, three that go."""
    for type, error in (("t", None), ("u", None), ("t", "cancelled")):
        stopped(db, 8, type, error_msg=error, cancelled_at="2020-01-01" if error else None)
    stopped(db, 91, error_msg="broken")
    return {stopped(db, 6), stopped(db, 60, error_msg="broken"), insert_job(db, created_at="2001-01-01")}


def test_by_default_it_is_as_worker_pools_do(queue: str, db: Connection, young: set[Any]) -> None:
    """What a service would remove by itself is removed at once; with --yes nothing is asked."""
    result = run(queue, "--yes")
    assert (result.exit_code, result.stdout) == (0, "deleted 4 jobs and 0 bundles\n")
    assert left(db) == young


def test_a_question(queue: str, db: Connection, young: set[Any]) -> None:
    """Without --yes it says how many there are, and does nothing unless that is confirmed."""
    result = run(queue, answer="n\n")
    assert (result.exit_code, len(left(db))) == (1, 7)
    assert result.stdout.startswith("4 jobs and 0 bundles (with all members) would be deleted\ngo on? [y/N]: ")
    assert run(queue, answer="y\n").exit_code == 0
    assert left(db) == young
    assert run(queue).stdout == "0 jobs and 0 bundles (with all members) would be deleted\n"


def test_a_dry_run(queue: str, db: Connection, young: set[Any]) -> None:
    """With --dry-run it only counts."""
    result = run(queue, "--dry-run", "--yes", "--archive", "--failed", "30d")
    assert result.stdout == "2 jobs and 0 bundles (with all members) would be archived\n"
    assert len(left(db)) == 7


def test_ages_and_types(queue: str, db: Connection, young: set[Any]) -> None:
    """Only states with an age are removed, of the types that are named."""
    assert run(queue, "--yes", "--succeeded", "1d", "--type", "u").stdout == "deleted 1 jobs and 0 bundles\n"
    assert run(queue, "--yes", "--succeeded", "0", "--archive").stdout == "archived 2 jobs and 0 bundles\n"
    assert len(left(db)) == 4
    assert fetch_all(db, "select count(*) from worker.job_archive") == [2]


def test_what_cannot_be_removed_is_told(queue: str, db: Connection, young: set[Any]) -> None:
    """A job that another table refers to is named, and the others go."""
    kept = stopped(db, 10)
    db.execute("create table worker.mine (job_id uuid references worker.job (id))")
    try:
        db.execute("insert into worker.mine values (%s)", [kept])
        result = run(queue, "--yes")
        assert result.stdout == "deleted 4 jobs and 0 bundles\n"
        assert f"job {kept} is old enough to be removed, but cannot be" in result.stderr
        assert left(db) == {*young, kept}
    finally:
        db.execute("drop table worker.mine")


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("0", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
    ],
)
def test_ages_are_spelt_shortly(text: str, age: timedelta) -> None:
    """A number and a unit."""
    assert AgeType().convert(text, None, None) == age


@pytest.mark.parametrize("age", ["999999999w", "999999999d", "365001d"])
def test_an_age_that_is_too_long(queue: str, age: str) -> None:
    """What no retention may have is refused in a line that names the option."""
    result = run(queue, "--succeeded", age)
    assert result.exit_code == 2
    assert "Invalid value for '--succeeded'" in result.stderr
    assert "thousand years" in result.stderr


@pytest.mark.parametrize("type", ["", "a*b"])
def test_a_type_that_is_none(queue: str, type: str) -> None:
    """A type that no job can have is refused in a line that names the option."""
    result = run(queue, "--type", type)
    assert result.exit_code == 2
    assert "Invalid value for '--type'" in result.stderr


def test_types_are_types_or_patterns() -> None:
    """Each type is given the ages; all others are kept."""
    retention = retention_of({"succeeded": timedelta(0), "failed": None, "cancelled": None}, ["mail:*"], "delete")
    assert retention.by_type == {"mail:*": {**USUAL, "succeeded": timedelta(0)}}
    assert (retention.succeeded, retention.failed) == (None, None)
