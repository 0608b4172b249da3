"""``jobqueue status``: how a queue is doing, once or again and again."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobqueue.cli.connecting import ServiceOpener, with_service
from jobqueue.cli.snapshot import Snapshot
from jobqueue.cli.status_screen import screen_of
from jobqueue.errors import BackendError
from jobqueue.patience import patience
from jobqueue.service import Service

_USUAL_SECONDS: Final = 2.0
_SECONDS_TO_ANSWER: Final = 5.0

_Show = Callable[[Snapshot | None, str | None], object]


def status_command(open_service: ServiceOpener | None = None) -> click.Command:
    """Return the command ``status``, on the service that *open_service* gives; None: on one that options name."""

    @click.option(
        "--watch",
        is_flag=False,
        flag_value=_USUAL_SECONDS,
        type=click.FloatRange(0.1, 3600),
        metavar="[SECONDS]",
        help="Look again and again, every 2 seconds or as given, until Ctrl-C.",
    )
    @click.option("--times", type=click.IntRange(1), help="With --watch: end after so many looks.")
    @click.option("--json", "as_json", is_flag=True, help="Print a JSON object; with --watch, one a line.")
    @with_service(open_service)
    def status(service: Service, *, watch: float | None, times: int | None, as_json: bool) -> None:
        """Show how the queue is doing.

        Jobs by type and state, for how long the first of those that are due has been waiting, what has stopped lately,
        which processes had jobs, what is paused, schedules, and how the database is reached. That takes some
        milliseconds, however many jobs there are; what is estimated is marked with a ~.
        """
        show_status(service, watch=watch, times=times, as_json=as_json)

    return click.command(name="status")(status)


def show_status(
    service: Service, *, watch: float | None = None, times: int | None = None, as_json: bool = False
) -> None:
    """Print how the queue of *service* is doing; with *watch*, again every so many seconds, *times* or until Ctrl-C.

    While it is watched, a database that does not answer is told of, and waited for.

    Raises BackendError: it does not answer, and is not watched.
    """
    with _shown(as_json=as_json, live=watch is not None) as show:
        if watch is None:
            show(Snapshot.of(service), None)
            return
        never = threading.Event()
        try:
            for number in range(times or 2**63):
                if number:
                    never.wait(watch)
                show(*_look(service))
        except KeyboardInterrupt:
            return


def _look(service: Service) -> tuple[Snapshot | None, str | None]:
    try:
        with patience(_SECONDS_TO_ANSWER):
            return Snapshot.of(service), None
    except BackendError as error:
        return None, " ".join(str(error).split())


@contextmanager
def _shown(*, as_json: bool, live: bool) -> Generator[_Show]:
    """Give what shows a snapshot, or why there is none."""
    if as_json:
        yield _print_json
        return
    console = Console(highlight=False)
    if not live:
        yield lambda snapshot, _: console.print(_screen(snapshot, None))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal, transient=False) as screen:
        last = _Last()
        yield lambda snapshot, trouble: screen.update(last.screen(snapshot, trouble), refresh=True)


class _Last:
    """The last snapshot, which stays while there is no other."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    def screen(self, snapshot: Snapshot | None, trouble: str | None) -> RenderableType:
        self._snapshot = snapshot or self._snapshot
        return _screen(self._snapshot, trouble)


def _screen(snapshot: Snapshot | None, trouble: str | None) -> RenderableType:
    parts: list[RenderableType] = []
    if trouble is not None:
        parts.append(Text(f"THE DATABASE DOES NOT ANSWER: {trouble}", style="bold red"))
    if snapshot is not None:
        parts.append(screen_of(snapshot))
    return Group(*parts)


def _print_json(snapshot: Snapshot | None, trouble: str | None) -> None:
    said: dict[str, Any] = (
        {"at": datetime.now(UTC).isoformat(), "error": trouble} if snapshot is None else snapshot.as_json()
    )
    click.echo(json.dumps(said))
