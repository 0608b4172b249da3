"""The application's say in what this process claims, and what it has said last."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from math import inf
from typing import Final

from jobqueue.health import Vital

logger = logging.getLogger(__name__)

GateFunction = Callable[[str], bool]
"""Says of a type, or a pattern that has a handler, whether jobs of it may be claimed now."""

_CLOSED_FOR: Final = 0.1
_FRESH_FOR: Final = 0.1
_MOST_LEARNT: Final = 1000


class Gate:
    """Asks a function of the application which of some names are open.

    Calls of that function, ``answers`` and ``admits``, are made by nobody who holds a lock: they may take their time.
    All else is called under the dispatcher's.

    What was closed is not asked about for 100 ms, what was open is before each claim. Besides *names*, types are asked
    about that have only come by a pattern, as long as they are closed.
    """

    def __init__(self, is_open: GateFunction, names: Iterable[str], vital: Vital) -> None:
        self._is_open = is_open
        self._names = frozenset(names)
        self._vital = vital
        self._ask_again_at: Mapping[str, float] = {}
        self._fresh_until = -inf
        self._num_errors = 0  # since it was asked about several names
        self.is_being_asked = False

    @property
    def closed(self) -> AbstractSet[str]:
        """What was closed when it was asked about last."""
        return self._ask_again_at.keys()

    def is_fresh(self, now: float) -> bool:
        """Whether nobody has claimed since it was asked, and that was just now."""
        return now < self._fresh_until

    def use(self) -> None:
        """Note that a trip claims by what it has said."""
        self._fresh_until = -inf

    @property
    def ask_again_at(self) -> float:
        """When to ask about something that is closed."""
        return min(self._ask_again_at.values(), default=inf)

    def questions(self, now: float) -> list[str]:
        """Begin to ask; return what about."""
        self.is_being_asked = True
        wanted = self._names.union(self._ask_again_at)
        return sorted(name for name in wanted if self._ask_again_at.get(name, now) <= now)

    def answers(self, questions: Iterable[str]) -> dict[str, bool]:
        """Ask, and return what is open."""
        self._num_errors = 0
        answers = {name: self.admits(name) for name in questions}
        if answers and not self._num_errors and self._vital.succeeded():
            logger.warning("the gate answers again")
        return answers

    def admits(self, name: str) -> bool:
        """Ask about one name. An error counts as closed."""
        try:
            return bool(self._is_open(name))
        except BaseException as error:
            self._num_errors += 1
            if self._vital.failed(error):
                logger.exception("the gate failed on %r: nothing is claimed of what it fails on", name)
            return False

    def take(self, answers: Mapping[str, bool]) -> bool:
        """Take note of the answers; return whether something has been opened."""
        now = time.monotonic()
        self.is_being_asked = False
        self._fresh_until = now + _FRESH_FOR
        opened = [name for name, is_open in answers.items() if is_open and name in self._ask_again_at]
        closed = dict.fromkeys([name for name, is_open in answers.items() if not is_open], now + _CLOSED_FOR)
        kept = {name: at for name, at in self._ask_again_at.items() if name not in answers}
        self._ask_again_at = kept | closed
        return bool(opened)

    def knows(self, job_type: str) -> bool:
        """Whether a type was asked about before it was claimed."""
        return job_type in self._names

    def close(self, job_type: str) -> None:
        """Take note that a type is closed that has come by a pattern."""
        learnt = [name for name in self._ask_again_at if name not in self._names]
        forgotten = learnt[: max(0, len(learnt) + 1 - _MOST_LEARNT)]
        kept = {name: at for name, at in self._ask_again_at.items() if name not in forgotten}
        self._ask_again_at = kept | {job_type: time.monotonic() + _CLOSED_FOR}
