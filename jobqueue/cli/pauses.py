"""``jobqueue pause`` and ``jobqueue resume``."""

from datetime import timedelta

import click

from jobqueue.cli.clean import AgeType, TypeOrPattern
from jobqueue.cli.connecting import ServiceOpener, with_service
from jobqueue.service import Service


def pause_command(open_service: ServiceOpener | None = None) -> click.Command:
    """Return the command, on the service that *open_service* gives; None: on one that options name."""

    @click.argument("type", type=TypeOrPattern())
    @click.option("--for", "lasts", type=AgeType(), help="How long, such as 30m.  [default: until it is resumed]")
    @click.option("--reason", help="Why, for others to read.")
    @with_service(open_service)
    def pause(service: Service, *, type: str, lasts: timedelta | None, reason: str | None) -> None:
        """Have no jobs of a type, or of those that a pattern covers, claimed by any process; running ones go on."""
        paused = service.pause(type, lasts, reason)
        until = "until it is resumed" if paused.until is None else f"until {paused.until:%Y-%m-%d %H:%M:%S} UTC"
        click.echo(f"{type} is paused {until}")

    return click.command(name="pause")(pause)


def resume_command(open_service: ServiceOpener | None = None) -> click.Command:
    """Return the command, on the service that *open_service* gives; None: on one that options name."""

    @click.argument("type", type=TypeOrPattern())
    @with_service(open_service)
    def resume(service: Service, *, type: str) -> None:
        """End the pause of a type or pattern."""
        if not service.resume(type):
            paused = ", ".join(each.type for each in service.paused_types())
            raise click.ClickException(
                f"{type!r} is not paused: paused are {paused}" if paused else "nothing is paused"
            )
        click.echo(f"{type} is resumed")

    return click.command(name="resume")(resume)
