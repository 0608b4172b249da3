"""What can be typed after ``jobqueue``."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import click
from rich.console import Console

import jobqueue_pg
from jobqueue.cli.clean import AgeType, TypeOrPattern, retention_of, run_clean
from jobqueue.cli.demo.run import run_demo
from jobqueue.cli.demo.screen import Screen
from jobqueue.errors import JobQueueError, UnavailableError
from jobqueue_pg.embedded import EmbeddedServerError

_MAX_THREADS: Final = 32


class _Program(click.Group):
    """Tells users in a line what went wrong, where Python would show a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EmbeddedServerError as error:
            raise click.ClickException(str(error)) from error  # with the server's log
        except (JobQueueError, ValueError, OSError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobqueue", prog_name="jobqueue")
def program() -> None:
    """A job queue on PostgreSQL."""


_DSN: Final = click.option(
    "--dsn", envvar="JOBQUEUE_DSN", show_envvar=True, help="The database; by default as libpq's variables say."
)
_SCHEMA: Final = click.option("--schema", default="worker", show_default=True, help="The schema that holds the queue.")


@program.command()
@_DSN
@_SCHEMA
@click.option("--adopt", is_flag=True, help="Take over the tables of go-jobqueue 0.5 to 0.7 that the schema holds.")
def migrate(dsn: str | None, schema: str, *, adopt: bool) -> None:
    """Create the queue's tables, or bring them up to date.

    With --adopt, tables that go-jobqueue is working on become the queue's; it may go on meanwhile. What was broken off
    is finished by the same command.
    """
    with _hinting(dsn), _telling("jobqueue_pg.adoption"):
        applied = jobqueue_pg.migrate(dsn or "", schema=schema, adopt=adopt)
    for name in applied:
        click.echo(f"applied {name}")
    click.echo(f'schema "{schema}" is up to date')


@program.command()
@_DSN
@_SCHEMA
@click.option("--succeeded", type=AgeType(), help="How long jobs are kept that have succeeded, such as 7d, 12h or 0.")
@click.option("--failed", type=AgeType(), help="How long jobs are kept that have failed.")
@click.option("--cancelled", type=AgeType(), help="How long jobs are kept that were cancelled.")
@click.option(
    "--type",
    "types",
    type=TypeOrPattern(),
    multiple=True,
    help="Only jobs of this type, or pattern. May be given several times.",
)
@click.option("--archive", is_flag=True, help="Move jobs to the table job_archive.  [default: delete them]")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(
    dsn: str | None,
    schema: str,
    types: tuple[str, ...],
    *,
    archive: bool,
    dry_run: bool,
    yes: bool,
    **ages: timedelta | None,
) -> None:
    """Remove jobs that stopped long ago.

    Without an age, those are kept that worker pools keep by default: for 7 days, and failed ones for 90. With one, jobs
    of the other states are kept. Members of bundles go with them, when all are old enough.
    """
    retention = retention_of(ages, types, "archive" if archive else "delete")
    with _hinting(dsn), _telling("jobqueue.cleaner"):
        run_clean(dsn or "", schema, retention, dry_run=dry_run, sure=yes)


@contextmanager
def _hinting(dsn: str | None) -> Generator[None]:
    """Where the database cannot be reached, say how it is named."""
    try:
        yield
    except UnavailableError as error:
        hint = "" if dsn else " (--dsn, JOBQUEUE_DSN or libpq's PGHOST, PGDATABASE... name the database)"
        raise click.ClickException(f"{' '.join(str(error).split())}{hint}") from error


class _Teller(logging.Handler):
    """Writes to the standard error what users should know while a command runs."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        click.echo(f"{prefix}{record.getMessage()}", err=True)


@contextmanager
def _telling(name: str) -> Generator[None]:
    """Show what the logger *name* says."""
    logger, teller = logging.getLogger(name), _Teller()
    level = logger.level
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(teller)


@program.command()
@click.option("--dsn", help="Use this database, in a schema of the demo's own.  [default: a new PostgreSQL server]")
@click.option("--keep", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Keep the server's data.")
@click.option("--threads", type=click.IntRange(1, _MAX_THREADS), default=4, show_default=True, help="Worker threads.")
def demo(dsn: str | None, keep: Path | None, threads: int) -> None:
    """Show the queue at work, through failures and a kill.

    A job for each file of Python's standard library counts what is in it. Some jobs fail at first, a worker process is
    killed, and the result is compared with one made without the queue.
    """
    if dsn is not None and keep is not None:
        raise click.UsageError("--keep is for the demo's own server: a database named by --dsn is kept anyway")
    if not run_demo(Screen(Console(highlight=False)), dsn=dsn, keep=keep, threads=threads):
        raise click.exceptions.Exit(1)
