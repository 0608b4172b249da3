"""Whether worker processes can begin at all."""

from typing import Final

from jobqueue.cli.child import how_ended
from jobqueue.cli.worker_process import WRONG

_MOST_TRIES: Final = 4  # of each process


class Beginning:
    """The time until the first of *num_processes* is ready: what is wrong then was wrong from the beginning."""

    def __init__(self, num_processes: int) -> None:
        self._most_tries = _MOST_TRIES * num_processes
        self._num_stillborn = 0
        self.is_over = False

    def refusal_of(self, code: int, said: str | None, *, is_ending: bool) -> str | None:
        """Return why no process can begin, now that one has ended with *code*; None: that is not known.

        It may have *said* so, or be one too many, which says nothing where processes are ending.
        """
        if self.is_over:
            return None
        if code == WRONG and said:
            return said
        self._num_stillborn += 1
        if is_ending or self._num_stillborn < self._most_tries:
            return None
        return f"no worker process was ready in {self._num_stillborn} tries: the last one has ended ({how_ended(code)})"
