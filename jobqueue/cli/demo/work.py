"""The census as jobs: what both worker processes agree on."""

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final

import attrs

from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.cli.demo.census import Census, take_census
from jobqueue.job_context import JobContext
from jobqueue.registry import Registry
from jobqueue.retry import Fixed
from jobqueue.settings import WorkerSettings

SCHEMA: Final = "jobqueue_demo"
"""Nobody's queue but the demo's."""

SETTINGS: Final = WorkerSettings(
    heartbeat_interval=timedelta(seconds=0.5), dead_for=timedelta(seconds=3), poll_interval=timedelta(seconds=1)
)
"""Impatient, so that nobody has to wait a minute for what a killed process held."""

ONE_IN: Final = 50
"""One file of so many fails in its first run."""

_RETRY_DELAY: Final = timedelta(seconds=0.5)


@attrs.frozen
class SourceFile:
    """The payload of a job."""

    path: str
    fails_first: bool


class FirstRunError(Exception):
    """Raised on purpose."""


class HalfTime:
    """Lets some runs begin, and those after them only when it is over."""

    def __init__(self, runs_before: int) -> None:
        self._left = runs_before
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.has_begun: Final = threading.Event()

    def wait_if_begun(self) -> None:
        """Count one run; wait while it is half-time."""
        with self._lock:
            self._left -= 1
            begun = self._left < 0
        if begun:
            self.has_begun.set()
            self._over.wait()

    def end(self) -> None:
        """Let everything go on."""
        self._over.set()


class Counter:
    """Handles jobs: takes the census of a file, unless that is to fail."""

    def __init__(self, half_time: HalfTime) -> None:
        self._half_time = half_time

    def run(self, ctx: JobContext, file: SourceFile) -> Census:
        """Take the census of *file*."""
        self._half_time.wait_if_begun()
        if file.fails_first and ctx.job.current_retry_count == 0:
            raise FirstRunError(f"{file.path} fails in its first run, on purpose")
        return take_census(Path(file.path))


def registry_with(job_type: str, function: Callable[[JobContext, SourceFile], object]) -> Registry:
    """Return a registry in which *function* handles the jobs of *job_type*, and nothing else is handled."""
    registry = Registry()
    registry.handler(job_type, retry=Fixed(_RETRY_DELAY))(function)
    return registry


def bundle_of(job_type: str, paths: Iterable[Path]) -> JobBundle:
    """Describe a bundle with a job for each file."""
    files = [SourceFile(str(path), number % ONE_IN == 0) for number, path in enumerate(paths, start=1)]
    return JobBundle.new("stdlib-census", [JobDesc(file, type=job_type, max_retry_count=1) for file in files])
