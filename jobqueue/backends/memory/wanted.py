"""Which types of jobs a claim is for."""

from collections.abc import Sequence

import attrs

from jobqueue.pauses import concerns, covers


@attrs.frozen
class Wanted:
    """Exact names, and patterns less what is left out of them."""

    exact: frozenset[str]
    patterns: tuple[str, ...]
    without: tuple[str, ...]

    @classmethod
    def of(cls, types: Sequence[str], without: Sequence[str] = ()) -> "Wanted":
        """Sort out names and patterns."""
        patterns = tuple(name for name in types if name.endswith("*"))
        return cls(frozenset(types).difference(patterns), patterns, tuple(without))

    def includes(self, job_type: str) -> bool:
        """Whether jobs of a type may be claimed."""
        if job_type in self.exact:
            return True
        left_out = [name for name in self.without if covers(name, job_type)]
        return any(
            covers(pattern, job_type) and not any(_is_more_special(name, pattern) for name in left_out)
            for pattern in self.patterns
        )

    def is_concerned(self, paused: str) -> bool:
        """Whether a paused type or pattern takes away something of it."""
        return concerns(paused, (*self.exact, *self.patterns))


def _is_more_special(name: str, pattern: str) -> bool:
    return not name.endswith("*") or len(name) > len(pattern)
