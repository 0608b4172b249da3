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
from jobqueue.cli.connecting import DSN, SCHEMA, Commands, hinting
from jobqueue.cli.demo.run import run_demo
from jobqueue.cli.demo.screen import Screen
from jobqueue.cli.migrating import ADOPT, CHECK, only_one_of, run_migrate
from jobqueue.cli.operating import operator_commands
from jobqueue.cli.worker import worker
from jobqueue_pg.embedded import EmbeddedServerError

_MAX_THREADS: Final = 32


class _Program(Commands):
    def _told(self, error: Exception) -> str:
        return str(error) if isinstance(error, EmbeddedServerError) else super()._told(error)  # with the server's log


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobqueue", prog_name="jobqueue")
def program() -> None:
    """A job queue on PostgreSQL."""


program.add_command(worker)
for _command in operator_commands():
    program.add_command(_command)


@program.command()
@DSN
@SCHEMA
@CHECK
@click.option("--sql", "as_sql", is_flag=True, help="Only print what would be run, for psql.")
@ADOPT
def migrate(dsn: str | None, schema: str, *, check: bool, as_sql: bool, adopt: bool) -> None:
    """Create the queue's tables, or bring them up to date.

    What --sql prints does the same, run by somebody else: psql --set ON_ERROR_STOP=1 --file FILE.

    With --adopt, tables that go-jobqueue is working on become the queue's; it may go on meanwhile. What was broken off
    is finished by the same command.
    """
    only_one_of(check=check, sql=as_sql, adopt=adopt)
    with hinting(dsn), _telling("jobqueue_pg.adoption"):
        if as_sql:
            script = jobqueue_pg.pending_script(dsn or "", schema=schema)
            click.echo(script or f'-- schema "{schema}" is up to date')
            return
        run_migrate(
            schema,
            check=(lambda: jobqueue_pg.connect(dsn or "", schema=schema, poll_only=True).close()) if check else None,
            migrate=lambda: jobqueue_pg.migrate(dsn or "", schema=schema, adopt=adopt),
        )


@program.command()
@DSN
@SCHEMA
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
    with hinting(dsn), _telling("jobqueue.cleaner"):
        run_clean(dsn or "", schema, retention, dry_run=dry_run, sure=yes)


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
