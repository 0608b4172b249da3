"""Twenty processes for tests, which enqueue the same unique key at the same time, again and again.

Arguments: the conninfo, and how often each does so. In the end a line for each process says how many jobs it has added,
and the ids that it has been given.
"""

import json
import multiprocessing
import sys
from pathlib import Path

# Run by its path, it finds this directory on sys.path, and not the packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jobqueue_pg

PROCESSES = 20

# All that they share is what was imported: none has connected yet.
_context = multiprocessing.get_context("fork")
_all_ready = _context.Barrier(PROCESSES)


def enqueue(_: int) -> str:
    conninfo, times = sys.argv[1], int(sys.argv[2])
    with jobqueue_pg.connect(conninfo, origin="tests", pool_size=1, poll_only=True) as service:
        service.get_status()
        _all_ready.wait(60)
        jobs = [service.enqueue("t", 1, unique_key="the key") for _ in range(times)]
    added = sum(not job.is_duplicate for job in jobs)
    return json.dumps({"added": added, "ids": sorted({str(job.id) for job in jobs})})


def main() -> None:
    with _context.Pool(PROCESSES) as processes:
        # One each: who has begun waits for all the others.
        for line in processes.map(enqueue, range(PROCESSES), chunksize=1):
            sys.stdout.write(f"{line}\n")


main()
