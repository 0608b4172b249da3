"""Who observes what happens: the ground on which metrics, traces and dashboards stand."""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from jobqueue.events import COMMITTED_EVENTS, LOCAL_EVENTS, Event, ObservedEvent
from jobqueue.health import Health
from jobqueue.listener_group import ListenerGroup

logger = logging.getLogger(__name__)

Observer = Callable[[Any], object]
"""Is called with events that it asked for, in the thread in which they happen, which waits for it: it must be quick."""

_ALL_EVENTS: Final = (*LOCAL_EVENTS, *COMMITTED_EVENTS)


class Observers:
    """The observers of one service, each with the kinds of events that it wants. Safe for use by many threads."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._groups: dict[type, ListenerGroup[Observer]] = {kind: ListenerGroup("__call__") for kind in _ALL_EVENTS}
        self._lock = threading.Lock()
        self.wanted = frozenset[type[ObservedEvent]]()
        """The events that anybody observes: looked at before one is made, where every microsecond counts."""

    def add(self, observer: Observer, *kinds: type[ObservedEvent]) -> None:
        """Have *observer* called for events of *kinds*; none: of all. Raises TypeError for anything else."""
        if unknown := [kind for kind in kinds if kind not in self._groups]:
            names = ", ".join(kind.__name__ for kind in self._groups)
            raise TypeError(f"{unknown[0]!r:.60} cannot be observed: there are {names}")
        for kind in dict.fromkeys(kinds or self._groups):
            self._groups[kind].add(observer)
        self._note_wanted()

    def remove(self, observer: Observer) -> None:
        """Have *observer* called no more, for events of any kind."""
        for group in self._groups.values():
            while group.has(observer):
                group.remove(observer)
        self._note_wanted()

    def _note_wanted(self) -> None:
        with self._lock:
            self.wanted = frozenset(kind for kind, group in self._groups.items() if group.all)

    @property
    def kinds_to_hear(self) -> frozenset[type[Event]]:
        """The events from the database that anybody observes."""
        return frozenset(kind for kind in COMMITTED_EVENTS if kind in self.wanted)

    def tell(self, event: ObservedEvent) -> None:
        """Tell those who want to know; what one of them raises goes to the log, and to the function for errors."""
        group = self._groups[type(event)]
        for observer in group.all:
            if group.has(observer):
                self._call(observer, event)

    def _call(self, observer: Observer, event: ObservedEvent) -> None:
        try:
            observer(event)
        except BaseException as error:
            logger.exception("an observer failed on %s", type(event).__name__)
            self._health.tell_of(error)
