"""What can be typed after ``manage.py jobqueue``: the commands of ``jobqueue``, on the project's own queue."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import click
import django
from django.core.management import call_command

import jobqueue_pg
from jobqueue.cli.connecting import Commands
from jobqueue.cli.migrating import ADOPT, CHECK, only_one_of, run_migrate
from jobqueue.cli.operating import operator_commands
from jobqueue.cli.plan import Plan
from jobqueue.cli.readiness import Probes
from jobqueue.cli.supervising import run_workers
from jobqueue.cli.worker import worker
from jobqueue.contrib.django import databases, source
from jobqueue.contrib.django.configuration import configuration
from jobqueue.service import Service

_NOT_OURS = frozenset({"target", "dsn", "schema"})


def commands() -> click.Group:
    """Return the group of them."""
    group: click.Group = Commands("jobqueue", help="Work for the job queue of this project, look at it, and act on it.")
    for command in (migrate, _worker(), *operator_commands(lambda: nullcontext(source.service()))):
        group.add_command(command)
    return group


@click.command()
@CHECK
@ADOPT
def migrate(*, check: bool, adopt: bool) -> None:
    """Create the queue's tables, or bring them up to date: as `manage.py migrate jobqueue` does."""
    only_one_of(check=check, adopt=adopt)
    said = configuration()

    def bring_up_to_date() -> Iterator[str]:
        yield from jobqueue_pg.migrate(databases.conninfo(), schema=said.schema, adopt=adopt)
        # So that Django knows it, too.
        call_command("migrate", "jobqueue", database=said.database, verbosity=0)

    run_migrate(said.schema, check=source.try_out if check else None, migrate=bring_up_to_date)


def _worker() -> click.Command:
    ours = [param for param in worker.params if param.name not in _NOT_OURS]
    return click.Command("worker", params=ours, callback=click.pass_context(_work), help=_HELP_FOR_WORKER)


_HELP_FOR_WORKER = """Run the jobs of this project, in processes that are started again when they die.

SIGTERM and Ctrl-C have running jobs finish, a second one has them let go. SIGHUP starts the processes anew, one after
the other. The exit code is 0 when all jobs had ended, 3 when some had not. Without --threads and --lanes, JOBQUEUE says
how many there are.
"""


def _work(
    ctx: click.Context,
    *,
    threads: int | None,
    processes: int,
    types: tuple[str, ...],
    lanes: tuple[tuple[str, int], ...],
    finish_within: timedelta,
    ready_file: Path | None,
    ready_port: tuple[str, int] | None,
    log_runs: bool,
) -> None:
    said = configuration()
    plan = Plan(
        set_up=f"{__name__}:set_up",
        threads=threads or said.threads or None,
        types=types,
        lanes=dict(lanes) or dict(said.lanes or {}),
        log_runs=log_runs,
        finish_within=finish_within,
    )
    ctx.exit(run_workers(plan, processes=processes, probes=Probes(file=ready_file, address=ready_port)))


def set_up() -> Service:
    """Set the project up in a worker process, and return its service."""
    django.setup()
    return source.service()
