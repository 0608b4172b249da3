"""How the parts of a service are doing: what each last achieved or suffered, and how often certain things happened."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

UP: Final = "up"
DOWN: Final = "down"


class Vital:
    """The condition of one thread or connection, kept by the one who runs it."""

    def __init__(self, name: str) -> None:
        self.name = name
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
    """The vitals of a service and its worker pools, and counts since the service was opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vitals: dict[str, Vital] = {}
        self._counts: Counter[str] = Counter(lost_claims=0, refused_outcomes=0)

    def vital(self, name: str) -> Vital:
        """Return the vital called *name*, made at first need."""
        with self._lock:
            return self._vitals.setdefault(name, Vital(name))

    def count(self, name: str, n: int = 1) -> None:
        """Add *n* to a count."""
        with self._lock:
            self._counts[name] += n

    def report(self) -> dict[str, Any]:
        """Say how everything is: each count by its name, and the vitals under ``parts``."""
        with self._lock:
            vitals, counts = list(self._vitals.values()), dict(self._counts)
        return {**counts, "parts": {vital.name: vital.report() for vital in vitals}}
