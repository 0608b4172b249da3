"""What the applications of a chaos run share."""

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import attrs
import psycopg

from jobqueue import Service
from jobqueue.errors import BackendError
from tests.integration.chaos_parts.recorder import Recorder

_LONGEST_PAUSE = 0.25


@attrs.define
class Traffic:
    """What the threads of the program share."""

    conninfo: str
    service: Service
    recorder: Recorder
    stopping: threading.Event = attrs.field(factory=threading.Event)
    added: "deque[UUID]" = attrs.field(factory=lambda: deque[UUID](maxlen=20))
    is_jammed: bool = False
    """Whether so much waits to be done that nothing more should be added."""

    def begin(self, transaction: UUID, jobs: list[UUID]) -> None:
        """Write down what is about to be added."""
        self.recorder.note("transaction began", transaction=transaction, jobs=jobs)

    def end(self, transaction: UUID, fate: str, jobs: Sequence[UUID] = ()) -> None:
        """Write down what has become of it; a transaction for which nobody does this may be either."""
        self.recorder.note("transaction ended", transaction=transaction, fate=fate)
        self.added.extend(jobs)

    def repeat(self, act: Callable[[], None]) -> None:
        """Do *act* again and again, whatever becomes of it."""
        while not self.stopping.is_set():
            with suppress(BackendError, psycopg.Error):
                act()

    def pause(self, chance: random.Random, longest: float = _LONGEST_PAUSE) -> None:
        """Leave time for others."""
        self.stopping.wait(chance.uniform(0, longest))
