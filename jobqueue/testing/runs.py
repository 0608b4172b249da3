"""What a drain has done."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs

from jobqueue.errors import JobQueueError
from jobqueue.models import Job
from jobqueue.outcomes import OutcomeKind
from jobqueue.payload import load_json


class DrainError(JobQueueError):
    """Jobs go on and on, or one has failed without an error that a handler has raised."""


@attrs.frozen(kw_only=True)
class Run:
    """One run of a job, and what it has led to."""

    job: Job
    """The job as it was claimed: ``get_job(run.job.id)`` reads what has become of it."""
    kind: OutcomeKind | None
    """What becomes of the job; None: its claim was lost, as the run has cancelled, reset or deleted its own job."""
    result_json: str | None = attrs.field(default=None, repr=False)
    error: BaseException | None = None
    """What the handler has raised, or, if it has raised nothing and has failed, what says why."""

    @property
    def type(self) -> str:
        """The job's type."""
        return self.job.type

    @property
    def payload(self) -> Any:
        """The job's payload as a plain JSON value."""
        return self.job.payload

    @property
    def result(self) -> Any:
        """What the handler has returned, as a plain JSON value."""
        return None if self.result_json is None else load_json(self.result_json)


@attrs.frozen
class Drained:
    """The runs of a drain, in their order. The same job may have been run several times."""

    runs: tuple[Run, ...]

    @property
    def types(self) -> list[str]:
        """The types of the jobs that were run."""
        return [run.type for run in self.runs]

    @property
    def succeeded(self) -> list[Run]:
        """Those that ended well, and with them their jobs."""
        return self._of(OutcomeKind.FINISHED)

    @property
    def failed(self) -> list[Run]:
        """Those that failed, and with them their jobs."""
        return self._of(OutcomeKind.FAILED)

    @property
    def retrying(self) -> list[Run]:
        """Those that failed, and were to be followed by another."""
        return self._of(OutcomeKind.RETRY)

    @property
    def snoozed(self) -> list[Run]:
        """Those that asked for another, later."""
        return self._of(OutcomeKind.SNOOZED)

    @property
    def discarded(self) -> list[Run]:
        """Those that said that their jobs are not worth running."""
        return self._of(OutcomeKind.DISCARDED)

    def _of(self, kind: OutcomeKind) -> list[Run]:
        return [run for run in self.runs if run.kind is kind]

    def __getitem__(self, place: int) -> Run:
        return self.runs[place]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __str__(self) -> str:
        counts = Counter(f"{run.type}: {run.kind or 'lost'}" for run in self.runs)
        return ", ".join(f"{number} x {what}" for what, number in counts.items()) or "nothing"
