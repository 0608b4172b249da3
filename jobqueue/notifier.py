"""The half of a backend that tells processes what was committed: the port that every backend implements."""

from collections.abc import Callable
from typing import Protocol

from jobqueue.events import Event


class Notifier(Protocol):
    """Who hears what. It listens to what its subscribers want to hear, from the first of them on."""

    def subscribe(self, receive: Callable[[Event], None], *kinds: type[Event]) -> Callable[[], None]:
        """Call *receive* for each event of *kinds*, in whatever thread; return how to end that.

        A subscriber hears Connected first, as soon as nothing that it wants to hear can be missed, and again whenever
        something may have been. It has to return at once: others wait for it. Raises ClosedError.
        """
        ...

    @property
    def is_listening(self) -> bool:
        """Whether subscribers hear at this moment what other processes commit; if not, they have to look."""
        ...

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
