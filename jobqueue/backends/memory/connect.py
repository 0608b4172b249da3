"""Where the parts are put together: queue, store, notifier, service."""

import re
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from jobqueue.backends.memory.notifier import MemoryNotifier
from jobqueue.backends.memory.queue import MemoryQueue
from jobqueue.backends.memory.shared import shared_queues
from jobqueue.backends.memory.store import MemoryStore
from jobqueue.known_types import UnknownTypes
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.queue_service import QueueService
from jobqueue.retention import Retention, check_retention
from jobqueue.settings import WorkerSettings

_DEFAULT_SETTINGS: Final = WorkerSettings()
_NAME: Final = re.compile(r"[\w.-]*")


def connect(
    url: str = "memory://",
    *,
    settings: WorkerSettings = _DEFAULT_SETTINGS,
    origin: str | None = None,
    retention: Retention | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    unknown_types: UnknownTypes = "warn",
) -> QueueService:
    """Open a service on a queue in the memory of this process.

    ``memory://`` is a new, empty queue. ``memory://name`` is one that all services of this process share which are open
    under that name; the last one to close lets it go, with all that is in it. A job cannot be added in somebody's
    ``connection=`` raises a TypeError.

    *retention* says how long jobs are kept after they have stopped; None: as ``Retention()`` does. *unknown_types* says
    what is done about jobs whose type has no handler in this process: ``"refuse"`` raises InvalidJobError, ``"warn"``
    logs a warning, once, if one that has looks almost the same, ``"allow"`` does nothing.

    Raises:
        ValueError: *url* has more in it than a name of letters, digits, ``_``, ``.`` and ``-``.
        InvalidJobError: *origin* has not 1 to 100 characters.
    """
    if not isinstance(settings, WorkerSettings):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"settings must be WorkerSettings(...), not {settings!r}")
    check_retention(retention)
    name = _name_in(url)
    queue = shared_queues.open(name) if name else MemoryQueue()
    give_back = partial(shared_queues.close, name) if name else _nothing
    try:
        return QueueService(
            store=MemoryStore(queue, retention=retention or Retention(), on_close=give_back),
            notifier=MemoryNotifier(queue),
            settings=settings,
            origin=origin,
            max_payload_bytes=max_payload_bytes,
            unknown_types=unknown_types,
        )
    except BaseException:
        give_back()
        raise


def _nothing() -> None:
    pass


def _name_in(url: str) -> str:
    """Return the name in *url*, which has nothing else."""
    parts = urlsplit(url)
    if parts.scheme != "memory" or not url.startswith("memory://"):
        raise ValueError("a queue in memory is opened by memory:// or memory://name")
    meaningless = {
        "a user or password": "@" in parts.netloc,
        "a port": ":" in parts.netloc.rpartition("@")[2],
        "a path": parts.path,
        "a query": parts.query,
        "a fragment": parts.fragment,
    }
    found = [what for what, is_there in meaningless.items() if is_there]
    if found:
        raise ValueError(
            f"memory:// takes a name and nothing else, as in memory://tests: {' and '.join(found)} mean nothing"
        )
    if not _NAME.fullmatch(parts.netloc):
        raise ValueError(
            f"the name of a queue in memory has letters, digits, '_', '.' and '-' only, unlike {parts.netloc!r}"
        )
    return parts.netloc
