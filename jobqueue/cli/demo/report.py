"""What the demo led to, read from the database's rows, and whether it is what it should be."""

from collections.abc import Iterator
from functools import cached_property
from uuid import UUID

import attrs

from jobqueue.bundle import JobBundle
from jobqueue.cli.demo.census import Census, Totals, total_of
from jobqueue.cli.demo.work import SourceFile
from jobqueue.errors import PayloadError
from jobqueue.models import Job
from jobqueue.payload import structure


@attrs.frozen(kw_only=True, slots=False)
class Report:
    """A bundle as it was read when all was over, and what is known without it."""

    bundle: JobBundle
    direct: Totals
    """The figures of the same files, computed without the queue."""
    held: frozenset[UUID]
    """The jobs that the killed process held."""
    seconds: float
    seconds_paused: float
    """How much of *seconds* the run stood still for the second process to come up."""

    @cached_property
    def stored(self) -> Totals:
        """The figures as the jobs' stored results have them."""
        return total_of(census for job in self.bundle.jobs if (census := _result_of(job)) is not None)

    @property
    def retried(self) -> frozenset[UUID]:
        """The jobs that were run again after a run that failed."""
        return frozenset(job.id for job in self.bundle.jobs if job.run_count > 1 and job.attempt_errors)

    @property
    def rescued(self) -> frozenset[UUID]:
        """The jobs that were taken away from a worker that had fallen silent."""
        return frozenset(job.id for job in self.bundle.jobs if job.rescue_count > 0)

    @property
    def meant_to_fail(self) -> frozenset[UUID]:
        """The jobs whose first run fails on purpose."""
        return frozenset(job.id for job in self.bundle.jobs if _file_of(job).fails_first)

    @property
    def jobs_per_second(self) -> float:
        """How many jobs were worked off in a second, while work went on."""
        return self.bundle.num_jobs / max(0.001, self.seconds - self.seconds_paused)

    def problems(self) -> list[str]:
        """Say what is not as it should be: nothing, one hopes."""
        return [*self._problems_of_jobs(), *self._problems_of_counts(), *self._problems_of_totals()]

    def _problems_of_jobs(self) -> Iterator[str]:
        for job in self.bundle.jobs:
            if not job.succeeded:
                yield f"job {job.id} ({_file_of(job).path}) is {job.state}: {job.error_msg or 'without an error'}"
            elif _result_of(job) is None:
                yield f"job {job.id} ({_file_of(job).path}) has succeeded, but with no census: {job.result_json}"

    def _problems_of_counts(self) -> Iterator[str]:
        bundle = self.bundle
        if not bundle.num_jobs == bundle.num_jobs_stopped == len(bundle.jobs):
            stopped = f"{bundle.num_jobs_stopped} of {bundle.num_jobs} members as stopped"
            yield f"bundle {bundle.id} counts {stopped}, and has {len(bundle.jobs)}"
        for job_id in sorted(self.retried ^ self.meant_to_fail):
            yield f"job {job_id} {'was' if job_id in self.retried else 'was not'} retried"
        if not self.held:
            yield "the killed process held no job"
        for job_id in sorted(self.held - self.rescued):
            yield f"job {job_id} was held by the killed process, but not rescued"

    def _problems_of_totals(self) -> Iterator[str]:
        for name, (stored, direct) in self.figures().items():
            if stored != direct:
                yield f"{name}: {stored} by the database's rows, but {direct} without the queue"

    def figures(self) -> dict[str, tuple[int | str, int | str]]:
        """Return each figure as the database has it, and as it is without the queue."""
        direct = attrs.asdict(self.direct)
        return {name: (value, direct[name]) for name, value in attrs.asdict(self.stored).items()}


def _file_of(job: Job) -> SourceFile:
    file: SourceFile = structure(job.payload, SourceFile)
    return file


def _result_of(job: Job) -> Census | None:
    try:
        census: Census = structure(job.result, Census)
    except PayloadError:
        return None
    return census
