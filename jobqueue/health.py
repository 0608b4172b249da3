"""How the parts of a service are doing: what each last achieved or suffered, and how often certain things happened."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

logger = logging.getLogger(__name__)

OnError = Callable[[BaseException], object]
"""What an application does about an error that nobody else is told of."""

UP: Final = "up"
DOWN: Final = "down"


class Vital:
    """The condition of one thread or connection, kept by the one who runs it."""

    def __init__(self, name: str, on_loss: OnError) -> None:
        self.name = name
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._state = UP
        self._since = datetime.now(UTC)
        self._up_since = time.monotonic()
        self._last_error: str | None = None

    def succeeded(self) -> bool:
        """Note a success; return whether it is the first after a failure."""
        if self._state == UP:
            return False
        with self._lock:
            recovered = self._state == DOWN
            self._turn(UP)
            self._up_since = time.monotonic()
        return recovered

    def failed(self, error: BaseException) -> bool:
        """Note a failure; return whether it is the first after a success."""
        with self._lock:
            fresh = self._state == UP
            self._turn(DOWN)
            self._last_error = type(error).__qualname__
        if fresh:
            self._on_loss(error)
        return fresh

    def _turn(self, state: str) -> None:
        if self._state != state:
            self._state, self._since = state, datetime.now(UTC)

    @property
    def is_down(self) -> bool:
        """Whether the last thing noted was a failure."""
        return self._state == DOWN

    def up_for(self) -> float:
        """For how many seconds nothing has failed; 0 while it does."""
        with self._lock:
            return time.monotonic() - self._up_since if self._state == UP else 0.0

    def report(self) -> dict[str, Any]:
        """Say how it is, for people and probes."""
        with self._lock:
            return {"state": self._state, "since": self._since, "last_error": self._last_error}


class Health:
    """The vitals of a service and its worker pools, counts since the service was opened, and who hears of errors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_error: OnError | None = None
        self._vitals: dict[str, Vital] = {}
        self._counts: Counter[str] = Counter(lost_claims=0, refused_outcomes=0, dropped_events=0)

    def vital(self, name: str) -> Vital:
        """Return the vital called *name*, made at first need."""
        with self._lock:
            return self._vitals.setdefault(name, Vital(name, self.tell_of))

    def count(self, name: str, n: int = 1) -> None:
        """Add *n* to a count."""
        with self._lock:
            self._counts[name] += n

    def set_on_error(self, on_error: OnError | None) -> None:
        """Have *on_error* called with each error, in place of whoever was; None: nobody. Raises TypeError."""
        if on_error is not None and not callable(on_error):
            raise TypeError(f"what is told of errors must be callable, which {on_error!r:.60} is not")
        self._on_error = on_error

    def tell_of(self, error: BaseException) -> None:
        """Tell whoever hears of errors; what that raises is logged."""
        on_error = self._on_error
        if on_error is None:
            return
        try:
            on_error(error)
        except BaseException:
            logger.exception("the function for errors failed on %s", type(error).__qualname__)

    def report(self) -> dict[str, Any]:
        """Say how everything is: each count by its name, and the vitals under ``parts``."""
        with self._lock:
            vitals, counts = list(self._vitals.values()), dict(self._counts)
        return {**counts, "parts": {vital.name: vital.report() for vital in vitals}}
