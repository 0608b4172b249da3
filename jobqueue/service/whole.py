"""The whole port: all parts of the service, and what worker pools need of it."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Protocol

from jobqueue.bundle import JobBundle
from jobqueue.claim import Claim
from jobqueue.health import Health
from jobqueue.models import Job
from jobqueue.notifier import Notifier
from jobqueue.service.acts import Acts
from jobqueue.service.adds import Adds
from jobqueue.service.hears import Hears
from jobqueue.service.manages import Manages
from jobqueue.service.pauses import Pauses
from jobqueue.service.reads import Reads
from jobqueue.service.schedules import Schedules
from jobqueue.settings import WorkerSettings
from jobqueue.store import Store


class Finishable(Protocol):
    """Something that works for a service and has to end before it: a worker pool."""

    def finish(self, timeout: float | timedelta | None = None) -> bool:
        """Stop and wait; return whether everything has ended."""
        ...


class AddingMiddleware(Protocol):
    """What may stand between a service and its rows; see ``jobqueue.AddMiddleware``."""

    def add_job(self, service: "Service", job: Job, add: Callable[[Job], Job]) -> Job:
        """Add *job*, or do something else."""
        ...

    def add_bundle(self, service: "Service", bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:
        """Add *bundle*, or do something else."""
        ...


class Service(Adds, Reads, Manages, Acts, Pauses, Schedules, Hears, Protocol):
    """Add, read, reset and delete jobs.

    Every method raises ClosedError once the service is closed, but for ``health``, ``detach`` and those that remove
    listeners, which still work; and BackendError when the database fails. With *connection*, a job is added in the
    transaction that is open on it: it exists when that commits. Without *notify*, no worker is woken for it: it is
    found by whoever looks next, after ``poll_interval`` at the latest.
    """

    @property
    def settings(self) -> WorkerSettings:
        """The rules for the workers of this service."""
        ...

    @property
    def origin(self) -> str:
        """Where jobs come from that name no origin."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """How long payloads and results may be, as JSON in UTF-8."""
        ...

    @property
    def store(self) -> Store:
        """The rows, for worker pools."""
        ...

    @property
    def notifier(self) -> Notifier:
        """The events, for worker pools."""
        ...

    @property
    def add_middleware(self) -> Sequence[AddingMiddleware]:
        """What stands between this service and its rows, the outermost first."""
        ...

    def use(self, middleware: AddingMiddleware) -> None:
        """Have all that is added pass through *middleware*, within what was added before. It stays for good.

        Raises TypeError when it has not the methods of ``jobqueue.AddMiddleware``.
        """
        ...

    @property
    def work_middleware(self) -> Sequence[Callable[[Any, Callable[[], object]], object]]:
        """What stands between the worker pools of this service and handlers, the outermost first."""
        ...

    def use_in_workers(self, middleware: Callable[[Any, Callable[[], object]], object]) -> None:
        """Have every run of the worker pools that are started from now on pass through *middleware*.

        That is within what was added before, and outside of what a pool was told to use. It stays for good. If it has a
        method ``end_thread()``, each worker thread calls that at its end.

        Raises TypeError when it cannot be called with a context and a run.
        """
        ...

    def claim(self, types: str | Iterable[str], n: int = 1) -> list[Claim]:
        """Claim up to *n* due jobs of *types* (names and patterns), to run them by hand.

        Raises InvalidJobError when one of *types* is neither.
        """
        ...

    @property
    def vitals(self) -> Health:
        """Where worker pools note how they are doing."""
        ...

    def health(self) -> dict[str, Any]:
        """Report each thread and connection, and counts of lost claims and refused outcomes.

        Under ``parts`` each has its state, since when, and the class of its last error. Works on a closed service, too.
        """
        ...

    def attach(self, dependent: Finishable) -> None:
        """Have *dependent* finished before the service closes. Raises ClosedError."""
        ...

    def detach(self, dependent: Finishable) -> None:
        """Forget *dependent*, which has ended."""
        ...

    def close(self) -> None:
        """Close connections and threads of the service. A second call raises ClosedError."""
        ...
