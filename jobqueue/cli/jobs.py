"""``jobqueue jobs``: look at jobs, and act on them."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, Unpack
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobqueue.cli.connecting import ServiceOpener, with_service
from jobqueue.cli.enqueue import enqueue_command
from jobqueue.cli.job_views import job_as_json, print_job, print_jobs
from jobqueue.cli.options import IDS, STATE, YES, Filter, Selection, with_filter
from jobqueue.errors import JobNotFoundError
from jobqueue.service import Service

_MOST_LISTED: Final = 100_000
_SHOWN_FIRST: Final = 5


def jobs_command(open_service: ServiceOpener | None = None) -> click.Group:
    """Return the commands ``jobs``, on the service that *open_service* gives; None: on one that options name."""
    group = click.Group(name="jobs", help="Look at jobs, and act on them.")
    on_service = with_service(open_service)
    for function in (list_jobs, show, retry, cancel, delete):
        name = function.__name__.removesuffix("_jobs")
        group.add_command(click.command(name=name)(_OPTIONS[name](on_service(function))))
    group.add_command(enqueue_command(open_service))
    return group


def list_jobs(service: Service, *, limit: int, archived: bool, as_json: bool, **which: Unpack[Filter]) -> None:
    """List jobs, the newest first."""
    found = service.list_jobs(**which, archived=archived, limit=limit)
    if as_json:
        for job in found:
            click.echo(json.dumps(job_as_json(job)))
        return
    print_jobs(Console(highlight=False), found)
    if len(found) == limit:
        click.echo(f"there may be more: these are the newest {limit:,} (--limit)", err=True)


def show(service: Service, *, id: UUID, as_json: bool) -> None:
    """Show all that there is to know of a job."""
    job = service.get_job(id)
    if as_json:
        click.echo(json.dumps(job_as_json(job)))
    else:
        print_job(Console(highlight=False), job)


def retry(service: Service, *, ids: tuple[UUID, ...], reset: bool, yes: bool, **which: Unpack[Filter]) -> None:
    """Have jobs run again that have failed: those with the ids, or those that options mean.

    They are as good as new then. With --reset, so are jobs in any other state, also those that run: by their ids.
    """
    selection = Selection.of(ids, which)
    if reset:
        if not ids:
            raise click.UsageError("--reset takes ids")
        _one_by_one(ids, _told(service.reset_job), done="reset", undone="")
    elif ids:
        _one_by_one(ids, _checked(service, service.replay_job), done="to run again", undone="has not failed (--reset?)")
    else:
        _confirm(service, selection, "failed", "have run again", sure=yes)
        with _counting("retrying") as on_progress:
            number = service.replay_jobs(**selection.filter, on_progress=on_progress)
        click.echo(f"{number:,} jobs are to run again")


def cancel(service: Service, *, ids: tuple[UUID, ...]) -> None:
    """Stop jobs for good that have not stopped, also those that run."""
    _one_by_one(ids, _checked(service, service.cancel_job), done="cancelled", undone="has stopped already")


def delete(service: Service, *, ids: tuple[UUID, ...], yes: bool, **which: Unpack[Filter]) -> None:
    """Delete jobs: those with the ids, or those that options mean. Those that run, too."""
    selection = Selection.of(ids, which)
    if ids:
        if not yes:
            click.confirm(f"delete {len(selection.ids):,} jobs?", abort=True)
        _one_by_one(selection.ids, _told(service.delete_job), done="deleted", undone="")
        return
    _confirm(service, selection, None, "delete", sure=yes)
    with _counting("deleting") as on_progress:
        number = service.delete_jobs(**selection.filter, on_progress=on_progress)
    click.echo(f"deleted {number:,} jobs")


_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for each job, one a line.")


def _together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_OPTIONS: Final = {
    "list": _together(
        STATE,
        with_filter,
        click.option("--archived", is_flag=True, help="Those in the archive."),
        click.option("--limit", type=click.IntRange(1, _MOST_LISTED), default=50, show_default=True),
        _JSON,
    ),
    "show": _together(click.argument("id", type=click.UUID), _JSON),
    "retry": _together(
        IDS, with_filter, click.option("--reset", is_flag=True, help="Whatever state they are in."), YES
    ),
    "cancel": _together(click.argument("ids", metavar="ID...", type=click.UUID, nargs=-1, required=True)),
    "delete": _together(IDS, STATE, with_filter, YES),
}


def _one_by_one(ids: tuple[UUID, ...], act: Callable[[UUID], bool], *, done: str, undone: str) -> None:
    """Act on each of *ids*, and say what became of it; exit with 1 when something was not done."""
    all_done = True
    for id in ids:
        try:
            acted = act(id)
        except JobNotFoundError:
            acted, told = False, "cannot be seen: deleted, never added, or not committed"
        else:
            told = done if acted else undone
        click.echo(f"{id} {told}", err=not acted)
        all_done &= acted
    if not all_done:
        raise click.exceptions.Exit(1)


def _told(act: Callable[[UUID], None]) -> Callable[[UUID], bool]:
    """Have *act*, which raises JobNotFoundError or succeeds, say that it has succeeded."""

    def told(id: UUID) -> bool:
        act(id)
        return True

    return told


def _checked(service: Service, act: Callable[[UUID], bool]) -> Callable[[UUID], bool]:
    """Have *act* raise JobNotFoundError where it returns False because there is no such job."""

    def checked(id: UUID) -> bool:
        if act(id):
            return True
        service.get_job(id)
        return False

    return checked


def _confirm(service: Service, selection: Selection, state: str | None, what: str, *, sure: bool) -> None:
    """Ask whether to go on, and show the newest of the jobs that are meant."""
    if sure:
        return
    which: Any = {**selection.filter, **({} if state is None else {"state": state})}
    newest = service.list_jobs(**which, limit=_SHOWN_FIRST + 1)
    if not newest:
        click.echo("there are no such jobs")
        raise click.exceptions.Exit(0)
    print_jobs(Console(highlight=False, stderr=True), newest[:_SHOWN_FIRST])
    more = " and all others that are meant" if len(newest) > _SHOWN_FIRST else ""
    click.confirm(f"{what} these{more}?", abort=True, err=True)


@contextmanager
def _counting(label: str) -> Generator[Callable[[int, int | None], None]]:
    """Show how far something has come, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, about: progress.update(task, completed=done, total=about)
