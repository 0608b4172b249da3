"""Queues that services of one process share by a name, for as long as one of them is open."""

import os
import threading
from typing import Final

import attrs

from jobqueue.backends.memory.queue import MemoryQueue


@attrs.define
class _Shared:
    """A queue, and how many services have it open."""

    queue: MemoryQueue = attrs.field(factory=MemoryQueue)
    num_users: int = 0


class SharedQueues:
    """Queues by their names. A forked child has none of its parent's, whose jobs it would run a second time."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, _Shared] = {}

    def open(self, name: str) -> MemoryQueue:
        """Return the queue that is open under *name*, or else a new one."""
        with self._lock:
            shared = self._queues.setdefault(name, _Shared())
            shared.num_users += 1
            return shared.queue

    def close(self, name: str) -> None:
        """Give the queue back; the last one to do so lets it go."""
        with self._lock:
            shared = self._queues[name]
            shared.num_users -= 1
            if shared.num_users == 0:
                del self._queues[name]


shared_queues: Final = SharedQueues()
