"""How much is done in a run."""

import attrs


@attrs.frozen
class Scale:
    """Numbers that all rows go by."""

    jobs: int = 20_000
    seconds: float = 5.0
    """How long latencies are measured, unless these are too few then."""
    least_latencies: int = 200
    idle_seconds: float = 60.0
    million: int = 1_000_000
    """What rows about large tables take for a million."""

    def some(self, part: int) -> int:
        """Return as many jobs as are enough for works of which each takes longer: one of *part*."""
        return max(1, self.jobs // part)


QUICK = Scale(jobs=4_000, seconds=2.0, least_latencies=60, idle_seconds=10.0, million=100_000)
