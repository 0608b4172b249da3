"""A process that works off a given number of jobs, and says after each half how much memory it keeps.

Arguments: the conninfo, and how many jobs. They are added by whoever started it, in two halves: it says the number of
bytes after the first, waits for a line on its stdin, and says it again after the second.
"""

import gc
import os
import sys
import threading
from pathlib import Path

# Run by its path, it finds this directory on sys.path, and not the packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jobqueue_pg
from jobqueue import Registry, WorkerPool, WorkerSettings


def resident_bytes() -> int:
    """Read how much of this process is in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    conninfo, half = sys.argv[1], int(sys.argv[2]) // 2
    registry = Registry()
    done = threading.Semaphore(0)

    @registry.handler("t")
    def work(number: int) -> int:
        done.release()
        return number

    settings = WorkerSettings(batch_size=64)
    with (
        jobqueue_pg.connect(conninfo, origin="endless", settings=settings) as service,
        WorkerPool(service, registry, threads=4),
    ):
        for _ in range(2):
            for _ in range(half):
                done.acquire()
            sys.stdout.write(f"{resident_bytes()}\n")
            sys.stdout.flush()
            sys.stdin.readline()


if __name__ == "__main__":
    main()
