"""Where processes write down what they do: lines in files, which outlive whoever wrote them."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Recorder:
    """Appends to a file of this process alone. A line is in it when `note` returns, even if the next step kills us."""

    def __init__(self, directory: Path, role: str) -> None:
        self._file = os.open(directory / f"{role}-{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, **facts: Any) -> None:
        """Write down that *what* happens now, by the clock that all processes share, and by that of the database."""
        line = {"what": what, "at": time.clock_gettime(time.CLOCK_MONOTONIC), "wall": time.time(), "pid": os.getpid()}
        os.write(self._file, (json.dumps({**line, **facts}, default=str) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_records(directory: Path) -> Iterator[dict[str, Any]]:
    """Return what all processes have written, each in its order."""
    for file in sorted(directory.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            yield json.loads(line)
