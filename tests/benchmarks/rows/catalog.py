"""All rows, in the order of the table."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.benchmarks.race import Row
from tests.benchmarks.rows import adding, draining, large_tables, waiting
from tests.benchmarks.rows.scale import Scale

ROWS: Final[Mapping[str, Callable[[Scale], Row]]] = {
    "enqueue": adding.enqueue,
    "bulk": adding.bulk,
    "drain": draining.drain,
    "strict": draining.strict,
    "batches": draining.batches,
    "threads": draining.threads,
    "handlers": draining.handlers,
    "latency": waiting.latency,
    "claims": large_tables.claims,
    "snapshot": draining.snapshot,
    "memory": draining.memory,
    "idle": waiting.idle,
}
