"""``flask jobqueue``: the commands of operators, on the queue of an application.

What they are made of is imported when one of them is wanted, and not by each process that serves the application.
"""

from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import click
from flask.cli import ScriptInfo

import jobqueue_pg

if TYPE_CHECKING:
    from jobqueue.contrib.flask.app_queue import AppQueue

_OF_TARGETS: Final = frozenset({"target", "dsn", "schema"})


class QueueCommands(click.Group):
    """Stands for the group of commands until it is needed."""

    def __init__(self, queue: "AppQueue") -> None:
        super().__init__(name="jobqueue", help="Look at the job queue, act on it, and run its jobs.")
        self._queue = queue

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        return self._group.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        return self._group.get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; tell users in a line what went wrong."""
        return self._group.invoke(ctx)

    @cached_property
    def _group(self) -> click.Group:
        try:
            from jobqueue.cli.operating import operator_group  # noqa: PLC0415 - as said above
        except ModuleNotFoundError as error:
            message = f"the commands need the package {error.name}: pip install 'jobqueue[flask]'"
            raise click.ClickException(message) from error
        # Not in the session of the context that Flask gives each command: nobody would commit that.
        group = operator_group(lambda: closing(self._queue.connected_apart()))
        group.add_command(_migrate_command(self._queue))
        group.add_command(_worker_command(self._queue))
        return group


def _migrate_command(queue: "AppQueue") -> click.Command:
    from jobqueue.cli.migrating import CHECK, run_migrate  # noqa: PLC0415 - as above

    @click.command()
    @CHECK
    def migrate(*, check: bool) -> None:
        """Create the queue's tables, or bring them up to date."""
        schema = queue.configuration.schema
        run_migrate(
            schema,
            check=(lambda: queue.connected_apart().close()) if check else None,
            migrate=lambda: jobqueue_pg.migrate(queue.conninfo, schema=schema),
        )

    return migrate


def _worker_command(queue: "AppQueue") -> click.Command:
    """Return the program's own command, but for what names a module and a database."""
    from jobqueue.cli.worker import worker as of_program  # noqa: PLC0415 - as above

    def worker(**options: Any) -> None:
        """Run jobs, in processes that are started again when they die.

        Each of them loads the application. Without --threads they have as many as JOBQUEUE_THREADS says, or 4.

        SIGTERM and Ctrl-C have running jobs finish, a second one has them let go. SIGHUP starts the processes anew, one
        after the other. The exit code is 0 when all jobs had ended, 3 when some had not.
        """
        click.get_current_context().exit(_run_workers(queue, **options))

    parameters = [each for each in of_program.params if each.name not in _OF_TARGETS]
    return click.Command("worker", callback=worker, params=parameters, help=worker.__doc__)


def _run_workers(
    queue: "AppQueue",
    *,
    processes: int,
    finish_within: Any,
    ready_file: Any,
    ready_port: Any,
    lanes: tuple[tuple[str, int], ...],
    **of_pool: Any,
) -> int:
    from jobqueue.cli.plan import Plan  # noqa: PLC0415 - as above
    from jobqueue.cli.readiness import Probes  # noqa: PLC0415
    from jobqueue.cli.supervising import run_workers  # noqa: PLC0415

    plan = Plan(
        set_up="jobqueue.contrib.flask.worker:set_up",
        arguments={"app": _import_path(), "lanes": dict(lanes), **of_pool},
        finish_within=finish_within,
    )
    probes = Probes(file=ready_file, address=ready_port)
    return run_workers(plan, processes=processes, probes=probes, end_more_threads=queue.end_threads)


def _import_path() -> str | None:
    """Return how Flask was told which application to load; None: by its environment, or by its usual file names."""
    info = click.get_current_context().ensure_object(ScriptInfo)
    if info.create_app is not None:
        raise click.ClickException(
            "worker processes load the application by its name, and this program makes it by itself: run "
            "`flask --app module:create_app jobqueue worker`"
        )
    return info.app_import_path
