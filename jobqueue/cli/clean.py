"""``jobqueue clean``: removes jobs that were kept for long enough, by hand."""

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Final

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import jobqueue_pg
from jobqueue.cleaning import CleanResult
from jobqueue.errors import InvalidJobError
from jobqueue.limits import check_type_or_pattern
from jobqueue.retention import LONGEST_AGE, Ages, Mode, Retention
from jobqueue.service import Service

_UNITS: Final[Mapping[str, timedelta]] = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_AGE: Final = re.compile(r"(\d{1,9})([smhdw])")
_USUAL: Final = Retention()


class AgeType(click.ParamType[timedelta]):
    """A duration such as 7d, 12h or 30m, or 0."""

    name = "age"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration that *value* spells."""
        if isinstance(value, timedelta):
            return value
        if value == "0":
            return timedelta(0)
        found = _AGE.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no age: it takes a number with s, m, h, d or w, such as 7d, or 0", param, ctx)
        number, unit = int(found[1]), _UNITS[found[2]]
        # Divided, as the product may be more than there is.
        if number > LONGEST_AGE // unit:
            self.fail(f"{value!r} is too long: an age is a thousand years at most", param, ctx)
        return number * unit


class TypeOrPattern(click.ParamType[str]):
    """A type of jobs, or a pattern of types."""

    name = "type"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value*, if it is one."""
        try:
            return check_type_or_pattern("it", value)
        except InvalidJobError as error:
            self.fail(str(error), param, ctx)


def retention_of(ages: Mapping[str, timedelta | None], types: Sequence[str], mode: Mode) -> Retention:
    """Return the retention that options spell: what is usual, if there is no age among them."""
    given = {state: age for state, age in ages.items() if age is not None}
    usual = {"succeeded": _USUAL.succeeded, "failed": _USUAL.failed, "cancelled": _USUAL.cancelled}
    wanted = dict.fromkeys(usual) | given if given else usual
    whole = Ages(succeeded=wanted["succeeded"], failed=wanted["failed"], cancelled=wanted["cancelled"])
    if not types:
        return Retention(**whole, mode=mode)
    return Retention(succeeded=None, failed=None, cancelled=None, by_type=dict.fromkeys(types, whole), mode=mode)


def run_clean(dsn: str, schema: str, retention: Retention, *, dry_run: bool, sure: bool) -> None:
    """Remove what *retention* does not keep, after a question unless the caller is *sure*, and tell how it goes."""
    with closing(jobqueue_pg.connect(dsn, schema=schema, poll_only=True)) as service:
        if dry_run or not sure:
            found = service.count_old_jobs(retention)
            click.echo(f"{_spelt(found)} (with all members) would be {_done(retention)}")
            if dry_run or found == CleanResult():
                return
            click.confirm("go on?", abort=True)
        click.echo(f"{_done(retention)} {_spelt(_clean(service, retention))}")


def _clean(service: Service, retention: Retention) -> CleanResult:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task("looking")
        return service.clean(retention, lambda removed: progress.update(task, description=_spelt(removed)))


def _spelt(result: CleanResult) -> str:
    return f"{result.jobs:,} jobs and {result.bundles:,} bundles"


def _done(retention: Retention) -> str:
    return "deleted" if retention.mode == "delete" else "archived"
