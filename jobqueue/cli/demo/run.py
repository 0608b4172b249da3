"""The course of the demo."""

import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import attrs

import jobqueue_pg
from jobqueue.bundle import JobBundle
from jobqueue.cli.demo.census import source_files
from jobqueue.cli.demo.database import open_database
from jobqueue.cli.demo.direct import DirectCount
from jobqueue.cli.demo.report import Report
from jobqueue.cli.demo.screen import Screen
from jobqueue.cli.demo.victim import JOBS_TO_HOLD, Order, Victim
from jobqueue.cli.demo.work import ONE_IN, SCHEMA, SETTINGS, Counter, HalfTime, SourceFile, bundle_of, registry_with
from jobqueue.errors import JobQueueError
from jobqueue.models import State
from jobqueue.payload import structure
from jobqueue.service import Service
from jobqueue.worker.pool import WorkerPool

_LOOK_INTERVAL: Final = 0.2
_PATIENCE: Final = 60.0
_STOPPED: Final = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class DemoError(JobQueueError):
    """The demo cannot go on."""


def run_demo(screen: Screen, *, dsn: str | None, keep: Path | None, threads: int) -> bool:
    """Run the demo on the database *dsn*, or else on a server whose data are kept in *keep* if that is given.

    Returns whether all came out as it should.

    Raises:
        DemoError: there is too little to do, or nothing goes on.
        JobQueueError: no database is to be had, or it failed.
    """
    paths = source_files()
    if len(paths) < 2 * (threads + JOBS_TO_HOLD):
        raise DemoError(f"{len(paths)} files are too few to show anything: is this Python's standard library complete?")
    with open_database(screen, dsn, keep) as conninfo, screen.log(), _silent_parser():
        jobqueue_pg.migrate(conninfo, schema=SCHEMA)
        with (
            DirectCount() as direct,
            closing(jobqueue_pg.connect(conninfo, schema=SCHEMA, settings=SETTINGS)) as service,
        ):
            report = _Demo(screen, service, direct, conninfo, threads).report_on(paths)
        screen.show(report)
        return not report.problems()


@attrs.frozen
class _Demo:
    """One run over one service."""

    screen: Screen
    service: Service
    direct: DirectCount
    conninfo: str
    threads: int
    # A type of its own: nobody's workers take jobs that another run has left or is still at.
    job_type: str = attrs.field(init=False, factory=lambda: f"count-file:{uuid4().hex[:12]}")

    def report_on(self, paths: Sequence[Path]) -> Report:
        """Count what is in the files by jobs; compare that with what was counted without them."""
        bundle = self.service.add_bundle(bundle_of(self.job_type, paths))
        self.screen.say(f"Added a bundle of {len(paths):,} jobs, one for each file of Python's standard library.")
        self.screen.say(
            f"{self.threads} threads work them off; one file in {ONE_IN} fails in its first run, on purpose."
        )
        half_time = HalfTime(bundle.num_jobs // 2)
        registry = registry_with(self.job_type, Counter(half_time).run)
        began = time.monotonic()
        with (
            self.screen.progress("Jobs", bundle.num_jobs) as show,
            WorkerPool(self.service, registry, self.threads),
            _ended(half_time),
        ):
            watch = _Watch(self.service, bundle, self.job_type, show)
            watch.wait_until(half_time.has_begun.is_set)
            paused = time.monotonic()
            held = self._kill_a_worker()
            half_time.end()
            resumed = time.monotonic()
            self._tell_rescues(held, watch, resumed)
            watch.wait_until(watch.is_over)
            ended = time.monotonic()
        return Report(
            bundle=self.service.get_job_bundle(bundle.id),
            direct=self.direct.totals(),
            held=frozenset(held),
            seconds=ended - began,
            seconds_paused=resumed - paused,
        )

    def _kill_a_worker(self) -> Sequence[UUID]:
        self.screen.say("Half of the files are done. A second worker process starts, and takes jobs, too.")
        with Victim(Order(self.conninfo, self.job_type)) as victim:
            held = victim.wait_for_jobs()
            victim.kill()
        self.screen.say(f"Killed worker process {victim.pid} (SIGKILL), which held {len(held)} jobs:")
        for job_id in held:
            self.screen.say(f"  held     {job_id}")
        return held

    def _tell_rescues(self, held: Sequence[UUID], watch: "_Watch", since: float) -> None:
        waiting = set(held)

        def all_rescued() -> bool:
            for job_id in sorted(waiting):
                job = self.service.get_job(job_id)
                if job.rescue_count:
                    waiting.remove(job_id)
                    file: SourceFile = structure(job.payload, SourceFile)
                    seconds = time.monotonic() - since
                    self.screen.say(f"  rescued  {job_id} after {seconds:.1f} s ({Path(file.path).name})")
            return not waiting

        watch.wait_until(all_rescued)


class _Watch:
    """Looks at how far the jobs have come, as the database has it."""

    def __init__(self, service: Service, bundle: JobBundle, job_type: str, show: Callable[[int], None]) -> None:
        self._service = service
        self._num_jobs = bundle.num_jobs
        self._job_type = job_type
        self._show = show
        self._num_stopped = 0
        self._pause = threading.Event()

    def is_over(self) -> bool:
        """Whether all jobs had stopped at the last look."""
        return self._num_stopped == self._num_jobs

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look again and again until *condition* holds.

        Raises:
            DemoError: no job stops any more.
        """
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            self._pause.wait(_LOOK_INTERVAL)
            before = self._num_stopped
            self._look()
            if self._num_stopped > before:
                deadline = time.monotonic() + _PATIENCE
            elif time.monotonic() > deadline:
                raise DemoError(
                    f"no job has ended for {_PATIENCE:g} s, and {self._num_stopped} of {self._num_jobs} have"
                )

    def _look(self) -> None:
        numbers = self._service.get_status().by_type_and_state.get(self._job_type, {})
        self._num_stopped = sum(numbers.get(state, 0) for state in _STOPPED)
        self._show(self._num_stopped)


@contextmanager
def _ended(half_time: HalfTime) -> Generator[None]:
    """End half-time after the block, however that ends: else the threads that wait for it would never finish."""
    try:
        yield
    finally:
        half_time.end()


@contextmanager
def _silent_parser() -> Generator[None]:
    """Keep what the parser thinks of other people's files off the screen; set here for the threads, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
