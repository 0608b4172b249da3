"""A queue in the memory of this process: what a schema of a database is to the backend that has one."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime

from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.rows import Rows
from jobqueue.backends.memory.subscription import Subscription
from jobqueue.events import Event


class MemoryQueue:
    """Rows under one lock, and those who hear of them: shared by all stores and notifiers over the same queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = Rows()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._telling = threading.Lock()
        self._untold = deque[tuple[Sequence[Event], tuple[Subscription, ...]]]()

    @contextmanager
    def reading(self) -> Generator[Rows]:
        """Look at the rows within the block, while nobody changes them."""
        with self._lock:
            yield self._rows

    @contextmanager
    def changing(self, now: Callable[[], datetime]) -> Generator[Change]:
        """Change the rows within the block, alone, as of one moment; then tell what has become of them.

        There is no way back: the block checks what it is given before it changes anything.
        """
        with self._lock:
            change = Change(self._rows, now())
            yield change
            self._untold.append((change.events, self._subscriptions))
        self._tell()

    def _tell(self) -> None:
        """Tell what is untold, in its order, unless somebody is at it: this thread, called by a subscriber, or another.

        Whoever is at it then tells what this thread has changed, too.
        """
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    events, subscriptions = self._untold.popleft()
                    for event in events:
                        for subscription in subscriptions:
                            subscription.tell(event)
            finally:
                self._telling.release()

    def add_subscription(self, subscription: Subscription) -> None:
        """Tell *subscription* of every change that is made from now on."""
        with self._lock:
            self._subscriptions += (subscription,)

    def remove_subscriptions(self, ended: Iterable[Subscription]) -> None:
        """Tell those who have *ended* nothing any more."""
        with self._lock:
            self._subscriptions = tuple(other for other in self._subscriptions if other not in ended)
