"""The commands of operators, for whoever has a service: the program itself, and the command lines of frameworks."""

import click

from jobqueue.cli.connecting import Commands, ServiceOpener
from jobqueue.cli.jobs import jobs_command
from jobqueue.cli.pauses import pause_command, resume_command
from jobqueue.cli.status import status_command


def operator_commands(open_service: ServiceOpener | None = None) -> list[click.Command]:
    """Return ``status``, ``jobs``, ``pause`` and ``resume``, to be added to a group of commands.

    *open_service* is called when one of them runs, and returns a context manager that gives the service to work on:
    ``lambda: nullcontext(jobqueue.current_service())`` for one that stays open. Then the commands have no options that
    name a database. None: they have.
    """
    return [
        status_command(open_service),
        jobs_command(open_service),
        pause_command(open_service),
        resume_command(open_service),
    ]


def operator_group(open_service: ServiceOpener, *, name: str = "jobqueue") -> click.Group:
    """Return a group of these commands, which tells of what a user got wrong in a line, and exits with 1.

    Where a framework's commands are click's, as Flask's are, it is added to them as it is. Elsewhere it is run by
    ``operator_group(open_service).main(["status", "--json"], prog_name="manage.py jobqueue")``.
    """
    return Commands(name=name, help="Look at the job queue, and act on it.", commands=operator_commands(open_service))
