"""Who hears what was committed to a queue in memory: every subscriber, in a thread of those who commit."""

import threading
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from jobqueue.backends.memory.queue import MemoryQueue
from jobqueue.backends.memory.subscription import Subscription
from jobqueue.errors import ClosedError
from jobqueue.events import Event


class MemoryNotifier:
    """The Notifier over a MemoryQueue. It has no thread: whoever changes rows tells of it, and of others' changes."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._subscriptions = frozenset[Subscription]()
        self._closed = False

    def subscribe(self, receive: Callable[[Event], None], *kinds: type[Event]) -> Callable[[], None]:
        """Call *receive* for each event of *kinds*, with Connected at once; return how to end that."""
        subscription = Subscription(receive, *kinds)
        with self._lock:
            if self._closed:
                raise ClosedError("the service was closed")
            self._subscriptions |= {subscription}
            self._queue.add_subscription(subscription)
        subscription.connect()
        return lambda: self._end({subscription})

    def _end(self, ended: AbstractSet[Subscription]) -> None:
        with self._lock:
            self._subscriptions -= ended
            self._queue.remove_subscriptions(ended)

    @property
    def is_listening(self) -> bool:
        """Whether the notifier is open: there is no connection that could be lost."""
        return not self._closed

    def close(self) -> None:
        """Tell nobody anything any more."""
        with self._lock:
            self._closed = True
            left = self._subscriptions
        self._end(left)
