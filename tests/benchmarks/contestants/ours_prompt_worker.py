"""A worker process of this library whose handler notes when it began."""

import argparse
import time

import jobqueue
import jobqueue_pg
from tests.benchmarks.contestants.handlers import JOB_TYPE
from tests.benchmarks.contestants.ours_worker import pool_of, settings_of
from tests.benchmarks.contestants.worker_processes import serve


def main() -> None:
    """Serve jobs until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    begun = dict[int, float]()

    @jobqueue.handler(JOB_TYPE)
    def bench(*, number: int) -> None:  # pyright: ignore[reportUnusedFunction]
        begun[number] = time.monotonic()

    service = jobqueue_pg.connect(options.dsn, settings=settings_of(options.batch))
    serve(lambda: pool_of(service, options.threads), begun=lambda: begun)
    service.close()


if __name__ == "__main__":
    main()
