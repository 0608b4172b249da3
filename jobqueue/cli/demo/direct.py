"""The same figures without the queue: computed in a process of its own, while the queue is at work."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from itertools import takewhile
from types import TracebackType
from typing import Self

import attrs

from jobqueue.cli.demo.census import Totals, source_files, take_census, total_of
from jobqueue.errors import JobQueueError


class DirectCountError(JobQueueError):
    """The figures could not be computed."""


class DirectCount:
    """The process, from ``with`` on; at the end of the block it is gone."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            # The parser has something to say about other people's files.
            [sys.executable, "-W", "ignore", "-m", __name__],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with self._process:
            pass

    def totals(self) -> Totals:
        """Wait for the figures.

        Raises:
            DirectCountError: there will be none.
        """
        answer, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise DirectCountError(f"counting without the queue failed (exit code {self._process.returncode})")
        return Totals(**json.loads(answer))


def main() -> None:
    """Count, and print the figures as JSON; end early when nobody is there any more to read them."""
    parent = os.getppid()
    paths = takewhile(lambda _: os.getppid() == parent, source_files())
    answer = json.dumps(attrs.asdict(total_of(map(take_census, paths))))
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), answer.encode())


if __name__ == "__main__":
    main()
