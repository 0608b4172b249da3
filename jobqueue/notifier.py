"""The half of a backend that tells processes what was committed: the port that every backend implements."""

from collections.abc import Callable
from typing import Protocol

from jobqueue.events import Event


class Notifier(Protocol):
    """Who hears what. It starts to listen when the first subscriber comes."""

    def subscribe(self, receive: Callable[[Event], None]) -> Callable[[], None]:
        """Call *receive* for each event, in a thread of the notifier's; return how to end that.

        A subscriber hears Connected first, and again whenever events may have been missed.
        """
        ...

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
