"""Adding jobs: one by one, and many at once."""

from tests.benchmarks.race import PEERS, Contestant, Row
from tests.benchmarks.rows.scale import Scale
from tests.benchmarks.table import Line, at_least, per_job, rate


def enqueue(scale: Scale) -> Row:
    """One by one, each with its own commit, and a hundred in a transaction of the caller's."""
    jobs = scale.some(5)
    return Row(
        name="enqueue",
        contestants=[
            *(
                Contestant(f"{name}, {kind}", f"contestants.{name}", "enqueue", {"jobs": jobs, "joined": joined})
                for kind, joined in (("own commit", False), ("joined", True))
                for name in ("ours", "floor")
            ),
            *(Contestant(name, f"peers.{name}", "enqueue", {"jobs": jobs}) for name in PEERS),
        ],
        lines=[
            _beside("enqueue, own commit", "ours, own commit", "floor, own commit", 0.85),
            _beside("enqueue, 100 in a transaction", "ours, joined", "floor, joined"),
            *(_beside("enqueue, own commit", "ours, own commit", name) for name in PEERS),
            Line(
                work="CPU to enqueue, of our own",
                ours="ours, own commit",
                reference="floor, own commit",
                by="difference",
                measure=per_job("cpu_seconds", 1e6),
                unit="us/job",
            ),
        ],
    )


def bulk(scale: Scale) -> Row:
    """All at once, on a connection of the library's and in a transaction of the caller's."""
    options = {"jobs": scale.jobs}
    return Row(
        name="bulk",
        contestants=[
            Contestant("ours, own", "contestants.ours", "bulk", options),
            Contestant("ours, joined", "contestants.ours", "bulk", {**options, "joined": True}),
            Contestant("floor, copy", "contestants.floor", "bulk", options),
            *(Contestant(name, f"peers.{name}", "bulk", options) for name in PEERS),
        ],
        lines=[
            _beside(f"add_jobs of {scale.jobs:,}", "ours, own", "floor, copy", 0.55),
            _beside(f"add_jobs of {scale.jobs:,}, joined", "ours, joined", "floor, copy", 0.55),
            Line(
                work="the same, with Job.new",
                ours="ours, own",
                reference="floor, copy",
                measure=lambda answer: answer["jobs"] / answer["seconds_with_models"],
                reference_measure=rate,
            ),
            *(_beside(f"add_jobs of {scale.jobs:,}", "ours, own", name) for name in PEERS),
        ],
    )


def _beside(work: str, ours: str, reference: str, bound: float | None = None) -> Line:
    target = None if bound is None else at_least(bound)
    return Line(work=work, ours=ours, reference=reference, measure=rate, target=target)
