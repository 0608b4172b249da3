"""``jobqueue jobs enqueue``: add a job by hand."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from jobqueue.cli.clean import AgeType
from jobqueue.cli.connecting import ServiceOpener, with_service
from jobqueue.payload import RawJSON
from jobqueue.service import Service
from jobqueue.uniqueness import OnConflict

_ORIGIN: Final = "jobqueue jobs enqueue"


def enqueue_command(open_service: ServiceOpener | None = None) -> click.Command:
    """Return the command, on the service that *open_service* gives; None: on one that options name."""

    @click.argument("type")
    @click.argument("payload", metavar="PAYLOAD_JSON")
    @click.option("--delay", type=AgeType(), help="Not before this long from now, such as 10m.")
    @click.option("--priority", type=int, default=0, show_default=True, help="Higher is earlier.")
    @click.option(
        "--max-retries", type=click.IntRange(0), help="Runs after a failed one.  [default: the handler's, or 0]"
    )
    @click.option("--origin", default=_ORIGIN, show_default=True, help="Where it comes from.")
    @click.option("--unique-key", help="What only one job of its type may have at a time.")
    @click.option(
        "--on-conflict",
        type=click.Choice(["ignore", "raise", "replace_payload"]),
        default="ignore",
        show_default=True,
        help="What becomes of a job whose unique key another one holds.",
    )
    @with_service(open_service)
    def enqueue(
        service: Service,
        *,
        type: str,
        payload: str,
        delay: timedelta | None,
        priority: int,
        max_retries: int | None,
        origin: str,
        unique_key: str | None,
        on_conflict: OnConflict,
    ) -> None:
        """Add a job, and print its id.

        PAYLOAD_JSON is JSON text: itself, @FILE for what is in a file, or - for the standard input. When another job
        holds its unique key, the id is that one's, and a line on the standard error says so.
        """
        job = service.enqueue(
            type,
            RawJSON(read_payload(payload)),
            origin=origin,
            delay=delay,
            priority=priority,
            max_retry_count=max_retries,
            unique_key=unique_key,
            on_conflict=on_conflict,
        )
        if job.is_duplicate:
            click.echo(f"job {job.id} holds the unique key already: nothing was added", err=True)
        click.echo(job.id)

    return click.command(name="enqueue")(enqueue)


def read_payload(given: str) -> str:
    """Return the text of a payload that is given as it is, as @ and the path of a file, or as - for what is piped in.

    Raises OSError, UnicodeDecodeError.
    """
    if given == "-":
        return sys.stdin.read()
    if given.startswith("@"):
        return Path(given[1:]).read_text(encoding="utf-8")
    return given
