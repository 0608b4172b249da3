"""Somebody who wants to hear of a queue."""

import logging
import threading
from collections.abc import Callable

from jobqueue.events import Connected, Event

logger = logging.getLogger(__name__)


class Subscription:
    """Who wants to hear what. Events that come before Connected was heard have to wait for that."""

    def __init__(self, receive: Callable[[Event], None], *kinds: type[Event]) -> None:
        self._receive = receive
        self._kinds = frozenset(kinds)
        self._lock = threading.Lock()
        self._early: list[Event] | None = [Connected()]

    def tell(self, event: Event) -> None:
        """Pass *event* on, if it is wanted."""
        if type(event) not in self._kinds:
            return
        with self._lock:
            if self._early is not None:
                self._early.append(event)
                return
        self._call(event)

    def connect(self) -> None:
        """Say Connected, and then whatever has happened meanwhile."""
        while early := self._take_early():
            for event in early:
                self._call(event)

    def _take_early(self) -> list[Event] | None:
        with self._lock:
            early = self._early
            self._early = [] if early else None
            return early

    def _call(self, event: Event) -> None:
        try:
            self._receive(event)
        except Exception:
            logger.exception("a subscriber failed on %s", type(event).__qualname__)
