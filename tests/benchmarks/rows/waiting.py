"""What is felt of an idle queue: how soon a job begins, and what it costs to wait for one."""

from tests.benchmarks.race import PEERS, Contestant, Row
from tests.benchmarks.rows.scale import Scale
from tests.benchmarks.table import Line, at_most, value_of

_RATES = (20, 200, 1000)


def latency(scale: Scale) -> Row:
    """From just before a job is added to the first line of its handler."""
    contestants: list[Contestant] = []
    lines: list[Line] = []
    for rate in _RATES:
        options = {"jobs": max(scale.least_latencies, round(rate * scale.seconds)), "rate": rate, "threads": 8}
        ours, floor = f"ours, {rate}/s", f"floor, {rate}/s"
        contestants += [
            Contestant(ours, "contestants.ours", "latency", options),
            Contestant(floor, "contestants.floor", "latency", options),
        ]
        lines += [_line(rate, percent, ours, floor, target=1.3) for percent in ("p50", "p99")]
        lines.append(_line(rate, "p95", ours, floor))
        if rate == _RATES[0]:
            contestants += [Contestant(name, f"peers.{name}", "latency", options) for name in PEERS]
            lines += [_line(rate, percent, ours, name) for name in PEERS for percent in ("p50", "p99")]
    return Row(name="latency", contestants=contestants, lines=lines)


def idle(scale: Scale) -> Row:
    """Eight threads and no job."""
    options = {"threads": 8, "seconds": scale.idle_seconds}
    return Row(
        name="idle",
        rounds_enough=2,
        contestants=[Contestant("ours", "contestants.ours", "idle", options)],
        lines=[
            Line(
                work=f"CPU of 8 idle threads, {scale.idle_seconds:g} s",
                ours="ours",
                measure=value_of("cpu_percent"),
                unit="% of a core",
                target=at_most(0.2),
            ),
            Line(
                work="commits of 8 idle threads",
                ours="ours",
                measure=value_of("commits_per_poll"),
                unit="/poll interval",
                target=at_most(1),
            ),
            Line(work="connections, idle", ours="ours", measure=value_of("connections"), unit="", target=at_most(4)),
        ],
    )


def _line(rate: int, percent: str, ours: str, reference: str, target: float | None = None) -> Line:
    return Line(
        work=f"pickup {percent}, {rate} jobs/s",
        ours=ours,
        reference=reference,
        measure=value_of(percent),
        unit="ms",
        target=None if target is None else at_most(target),
    )
