"""How commands come by a service: from options, or from an application that has one."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import wraps
from typing import Any, Final

import click

import jobqueue_pg
from jobqueue.cli.target import hint_without
from jobqueue.errors import JobQueueError, UnavailableError
from jobqueue.service import Service

DSN: Final = click.option(
    "--dsn", envvar="JOBQUEUE_DSN", show_envvar=True, help="The database; by default as libpq's variables say."
)
SCHEMA: Final = click.option("--schema", default="worker", show_default=True, help="The schema that holds the queue.")

ServiceOpener = Callable[[], AbstractContextManager[Service]]
"""Returns a context manager that gives the service to work on, and does with it afterwards what there is to do."""


class Commands(click.Group):
    """Tells users in a line what went wrong, where Python would show a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever reads has had enough: click ends without a word
        except (JobQueueError, ValueError, OSError) as error:
            raise click.ClickException(self._told(error)) from error

    def _told(self, error: Exception) -> str:
        return " ".join(str(error).split())


@contextmanager
def hinting(dsn: str | None) -> Generator[None]:
    """Where the database cannot be reached, say how it is named."""
    try:
        yield
    except UnavailableError as error:
        raise click.ClickException(f"{' '.join(str(error).split())}{hint_without(dsn)}") from error


def with_service(open_service: ServiceOpener | None) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Have a command be called with the service that *open_service* gives, before its options.

    None: with one on the database that options name, which this adds. Other options are added to what this returns.
    """

    def decorate(function: Callable[..., object]) -> Callable[..., object]:
        @wraps(function)
        def run(**options: Any) -> object:
            if open_service is not None:
                with open_service() as service:
                    return function(service, **options)
            dsn: str | None = options.pop("dsn")
            with hinting(dsn), closing(_connected(dsn, options.pop("schema"))) as service:
                return function(service, **options)

        return run if open_service is not None else DSN(SCHEMA(run))

    return decorate


def _connected(dsn: str | None, schema: str) -> Service:
    return jobqueue_pg.connect(dsn or "", schema=schema, poll_only=True, pool_size=1)
