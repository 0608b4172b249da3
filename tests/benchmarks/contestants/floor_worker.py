"""A worker process without the library: threads that make bare trips until nothing is left."""

import argparse
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.benchmarks.contestants.bare_trips import BareTrips, learn
from tests.benchmarks.contestants.board import counter_on
from tests.benchmarks.contestants.handlers import work_of
from tests.benchmarks.contestants.worker_processes import serve


def main() -> None:
    """Work off what is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--handler", default="noop")
    parser.add_argument("--board", required=True)
    parser.add_argument("--place", type=int, default=0)
    options = parser.parse_args()

    count_up, work = counter_on(options.board, options.place), work_of(options.handler)

    def run_job() -> None:
        work()
        count_up()

    lesson = learn(options.dsn)
    trips = [BareTrips(options.dsn, lesson, options.batch, goes_on=True) for _ in range(options.threads)]
    serve(lambda: working(trips, run_job))
    for each in trips:
        each.close()


@contextmanager
def working(trips: list[BareTrips], run_job: Callable[[], None]) -> Iterator[None]:
    """Have a thread on each connection until there are no jobs any more."""
    threads = [threading.Thread(target=work_off, args=(each, run_job)) for each in trips]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def work_off(trips: BareTrips, run_job: Callable[[], None]) -> None:
    """Claim, run, save with the next claim."""
    claimed = trips.make(())
    while claimed:
        for _ in claimed:
            run_job()
        claimed = trips.make(claimed)


if __name__ == "__main__":
    main()
