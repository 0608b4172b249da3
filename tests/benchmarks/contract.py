"""What a contestant of a benchmark is: a program that does one work on one database, once, and says how it went.

    python -m tests.benchmarks.contestants.NAME WORK DSN [--jobs N] [--batch B] [--threads T] [--rate R] ...
    python -m tests.benchmarks.peers.NAME       WORK DSN [--jobs N] [--batch B] [--threads T] [--rate R]

WORK is one of these; each peer does all four that its library can do:

drain    run N no-op jobs that were loaded before, with T threads (or as many tasks) in one process, claiming B at a
         time. The clock starts when the worker starts, its imports done, and stops when the last job is final in the
         database, as a look at the database shows. What a worker does to start, such as to connect and to start its
         threads, is within the clock, ours and that of peers; the floor alone is connected before.
enqueue  add N jobs one by one, each in a transaction of its own.
bulk     add N jobs by the library's way to add many at once.
latency  add N jobs, R a second, to an idle queue that a worker with T threads serves; a latency is the time from just
         before a job is added to the first line of its handler, by time.monotonic(), which all processes share.

DSN is the URL of an empty database: a contestant makes its own tables there. An option that is not given stands for
the library's own default; ``--jobs`` is always given. One JSON object goes to the standard output, as its last line:

drain, enqueue, bulk   {"seconds": float, "jobs": int}
latency                {"p50": float, "p95": float, "p99": float, "jobs": int}, in milliseconds

Other keys may follow (``cpu_seconds``, of all processes of the worker while the clock ran).
A contestant that could not do all of the work, or cannot tell, exits with another status than 0, and says why on the
standard error. Whoever wants fewer imports need not use this module: it is a convenience.

A module of peers has, besides, ``is_installed() -> bool`` and ``version() -> str``; importing it, and asking the
former, must work where the library is not installed. It is run by the interpreter that ``--peers-python`` names, in the
root of the checkout; nothing but the standard library and this module can be relied upon there.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Answer = Mapping[str, Any]
Work = Callable[[argparse.Namespace], Answer]

WORKS: Final = ("drain", "enqueue", "bulk", "latency")


def run(works: Mapping[str, Work], extra: Callable[[argparse.ArgumentParser], None] | None = None) -> int:
    """Do the work that the command line names, and print its answer; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=sorted(works))
    parser.add_argument("dsn")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--batch", type=int, help="how many are claimed at a time; the library's default unless given")
    parser.add_argument("--threads", type=int, help="threads, or tasks, for jobs; the library's default unless given")
    parser.add_argument("--rate", type=float, default=20.0, help="jobs to add in a second")
    if extra is not None:
        extra(parser)
    options = parser.parse_args()
    say(works[options.work](options))
    return 0


def say(answer: Answer) -> None:
    """Print an answer."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the answer of ``latency``, of latencies in seconds: the least one that so many per cent do not exceed."""
    ordered = sorted(seconds)
    return {
        f"p{percent}": ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] * 1000 for percent in (50, 95, 99)
    } | {"jobs": len(ordered)}
