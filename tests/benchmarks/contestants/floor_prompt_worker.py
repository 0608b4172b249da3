"""A worker process without the library: a thread that listens, and threads that wait for it and claim one job each."""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from tests.benchmarks.contestants.bare_trips import BareTrips, learn
from tests.benchmarks.contestants.worker_processes import serve

_LOOK_EVERY: Final = 0.5


class Bell:
    """Wakes one thread for each notification."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0
        self.is_over = False

    def ring(self) -> None:
        """Wake one thread."""
        with self._changed:
            self._rings += 1
            self._changed.notify()

    def end(self) -> None:
        """Wake all, for the last time."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait for a ring of one's own."""
        with self._changed:
            self._changed.wait_for(lambda: self._rings or self.is_over)
            self._rings = max(0, self._rings - 1)


def main() -> None:
    """Serve jobs until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    begun = dict[str, float]()
    lesson = learn(options.dsn)
    trips = [BareTrips(options.dsn, lesson, 1) for _ in range(options.threads)]
    listening = psycopg.connect(options.dsn, autocommit=True)
    listening.execute("listen job_available")
    serve(lambda: _working(trips, listening, begun), begun=lambda: begun)
    listening.close()
    for each in trips:
        each.close()


@contextmanager
def _working(trips: list[BareTrips], listening: psycopg.Connection, begun: dict[str, float]) -> Iterator[None]:
    bell = Bell()
    threads = [threading.Thread(target=_serve_jobs, args=(each, bell, begun)) for each in trips]
    threads.append(threading.Thread(target=_listen, args=(listening, bell)))
    for thread in threads:
        thread.start()
    yield
    bell.end()
    for thread in threads:
        thread.join()


def _listen(listening: psycopg.Connection, bell: Bell) -> None:
    while not bell.is_over:
        for _ in listening.notifies(timeout=_LOOK_EVERY):
            bell.ring()


def _serve_jobs(trips: BareTrips, bell: Bell, begun: dict[str, float]) -> None:
    claimed = trips.make(())
    while not bell.is_over:
        for id_ in claimed:
            begun[str(id_)] = time.monotonic()
        if not claimed:
            bell.wait()
        claimed = trips.make(claimed)


if __name__ == "__main__":
    main()
