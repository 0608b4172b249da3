"""The backend ``memory://``: queues in the memory of this process, for tests and scripts. Nothing of them is kept."""

from jobqueue.backends.memory.connect import connect
from jobqueue.backends.memory.notifier import MemoryNotifier
from jobqueue.backends.memory.queue import MemoryQueue
from jobqueue.backends.memory.store import MemoryStore
from jobqueue.backends.memory.worker_store import MemoryWorkerStore

__all__ = ["MemoryNotifier", "MemoryQueue", "MemoryStore", "MemoryWorkerStore", "connect"]
