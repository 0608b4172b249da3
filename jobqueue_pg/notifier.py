"""Who hears NOTIFY: one thread with one connection per service, which passes on what was committed anywhere."""

import json
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import attrs
import psycopg
from psycopg import sql

from jobqueue.errors import ClosedError
from jobqueue.events import ClaimLost, Connected, Event, JobAvailable, JobBundleStopped, JobStopped, ScheduleChanged
from jobqueue.health import Vital
from jobqueue.threads import Backoff, StoppableThread
from jobqueue_pg.connection import BoundedConnection
from jobqueue_pg.schema import channel_prefix

logger = logging.getLogger(__name__)

_JOIN_SECONDS: Final = 5.0
_LEAST_SECONDS_TO_ANSWER: Final = 2.0
_MOST_SECONDS_TO_ANSWER: Final = 10.0
_SECONDS_OF_A_GOOD_CONNECTION: Final = 5.0
_QUIET_FOR: Final = timedelta(seconds=30)

Receiver = Callable[[Event], None]


@attrs.define(eq=False)
class Subscription:
    """Who wants to hear what."""

    receive: Receiver
    kinds: frozenset[type[Event]]
    connected: bool = False

    def tell(self, event: Event) -> None:
        """Tell of *event*; an error of one who hears it stays with him."""
        try:
            self.receive(event)
        except Exception:
            logger.exception("a subscriber failed on %s", type(event).__qualname__)


class PostgresNotifier:
    """The Notifier over LISTEN. Its thread and connection are made when the first subscriber comes.

    When nothing was heard for *quiet_for* it asks the server for a sign of life.
    """

    def __init__(self, conninfo: str, *, schema: str, vital: Vital, quiet_for: timedelta = _QUIET_FOR) -> None:
        self._conninfo = conninfo
        self._quiet_for = quiet_for
        self._prefix = channel_prefix(schema)
        self._vital = vital
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._listener: Listener | None = None
        self._closed = False

    def subscribe(self, receive: Receiver, *kinds: type[Event]) -> Callable[[], None]:
        """Call *receive* for each event of *kinds*, in the listener thread; return how to end that."""
        subscription = Subscription(receive, frozenset(kinds))
        with self._lock:
            if self._closed:
                raise ClosedError("the service was closed")
            self._subscriptions += (subscription,)
            if self._listener is None:
                self._listener = Listener(
                    self._conninfo, self._prefix, lambda: self._subscriptions, self._vital, quiet_for=self._quiet_for
                )
                self._listener.start()
            self._listener.wake()
        return lambda: self._unsubscribe(subscription)

    def _unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
            if self._listener is not None and not self._closed:
                self._listener.wake()

    @property
    def is_listening(self) -> bool:
        """Whether the listener has a connection."""
        listener = self._listener
        return listener is not None and listener.has_connection

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._closed = True
            self._subscriptions = ()
            listener = self._listener
        if listener is None:
            return
        listener.stop()
        if not listener.join(_JOIN_SECONDS):
            logger.warning("thread %s has not ended within %g s", listener.name, _JOIN_SECONDS)


class SilentNotifier:
    """The Notifier of a service that is told to poll only, as behind a pooler that does not pass LISTEN through."""

    def subscribe(self, receive: Receiver, *kinds: type[Event]) -> Callable[[], None]:  # noqa: ARG002 - none is heard
        """Say Connected once, and nothing more."""
        receive(Connected())
        return lambda: None

    @property
    def is_listening(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Do nothing."""


class Listener(StoppableThread):
    """Listens on a connection of its own, and gets itself a new one whenever that is lost."""

    def __init__(
        self,
        conninfo: str,
        prefix: str,
        subscriptions: Callable[[], tuple[Subscription, ...]],
        vital: Vital,
        *,
        quiet_for: timedelta = _QUIET_FOR,
    ) -> None:
        super().__init__("jobqueue-listener")
        self._quiet_for = quiet_for.total_seconds()
        self._conninfo = conninfo
        self._prefix = prefix
        self._subscriptions = subscriptions
        self._vital = vital
        self._kinds: Mapping[str, type[Event]] = {f"{prefix}{name}": kind for name, kind in _CHANNELS.items()}
        self._channels = frozenset[str]()  # those that the connection listens to
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.settimeout(0)
        self.has_connection = False

    def wake(self) -> None:
        """Have the thread look who has subscribed, or that it is to stop."""
        # Unsent, it is awake anyway: its socket is full of such bytes, or it has ended.
        with suppress(OSError):
            self._waker.send(b"!")

    def stop(self) -> None:
        """Ask the thread to end."""
        super().stop()
        self.wake()

    def run(self) -> None:
        """Listen until stopped, whatever happens to connections."""
        backoff = Backoff()
        with self._waker, self._woken:
            while not self._stopping.is_set():
                began_at = time.monotonic()
                try:
                    self._connect_and_listen()
                except Exception as error:  # noqa: BLE001 - this loop must survive everything
                    if self._stopping.is_set():
                        break  # it may have been in the middle of something
                    self._lose(error)
                    # One that is lost as soon as it is made is no success.
                    if time.monotonic() - began_at > _SECONDS_OF_A_GOOD_CONNECTION:
                        backoff.reset()
                    self._stopping.wait(backoff.next())
        self.has_connection = False

    def _connect_and_listen(self) -> None:
        with BoundedConnection.connect(self._conninfo, autocommit=True) as connection:
            connection.answer_within = max(_LEAST_SECONDS_TO_ANSWER, min(_MOST_SECONDS_TO_ANSWER, self._quiet_for))
            connection.is_wanted = lambda: not self._stopping.is_set()
            self._adjust(connection)
            if self._vital.succeeded():
                logger.warning("listener has a connection again")
            self._listen(connection)

    def _lose(self, error: Exception) -> None:
        self.has_connection = False
        self._channels = frozenset[str]()
        # Whatever is said while nobody listens is lost: afterwards everybody has to look for themselves.
        for subscription in self._subscriptions():
            subscription.connected = False
        if self._vital.failed(error):
            logger.warning("listener lost its connection, polling goes on: %s", " ".join(str(error).split()))

    def _listen(self, connection: BoundedConnection) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            ask_at = time.monotonic() + self._quiet_for
            while not self._stopping.is_set():
                self._hear(connection)
                # Not in notifies() itself: there, nobody but the server could wake it.
                ready = selector.select(max(0.0, ask_at - time.monotonic()))
                speakers = [key.fileobj for key, _ in ready]
                has_spoken = connection in speakers
                if not has_spoken and time.monotonic() >= ask_at:
                    self._ask_for_life(connection)
                    has_spoken = True
                if has_spoken:
                    ask_at = time.monotonic() + self._quiet_for
                if self._woken in speakers:
                    self._heed_wakers()

    def _ask_for_life(self, connection: BoundedConnection) -> None:
        """Find out whether there is anything to hear: a half-open connection is silent, and so is a former primary."""
        connection.execute("select")
        if connection.is_demoted:
            raise psycopg.OperationalError("the server takes no writes any more")

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        """Pass on what has come; last of all what came with an answer, of which the socket tells nothing any more."""
        self._adjust(connection)
        for notification in connection.notifies(timeout=0):
            self._pass_on(notification)

    def _heed_wakers(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _adjust(self, connection: psycopg.Connection[Any]) -> None:
        """Listen to what subscribers want to hear, and to nothing else; tell new ones that they will hear it."""
        subscriptions = self._subscriptions()
        kinds = frozenset[type[Event]]().union(*(subscription.kinds for subscription in subscriptions))
        wanted = frozenset(channel for channel, kind in self._kinds.items() if kind in kinds)
        for channel in wanted - self._channels:
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        for channel in self._channels - wanted:
            connection.execute(sql.SQL("unlisten {}").format(sql.Identifier(channel)))
        self._channels = wanted
        self.has_connection = True
        for subscription in subscriptions:
            if not subscription.connected:
                subscription.connected = True
                subscription.tell(Connected())

    def _pass_on(self, notification: psycopg.Notify) -> None:
        kind = self._kinds[notification.channel]
        hearing = [subscription for subscription in self._subscriptions() if kind in subscription.kinds]
        if not hearing:
            return  # the last one has left since it was sent
        try:
            event = _READERS[kind](json.loads(notification.payload))
        except Exception as error:  # noqa: BLE001 - anybody may say anything, however deep or large
            logger.warning("a notification on %s makes no sense: %r", notification.channel, error)
            return
        for subscription in hearing:
            subscription.tell(event)


def _job_available(told: dict[str, Any]) -> JobAvailable:
    return JobAvailable(id=UUID(told["id"]), type=told["type"], origin=told["origin"], count=int(told.get("count", 1)))


def _job_stopped(told: dict[str, Any]) -> JobStopped:
    will_retry = bool(told["willRetry"])
    return JobStopped(id=UUID(told["id"]), type=told["type"], origin=told["origin"], will_retry=will_retry)


def _job_bundle_stopped(told: dict[str, Any]) -> JobBundleStopped:
    return JobBundleStopped(id=UUID(told["id"]), type=told["type"], origin=told["origin"])


def _claim_lost(told: dict[str, Any]) -> ClaimLost:
    return ClaimLost(id=UUID(told["id"]), claim_id=UUID(told["claimId"]))


def _schedule_changed(told: dict[str, Any]) -> ScheduleChanged:
    return ScheduleChanged(name=str(told["name"]))


_CHANNELS: Final[Mapping[str, type[Event]]] = {
    "job_available": JobAvailable,
    "job_stopped": JobStopped,
    "job_bundle_stopped": JobBundleStopped,
    "claim_lost": ClaimLost,
    "schedule_changed": ScheduleChanged,
}
_READERS: Final[Mapping[type[Event], Callable[[dict[str, Any]], Event]]] = {
    JobAvailable: _job_available,
    JobStopped: _job_stopped,
    JobBundleStopped: _job_bundle_stopped,
    ClaimLost: _claim_lost,
    ScheduleChanged: _schedule_changed,
}
