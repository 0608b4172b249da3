"""Who hears NOTIFY: one thread with one connection per service, which passes on what was committed anywhere."""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from jobqueue.errors import ClosedError
from jobqueue.events import Connected, Event, JobAvailable
from jobqueue.health import Vital
from jobqueue.threads import Backoff, StoppableThread
from jobqueue_pg.schema import channel_prefix

logger = logging.getLogger(__name__)

# How long the listener may take to notice that it is to stop.
_LISTEN_SECONDS: Final = 0.2
_JOIN_SECONDS: Final = 5.0

Receiver = Callable[[Event], None]


class PostgresNotifier:
    """The Notifier over LISTEN. Its connection is made when the first subscriber comes."""

    def __init__(self, conninfo: str, *, schema: str, vital: Vital) -> None:
        self._lock = threading.Lock()
        self._receivers: tuple[Receiver, ...] = ()
        self._listener = Listener(conninfo, channel_prefix(schema), self._publish, vital)
        self._started = False
        self._closed = False

    def subscribe(self, receive: Receiver) -> Callable[[], None]:
        """Call *receive* for each event, in the listener thread; return how to end that."""
        with self._lock:
            if self._closed:
                raise ClosedError("the service was closed")
            self._receivers += (receive,)
            starts, self._started = not self._started, True
        if starts:
            self._listener.start()
        else:
            receive(Connected())
        return lambda: self._unsubscribe(receive)

    def _unsubscribe(self, receive: Receiver) -> None:
        with self._lock:
            self._receivers = tuple(other for other in self._receivers if other is not receive)

    def _publish(self, event: Event) -> None:
        for receive in self._receivers:
            try:
                receive(event)
            except Exception:
                logger.exception("a subscriber failed on %s", type(event).__qualname__)

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._closed = True
            self._receivers = ()
        self._listener.stop()
        if not self._listener.join(_JOIN_SECONDS):
            logger.warning("thread %s has not ended within %g s", self._listener.name, _JOIN_SECONDS)


class SilentNotifier:
    """The Notifier of a service that is told to poll only, as behind a pooler that does not pass LISTEN through."""

    def subscribe(self, receive: Receiver) -> Callable[[], None]:
        """Say Connected once, and nothing more."""
        receive(Connected())
        return lambda: None

    def close(self) -> None:
        """Do nothing."""


class Listener(StoppableThread):
    """Listens on a connection of its own, and gets itself a new one whenever that is lost."""

    def __init__(self, conninfo: str, prefix: str, publish: Receiver, vital: Vital) -> None:
        super().__init__("jobqueue-listener")
        self._conninfo = conninfo
        self._events: Mapping[str, Callable[[dict[str, Any]], Event]] = {f"{prefix}job_available": _job_available}
        self._publish = publish
        self._vital = vital

    def run(self) -> None:
        """Listen until stopped, whatever happens to connections."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as connection:
                    self._start_listening(connection)
                    backoff.reset()
                    self._pass_on(connection)
            except Exception as error:  # noqa: BLE001 - this loop must survive everything
                if self._vital.failed(error):
                    logger.warning("listener lost its connection, polling goes on: %s", error)
                self._stopping.wait(backoff.next())

    def _start_listening(self, connection: psycopg.Connection[Any]) -> None:
        for channel in self._events:
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        if self._vital.succeeded():
            logger.warning("listener has a connection again")
        # Whatever was said while nobody listened is lost: everybody has to look for themselves.
        self._publish(Connected())

    def _pass_on(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stopping.is_set():
            for notification in connection.notifies(timeout=_LISTEN_SECONDS):
                self._receive(notification)

    def _receive(self, notification: psycopg.Notify) -> None:
        try:
            event = self._events[notification.channel](json.loads(notification.payload))
        except (LookupError, TypeError, ValueError) as error:
            logger.warning("a notification on %s makes no sense: %r", notification.channel, error)
        else:
            self._publish(event)


def _job_available(told: dict[str, Any]) -> JobAvailable:
    return JobAvailable(id=UUID(told["id"]), type=told["type"], origin=told["origin"], count=int(told.get("count", 1)))
