"""Migrating by a command: what it takes, and what it says, wherever it is typed."""

from collections.abc import Callable, Iterable
from typing import Final

import click

CHECK: Final = click.option(
    "--check", is_flag=True, help="Only say whether it is up to date; exit with 1 if it is not."
)
ADOPT: Final = click.option(
    "--adopt", is_flag=True, help="Take over the tables of go-jobqueue 0.5 to 0.7 that the schema holds."
)


def only_one_of(**chosen: bool) -> None:
    """Refuse what was *chosen* of a command's options when it is more than one of these."""
    if sum(chosen.values()) > 1:
        *names, last = (f"--{name}" for name in chosen)
        raise click.UsageError(f"{', '.join(names)} and {last} do not go together")


def run_migrate(schema: str, *, check: Callable[[], object] | None, migrate: Callable[[], Iterable[str]]) -> None:
    """Have *migrate* bring *schema* up to date, and tell of what that took; where there is a *check*, only do that."""
    if check is not None:
        check()
    else:
        for name in migrate():
            click.echo(f"applied {name}")
    click.echo(f'schema "{schema}" is up to date')
