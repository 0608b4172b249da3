"""What every part of the service rests on: a store and a notifier that are open, in the process that opened them."""

import os
from collections.abc import Callable
from typing import Any, Final

from jobqueue.errors import ClosedError
from jobqueue.health import Health
from jobqueue.known_types import KnownTypes, UnknownTypes
from jobqueue.limits import check_name
from jobqueue.listeners import Listeners
from jobqueue.notifier import Notifier
from jobqueue.settings import WorkerSettings
from jobqueue.store import Store

Watch = Callable[[str, object], object]
"""Is called with the name of a method, and the connection that it was given, if any."""


class Opened:
    """One Store and one Notifier, until they are closed; and who hears of what happens."""

    _watch: Watch | None = None

    def __init__(
        self,
        *,
        store: Store,
        notifier: Notifier,
        settings: WorkerSettings,
        origin: str,
        max_payload_bytes: int,
        vitals: Health,
        unknown_types: UnknownTypes,
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._settings = settings
        self._origin = check_name("origin", origin)
        self.max_payload_bytes: Final = max_payload_bytes
        self._vitals = vitals
        self._listeners = Listeners(vitals)
        self._known_types = KnownTypes(unknown_types)
        self._process = os.getpid()
        self._closed = False

    @property
    def settings(self) -> WorkerSettings:
        """The rules for the workers of this service."""
        return self._settings

    @property
    def origin(self) -> str:
        """Where jobs come from that name no origin."""
        return self._origin

    @property
    def store(self) -> Store:
        """The rows. Raises ClosedError."""
        return self._open_store()

    @property
    def notifier(self) -> Notifier:
        """The events. Raises ClosedError."""
        self._open_store()
        return self._notifier

    @property
    def vitals(self) -> Health:
        """Where worker pools note how they are doing."""
        return self._vitals

    def watch_changes(self, watch: Watch) -> None:
        """Have *watch* called after each call that has changed rows, in its thread, in place of any other.

        For integrations, which know whether the transaction that the call has joined is committed. What worker pools
        do is not told.
        """
        self._watch = watch

    def note_change(self, name: str, connection: object = None) -> None:
        """Tell whoever watches that the method *name*, which was given *connection*, has changed rows."""
        if self._watch is not None:
            self._watch(name, connection)

    def _open_store(self) -> Store:
        self._check_process()
        if self._closed:
            raise ClosedError("the job queue service was closed: connect again")
        return self._store

    def _check_process(self) -> None:
        """Refuse a forked child, before it waits for a lock that a thread of its parent may have held at the fork."""
        if self._process != os.getpid():
            raise ClosedError(
                f"this job queue service belongs to process {self._process}, from which this one ({os.getpid()}) was "
                "forked: connections cannot be shared, so connect after the fork"
            )

    def health(self) -> dict[str, Any]:
        """Report each thread and connection, and counts of lost claims and refused outcomes."""
        self._check_process()
        return self._vitals.report()
