"""What the demo shows: on a terminal with a moving bar, elsewhere as lines."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobqueue.cli.demo.report import Report

_DIGEST_SHOWN: Final = 16
_PROBLEMS_SHOWN: Final = 10
# Failed runs and rescues are what the demo is about: it tells them itself.
_TOLD_ANYWAY: Final = ("jobqueue.execution", "jobqueue.worker.maintenance")


class Screen:
    """A console, and what is said on it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str = "") -> None:
        """Print lines, never cut nor wrapped, so that what is in them can be copied."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Generator[Callable[[int], None]]:
        """Show how far something has come, as told by the function that this gives, within the block."""
        if not self._console.is_terminal:
            yield _Quarters(self, label, total).show
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(label, total=total)
            yield lambda done: progress.update(task, completed=done)

    @contextmanager
    def log(self) -> Generator[None]:
        """Print what is logged as a warning or an error within the block, above the bar."""
        handler = _LogHandler(self)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)

    def show(self, report: Report) -> None:
        """Print what came of it."""
        self._console.print(_summary_of(report))
        self._console.print(_totals_of(report))
        problems = report.problems()
        for problem in problems[:_PROBLEMS_SHOWN]:
            self.say(f"PROBLEM: {problem}")
        if len(problems) > _PROBLEMS_SHOWN:
            self.say(f"... and {len(problems) - _PROBLEMS_SHOWN} more problems")
        if not problems:
            self.say("Every job has succeeded, and the totals agree.")


class _Quarters:
    """Progress for a file or a pipe: a line at every quarter."""

    def __init__(self, screen: Screen, label: str, total: int) -> None:
        self._screen = screen
        self._label = label
        self._total = total
        self._shown = 0

    def show(self, done: int) -> None:
        quarters = done * 4 // self._total
        if quarters > self._shown:
            self._shown = quarters
            self._screen.say(f"{self._label}: {done:,} of {self._total:,}")


class _LogHandler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen
        self.addFilter(lambda record: record.levelno > logging.WARNING or record.name not in _TOLD_ANYWAY)

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(f"{record.levelname}: {self.format(record)}")


def _summary_of(report: Report) -> Table:
    table = Table(title="What happened", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    retried, rescued = report.retried, report.rescued
    failed_first = len(retried & report.meant_to_fail)
    lost = len(rescued & report.held)
    table.add_row(
        "jobs", f"{report.bundle.num_jobs:,}", f"{sum(job.succeeded for job in report.bundle.jobs):,} succeeded"
    )
    table.add_row("retries", f"{len(retried):,}", f"{failed_first} failed in their first run on purpose")
    table.add_row("rescued", f"{len(rescued):,}", f"{lost} of the {len(report.held)} that the killed process held")
    table.add_row(
        "jobs per second",
        f"{report.jobs_per_second:,.0f}",
        f"in {report.seconds - report.seconds_paused:.1f} s, the parsing included",
    )
    return table


def _totals_of(report: Report) -> Table:
    table = Table(title="What is in the files")
    table.add_column("")
    table.add_column("in the database's rows", justify="right")
    table.add_column("without the queue", justify="right")
    table.add_column("")
    for name, (stored, direct) in report.figures().items():
        table.add_row(name, _shown(stored), _shown(direct), "same" if stored == direct else "DIFFERENT")
    return table


def _shown(figure: int | str) -> str:
    return f"{figure:,}" if isinstance(figure, int) else f"{figure[:_DIGEST_SHOWN]}..."
