"""Drains: jobs that wait, from the first claim to the last row final."""

from collections.abc import Sequence

from tests.benchmarks.race import Contestant, Row
from tests.benchmarks.rows.scale import Scale
from tests.benchmarks.table import Line, Target, at_least, at_most, per_job, rate, value_of

# How many jobs each peer gets: a rate needs no more of one that takes its time.
_SLOWER = {"oban": 0.25, "chancy": 0.25, "procrastinate": 0.05}


def drain(scale: Scale) -> Row:
    """One process and two, at batches of 100 and at the default settings, beside the floor and the peers."""
    jobs = scale.jobs
    slower = {name: max(1, round(jobs * part)) for name, part in _SLOWER.items()}
    return Row(
        name="drain",
        contestants=[
            _ours("ours, 100", jobs, batch=100, threads=8),
            _ours("ours, 2 processes", jobs, batch=100, threads=8, processes=2),
            _ours("ours, default", jobs),
            _floor("floor, 100", jobs, batch=100, threads=1),
            _peer("pgqueuer", "pgqueuer, 100", jobs, batch=100),
            _peer("pgqueuer", "pgqueuer, default", jobs),
            *(_peer(name, f"{name}, 100", number, batch=100) for name, number in slower.items()),
        ],
        lines=[
            _beside("drain, batch 100, 8 threads", "ours, 100", "floor, 100", at_least(0.7)),
            _beside("drain, batch 100, 8 threads", "ours, 100", "pgqueuer, 100", at_least(1.25)),
            _beside("drain, 2 processes", "ours, 2 processes", "ours, 100", at_least(1.3)),
            _beside("drain, default settings", "ours, default", "pgqueuer, default", at_least(2)),
            _beside("drain, default settings", "ours, default", "floor, 100"),
            *(
                _beside(f"drain, batch 100; {number:,} jobs of {name}", "ours, 100", f"{name}, 100")
                for name, number in slower.items()
            ),
            Line(
                work="CPU time of the worker, batch 100",
                ours="ours, 100",
                measure=per_job("cpu_seconds", 1e6),
                unit="us/job",
            ),
            # The floor runs the same statements by the same driver; what trips cost that are not full is ours, too.
            Line(
                work="of it, the library's own",
                ours="ours, 100",
                reference="floor, 100",
                by="difference",
                measure=per_job("cpu_seconds", 1e6),
                unit="us/job",
                target=at_most(20),
            ),
            *_used("batch 100", "ours, 100", "floor, 100"),
            Line(
                work="connections held, LISTEN included",
                ours="ours, 100",
                measure=value_of("connections"),
                unit="",
                target=at_most(4),
            ),
        ],
    )


def strict(scale: Scale) -> Row:
    """One by one: nothing is held ahead."""
    jobs = scale.some(4)
    return Row(
        name="strict",
        contestants=[
            _ours("ours, strict", jobs, batch=1, threads=8),
            _floor("floor, 1 by 8 threads", jobs, batch=1, threads=8),
        ],
        lines=[
            _beside("drain, strict (batch 1), 8 threads", "ours, strict", "floor, 1 by 8 threads", at_least(0.8)),
            *_used("strict", "ours, strict", "floor, 1 by 8 threads"),
        ],
    )


def batches(scale: Scale) -> Row:
    """Batch sizes, each beside one connection that claims as many at a time."""
    sizes = {16: scale.some(2), 64: scale.jobs, 500: scale.jobs}
    return Row(
        name="batches",
        contestants=[
            *(_ours(f"ours, {size}", jobs, batch=size, threads=8) for size, jobs in sizes.items()),
            *(_floor(f"floor, {size}", jobs, batch=size, threads=1) for size, jobs in sizes.items()),
        ],
        lines=[_beside(f"drain, batch {size}, 8 threads", f"ours, {size}", f"floor, {size}") for size in sizes],
    )


def threads(scale: Scale) -> Row:
    """Numbers of threads, at batches of 100, beside the one thread of the floor."""
    numbers = (1, 4, 16)
    return Row(
        name="threads",
        contestants=[
            *(_ours(f"ours, {number} threads", scale.jobs, batch=100, threads=number) for number in numbers),
            _floor("floor, 100", scale.jobs, batch=100, threads=1),
        ],
        lines=[_beside(f"drain, {number} threads", f"ours, {number} threads", "floor, 100") for number in numbers],
    )


def handlers(scale: Scale) -> Row:
    """Jobs that do something, beside what the threads, or the cores, could do at best."""
    waiting, burning, busy = scale.some(2), scale.some(20), scale.some(8)
    two = "ours, 2 ms of Python, 2 processes"
    return Row(
        name="handlers",
        contestants=[
            _ours("ours, 1 ms wait", waiting, threads=8, handler="wait:1"),
            _ours("ours, 1 ms wait, 16", waiting, threads=16, handler="wait:1"),
            _ours("ours, 5 ms of Python", burning, threads=8, handler="burn:5"),
            _ours("ours, 2 ms of Python", busy, threads=8, handler="burn:2"),
            _ours(two, busy, threads=8, handler="burn:2", processes=2),
        ],
        lines=[
            Line(work="1 ms of waiting, 8 threads", ours="ours, 1 ms wait", constant=8000, measure=rate),
            Line(work="1 ms of waiting, 16 threads", ours="ours, 1 ms wait, 16", constant=16000, measure=rate),
            Line(work="5 ms of Python, 8 threads", ours="ours, 5 ms of Python", constant=200, measure=rate),
            _beside("2 ms of Python, 2 processes", two, "ours, 2 ms of Python", at_least(1.6)),
        ],
    )


def snapshot(scale: Scale) -> Row:
    """While another session holds an old snapshot, no dead row can be cleared away."""
    jobs = scale.jobs * 5
    return Row(
        name="snapshot",
        contestants=[
            _ours("ours", jobs, batch=100, threads=8),
            Contestant(
                "ours, old snapshot",
                "contestants.ours",
                "drain",
                {"jobs": jobs, "batch": 100, "threads": 8, "old-snapshot": True},
            ),
        ],
        lines=[_beside(f"drain of {jobs:,}, old snapshot held", "ours, old snapshot", "ours", at_least(0.7))],
    )


def memory(scale: Scale) -> Row:
    """The most memory that a drain takes, beside a process that has imported the same."""
    jobs = scale.jobs * 5
    return Row(
        name="memory",
        contestants=[
            _ours("ours", jobs, batch=100, threads=8),
            Contestant("imports alone", "contestants.ours", "imports"),
        ],
        lines=[
            Line(
                work=f"peak memory, {jobs:,} jobs",
                ours="ours",
                reference="imports alone",
                by="difference",
                measure=value_of("peak_bytes", 1e-6),
                unit="MB",
                target=at_most(15),
            )
        ],
    )


def _ours(name: str, jobs: int, **options: object) -> Contestant:
    return Contestant(name, "contestants.ours", "drain", {"jobs": jobs, **options})


def _floor(name: str, jobs: int, **options: object) -> Contestant:
    return Contestant(name, "contestants.floor", "drain", {"jobs": jobs, **options})


def _peer(library: str, name: str, jobs: int, **options: object) -> Contestant:
    return Contestant(name, f"peers.{library}", "drain", {"jobs": jobs, **options})


def _beside(work: str, ours: str, reference: str, target: Target | None = None) -> Line:
    return Line(work=work, ours=ours, reference=reference, measure=rate, target=target)


def _used(work: str, ours: str, floor: str) -> Sequence[Line]:
    return [
        Line(work=f"WAL, {work}", ours=ours, reference=floor, measure=per_job("wal_bytes"), unit="B/job"),
        Line(work=f"commits, {work}", ours=ours, reference=floor, measure=per_job("commits", 1000), unit="/1000 jobs"),
        # A claim never is: its indexes change.
        Line(
            work=f"HOT, of the finishes, {work}",
            ours=ours,
            reference=floor,
            measure=per_job("hot_updates", 100),
            unit="%",
        ),
    ]
