"""A process for tests that sees to schedules, by a clock that runs faster than others, until its stdin is closed.

Arguments: the conninfo, and a JSON object with ``began_at``, in seconds of this machine's clock.
"""

import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

# Run by its path, it finds this directory on sys.path, and not the packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobqueue import Registry, WorkerPool, WorkerSettings
from jobqueue.queue_service import QueueService
from jobqueue_pg.notifier import SilentNotifier
from jobqueue_pg.store import PostgresStore

SPEED = 10
START = datetime(2030, 1, 1, tzinfo=UTC)
END = START + timedelta(seconds=110)


@attrs.frozen
class FastClock:
    """Shows START until the moment *began_at* of this machine's clock, goes ten times as fast, and stops at END."""

    began_at: float

    def __call__(self) -> datetime:
        passed = max(0.0, (time.time() - self.began_at) * SPEED)
        return min(START + timedelta(seconds=passed), END)


def fast_service(conninfo: str, began_at: float) -> QueueService:
    """Open a service that takes a fast clock for the database's."""
    store = PostgresStore(conninfo, now=FastClock(began_at))
    return QueueService(store=store, notifier=SilentNotifier(), settings=WorkerSettings(), origin="tests")


def main() -> None:
    conninfo, options = sys.argv[1], json.loads(sys.argv[2])
    asked_to_end = threading.Event()
    with fast_service(conninfo, options["began_at"]) as service, WorkerPool(service, Registry(), threads=1):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Thread(target=lambda: (sys.stdin.read(), asked_to_end.set())).start()
        # Beside the pool's own thread: the more often somebody comes, the more often two meet.
        while not asked_to_end.wait(0.01):
            service.tick_schedules()
    sys.stdout.write("{}")


if __name__ == "__main__":
    main()
