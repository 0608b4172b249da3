"""The service over one store and one notifier: checks what it is given, fills in what is left open."""

import os
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from jobqueue.adding import program_name
from jobqueue.claim import Claim
from jobqueue.claims import Claims
from jobqueue.context import make_current
from jobqueue.delivery import Delivery
from jobqueue.health import Health
from jobqueue.known_types import UnknownTypes
from jobqueue.limits import COUNT, check_int
from jobqueue.middleware import WorkMiddleware, check_work_middleware
from jobqueue.notifier import Notifier
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.queue_service.acts import Acts
from jobqueue.queue_service.adds import Adds
from jobqueue.queue_service.hears import Hears
from jobqueue.queue_service.manages import Manages
from jobqueue.queue_service.pauses import Pauses
from jobqueue.queue_service.schedules import Schedules
from jobqueue.service import Finishable, Service
from jobqueue.settings import WorkerSettings
from jobqueue.store import Store
from jobqueue.waiting import Waiting

_SECONDS_FOR_POOLS: Final = 10.0


class QueueService(Adds, Manages, Acts, Pauses, Schedules, Hears):
    """The Service over one Store and one Notifier. Safe for use by many threads."""

    _work_middleware: tuple[WorkMiddleware, ...] = ()

    def __init__(
        self,
        *,
        store: Store,
        notifier: Notifier,
        settings: WorkerSettings,
        origin: str | None = None,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        vitals: Health | None = None,
        unknown_types: UnknownTypes = "warn",
    ) -> None:
        super().__init__(
            store=store,
            notifier=notifier,
            settings=settings,
            origin=program_name() if origin is None else origin,
            max_payload_bytes=max_payload_bytes,
            vitals=Health() if vitals is None else vitals,
            unknown_types=unknown_types,
        )
        self._delivery = Delivery(self._listeners, store.apart, notifier, self._vitals, lambda: make_current(self))
        self._waiting = Waiting(notifier, settings.poll_interval)
        self._claims = Claims(self)
        # A signal handler that finishes a pool may interrupt whoever holds it.
        self._lock = threading.RLock()
        self._dependents: set[Finishable] = set()

    @property
    def _service(self) -> Service:
        return self

    @property
    def work_middleware(self) -> Sequence[WorkMiddleware]:
        """What stands between worker pools and handlers."""
        return self._work_middleware

    def use_in_workers(self, middleware: WorkMiddleware) -> None:
        """Have every run of the pools that are started from now on pass through *middleware*."""
        self._open_store()
        check_work_middleware(middleware)
        self._work_middleware += (middleware,)

    def claim(self, types: str | Iterable[str], n: int = 1) -> list[Claim]:
        """Claim up to *n* due jobs, to run them by hand."""
        self._open_store()
        return self._claims.claim(types, check_int("n", n, COUNT[1:]))

    def attach(self, dependent: Finishable) -> None:
        """Have *dependent* finished before the service closes. Raises ClosedError."""
        self._open_store()
        with self._lock:
            self._open_store()
            self._dependents.add(dependent)

    def detach(self, dependent: Finishable) -> None:
        """Forget *dependent*, which has ended."""
        self._check_process()
        with self._lock:
            self._dependents.discard(dependent)

    def close(self) -> None:
        """Finish worker pools, for at most 10 seconds each, and close connections. A second call raises ClosedError."""
        self._open_store()
        with self._lock:
            dependents = list(self._dependents)
        for dependent in dependents:
            dependent.finish(_SECONDS_FOR_POOLS)
        # Before anything is closed that they need: what was claimed by hand is given back.
        self._claims.close()
        with self._lock:
            store = self._open_store()
            self._closed = True
        self._waiting.wake()
        self._delivery.stop()
        self._notifier.close()
        # Before anybody is waited for who may wait for a connection.
        store.close()
        self._delivery.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A child that was forked within the block leaves it, too.
        if self._process == os.getpid():
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} origin={self._origin!r}{' closed' if self._closed else ''}>"
