"""What an invariant has looked at, and what it has found to be wrong."""

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.define
class Findings:
    """Of one invariant."""

    looked_at: int = 0
    problems: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    """What is wrong, and with which job or bundle."""

    def look(self, holds: bool, problem: str, subject: str) -> None:
        """Note that one more thing was looked at, and the *problem* with it, if something does not hold."""
        self.looked_at += 1
        if not holds:
            self.problems.append((problem, subject))


def is_final(job: Mapping[str, Any]) -> bool:
    """Whether a job has stopped for good."""
    if job["stopped_at"] is None:
        return False
    return job["error_msg"] is None or job["current_retry_count"] >= job["max_retry_count"]
