"""A worker process of this library: its public API, and nothing else."""

import argparse

import jobqueue
import jobqueue_pg
from tests.benchmarks.contestants.board import counter_on
from tests.benchmarks.contestants.handlers import JOB_TYPE, work_of
from tests.benchmarks.contestants.worker_processes import serve


def main() -> None:
    """Serve jobs until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--handler", default="noop")
    parser.add_argument("--board", required=True)
    parser.add_argument("--place", type=int, default=0)
    options = parser.parse_args()

    register(options.handler, options.board, options.place)
    service = jobqueue_pg.connect(options.dsn, settings=settings_of(options.batch))
    serve(lambda: pool_of(service, options.threads))
    service.close()


def register(handler: str, board: str, place: int) -> None:
    """Register what jobs do."""
    count_up, work = counter_on(board, place), work_of(handler)

    @jobqueue.handler(JOB_TYPE)
    def bench(*, number: int) -> None:  # pyright: ignore[reportUnusedFunction]
        work()
        count_up()


def settings_of(batch: int | None) -> jobqueue.WorkerSettings:
    """Return the settings for claiming *batch* at a time; None: the library's own."""
    return jobqueue.WorkerSettings() if batch is None else jobqueue.WorkerSettings(batch_size=batch)


def pool_of(service: jobqueue.Service, threads: int | None) -> jobqueue.WorkerPool:
    """Return a pool of *threads*; None: as many as the library would have."""
    return jobqueue.WorkerPool(service) if threads is None else jobqueue.WorkerPool(service, threads=threads)


if __name__ == "__main__":
    main()
